package gateway_test

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/probe"
	"github.com/tallygate/tallygate/pricing"
)

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

// sale is something that is sold in one of its forms.
type sale struct {
	sold
	streamed bool
	provider http.HandlerFunc // sends the answer in this form
}

// sales are all goods in all their forms.
func sales() (all []sale) {
	for _, good := range goods {
		for _, s := range []sale{{good, false, good.document}, {good, true, good.stream}} {
			if s.provider != nil {
				all = append(all, s)
			}
		}
	}
	return all
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
	complete = err == nil && answer.StatusCode == http.StatusOK && !wasStopped(body)
	return answer.StatusCode, body, complete
}

// wasStopped reports whether a stream ends with an error of the gateway.
func wasStopped(body string) bool {
	for _, code := range []string{"insufficient_funds", "limit_exceeded", "upstream_failed", "ledger_unavailable"} {
		if strings.Contains(body, code) {
			return true
		}
	}
	return false
}

// units are the number of units in a whole answer.
func (g sold) units() int64 {
	if g.name == "call" || g.name == "tool" {
		return 1
	}
	return ten
}

// isTokens reports whether tokens are sold. A stream's tokens are bounded from above while it passes, so just enough money may not suffice
// for it.
func (good sold) isTokens() bool {
	return good.name == "token" || good.name == "tiers" || good.name == "for and at"
}
