// Command gateways simulates several gateways on one PostgreSQL database: how many calls they charge together, how long a charge takes, and
// what is full first. What the parts cost was measured on one machine with two cores, which gateways, callers and database shared. The
// simulation first repeats the measurements, and then asks what more machines would do.
//
//	go run ./bench/gateways
package main

import (
	"fmt"
	"os"
	"slices"
	"text/tabwriter"
	"time"
)

// measuredCosts are what the parts cost on the machine of the measurements.
var measuredCosts = costs{
	Call: 24 * time.Microsecond, Run: 17 * time.Microsecond, Send: 12 * time.Microsecond, TakeIn: 7 * time.Microsecond,
	Write: 14 * time.Microsecond, Fold: 34 * time.Microsecond, Ask: 150 * time.Microsecond, Trip: 150 * time.Microsecond, Flush: 400 * time.Microsecond, Hand: 700 * time.Microsecond,
}

// point is a measurement of BenchmarkTransfers in escrow/ledger/postgres, in the mode log.
type point struct {
	gateways, callers int // callers of each gateway
	perSecond         float64
}

var measured = []point{{1, 64, 15010}, {1, 512, 19984}, {2, 32, 9873}, {2, 256, 12197}}

func (p point) setup() setup {
	return setup{costs: measuredCosts, Gateways: p.gateways, Callers: p.callers, Cores: 2}
}

// apart is a setup in which each gateway and the database have machines of their own. A call costs a gateway as much CPU as the proxy needs
// for it, too. The disk is slower than the one of the measurements, as in many a cloud.
func apart(gateways, callers int) setup {
	c := measuredCosts
	c.Call, c.Trip, c.Flush = 250*time.Microsecond, 800*time.Microsecond, 2*time.Millisecond
	return setup{costs: c, Gateways: gateways, Callers: callers, Cores: 4, DatabaseCores: 8}
}

const simulated = 5 * time.Second

func main() {
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	defer out.Flush()
	fmt.Fprintln(out, "one machine of 2 cores:\tmeasured/s\tsimulated/s\tratio\tp50\tp99\t")
	for _, p := range measured {
		o := simulate(p.setup(), simulated)
		fmt.Fprintf(out, "%d x %d callers\t%.0f\t%.0f\t%.2f\t%s\t%s\t\n", p.gateways, p.callers, p.perSecond, o.PerSecond, o.PerSecond/p.perSecond, round(o.P50), round(o.P99))
	}
	fmt.Fprintln(out, "machines of their own:\tcalls/s\tp50\tp99\tgroup\tlocked\tdatabase, of 8 cores\ta gateway, of 4\t")
	for _, callers := range []int{64, 512} {
		for _, gateways := range []int{1, 2, 3, 4, 6, 8, 12, 16} {
			o := simulate(apart(gateways, callers), simulated)
			fmt.Fprintf(out, "%d x %d callers\t%.0f\t%s\t%s\t%.0f\t%.0f%%\t%.1f\t%.1f\t\n", gateways, callers, o.PerSecond, round(o.P50), round(o.P99), o.Group, 100*o.Locked, o.DatabaseCores, o.GatewayCores)
		}
	}
}

func round(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }

func percentiles(took []time.Duration) (p50, p99 time.Duration) {
	if len(took) == 0 {
		return 0, 0
	}
	slices.Sort(took)
	return took[len(took)/2], took[len(took)*99/100]
}
