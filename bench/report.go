package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"
)

func printHead(o options) {
	fmt.Printf("%d cores, %s, %d pairs of turns of %s, %d agents, %d charges before\n\n", runtime.NumCPU(), runtime.Version(), o.pairs, o.turn, o.agents, o.charges)
	table(func(w *tabwriter.Writer) {
		fmt.Fprintf(w, "case\tbare, a second\tthroughput\tCPU\tbare µs\tadded p50 ms\tadded p99 ms\tadded p99.9 ms\tfirst ms\tRSS MB\n")
	})
}

// table writes rows in aligned columns.
func table(write func(*tabwriter.Writer)) {
	w := tabwriter.NewWriter(os.Stdout, 22, 0, 1, ' ', 0)
	write(w)
	_ = w.Flush()
}

func printCase(c load, pairs []pair) {
	of := func(value func(pair) float64) spread {
		values := make([]float64, 0, len(pairs))
		for _, p := range pairs {
			values = append(values, value(p))
		}
		slices.Sort(values)
		return spread(values)
	}
	added := func(per mille) spread {
		return of(func(p pair) float64 { return later(per.of(p.metered.delays), per.of(p.bare.delays)) })
	}
	first := "-"
	if c.events {
		first = of(func(p pair) float64 { return later(mille(500).of(p.metered.first), mille(500).of(p.bare.first)) }).String()
	}
	if c.idle {
		printIdle(c, pairs)
		return
	}
	table(func(w *tabwriter.Writer) {
		fmt.Fprintf(w, "%s\t%.0f\t%s\t%s\t%.0f\t%s\t%s\t%s\t%s\t%.0f / %.0f\n", c.name,
			of(func(p pair) float64 { return p.bare.rate() }).median(),
			of(func(p pair) float64 { return p.metered.rate() / p.bare.rate() }),
			of(func(p pair) float64 { return p.metered.cpuEach() / p.bare.cpuEach() }),
			of(func(p pair) float64 { return p.bare.cpuEach() }).median(),
			added(500), added(990), added(999), first,
			of(func(p pair) float64 { return float64(p.metered.rss) / 1e6 }).median(),
			of(func(p pair) float64 { return float64(p.bare.rss) / 1e6 }).median())
	})
}

// printIdle prints the memory of idle streams.
func printIdle(c load, pairs []pair) {
	each := func(which func(pair) turn) float64 {
		values := make(spread, 0, len(pairs))
		for _, p := range pairs {
			values = append(values, float64(which(p).open)/float64(c.connections)/1024)
		}
		slices.Sort(values)
		return values.median()
	}
	fmt.Printf("%-21s KB a stream: %.1f / %.1f\n", c.name, each(func(p pair) turn { return p.metered }), each(func(p pair) turn { return p.bare }))
}

// later is by how many milliseconds one delay is longer than another.
func later(delay, than time.Duration) float64 { return float64(delay-than) / float64(time.Millisecond) }

func (t turn) rate() float64 { return float64(t.count) / t.took.Seconds() }

// cpuEach is the server's time for each call or event, in microseconds.
func (t turn) cpuEach() float64 {
	return float64(t.cpu.Microseconds()) / float64(max(t.count, 1))
}

// mille is a quantile, in thousandths.
type mille int

func (m mille) of(delays []time.Duration) time.Duration {
	if len(delays) == 0 {
		return 0
	}
	slices.Sort(delays)
	return delays[min(len(delays)*int(m)/1000, len(delays)-1)]
}

// spread are sorted values.
type spread []float64

func (s spread) median() float64 { return s[len(s)/2] }

func (s spread) String() string {
	return fmt.Sprintf("%.2f (%.2f-%.2f)", s.median(), s[0], s[len(s)-1])
}
