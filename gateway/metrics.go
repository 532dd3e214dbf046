package gateway

import (
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/tallygate/tallygate/escrow"
)

// metrics count metered calls. They belong to the process and not to a gateway, so that a new configuration does not reset them. An
// amount is counted in whole billionths, which floats have exactly up to nine million of the currency.
var metrics = struct {
	calls    *prometheus.CounterVec
	units    *prometheus.CounterVec
	charged  *prometheus.CounterVec
	refused  *prometheus.CounterVec
	shadow   *prometheus.CounterVec
	withheld *prometheus.CounterVec
	settle   prometheus.Histogram
	commit   prometheus.Histogram
	group    prometheus.Histogram
	live     prometheus.Gauge
}{
	calls: prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "tallygate", Name: "calls_total",
		Help: "Calls whose response was charged, by payee, route, model, where the usage comes from (stated, estimated), who cut it short (none, client, upstream, funds), and payer, if that is asked for.",
	}, []string{"payee", "route", "model", "source", "cut", "payer"}),
	units: prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "tallygate", Name: "units_total",
		Help: "Units that charged calls have used, by payee, route, model and class.",
	}, []string{"payee", "route", "model", "class"}),
	charged: prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "tallygate", Name: "charged_nanos_total",
		Help: "What calls were charged, in billionths of the ledger's currency, by payee, route and model. For graphs: the books are exact, a metric is a float.",
	}, []string{"payee", "route", "model"}),
	refused: prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "tallygate", Name: "refused_total",
		Help: "Calls that were refused, by payee and by the problem's code.",
	}, []string{"payee", "code"}),
	shadow: prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "tallygate", Name: "shadow_passed_total",
		Help: "Calls that shadow mode let pass, uncharged and unrecorded, which would be refused, by payee and by the problem's code.",
	}, []string{"payee", "code"}),
	withheld: prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "tallygate", Name: "withheld_total",
		Help: "Answers that did not go out and were not charged, since their whole price could not be, by payee and by the problem's code.",
	}, []string{"payee", "code"}),
	settle: prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: "tallygate", Name: "settle_seconds",
		Help:    "Time that the end of a response waited until its charge was on disk.",
		Buckets: []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5},
	}),
	commit: prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: "tallygate", Name: "commit_seconds",
		Help:    "Time that the ledger took to run a group of operations, to make it durable and to answer.",
		Buckets: []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5},
	}),
	group: prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: "tallygate", Name: "commit_operations",
		Help:    "Operations of the ledger that were committed together.",
		Buckets: []float64{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024},
	}),
	live: prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: "tallygate", Name: "live_calls", Help: "Metered calls that are running.",
	}),
}

// Collectors returns the metrics, to be registered.
func Collectors() []prometheus.Collector {
	return []prometheus.Collector{metrics.calls, metrics.units, metrics.charged, metrics.refused, metrics.shadow, metrics.withheld, metrics.settle, metrics.commit, metrics.group, metrics.live}
}

// CountCommit counts a commit of the ledger. It is an observer of a store.
func CountCommit(operations int, took time.Duration) {
	metrics.commit.Observe(took.Seconds())
	metrics.group.Observe(float64(operations))
}

// CommitTimes tells how long the ledger took for its commits since this process began: how many there were, and the times within which half of
// them and 99 of 100 were done. The times are those of the metric's buckets, so they are rounded up. A time beyond the buckets is negative.
func CommitTimes() (count uint64, half, most time.Duration) {
	var m dto.Metric
	if err := metrics.commit.Write(&m); err != nil {
		return 0, 0, 0 // can't happen: a histogram writes itself without fail
	}
	h := m.GetHistogram()
	within := func(parts uint64) time.Duration { // of a hundred
		for _, bucket := range h.GetBucket() {
			if bucket.GetCumulativeCount()*100 >= h.GetSampleCount()*parts {
				return time.Duration(bucket.GetUpperBound() * float64(time.Second))
			}
		}
		return -1
	}
	return h.GetSampleCount(), within(50), within(99)
}

// names bounds how many values of a label a process makes, since each is kept for as long as the process runs, and callers can choose some of
// them, such as the model.
type names struct {
	mu   sync.RWMutex
	most int
	seen map[string]struct{}
}

// otherName stands for all names for which there is no room.
const otherName = "other"

var (
	modelNames = &names{most: 500, seen: map[string]struct{}{}}
	payerNames = &names{most: 10_000, seen: map[string]struct{}{}}
)

func (n *names) label(name string) string {
	n.mu.RLock()
	_, seen := n.seen[name]
	n.mu.RUnlock()
	if seen {
		return name
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.seen) >= n.most {
		if _, seen := n.seen[name]; !seen {
			return otherName
		}
	}
	n.seen[name] = struct{}{}
	return name
}

// countCharge counts a charged call.
func (g *Gateway) countCharge(c escrow.Charge) {
	model, payer := modelNames.label(c.Model), ""
	if g.options.MetricsByPayer {
		payer = payerNames.label(c.Payer)
	}
	metrics.calls.WithLabelValues(c.Payee, c.Route, model, c.Source, c.Cut, payer).Inc()
	metrics.charged.WithLabelValues(c.Payee, c.Route, model).Add(float64(c.Amount))
	for class, text := range c.Units {
		if n, err := strconv.ParseFloat(text, 64); err == nil && n > 0 {
			metrics.units.WithLabelValues(c.Payee, c.Route, model, class).Add(n)
		}
	}
}
