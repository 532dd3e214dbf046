package gateway_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/probe"
	"github.com/tallygate/tallygate/pricing"
)

// The law: a complete answer goes out only if its whole price, according to the tariff, is charged. If the price can't be charged in full,
// the call is refused before the provider works, or the answer is cut or withheld. No limit, balance or quota of the payer lowers the price
// of what is delivered.

// sold is something that a route sells, and an answer that uses ten of it.
type sold struct {
	name     string
	route    func(t *testing.T) gateway.Route
	document http.HandlerFunc // the answer, whole
	stream   http.HandlerFunc // the answer, as a stream; nil where it can't be one
	price    string           // of the whole answer
	request  string           // the body; empty: a GET
	path     string           // of the request; empty: a search's, or a chat's where there is a body
}

const ten = 10

func document(header, value, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if header != "" {
			w.Header().Set(header, value)
		}
		_, _ = io.WriteString(w, body)
	}
}

// chat answers like an OpenAI-compatible server, with ten words, whatever limit it is given.
func chat(stream bool) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if !stream {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"w w w w w w w w w w"}}],"usage":{"prompt_tokens":0,"completion_tokens":10,"total_tokens":10}}`)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		for range ten {
			_, _ = io.WriteString(w, `data: {"object":"chat.completion.chunk","model":"m","choices":[{"index":0,"delta":{"content":" w"}}]}`+"\n\n")
			w.(http.Flusher).Flush()
		}
		_, _ = io.WriteString(w, `data: {"object":"chat.completion.chunk","model":"m","choices":[],"usage":{"prompt_tokens":0,"completion_tokens":10,"total_tokens":10}}`+"\n\ndata: [DONE]\n\n")
	}
}

func counted(t *testing.T) gateway.Route {
	at, err := probe.Header("X-Rows")
	must(t, err)
	price, err := pricing.ParsePrice(strings.Fields("0.01 per rows"), "rows")
	must(t, err)
	r, err := pricing.NewRates([]pricing.Price{price}, "rows")
	must(t, err)
	return gateway.Route{Rates: r, Counts: []probe.Count{{Class: meter.Class("rows"), Probe: at}}}
}

// images are counted by the number of images in the answer.
func images(t *testing.T) gateway.Route {
	at, err := probe.JSON("data.#")
	must(t, err)
	price, err := pricing.ParsePrice(strings.Fields("0.01 per images"), "images")
	must(t, err)
	r, err := pricing.NewRates([]pricing.Price{price}, "images")
	must(t, err)
	return gateway.Route{Rates: r, Counts: []probe.Count{{Class: meter.Class("images"), Probe: at}}}
}

// transcribing has a price for each second of what was transcribed, as the answer states it.
func transcribing(t *testing.T) gateway.Route {
	price, err := pricing.ParseClassPrice("second", strings.Fields("0.01 per second"))
	must(t, err)
	tariff := &pricing.Tariff{Models: []pricing.Model{{Glob: "*", Prices: []pricing.Price{price}}}}
	must(t, tariff.Compile(nil))
	return gateway.Route{Tariff: tariff}
}

// atLeast has a minimum for each call, which is more than the price of ten tokens.
func atLeast(t *testing.T) gateway.Route {
	minimum, err := pricing.ParseMinimum(strings.Fields("0.1 per call"))
	must(t, err)
	models := perToken(t, "0.001")
	models[0].Minimum = minimum
	tariff := &pricing.Tariff{Models: models}
	must(t, tariff.Compile(nil))
	return gateway.Route{Tariff: tariff}
}

// withTiers has a price that falls after some tokens in a period. Nobody here has used that many.
func withTiers(t *testing.T) gateway.Route {
	output, err := pricing.ParseClassPrice("output", strings.Fields("0.01 per token"))
	must(t, err)
	falls, err := pricing.ParseTier(strings.Fields("1M 0.001"))
	must(t, err)
	output, err = output.WithTiers(pricing.Tiers{After: []pricing.Tier{falls}})
	must(t, err)
	tariff := &pricing.Tariff{Models: []pricing.Model{{Glob: "*", Prices: []pricing.Price{output}}}}
	must(t, tariff.Compile(nil))
	return gateway.Route{Tariff: tariff}
}

// forAlice has a price that only alice has, at any hour.
func forAlice(t *testing.T) gateway.Route {
	always, err := pricing.ParseHours([]string{"00:00-24:00", "UTC"})
	must(t, err)
	tariff := &pricing.Tariff{Models: perToken(t, "0.001"), Cases: []pricing.Case{
		{Agents: []string{"carol"}, Tariff: pricing.Tariff{Models: perToken(t, "0.0001")}},
		{Agents: []string{"alice"}, Tariff: pricing.Tariff{Models: perToken(t, "0.002"), Cases: []pricing.Case{{At: always, Tariff: pricing.Tariff{Models: perToken(t, "0.01")}}}}},
	}}
	must(t, tariff.Compile(nil))
	return gateway.Route{Tariff: tariff}
}

func costing(t *testing.T) gateway.Route {
	at, err := probe.JSON("cost")
	must(t, err)
	return gateway.Route{Rates: rates(t, "0.01 per call"), Cost: &gateway.Cost{Probes: []*probe.Probe{at}}}
}

func perUnit(words string) func(*testing.T) gateway.Route {
	return func(t *testing.T) gateway.Route { return gateway.Route{Rates: rates(t, words)} }
}

var goods = []sold{
	{name: "call", route: perUnit("0.1 per call"), document: document("", "", "results"), price: "0.1"},
	{name: "byte", route: perUnit("0.01 per byte"), document: document("", "", "0123456789"), price: "0.1"},
	{name: "event", route: perUnit("0.01 per event"), stream: events, price: "0.1"},
	{name: "count", route: counted, document: document("X-Rows", "10", "rows"), price: "0.1"},
	{name: "cost", route: costing, document: document("Content-Type", "application/json", `{"cost":0.1}`), price: "0.1"},
	{
		name: "token", route: perUnit("0.01 per output_token"), document: chat(false), stream: chat(true), price: "0.1",
		request: `{"model":"m","messages":[],"max_tokens":10,"stream":%t}`,
	},
	{
		name: "minimum", route: atLeast, document: chat(false), stream: chat(true), price: "0.1",
		request: `{"model":"m","messages":[],"max_tokens":10,"stream":%t}`,
	},
	{
		name: "tiers", route: withTiers, document: chat(false), stream: chat(true), price: "0.1",
		request: `{"model":"m","messages":[],"max_tokens":10,"stream":%t}`,
	},
	{
		name: "for and at", route: forAlice, document: chat(false), stream: chat(true), price: "0.1",
		request: `{"model":"m","messages":[],"max_tokens":10,"stream":%t}`,
	},
	{
		name: "asked minute", route: perUnit("0.6 per asked_minute"), price: "0.1", path: "/v1/videos", request: `{"model":"m","seconds":"10"}`,
		document: document("Content-Type", "application/json", `{"id":"video_1","status":"queued"}`),
	},
	{
		name: "input KB", route: perUnit("10 per input_KB"), price: "0.1", path: "/upload", request: `0123456789`,
		document: document("", "", "stored"),
	},
	{
		name: "asked image", route: perUnit("0.01 per asked_image"), price: "0.1", path: "/v1/images/generations", request: `{"model":"m","n":10}`,
		document: document("Content-Type", "application/json", `{"data":[{"b64_json":"x"}]}`),
	},
	{
		name: "character", route: perUnit("0.01 per input_character"), price: "0.1", path: "/v1/audio/speech", request: `{"model":"m","input":"0123456789"}`,
		document: document("Content-Type", "audio/mpeg", "sound"),
	},
	{
		name: "asked second", route: perUnit("0.01 per asked_second"), price: "0.1", path: "/v1/videos", request: `{"model":"m","seconds":"10"}`,
		document: document("Content-Type", "application/json", `{"id":"video_1","status":"queued"}`),
	},
	{
		name: "input byte", route: perUnit("0.01 per input_byte"), price: "0.1", path: "/upload", request: `0123456789`,
		document: document("", "", "stored"),
	},
	{
		name: "image", route: images, price: "0.1", path: "/v1/images/generations", request: `{"model":"m","n":10}`,
		document: document("Content-Type", "application/json", `{"data":[`+strings.Repeat(`{"b64_json":"x"},`, ten-1)+`{"b64_json":"x"}]}`),
	},
	{
		name: "second", route: transcribing, price: "0.1", path: "/v1/audio/transcriptions", request: `{"model":"m"}`,
		document: document("Content-Type", "application/json", `{"text":"words","duration":10}`),
	},
	{
		name: "tool", route: perUnit("0.1 per tool_call"), price: "0.1", path: "/mcp",
		request:  `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search","arguments":{}}}`,
		document: document("Content-Type", "application/json", `{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"3 results"}]}}`),
	},
}

// ask makes one call and reports whether the client takes the answer for complete.
func (g sold) ask(t *testing.T, s *shop, streamed bool, headers ...string) (status int, body string, complete bool) {
	t.Helper()
	method, path, request := http.MethodGet, "/search", io.Reader(nil)
	if g.request != "" {
		method, path, request = http.MethodPost, "/v1/chat/completions", strings.NewReader(strings.Replace(g.request, "%t", strconv.FormatBool(streamed), 1))
	}
	if g.path != "" {
		path = g.path
	}
	r, err := http.NewRequestWithContext(t.Context(), method, s.url+path, request)
	must(t, err)
	r.Header.Set("Authorization", "Bearer "+s.key)
	if request != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, "", false
	}
	defer answer.Body.Close()
	read, err := io.ReadAll(answer.Body)
	body = string(read)
	complete = err == nil && answer.StatusCode == http.StatusOK && !strings.Contains(body, "insufficient_funds") && !strings.Contains(body, "limit_exceeded")
	return answer.StatusCode, body, complete
}

// TestTheLaw sells everything in each way of paying, to payers that have too little, just enough and plenty, and that limit the call to
// less than its price, its price, and more.
func TestTheLaw(t *testing.T) {
	t.Parallel()
	for _, good := range goods {
		for _, streamed := range []bool{false, true} {
			provider := good.document
			if streamed {
				provider = good.stream
			}
			if provider == nil {
				continue
			}
			for _, pays := range []string{"wallet", "escrow", "milestone", "quota", "quality"} {
				for _, has := range []string{"0.03", "0.1", "1"} {
					for _, limit := range []string{"", "0.000000001", "0.05", "0.1"} {
						name := fmt.Sprintf("%s/streamed=%v/%s of %s/limit %s", good.name, streamed, pays, has, limit)
						t.Run(name, func(t *testing.T) {
							t.Parallel()
							holdsTheLaw(t, good, streamed, provider, pays, has, limit)
						})
					}
				}
			}
		}
	}
}

// purse is what pays alice's calls.
type purse struct {
	plans   []escrow.Plan
	headers []string // of each call
	fill    func(*escrow.Tx) error
}

// purse makes the route use one way of paying, and returns a purse for it with an amount.
func (g sold) purse(t *testing.T, route *gateway.Route, pays, has string) *purse {
	p := &purse{fill: func(tx *escrow.Tx) error {
		if amount(has) >= amount("1") {
			return nil
		}
		_, err := tx.Transfer(escrow.Actor{Agent: "alice"}, escrow.PaymentOrder{To: "acme", Amount: amount("1") - amount(has)})
		return err
	}}
	switch pays {
	case "quality":
		route.Quality = &gateway.Quality{Judge: lengthJudge{}, Tiers: []escrow.Tier{{Verdict: escrow.Verdict{Share: 1_000_000}}}}
	case "escrow":
		route.Payment = gateway.Escrow{}
		p.fill = func(tx *escrow.Tx) error {
			_, err := tx.CreateEscrow(escrow.Actor{Agent: "alice"}, escrow.EscrowOrder{To: "acme", Amount: amount(has)})
			return err
		}
	case "milestone":
		p.fill = func(tx *escrow.Tx) error {
			e, err := tx.CreateEscrow(escrow.Actor{Agent: "alice"}, escrow.EscrowOrder{
				To: "acme", Amount: amount(has), Milestones: []escrow.Milestone{{Name: "m", Amount: amount(has)}},
			})
			p.headers = []string{"Tallygate-Escrow", e.ID, "Tallygate-Milestone", "m"}
			return err
		}
	case "quota":
		unit := quotaUnits[g.name]
		if unit == "" {
			t.Skip("a subscription includes units, and what the provider states as a cost has none")
		}
		units := int64(amount(has)) * g.units() / int64(amount(g.price)) // as many as the money would buy
		if units == 0 {
			t.Skip("less than a unit")
		}
		included := pricing.Measure{N: units, Unit: unit}
		plan := escrow.Plan{Payee: "acme", Name: "p", Price: amount("0.1"), Period: time.Hour, Unit: unit, Included: units * escrow.Micro}
		p.plans = append(p.plans, plan)
		route.Payment = &gateway.Subscription{Plan: plan, Included: &included, Rates: rates(t, "0 per call")}
		p.fill = func(tx *escrow.Tx) error {
			_, err := tx.Subscribe(escrow.Actor{Agent: "alice"}, escrow.SubscriptionOrder{Payee: "acme", Plan: "p"})
			return err
		}
	}
	return p
}

// quotaUnits are the units of what is sold that a plan includes.
var quotaUnits = map[string]string{
	"call": "call", "byte": "byte", "event": "event", "count": "rows", "token": "output_token", "image": "images", "second": "second", "tool": "tool_call",
	"asked image": "asked_image", "character": "input_character", "asked second": "asked_second", "input byte": "input_byte",
}

// units are the number of units in a whole answer.
func (g sold) units() int64 {
	if g.name == "call" || g.name == "tool" {
		return 1
	}
	return ten
}

// paid is what was charged for alice's last call, valued at the price of what it took from its purse, and how.
func (g sold) paid(s *shop, pays string) (charged ledger.Amount, how string) {
	charges := s.charges()
	if len(charges) == 0 {
		return 0, "nothing"
	}
	c := charges[0]
	switch pays {
	case "milestone":
		charged = c.Price
	case "quota":
		charged = amount(g.price) * ledger.Amount(c.QuotaUsed) / ledger.Amount(g.units()*escrow.Micro)
	default:
		charged = c.Amount
	}
	return charged, fmt.Sprint(c.Units, c.Cut, c.QuotaUsed)
}

func holdsTheLaw(t *testing.T, good sold, streamed bool, provider http.HandlerFunc, pays, has, limit string) {
	route := good.route(t)
	route.Batch = pricing.Measure{N: 1, Unit: "event"}
	purse := good.purse(t, &route, pays, has)
	s := openShop(t, escrow.Rules{Plans: purse.plans}, gateway.Options{}, route, provider)
	must(t, s.do(purse.fill))
	headers := purse.headers
	if limit != "" {
		headers = append(headers, "Tallygate-Max-Charge", limit)
	}
	status, body, complete := good.ask(t, s, streamed, headers...)
	price := amount(good.price)
	affordable := amount(has) >= price
	// What a plan includes, and the work of a milestone, cost the call nothing.
	free := pays == "quota" || pays == "milestone"
	allowed := limit == "" || amount(limit) >= price || free
	charged, units := good.paid(s, pays)
	if complete && charged < price {
		t.Errorf("a complete answer of %s was had for %s: %s", price, charged, units)
	}
	if complete && (!affordable || !allowed) {
		t.Errorf("complete, although there was no money, or a limit, for it: charged %s", charged)
	}
	if charged > price || !affordable && charged > amount(has) {
		t.Errorf("%s was charged for what costs %s", charged, price)
	}
	enough := affordable && !(good.isTokens() && streamed && amount(has) == price)
	if !complete && enough && limit == "" {
		t.Errorf("an honest call is refused: %d %s", status, body)
	}
	if charged > 0 && limit != "" && charged > amount(limit) && !free {
		t.Errorf("%s was charged, over the limit of %s", charged, limit)
	}
	report, err := s.book.Check(t.Context(), nil)
	must(t, err)
	if len(report.Wrong)+len(report.Ledger.Wrong) > 0 {
		t.Errorf("books: %v %v", report.Wrong, report.Ledger.Wrong)
	}
}

// isTokens reports whether tokens are sold. A stream's tokens are bounded from above while it passes, so just enough money may not suffice
// for it.
func (good sold) isTokens() bool {
	return good.name == "token" || good.name == "tiers" || good.name == "for and at"
}

// TestParallelCalls: one payer makes many calls at the same time, and what is delivered is charged.
func TestParallelCalls(t *testing.T) {
	t.Parallel()
	for _, good := range goods {
		t.Run(good.name, func(t *testing.T) {
			t.Parallel()
			provider, streamed := good.document, false
			if provider == nil {
				provider, streamed = good.stream, true
			}
			s := openShop(t, escrow.Rules{}, gateway.Options{}, good.route(t), provider)
			var mu sync.Mutex
			delivered := 0
			var wg sync.WaitGroup
			for range 40 {
				wg.Go(func() {
					if _, _, complete := good.ask(t, s, streamed); complete {
						mu.Lock()
						delivered++
						mu.Unlock()
					}
				})
			}
			wg.Wait()
			paid := amount("1") - amount(s.balance("alice"))
			if worth := amount(good.price) * ledger.Amount(delivered); paid < worth {
				t.Errorf("%d answers, worth %s, were had for %s", delivered, worth, paid)
			}
			if delivered == 0 {
				t.Error("nobody was served")
			}
		})
	}
}

// TestParallelCallsLeaveEachOtherSomething: one honest payer makes 40 calls at the same time, whose requests do not limit their answers.
// None of them takes money, or room of a limit, that the others need, for an answer that it will not get. A call that states a limit, or is alone and has enough
// money, is held in full.
func TestParallelCallsLeaveEachOtherSomething(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		pays    gateway.Payment
		limited bool // by a limit of what the wallet has otherwise, and a wallet with much more
	}{{"wallet", nil, false}, {"escrow", gateway.Escrow{}, false}, {"limit", nil, true}} {
		pays := test.pays
		const calls = 40
		var mu sync.Mutex
		arrived, here := 0, make(chan struct{})
		arrive := func() {
			mu.Lock()
			defer mu.Unlock()
			if arrived++; arrived == calls {
				close(here)
			}
		}
		var bounds []int64
		// 4096 tokens cost 0.2048, a fifth of what there is, and a thousand 0.05.
		s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{Rates: rates(t, "0.00005 per output_token"), Payment: pays}, func(w http.ResponseWriter, r *http.Request) {
			var asked struct {
				MaxTokens int64 `json:"max_tokens"`
			}
			must(t, json.NewDecoder(r.Body).Decode(&asked))
			mu.Lock()
			bounds = append(bounds, asked.MaxTokens)
			mu.Unlock()
			arrive()
			<-here // all run at once
			chat(false)(w, r)
		})
		if pays != nil {
			must(t, s.do(func(tx *escrow.Tx) error {
				_, err := tx.CreateEscrow(escrow.Actor{Agent: "alice"}, escrow.EscrowOrder{To: "acme", Amount: amount("1")})
				return err
			}))
		}
		if test.limited {
			must(t, s.do(func(tx *escrow.Tx) error {
				if _, err := tx.Deposit(operator, escrow.PaymentOrder{To: "alice", Amount: amount("99")}); err != nil {
					return err
				}
				_, err := tx.SetLimits(operator, "alice", []escrow.Limit{{Amount: amount("50"), Window: time.Hour}, {Payee: "acme", Amount: amount("1"), Window: time.Hour}})
				return err
			}))
		}
		served := 0
		var wg sync.WaitGroup
		for range calls {
			wg.Go(func() {
				_, _, complete := (sold{request: `{"model":"m","messages":[]}`}).ask(t, s, false)
				mu.Lock()
				defer mu.Unlock()
				if complete {
					served++
					return
				}
				if arrived++; arrived == calls { // refused
					close(here)
				}
			})
		}
		wg.Wait()
		if served < 9 { // held for in full, five
			t.Errorf("%s: %d of %d calls were served: bounds %v", test.name, served, calls, bounds)
		}
		for _, bound := range bounds {
			if bound < 900 || bound > gateway.DefaultMaxOutput {
				t.Errorf("%s: an answer was bounded to %d tokens", test.name, bound)
			}
		}
		want(t, "charges", len(s.charges()), served)
	}
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

func (s *shop) charges() []escrow.Charge {
	s.t.Helper()
	charges, _, err := s.book.Charges(escrow.ChargeFilter{Agent: "alice"}, escrow.Page{})
	must(s.t, err)
	return charges
}

// TestTheDearerModelIsCharged: a client asks for a cheap model and an expensive one answers, and the other way round.
func TestTheDearerModelIsCharged(t *testing.T) {
	t.Parallel()
	tariff := &pricing.Tariff{}
	for _, model := range []string{"cheap 0.001", "dear 0.01"} {
		name, price, _ := strings.Cut(model, " ")
		output, err := pricing.ParseClassPrice("output", strings.Fields(price+" per token"))
		must(t, err)
		tariff.Models = append(tariff.Models, pricing.Model{Glob: name + "*", Prices: []pricing.Price{output}})
	}
	must(t, tariff.Compile(nil))
	for _, test := range []struct{ asked, answers, charge string }{
		{"cheap", "cheap-2026-01-01", "0.01"}, {"cheap", "dear", "0.1"}, {"dear", "cheap", "0.1"}, {"cheap", "unknown", "0.01"}, {"cheap", "", "0.01"},
	} {
		s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{Tariff: tariff}, document("Content-Type", "application/json",
			`{"object":"chat.completion","model":"`+test.answers+`","choices":[{"index":0,"message":{"content":"w"}}],"usage":{"prompt_tokens":0,"completion_tokens":10,"total_tokens":10}}`))
		good := sold{request: `{"model":"` + test.asked + `","messages":[],"max_tokens":10,"stream":%t}`}
		_, body, complete := good.ask(t, s, false)
		if !complete || len(s.charges()) == 0 {
			t.Fatalf("%v: %s", test, body)
		}
		charge := s.charges()[0]
		want(t, test.asked+" answered by "+test.answers, charge.Amount, test.charge)
		if told := charge.AskedModel + " " + charge.Model; test.answers != "" && told != test.asked+" "+test.answers || test.answers == "" && told != " "+test.asked {
			t.Errorf("%s answered by %q is told as %q", test.asked, test.answers, told)
		}
	}
}

// TestTheDearestOfTheNamedModelsIsCharged: only the answer tells which of the models that a request names has answered.
func TestTheDearestOfTheNamedModelsIsCharged(t *testing.T) {
	t.Parallel()
	tariff := &pricing.Tariff{}
	for _, model := range []string{"cheap 0.001", "dear 0.01"} {
		name, price, _ := strings.Cut(model, " ")
		output, err := pricing.ParseClassPrice("output", strings.Fields(price+" per token"))
		must(t, err)
		tariff.Models = append(tariff.Models, pricing.Model{Glob: name, Prices: []pricing.Price{output}})
	}
	must(t, tariff.Compile(nil))
	for _, test := range []struct{ path, body, answers, charge string }{
		{"/openai/deployments/cheap/chat/completions", `"model":"dear",`, "", "0.1"},
		{"/openai/deployments/cheap/chat/completions", `"model":"dear",`, "a model without a price", "0.1"},
		{"/openai/deployments/cheap/chat/completions", `"model":"dear",`, "cheap", "0.01"},
		{"/openai/deployments/dear/chat/completions", `"model":"cheap",`, "", "0.1"},
		{"/v1/chat/completions?model=dear", `"model":"cheap",`, "", "0.1"},
		{"/v1/chat/completions", `"model":"cheap","models":["cheap","dear"],`, "", "0.1"},
		{"/v1/chat/completions", `"model":"cheap","models":["cheap","dear"],`, "cheap", "0.01"},
	} {
		s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{Tariff: tariff}, document("Content-Type", "application/json",
			`{"object":"chat.completion","model":"`+test.answers+`","choices":[{"index":0,"message":{"content":"w"}}],"usage":{"prompt_tokens":0,"completion_tokens":10,"total_tokens":10}}`))
		good := sold{path: test.path, request: `{` + test.body + `"messages":[],"max_tokens":10,"stream":%t}`}
		_, body, complete := good.ask(t, s, false)
		if !complete || len(s.charges()) == 0 {
			t.Fatalf("%v: %s", test, body)
		}
		want(t, fmt.Sprint(test), s.charges()[0].Amount, test.charge)
	}
}

// TestAnAgentWhoseAnswersAreWithheldIsBounded: an agent makes the provider work for nothing until it is refused. It also uses the name of
// an address, since clients on this machine are not limited elsewhere.
func TestAnAgentWhoseAnswersAreWithheldIsBounded(t *testing.T) {
	t.Parallel()
	for _, agent := range []string{"bob", "127.0.0.1"} {
		s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{Rates: rates(t, "0.2 per byte")}, document("", "", "0123456789"))
		must(t, s.do(func(tx *escrow.Tx) (err error) {
			if _, _, s.key, err = tx.CreateAgent(escrow.Actor{}, escrow.AgentOrder{ID: agent}); err != nil {
				return err
			}
			_, err = tx.Deposit(operator, escrow.PaymentOrder{To: agent, Amount: amount("1")})
			return err
		}))
		refused := false
		for range 100 {
			status, _, complete := (sold{}).ask(t, s, false)
			if complete {
				t.Fatal("an answer of 2 was had for 1")
			}
			refused = refused || status == http.StatusTooManyRequests
		}
		if !refused {
			t.Errorf("100 answers to %s were withheld, and it goes on", agent)
		}
		want(t, "wallet", s.balance(agent), "1")
	}
}

// TestALimitBesideAQuota: what a plan includes costs a call nothing, whatever its limit is. What is beyond the quota is bounded by the
// limit.
func TestALimitBesideAQuota(t *testing.T) {
	t.Parallel()
	for _, unit := range []string{"call", "byte"} {
		included := pricing.Measure{N: 1, Unit: unit}
		if unit == "byte" {
			included.N = ten
		}
		plan := escrow.Plan{
			Payee: "acme", Name: "p", Price: amount("0.1"), Period: time.Hour, Unit: unit, Included: included.N * escrow.Micro,
			Overage: true, OveragePrice: "0.02 per " + unit,
		}
		route := gateway.Route{Rates: rates(t, "0.02 per "+unit), Payment: &gateway.Subscription{Plan: plan, Included: &included, Rates: rates(t, "0.02 per "+unit)}}
		s := openShop(t, escrow.Rules{Plans: []escrow.Plan{plan}}, gateway.Options{}, route, document("", "", "0123456789"))
		must(t, s.do(func(tx *escrow.Tx) error {
			_, err := tx.Subscribe(escrow.Actor{Agent: "alice"}, escrow.SubscriptionOrder{Payee: "acme", Plan: "p"})
			return err
		}))
		good := sold{}
		status, body, complete := good.ask(t, s, false, "Tallygate-Max-Charge", "0.001")
		if !complete {
			t.Errorf("%s: what the plan includes is refused for a limit: %d %s", unit, status, body)
		}
		want(t, unit+": wallet", s.balance("alice"), "0.9")
		status, body, complete = good.ask(t, s, false, "Tallygate-Max-Charge", "0.001")
		if complete || status != http.StatusPaymentRequired || !strings.Contains(body, "limit_exceeded") {
			t.Errorf("%s: what is beyond the plan costs more than the limit: %d %s", unit, status, body)
		}
		want(t, unit+": wallet after a refusal", s.balance("alice"), "0.9")
		if _, _, complete = good.ask(t, s, false, "Tallygate-Max-Charge", "0.5"); !complete {
			t.Errorf("%s: what is beyond the plan is refused", unit)
		}
	}
}

// TestAnAbsurdUsageEndsAStream: of an impossible usage only what is held is charged, so nothing more may be sent for it.
func TestAnAbsurdUsageEndsAStream(t *testing.T) {
	t.Parallel()
	s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{Rates: rates(t, "0.0001 per token")}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, `data: {"object":"chat.completion.chunk","model":"m","choices":[],"usage":{"prompt_tokens":900000,"completion_tokens":1,"total_tokens":900001}}`+"\n\n")
		w.(http.Flusher).Flush()
		for range 5000 {
			_, _ = io.WriteString(w, `data: {"object":"chat.completion.chunk","model":"m","choices":[{"index":0,"delta":{"content":" word"}}]}`+"\n\n")
		}
		_, _ = io.WriteString(w, "data: [DONE]\n\n")
	})
	_, body, _ := (sold{request: `{"model":"m","messages":[],"stream":%t}`}).ask(t, s, true)
	if words := strings.Count(body, " word"); words > 1000 {
		t.Errorf("%d words were had for %s", words, s.charges()[0].Amount)
	}
	if len(s.charges()) != 1 || s.charges()[0].Amount == 0 || !s.charges()[0].Suspect {
		t.Errorf("charges %+v", s.charges())
	}
}

// stalling is a client that stops reading for a while.
type stalling struct {
	http.ResponseWriter
	after   int           // bytes that it reads at once
	stall   time.Duration // before the next
	flushes bool          // it is the flushing that waits
}

func (w *stalling) Write(p []byte) (int, error) {
	if w.after -= len(p); w.after < 0 {
		time.Sleep(w.stall)
	}
	return w.ResponseWriter.Write(p)
}

// FlushError stalls as Write does: what is flushed may have waited in a buffer until then.
func (w *stalling) FlushError() error {
	if w.flushes {
		time.Sleep(w.stall)
	}
	return nil
}

func (w *stalling) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// TestAStallIsTheClientsCut: an upstream breaks off while its client does not read. The client got most of the answer.
func TestAStallIsTheClientsCut(t *testing.T) {
	t.Parallel()
	piece := strings.Repeat("x", 100_000)
	for _, test := range []struct {
		name   string
		reads  int           // bytes at once
		stalls time.Duration // before each further piece
		pauses time.Duration // of the upstream, before each piece
		flush  bool          // it flushes each
		left   string
	}{
		{"reads all", 1 << 30, 0, 0, false, "1"},
		{"waits for long, once", 250_000, 500 * time.Millisecond, 0, false, "0.9"},
		{"waits again and again", 0, 150 * time.Millisecond, 0, false, "0.9"},
		{"waits again and again as it is flushed", 1 << 30, 150 * time.Millisecond, 0, true, "0.9"},
		{"waits less than it is waited for", 0, 150 * time.Millisecond, 300 * time.Millisecond, false, "1"},
	} {
		s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{}, nil)
		meter := gateway.New(s.book, gateway.Options{})
		meter.SetStall(200 * time.Millisecond)
		if test.stalls == 0 {
			meter.SetStall(time.Hour) // however slow the machine is
		}
		route := &gateway.Route{Payee: "acme", Rates: rates(t, "0.1 per call"), Logger: slog.New(slog.DiscardHandler)}
		handler := meter.Handler(route, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			for range 3 {
				time.Sleep(test.pauses)
				_, _ = io.WriteString(w, piece)
				if test.flush {
					w.(http.Flusher).Flush()
				}
			}
			panic(http.ErrAbortHandler) // its patience is over
		}))
		w := &stalling{ResponseWriter: httptest.NewRecorder(), after: test.reads, stall: test.stalls, flushes: test.flush}
		r := httptest.NewRequest(http.MethodGet, "/file", nil)
		r.Header.Set("Authorization", "Bearer "+s.key)
		func() {
			defer func() { _ = recover() }()
			handler.ServeHTTP(w, r)
		}()
		want(t, "wallet of one who "+test.name, s.balance("alice"), test.left)
	}
}
