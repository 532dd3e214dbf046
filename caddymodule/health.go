package caddymodule

import (
	"fmt"

	"github.com/caddyserver/caddy/v2"
	"github.com/dustin/go-humanize"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tallygate/tallygate/escrow/api"
)

// minRoom is how much of the disk must be free for a server to be ready, in bytes.
const minRoom = 64 << 20

// troubles returns why the server should get no traffic, except for what the book itself knows.
func (a *App) troubles() []string {
	if caddy.Exiting() {
		return []string{"the server is shutting down"}
	}
	if store, ok := a.store.(*BoltStore); ok {
		if free, known := room(store.Path); known && free < minRoom {
			return []string{fmt.Sprintf("the disk has only %s left for the ledger", humanize.IBytes(free))}
		}
	}
	return nil
}

// allTroubles returns why the server should get no traffic.
func (a *App) allTroubles() []string {
	book := a.openBook()
	if book == nil {
		return []string{"the gateway is starting"}
	}
	return append(api.Troubles(book), a.troubles()...)
}

// healthMetrics are the metrics about the state of a server. They are read when they are asked for.
type healthMetrics struct{ app *App }

var (
	readyMetric  = prometheus.NewDesc("tallygate_ready", "1 if the server takes money and does what is due, as GET /api/v1/ready says; else 0.", nil, nil)
	behindMetric = prometheus.NewDesc("tallygate_due_behind_seconds", "How late the work that is due is, such as releases and renewals.", nil, nil)
	roomMetric   = prometheus.NewDesc("tallygate_disk_free_bytes", "What is free on the disk that the ledger's file is on.", nil, nil)
	bytesMetric  = prometheus.NewDesc("tallygate_ledger_bytes", "The size of the ledger's file.", nil, nil)
	seqMetric    = prometheus.NewDesc("tallygate_ledger_transfers_total", "Transfers that the ledger has.", nil, nil)
	heldMetric   = prometheus.NewDesc("tallygate_held_nanos", "What running calls have set aside, in billionths of the ledger's currency. For graphs: a metric is a float.", nil, nil)
	holdsMetric  = prometheus.NewDesc("tallygate_held_accounts", "Accounts of which running calls have set something aside.", nil, nil)
)

// Describe implements prometheus.Collector.
func (healthMetrics) Describe(to chan<- *prometheus.Desc) {
	for _, metric := range []*prometheus.Desc{readyMetric, behindMetric, roomMetric, bytesMetric, seqMetric, heldMetric, holdsMetric} {
		to <- metric
	}
}

// Collect implements prometheus.Collector.
func (m healthMetrics) Collect(to chan<- prometheus.Metric) {
	ready := 0.0
	if len(m.app.allTroubles()) == 0 {
		ready = 1
	}
	to <- prometheus.MustNewConstMetric(readyMetric, prometheus.GaugeValue, ready)
	if book := m.app.openBook(); book != nil {
		if behind, err := book.Behind(); err == nil {
			to <- prometheus.MustNewConstMetric(behindMetric, prometheus.GaugeValue, behind.Seconds())
		}
		m.ledger(to)
	}
	if store, ok := m.app.store.(*BoltStore); ok {
		if free, known := room(store.Path); known {
			to <- prometheus.MustNewConstMetric(roomMetric, prometheus.GaugeValue, float64(free))
		}
	}
}

// ledger collects what is known about the open ledger. Nothing of it takes longer as the ledger grows.
func (m healthMetrics) ledger(to chan<- prometheus.Metric) {
	books := m.app.books
	accounts, held := books.ledger.Held()
	to <- prometheus.MustNewConstMetric(holdsMetric, prometheus.GaugeValue, float64(accounts))
	to <- prometheus.MustNewConstMetric(heldMetric, prometheus.GaugeValue, float64(held))
	if stand, err := books.ledger.Stand(); err == nil {
		to <- prometheus.MustNewConstMetric(seqMetric, prometheus.CounterValue, float64(stand.Transfers))
	}
	if size, known := books.size(); known {
		to <- prometheus.MustNewConstMetric(bytesMetric, prometheus.GaugeValue, float64(size))
	}
}
