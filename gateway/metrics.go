package gateway

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics count metered calls. They belong to the process and not to a gateway, so that a new configuration does not reset them. They
// contain no amounts, because metrics are floats.
var metrics = struct {
	calls    *prometheus.CounterVec
	refused  *prometheus.CounterVec
	shadow   *prometheus.CounterVec
	withheld *prometheus.CounterVec
	settle   prometheus.Histogram
	live     prometheus.Gauge
}{
	calls: prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "tallygate", Name: "calls_total",
		Help: "Calls whose response was charged, by payee and by who cut it short (none, client, upstream, funds).",
	}, []string{"payee", "cut"}),
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
	live: prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: "tallygate", Name: "live_calls", Help: "Metered calls that are running.",
	}),
}

// Collectors returns the metrics, to be registered.
func Collectors() []prometheus.Collector {
	return []prometheus.Collector{metrics.calls, metrics.refused, metrics.shadow, metrics.withheld, metrics.settle, metrics.live}
}

// timeSettle measures how long a settlement takes.
func timeSettle() (done func()) {
	began := time.Now()
	return func() { metrics.settle.Observe(time.Since(began).Seconds()) }
}
