package gateway_test

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/pricing"
)

// TestWhatTheAnswerTellsOfItsPrice: where the answer itself says what it costs, no part, no other form and no size of it goes out without that.
func TestWhatTheAnswerTellsOfItsPrice(t *testing.T) {
	t.Parallel()
	answer := func(images, size int) string {
		list := strings.TrimSuffix(strings.Repeat("0,", images), ",")
		return `{"text":"` + strings.Repeat("x", size) + `","cost":0.3,"data":[` + list + `]}`
	}
	const small, large = 1000, 200_000
	whole := func(w http.ResponseWriter, r *http.Request, body string) {
		w.Header().Set("Content-Type", "application/json")
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(body)) // with ranges
	}
	included := func(t *testing.T) gateway.Route { // 50 images
		route := images(t)
		route.Payment = &gateway.Subscription{
			Plan:     escrow.Plan{Payee: "acme", Name: "p", Price: amount("0.1"), Period: time.Hour, Unit: "images", Included: 50 * escrow.Micro},
			Included: &pricing.Measure{N: 50, Unit: "images"}, Rates: rates(t, "0 per call"),
		}
		return route
	}
	flat := func(t *testing.T) gateway.Route { // any number of images
		route := images(t)
		route.Rates = rates(t, "0 per call")
		route.Payment = &gateway.Subscription{Plan: escrow.Plan{Payee: "acme", Name: "p", Price: amount("0.1"), Period: time.Hour}}
		return route
	}
	for _, test := range []struct {
		name           string
		route          func(*testing.T) gateway.Route
		images, size   int
		accept, ranged string
		status         int
		charge, money  string
	}{
		{"a count", images, 10, small, "", "", 200, "0.1", "0.9"},
		{"a count, a part asked for", images, 10, small, "", "bytes=0-1009", 200, "0.1", "0.9"},
		{"a count, two parts", images, 10, small, "", "bytes=0-5,6-", 200, "0.1", "0.9"},
		{"a count that is none", images, 0, small, "", "", 200, "0", "1"},
		{"a count, another form", images, 10, small, "text/csv", "", 502, "", "1"},
		{"a count, another form that is flushed", images, 10, small, "text/tab-separated-values", "", 502, "", "1"},
		{"a count, a long answer", images, 100, large, "", "", 200, "1", "0"},
		{"a count, a long answer in another form", images, 100, large, "text/csv", "", 502, "", "1"},
		{"a count, a long answer that the money does not reach for", images, 101, large, "", "", 402, "", "1"},
		{"a quota, a part asked for", included, 10, small, "", "bytes=0-1009", 200, "0", "0.9"},
		{"a quota, another form", included, 10, small, "text/csv", "", 502, "", "0.9"},
		{"a quota, a long answer beyond it", included, 51, large, "", "", 402, "", "0.9"},
		{"a flat rate, another form", flat, 10, small, "text/csv", "", 200, "0", "0.9"},
		{"a cost, a part asked for", costing, 10, small, "", "bytes=0-1009", 200, "0.3", "0.7"},
		{"a cost, a long answer", costing, 10, large, "", "", 200, "0.3", "0.7"},
		{"events, as a document", perUnit("0.01 per event"), 10, small, "", "", 502, "", "1"},
		{"bytes, a part asked for", perUnit("0.01 per byte"), 10, small, "", "bytes=0-9", 206, "0.1", "0.9"},
		{"a call, a part asked for", perUnit("0.01 per call"), 10, small, "", "bytes=0-9", 206, "0.01", "0.99"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			route := test.route(t)
			plan, subscribed := route.Payment.(*gateway.Subscription)
			var plans []escrow.Plan
			if subscribed {
				plans = append(plans, plan.Plan)
			}
			s := openShop(t, escrow.Rules{Plans: plans}, gateway.Options{}, route, func(w http.ResponseWriter, r *http.Request) {
				body := answer(test.images, test.size)
				rows := strings.Trim(strings.ReplaceAll(body, `"`, ""), "{}")
				switch r.Header.Get("Accept") {
				case "":
					whole(w, r, body)
				case "text/csv":
					w.Header().Set("Content-Type", "text/csv")
					w.Header().Set("Content-Length", strconv.Itoa(len(rows)))
					_, _ = io.WriteString(w, rows)
				default:
					w.Header().Set("Content-Type", r.Header.Get("Accept"))
					for _, row := range strings.SplitAfter(rows, ",") {
						_, _ = io.WriteString(w, row)
						w.(http.Flusher).Flush()
					}
				}
			})
			if subscribed {
				must(t, s.do(func(tx *escrow.Tx) error {
					_, err := tx.Subscribe(escrow.Actor{Agent: "alice"}, escrow.SubscriptionOrder{Payee: "acme", Plan: "p"})
					return err
				}))
			}
			var headers []string
			if test.accept != "" {
				headers = append(headers, "Accept", test.accept)
			}
			if test.ranged != "" {
				headers = append(headers, "Range", test.ranged)
			}
			got, body := s.get(headers...)
			if got.StatusCode != test.status || got.Header.Get("Tallygate-Charge") != test.charge || s.balance("alice") != test.money {
				t.Errorf("%d, charge %q, %s left, want %d, %q, %s", got.StatusCode, got.Header.Get("Tallygate-Charge"), s.balance("alice"), test.status, test.charge, test.money)
			}
			if test.status >= 400 && strings.Contains(body, "xxx") {
				t.Errorf("of the answer %d bytes go out", len(body))
			}
			s.sound()
		})
	}
}

// TestAnAnswerWithoutABodyIsNoWayToWorkForNothing: by HEAD the provider works, and nothing states what it costs.
func TestAnAnswerWithoutABodyIsNoWayToWorkForNothing(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		route  func(*testing.T) gateway.Route
		status int
		money  string
	}{
		{"a count in the body", images, 422, "1"},
		{"a count in a header", counted, 200, "0.9"},
		{"a cost in the body, beside a price", costing, 200, ""},
		{"calls", perUnit("0.01 per call"), 200, "0.99"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			worked := false
			s := openShop(t, escrow.Rules{}, gateway.Options{}, test.route(t), func(w http.ResponseWriter, _ *http.Request) {
				worked = true
				w.Header().Set("X-Rows", "10")
				w.Header().Set("Content-Type", "application/json")
				_, _ = io.WriteString(w, `{"data":[0,0,0,0,0,0,0,0,0,0],"cost":0.3}`)
			})
			answer, _ := s.call(s.key, http.MethodHead, "/images", "")
			want(t, "status", answer.StatusCode, test.status)
			want(t, "the provider has worked", worked, test.status == http.StatusOK)
			if test.money != "" {
				want(t, "money", s.balance("alice"), test.money)
			} else if s.balance("alice") == "1" {
				t.Error("it was free")
			}
		})
	}
}
