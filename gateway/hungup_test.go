package gateway_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/pricing"
)

// TestTheLawOfHangingUp sells everything, in each way of paying, to a payer that leaves at some byte. What it got is charged. The provider
// works to the end; if it states its usage, all of that is charged.
func TestTheLawOfHangingUp(t *testing.T) {
	t.Parallel()
	for _, good := range sales() {
		for _, pays := range []string{"wallet", "escrow", "milestone", "quota", "quality"} {
			for _, after := range []int{0, 1, 5, 60, 150, 400, 1000, 1300} {
				t.Run(fmt.Sprintf("%s/streamed=%v/%s/after %d", good.name, good.streamed, pays, after), func(t *testing.T) {
					t.Parallel()
					paysWhatItGot(t, good, pays, after)
				})
			}
		}
	}
}

func paysWhatItGot(t *testing.T, good sale, pays string, after int) {
	route := good.route(t)
	route.Batch = pricing.Measure{N: 1, Unit: "event"}
	purse := good.purse(t, &route, pays, "1")
	s := openShop(t, escrow.Rules{Plans: purse.plans}, gateway.Options{}, gateway.Route{}, nil)
	must(t, s.do(purse.fill))
	route.Payee, route.Logger = "acme", slog.New(slog.DiscardHandler)
	ctx, leave := context.WithCancel(t.Context())
	method, path := http.MethodGet, "/search"
	if good.request != "" {
		method, path = http.MethodPost, "/v1/chat/completions"
	}
	if good.path != "" {
		path = good.path
	}
	r := httptest.NewRequest(method, path, strings.NewReader(strings.Replace(good.request, "%t", fmt.Sprint(good.streamed), 1))).WithContext(ctx)
	r.Header.Set("Authorization", "Bearer "+s.key)
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(purse.headers); i += 2 {
		r.Header.Set(purse.headers[i], purse.headers[i+1])
	}
	a := &attempt{header: http.Header{}, after: after, leave: leave}
	func() {
		defer func() { _ = recover() }()
		gateway.New(s.book, gateway.Options{}).Handler(&route, good.provider).ServeHTTP(a, r)
	}()
	if a.status != http.StatusOK && a.received.Len() > 0 {
		t.Fatalf("%d %s", a.status, a.received.String())
	}
	got, price := worth(good, a.received.String()), amount(good.price)
	charged, how := good.paid(s, pays)
	if charged < got || charged > price {
		t.Errorf("%d bytes worth %s, of an answer of %s, were had for %s: %s\n%s", a.received.Len(), got, price, charged, how, a.received.String())
	}
	// A usage that is stated in the end is read, though its caller has left.
	if good.streamed && good.request != "" && a.received.Len() > 0 && pays != "milestone" && charged != price {
		t.Errorf("%s of %s was charged, although the usage came: %s", charged, price, how)
	}
}

// worth is the price of the received part of an answer.
func worth(good sale, received string) ledger.Amount {
	units := 0
	switch {
	case received == "":
	case good.name == "byte":
		units = len(received)
	case good.name == "event":
		units = strings.Count(received, "\n\n")
	case good.streamed && (good.name == "token" || good.name == "for and at" || good.name == "tiers"):
		units = strings.Count(received, `" w"`)
	default:
		units = ten
	}
	return amount(good.price) * ledger.Amount(units) / ten
}

// TestAClientThatLeavesPaysTheUsageThatComesLater: a client hangs up at the last word, before the provider states 20,000 tokens of hidden
// reasoning.
func TestAClientThatLeavesPaysTheUsageThatComesLater(t *testing.T) {
	t.Parallel()
	left, over := make(chan struct{}), make(chan gateway.Report, 1)
	o := gateway.Options{Report: func(_ *http.Request, r gateway.Report) { over <- r }}
	s := openShop(t, escrow.Rules{}, o, gateway.Route{Rates: rates(t, "0.00001 per output_token")}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, `data: {"object":"chat.completion.chunk","model":"m","choices":[{"index":0,"delta":{"content":"42"}}]}`+"\n\n")
		w.(http.Flusher).Flush()
		<-left
		_, _ = io.WriteString(w, `data: {"object":"chat.completion.chunk","model":"m","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":20001,"total_tokens":20002,"completion_tokens_details":{"reasoning_tokens":20000}}}`+"\n\ndata: [DONE]\n\n")
	})
	ctx, leave := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/v1/chat/completions", strings.NewReader(`{"model":"m","messages":[],"stream":true}`))
	must(t, err)
	r.Header.Set("Authorization", "Bearer "+s.key)
	answer, err := http.DefaultClient.Do(r)
	must(t, err)
	_, err = answer.Body.Read(make([]byte, 10))
	must(t, err)
	leave()
	answer.Body.Close()
	close(left)
	want(t, "charge", (<-over).Charge, "0.20001")
}
