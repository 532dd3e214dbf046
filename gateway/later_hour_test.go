package gateway_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/pricing"
)

// TestPricesOfTheHourOfAsking: what is asked for at one hour and fetched at another has the prices of the hour at which it was asked for. So nobody
// has work done by day and waits for the night's prices, and nobody who fetches late pays more.
func TestPricesOfTheHourOfAsking(t *testing.T) {
	t.Parallel()
	hours, err := pricing.ParseHours([]string{"09:00-18:00", "UTC"})
	must(t, err)
	price := func(glob, perToken string) pricing.Model {
		p, err := pricing.ParseClassPrice("output", strings.Fields(perToken+" per token"))
		must(t, err)
		return pricing.Model{Glob: glob, Prices: []pricing.Price{p}}
	}
	tariff := &pricing.Tariff{Models: []pricing.Model{price("dear", "0.04"), price("*", "0.01")}, Cases: []pricing.Case{
		{At: hours, Tariff: pricing.Tariff{Models: []pricing.Model{price("dear", "0.08"), price("*", "0.02")}}},
	}}
	must(t, tariff.Compile(nil))

	type deed struct {
		name                string
		ask, request, reply string
		looks, shows        string // what is looked at before the results
		fetch, kind, answer string
		night, day          string // what it costs
	}
	var deeds []deed
	for _, l := range laters {
		deeds = append(deeds, deed{l.name, l.ask, l.request, l.ticket, "", "", l.fetch, "application/json", l.answer, "0.1", "0.2"})
	}
	for _, b := range batches {
		if strings.Contains(b.request, "file_name") { // refused where callers are kept apart, since the file can't be read
			continue
		}
		d := deed{"batch, " + b.name, b.send, b.request, b.job, b.poll, b.ended, "GET " + b.results, b.kind, b.lines, "0.5", "1"}
		if b.results == "" {
			d.looks, d.fetch, d.kind, d.answer = "", "GET "+b.poll, "application/json", b.ended
		}
		deeds = append(deeds, d)
		if b.name == "OpenAI" { // a list shows the file of results, too
			d.name, d.looks, d.shows = d.name+", by the list", "/v1/batches", `{"object":"list","data":[`+b.ended+`],"has_more":false}`
			deeds = append(deeds, d)
		}
	}
	for _, d := range deeds {
		for _, test := range []struct {
			name         string
			asked, taken int
			price        string
		}{
			{"by day, fetched by night", 17, 20, d.day},
			{"by night, fetched by day", 8, 10, d.night},
			{"the next day", 17, 24 + 3, d.day},
		} {
			t.Run(d.name+" "+test.name, func(t *testing.T) {
				t.Parallel()
				var hour atomic.Int64
				hour.Store(int64(test.asked))
				clock := func() time.Time { return time.Date(2026, 11, 24, int(hour.Load()), 0, 0, 0, time.UTC) }
				var p shelf
				s := openShopAt(t, clock, escrow.Rules{}, gateway.Options{}, gateway.Route{Tariff: tariff, Shared: shared(t, "file-1")}, p.ServeHTTP)
				must(t, s.do(func(tx *escrow.Tx) error {
					_, err := tx.Deposit(operator, escrow.PaymentOrder{To: "alice", Amount: amount("9")})
					return err
				}))
				p.put(d.ask, "application/json", d.reply)
				answer, got := s.call(s.key, http.MethodPost, d.ask, d.request)
				want(t, "asked: "+got, answer.StatusCode, http.StatusOK)
				hour.Store(int64(test.taken))
				if d.looks != "" {
					p.put(d.looks, "application/json", d.shows)
					answer, got = s.call(s.key, http.MethodGet, d.looks, "")
					want(t, "looked at: "+got, answer.StatusCode, http.StatusOK)
				}
				method, path, _ := strings.Cut(d.fetch, " ")
				p.put(path, d.kind, d.answer)
				answer, got = s.call(s.key, method, path, "")
				want(t, "fetched: "+got, answer.StatusCode, http.StatusOK)
				want(t, "charged", amount("10")-amount(s.balance("alice")), test.price)
			})
		}
	}
}
