package gateway_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf16"

	"pgregory.net/rapid"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/ledgertest"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/pricing"
)

// TestHostilePayers: the price of what was delivered is never above what was charged, for random requests of a payer that says everything
// in two ways. The provider reads them as loosely as real providers do, does the work that it has understood, and states what it has used.
func TestHostilePayers(t *testing.T) {
	t.Parallel()
	var m *stall
	checks := 0
	rapid.Check(t, func(r *rapid.T) {
		if checks%300 == 0 { // a book of many charges is slow to list
			m = openMarket(t)
		}
		checks++
		m.attack(r)
	})
}

// work is what a provider has understood, and does.
type work struct {
	model   string // cheap or dear
	choices int
	each    int // output tokens of each choice, hidden ones included
	hidden  int // of each choice
	input   int
	asked   int // images, characters, seconds
	stream  bool
	told    bool // a stream states its usage
}

func (w work) output() int  { return w.choices * w.each }
func (w work) visible() int { return w.choices * (w.each - w.hidden) }

// The prices of a token of input, of a token of output, and of a unit that is asked for, in nanos, of a cheap model. An expensive one costs
// a hundred times as much.
const (
	inputNano  = 1_000
	outputNano = 10_000
	askedNano  = 100_000
)

func (w work) times() ledger.Amount {
	if w.model == "dear" {
		return 100
	}
	return 1
}

// price is what the work costs at the tariff.
func (w work) price() ledger.Amount {
	return w.times() * ledger.Amount(w.input*inputNano+w.output()*outputNano+w.asked*askedNano)
}

// good is an API that the provider offers.
type good struct {
	name   string
	paths  []string // MODEL stands for a model's name; the first is the plain one
	fields []string // that the hostile payer plays with
	base   string   // other fields, which a request needs
	bounds []string // of the output, by the order in which the provider looks at them
	counts []string
	asks   string // the unit that is asked for
	form   bool   // a multipart form will do
	answer func(w work) (kind string, parts []string)
}

func words(n int) string { return strings.Repeat(" x", n) }

// pieces are the choices of an answer, in pieces of ten words.
func pieces(w work, piece func(choice int, text string) string) (parts []string) {
	for choice := range w.choices {
		for left := w.each - w.hidden; left > 0; left -= 10 {
			parts = append(parts, piece(choice, words(min(left, 10))))
		}
	}
	return parts
}

const sse, plainJSON, lines = "text/event-stream", "application/json", "application/x-ndjson"

func chatUsage(w work) string {
	return fmt.Sprintf(`"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,"completion_tokens_details":{"reasoning_tokens":%d}}`, w.input, w.output(), w.input+w.output(), w.choices*w.hidden)
}

func answerChat(w work) (string, []string) {
	if !w.stream {
		var choices []string
		for i := range w.choices {
			choices = append(choices, fmt.Sprintf(`{"index":%d,"message":{"role":"assistant","content":"%s"}}`, i, words(w.each-w.hidden)))
		}
		return plainJSON, []string{`{"object":"chat.completion","model":"` + w.model + `","choices":[` + strings.Join(choices, ",") + `],` + chatUsage(w) + `}`}
	}
	parts := pieces(w, func(i int, text string) string {
		return fmt.Sprintf(`data: {"object":"chat.completion.chunk","model":"%s","choices":[{"index":%d,"delta":{"content":"%s"}}]}`+"\n\n", w.model, i, text)
	})
	if w.told {
		parts = append(parts, `data: {"object":"chat.completion.chunk","model":"`+w.model+`","choices":[],`+chatUsage(w)+"}\n\n")
	}
	return sse, append(parts, "data: [DONE]\n\n")
}

func answerResponses(w work) (string, []string) {
	whole := fmt.Sprintf(`{"id":"resp_1","object":"response","status":"completed","model":"%s","output":[{"type":"message","content":[{"type":"output_text","text":"%s"}]}],"usage":{"input_tokens":%d,"output_tokens":%d,"output_tokens_details":{"reasoning_tokens":%d},"total_tokens":%d}}`,
		w.model, words(w.visible()), w.input, w.output(), w.choices*w.hidden, w.input+w.output())
	if !w.stream {
		return plainJSON, []string{whole}
	}
	parts := pieces(w, func(_ int, text string) string {
		return `event: response.output_text.delta` + "\n" + `data: {"type":"response.output_text.delta","delta":"` + text + `"}` + "\n\n"
	})
	return sse, append(parts, "event: response.completed\n"+`data: {"type":"response.completed","response":`+whole+"}\n\n")
}

func answerMessages(w work) (string, []string) {
	usage := fmt.Sprintf(`"usage":{"input_tokens":%d,"output_tokens":%d}`, w.input, w.output())
	if !w.stream {
		return plainJSON, []string{`{"type":"message","role":"assistant","model":"` + w.model + `","content":[{"type":"text","text":"` + words(w.visible()) + `"}],"stop_reason":"end_turn",` + usage + `}`}
	}
	event := func(name, rest string) string {
		return "event: " + name + "\ndata: {\"type\":\"" + name + "\"" + rest + "}\n\n"
	}
	parts := []string{event("message_start", fmt.Sprintf(`,"message":{"type":"message","role":"assistant","model":"%s","content":[],"usage":{"input_tokens":%d,"output_tokens":1}}`, w.model, w.input))}
	parts = append(parts, pieces(w, func(_ int, text string) string {
		return event("content_block_delta", `,"index":0,"delta":{"type":"text_delta","text":"`+text+`"}`)
	})...)
	return sse, append(parts, event("message_delta", `,"delta":{"stop_reason":"end_turn"},`+usage), event("message_stop", ""))
}

func answerGemini(w work) (string, []string) {
	message := func(text, rest string) string {
		return `{"modelVersion":"` + w.model + `","candidates":[{"content":{"parts":[{"text":"` + text + `"}]}` + rest + `}`
	}
	last := fmt.Sprintf(`,"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":%d,"candidatesTokenCount":%d,"thoughtsTokenCount":%d,"totalTokenCount":%d}`, w.input, w.visible(), w.choices*w.hidden, w.input+w.output())
	if !w.stream {
		return plainJSON, []string{message(words(w.visible()), last)}
	}
	parts := pieces(w, func(_ int, text string) string { return "data: " + message(text, "}]") + "\n\n" })
	return sse, append(parts, "data: "+message("", last)+"\n\n")
}

func answerOllama(w work) (string, []string) {
	last := fmt.Sprintf(`"done":true,"done_reason":"stop","prompt_eval_count":%d,"eval_count":%d}`, w.input, w.output())
	if !w.stream {
		return plainJSON, []string{`{"model":"` + w.model + `","message":{"role":"assistant","content":"` + words(w.visible()) + `"},` + last}
	}
	parts := pieces(w, func(_ int, text string) string {
		return `{"model":"` + w.model + `","message":{"role":"assistant","content":"` + text + `"},"done":false}` + "\n"
	})
	return lines, append(parts, `{"model":"`+w.model+`","message":{"role":"assistant","content":""},`+last+"\n")
}

func answerCohere(w work) (string, []string) {
	usage := fmt.Sprintf(`"usage":{"billed_units":{"input_tokens":%d,"output_tokens":%d},"tokens":{"input_tokens":%d,"output_tokens":%d}}`, w.input, w.output(), w.input, w.output())
	if !w.stream {
		return plainJSON, []string{`{"id":"1","message":{"role":"assistant","content":[{"type":"text","text":"` + words(w.visible()) + `"}]},"finish_reason":"COMPLETE",` + usage + `}`}
	}
	parts := pieces(w, func(_ int, text string) string {
		return "event: content-delta\n" + `data: {"type":"content-delta","delta":{"message":{"content":{"text":"` + text + `"}}}}` + "\n\n"
	})
	return sse, append(parts, "event: message-end\n"+`data: {"type":"message-end","delta":{"finish_reason":"COMPLETE",`+usage+"}}\n\n")
}

func answerConverse(w work) (string, []string) {
	return plainJSON, []string{fmt.Sprintf(`{"output":{"message":{"role":"assistant","content":[{"text":"%s"}]}},"stopReason":"end_turn","usage":{"inputTokens":%d,"outputTokens":%d,"totalTokens":%d}}`, words(w.visible()), w.input, w.output(), w.input+w.output())}
}

func answerEmbeddings(w work) (string, []string) {
	return plainJSON, []string{fmt.Sprintf(`{"object":"list","model":"%s","data":[{"embedding":[0]}],"usage":{"prompt_tokens":%d,"total_tokens":%d}}`, w.model, w.input, w.input)}
}

func answerAsked(w work) (string, []string) {
	return plainJSON, []string{`{"model":"` + w.model + `","id":"1","data":[{"b64_json":"x"}]}`}
}

// toolsGood calls MCP tools, cheap and expensive ones.
const toolsGood = "tools/call"

func answerTool(w work) (string, []string) {
	return plainJSON, []string{`{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"done"}]}}`}
}

var market = []good{
	{name: "chat", paths: []string{"/v1/chat/completions", "/openai/deployments/MODEL/chat/completions", "/v1/engines/MODEL/chat/completions"},
		fields: []string{"model", "max_tokens", "max_completion_tokens", "n", "stream", "stream_options", "models", "image", "extra_body"},
		base:   `"messages":[{"role":"user","content":"hello"}]`, bounds: []string{"max_completion_tokens", "max_tokens"}, counts: []string{"n"}, answer: answerChat},
	{name: "completions", paths: []string{"/v1/completions", "/v1/engines/MODEL/completions"}, fields: []string{"model", "max_tokens", "n", "best_of", "stream", "stream_options"},
		base: `"prompt":"hello"`, bounds: []string{"max_tokens"}, counts: []string{"n", "best_of"}, answer: answerChat},
	{name: "responses", paths: []string{"/v1/responses"}, fields: []string{"model", "max_output_tokens", "stream", "previous_response_id"},
		base: `"input":"hello"`, bounds: []string{"max_output_tokens"}, answer: answerResponses},
	{name: "messages", paths: []string{"/v1/messages"}, fields: []string{"model", "max_tokens", "stream", "image"},
		base: `"messages":[{"role":"user","content":"hello"}]`, bounds: []string{"max_tokens"}, answer: answerMessages},
	{name: "gemini", paths: []string{"/v1beta/models/MODEL:generateContent"}, fields: []string{"model", "generationConfig", "generation_config"},
		base: `"contents":[{"parts":[{"text":"hello"}]}]`, bounds: []string{"maxOutputTokens", "max_output_tokens"}, counts: []string{"candidateCount", "candidate_count"}, answer: answerGemini},
	{name: "gemini, streamed", paths: []string{"/v1beta/models/MODEL:streamGenerateContent"}, fields: []string{"generationConfig", "generation_config"},
		base: `"contents":[{"parts":[{"text":"hello"}]}]`, bounds: []string{"maxOutputTokens", "max_output_tokens"}, answer: answerGemini},
	{name: "ollama", paths: []string{"/api/chat"}, fields: []string{"model", "options", "stream"},
		base: `"messages":[{"role":"user","content":"hello"}]`, bounds: []string{"num_predict"}, answer: answerOllama},
	{name: "cohere", paths: []string{"/v2/chat"}, fields: []string{"model", "max_tokens", "stream"},
		base: `"messages":[{"role":"user","content":"hello"}]`, bounds: []string{"max_tokens"}, answer: answerCohere},
	{name: "converse", paths: []string{"/model/MODEL/converse"}, fields: []string{"model", "inferenceConfig"},
		base: `"messages":[{"role":"user","content":[{"text":"hello"}]}]`, bounds: []string{"maxTokens"}, answer: answerConverse},
	{name: "embeddings", paths: []string{"/v1/embeddings", "/v1/engines/MODEL/embeddings"}, fields: []string{"model", "input"}, base: `"x":1`, answer: answerEmbeddings},
	{name: "images", paths: []string{"/v1/images/generations", "/openai/deployments/MODEL/images/generations"}, fields: []string{"model", "n"}, base: `"prompt":"hello"`, asks: "n", form: true, answer: answerAsked},
	{name: "speech", paths: []string{"/v1/audio/speech"}, fields: []string{"model", "input"}, base: `"voice":"x"`, asks: "input", answer: answerAsked},
	{name: "videos", paths: []string{"/v1/videos"}, fields: []string{"model", "seconds"}, base: `"prompt":"hello"`, asks: "seconds", form: true, answer: answerAsked},
	{name: toolsGood, paths: []string{"/mcp"}, fields: []string{"method", "params", "jsonrpc"}, base: `"id":1`, answer: answerTool},
}

// understand is how a provider reads a request. It panics with errReading if it refuses the request.
func (g good) understand(m mood, r *http.Request, body []byte) work {
	read := m.reading
	v := read.body(r.Header.Get("Content-Type"), body)
	if list, ok := v.([]any); ok && g.name == toolsGood && len(list) > 0 {
		v = list[len(list)-1]
	}
	if _, ok := v.(*object); !ok {
		panic(errReading)
	}
	w := work{choices: 1, input: len(body) / 4}
	if g.name == toolsGood {
		if read.text(read.get(v, "method")) != "tools/call" {
			return work{} // nothing that costs
		}
		return work{model: knownModel(read.text(read.get(v, "params", "name"))), asked: 1}
	}
	named := map[string]string{"path": "", "body": read.text(read.get(v, "model")), "query": r.URL.Query().Get("model")}
	if list := r.URL.Query()["model"]; read.first == false && len(list) > 0 {
		named["query"] = list[len(list)-1]
	}
	for _, path := range g.paths {
		before, after, found := strings.Cut(path, "MODEL")
		if rest, ok := strings.CutPrefix(r.URL.Path, before); found && ok {
			named["path"], _ = strings.CutSuffix(rest, after)
		}
	}
	if list, ok := read.get(v, "models").([]any); ok && m.falls && len(list) > 0 {
		named["body"] = read.text(list[len(list)-1])
	}
	for _, place := range m.places {
		if named[place] != "" {
			w.model = knownModel(named[place])
			break
		}
	}
	if w.model == "" {
		panic(errReading)
	}
	if read.get(v, "image") != (missing{}) || read.text(read.get(v, "previous_response_id")) != "" {
		w.input += 500
	}
	if g.asks != "" {
		w.input, w.choices = 0, 0
		switch at := read.get(v, g.asks); {
		case g.asks == "input":
			w.asked = len([]rune(read.text(at)))
		default:
			if text, ok := at.(string); ok && g.form || ok && g.asks == "seconds" {
				w.asked = max(1, reading{lax: true}.integer(text))
			} else {
				w.asked = max(1, read.integer(at))
			}
		}
		if w.asked > 100 {
			panic(errReading)
		}
		return w
	}
	if len(g.bounds) == 0 {
		w.choices = 0
		return w
	}
	var configs []any
	switch g.name {
	case "gemini", "gemini, streamed":
		configs = []any{read.get(v, "generationConfig"), read.get(v, "generation_config")}
	case "ollama":
		configs = []any{read.get(v, "options")}
	case "converse":
		configs = []any{read.get(v, "inferenceConfig")}
	default:
		configs = []any{v}
	}
	if m.backwards {
		slices.Reverse(configs)
	}
	bound := 0
	for _, config := range configs {
		for _, name := range g.counts {
			w.choices = max(w.choices, read.integer(read.get(config, name)))
		}
		for _, name := range m.order(g.bounds) {
			if bound == 0 {
				bound = read.integer(read.get(config, name))
			}
		}
	}
	if w.choices > 8 {
		panic(errReading)
	}
	if w.each = m.wants; bound > 0 {
		w.each = min(w.each, bound)
	}
	w.hidden = min(m.hides, w.each-1)
	switch g.name {
	case "gemini, streamed":
		w.stream = true
	case "ollama":
		w.stream = read.get(v, "stream") == (missing{}) || read.get(v, "stream") == nil || read.boolean(read.get(v, "stream"))
	default:
		w.stream = read.boolean(read.get(v, "stream"))
	}
	w.told = read.boolean(read.get(v, "stream_options", "include_usage"))
	return w
}

// knownModel is a name as a provider looks it up that ignores case and spaces.
func knownModel(name string) string {
	name = strings.ToLower(strings.TrimSpace(name))
	if name != "cheap" && name != "dear" {
		panic(errReading)
	}
	return name
}

// mood is how a provider handles a request.
type mood struct {
	reading   reading
	places    []string // of the model's name, by their order
	falls     bool     // a list of models is obeyed
	backwards bool
	wants     int // how many tokens its model says
	hides     int
}

func (m mood) order(names []string) []string {
	if m.backwards {
		names = slices.Clone(names)
		slices.Reverse(names)
	}
	return names
}

// attempt is one call: what the provider has seen, and what its payer got of the answer.
type attempt struct {
	seen     bool
	work     work
	written  bool // the provider has come to its end
	received bytes.Buffer
	status   int
	broken   bool // the answer broke off
	hungUp   bool
	header   http.Header
	after    int // bytes after which the client hangs up; -1: never
	leave    context.CancelFunc
}

func (a *attempt) Header() http.Header { return a.header }
func (a *attempt) WriteHeader(status int) {
	if status >= 200 && a.status == 0 {
		a.status = status
	}
}
func (a *attempt) Flush() {}
func (a *attempt) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	if a.hungUp {
		return 0, io.ErrClosedPipe
	}
	if room := a.after - a.received.Len(); a.after >= 0 && len(p) > room {
		a.received.Write(p[:room])
		a.hungUp = true
		a.leave()
		return room, io.ErrClosedPipe
	}
	return a.received.Write(p)
}

// complete reports whether the payer has the whole answer.
func (a *attempt) complete() bool {
	if a.status != http.StatusOK || a.broken || !a.written {
		return false
	}
	body := a.received.String()
	for _, end := range []string{"insufficient_funds", "limit_exceeded", "upstream_failed"} {
		if strings.Contains(body, end) {
			return false
		}
	}
	if !a.hungUp {
		return true
	}
	kind, parts := a.answer()
	last := parts[len(parts)-1]
	if kind == sse || kind == lines {
		return strings.Contains(body, strings.TrimRight(last, "\n"))
	}
	return len(body) >= len(last)
}

func (a *attempt) answer() (string, []string) { return a.header.Get("Content-Type"), a.parts() }

func (a *attempt) parts() []string {
	for _, g := range market {
		if g.name == a.header.Get("X-Good") {
			_, parts := g.answer(a.work)
			return parts
		}
	}
	return []string{""}
}

// stall is a book with shops for each way of paying.
type stall struct {
	t     *testing.T
	book  *escrow.Book
	mu    sync.Mutex
	calls map[string]*attempt
	moods map[string]mood
	goods map[string]good
	shops map[string]http.Handler // by the way of paying
}

func openMarket(t *testing.T) *stall {
	books, err := ledger.New(ledgertest.NewStore(), ledger.Options{Currency: "USDC", Now: time.Now})
	must(t, err)
	t.Cleanup(func() { must(t, books.Close()) })
	m := &stall{t: t, book: escrow.New(books, escrow.Rules{OpenRegistration: true}), calls: map[string]*attempt{}, moods: map[string]mood{}, goods: map[string]good{}, shops: map[string]http.Handler{}}
	must(t, m.book.Reserve(t.Context(), "acme"))
	tariff := &pricing.Tariff{}
	for _, model := range []struct {
		name  string
		times ledger.Amount
	}{{"cheap", 1}, {"dear", 100}} {
		var prices []pricing.Price
		for _, p := range []struct {
			class, unit string
			nano        ledger.Amount
		}{{"input", "token", inputNano}, {"output", "token", outputNano}, {"asked_image", "image", askedNano}, {"input_character", "character", askedNano}, {"asked_second", "second", askedNano}} {
			price, err := pricing.ParseClassPrice(p.class, []string{(p.nano * model.times).String(), "per", p.unit})
			must(t, err)
			prices = append(prices, price)
		}
		tariff.Models = append(tariff.Models, pricing.Model{Glob: model.name, Prices: prices})
	}
	must(t, tariff.Compile(nil))
	tools := &pricing.Tariff{}
	for _, tool := range []string{"cheap 0.0001 per call", "dear 0.01 per call"} {
		price, err := pricing.ParseToolPrice(strings.Fields(tool))
		must(t, err)
		tools.Tools = append(tools.Tools, price)
	}
	must(t, tools.Compile(nil))
	g := gateway.New(m.book, gateway.Options{})
	for name, pays := range map[string]gateway.Payment{"wallet": nil, "escrow": gateway.Escrow{}} {
		for kind, prices := range map[string]*pricing.Tariff{"": tariff, " of tools": tools} {
			route := &gateway.Route{Payee: "acme", Tariff: prices, Payment: pays, Logger: slog.New(slog.DiscardHandler)}
			m.shops[name+kind] = g.Handler(route, http.HandlerFunc(m.provide))
		}
	}
	return m
}

// provide is the provider's handler.
func (m *stall) provide(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	call := r.Header.Get("X-Call")
	a, mood, g := m.calls[call], m.moods[call], m.goods[call]
	m.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	func() {
		defer func() {
			if p := recover(); p != nil && p != any(errReading) {
				panic(p)
			} else if p != nil {
				a.work = work{}
			} else {
				a.seen = true
			}
		}()
		a.work = g.understand(mood, r, body)
	}()
	if !a.seen {
		http.Error(w, `{"error":"bad request"}`, http.StatusBadRequest)
		return
	}
	kind, parts := g.answer(a.work)
	w.Header().Set("Content-Type", kind)
	w.Header().Set("X-Good", g.name)
	for _, part := range parts {
		if _, err := io.WriteString(w, part); err != nil {
			return
		}
		w.(http.Flusher).Flush()
	}
	a.written = true
}

// attack makes a request, or several at the same time, and compares what was delivered with what was charged.
func (m *stall) attack(t *rapid.T) {
	g := rapid.SampledFrom(market).Draw(t, "good")
	mood := mood{
		reading: rapid.SampledFrom(readings).Draw(t, "reading"), falls: rapid.Bool().Draw(t, "falls"), backwards: rapid.Bool().Draw(t, "backwards"),
		places: rapid.Permutation([]string{"path", "body", "query"}).Draw(t, "places"),
		wants:  rapid.SampledFrom([]int{1, 7, 60, 400}).Draw(t, "wants"), hides: rapid.SampledFrom([]int{0, 0, 5, 300}).Draw(t, "hides"),
	}
	has := rapid.SampledFrom([]string{"0.0001", "0.003", "0.05", "0.6", "9", "9"}).Draw(t, "has")
	pays := rapid.SampledFrom([]string{"wallet", "wallet", "escrow"}).Draw(t, "pays")
	order := drawRequest(t, g)
	limit := rapid.SampledFrom([]string{"", "", "", "0.000000001", "0.001", "0.1"}).Draw(t, "limit")
	calls := rapid.SampledFrom([]int{1, 1, 1, 4}).Draw(t, "calls")
	after := rapid.SampledFrom([]int{-1, -1, 0, 1, 50, 300, 2000}).Draw(t, "hangs up after")

	agent, key := m.register(t, has, pays)
	attempts := make([]*attempt, calls)
	var wg sync.WaitGroup
	for i := range attempts {
		ctx, leave := context.WithCancel(context.Background())
		a := &attempt{header: http.Header{}, after: after, leave: leave}
		attempts[i] = a
		r := httptest.NewRequest(http.MethodPost, order.target, bytes.NewReader(order.body)).WithContext(ctx)
		r.Header = order.header.Clone()
		call := fmt.Sprint(agent, i)
		r.Header.Set("X-Call", call)
		r.Header.Set("Authorization", "Bearer "+key)
		if limit != "" {
			r.Header.Set("Tallygate-Max-Charge", limit)
		}
		m.mu.Lock()
		m.calls[call], m.moods[call], m.goods[call] = a, mood, g
		m.mu.Unlock()
		shop := m.shops[pays]
		if g.name == toolsGood {
			shop = m.shops[pays+" of tools"]
		}
		wg.Go(func() {
			defer leave()
			defer func() {
				if p := recover(); p != nil {
					if p != http.ErrAbortHandler {
						panic(p)
					}
					a.broken = true
				}
			}()
			shop.ServeHTTP(a, r)
		})
	}
	wg.Wait()
	m.compare(t, agent, has, attempts, func() string {
		return fmt.Sprintf("%s %s %v\n%q\n%+v", g.name, order.target, order.header, order.body, mood)
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.calls)
	clear(m.moods)
	clear(m.goods)
}

// compare fails if what was delivered is worth more than what was charged.
func (m *stall) compare(t *rapid.T, agent, has string, attempts []*attempt, told func() string) {
	charges, _, err := m.book.Charges(escrow.ChargeFilter{Agent: agent}, escrow.Page{})
	must(m.t, err)
	var paid, worth ledger.Amount
	var detail []string
	for _, c := range charges {
		paid += c.Amount
		detail = append(detail, fmt.Sprintf("charged %s of %s for %v, cut %s", c.Amount, c.Model, c.Units, c.Cut))
	}
	for _, a := range attempts {
		had := ledger.Amount(0)
		visible := strings.Count(a.received.String(), " x")
		switch {
		case !a.seen:
		case a.complete():
			had = a.work.price()
		case visible > 0: // of a part, what can be seen of it
			had = a.work.times() * ledger.Amount(visible*outputNano)
		}
		worth += had
		detail = append(detail, fmt.Sprintf("had %s: %d, complete %v, hung up %v, %d words, %+v\n%.1500s", had, a.status, a.complete(), a.hungUp, visible, a.work, a.received.String()))
	}
	if paid < worth {
		t.Fatalf("what is worth %s was had for %s\n%s\n%s", worth, paid, told(), strings.Join(detail, "\n"))
	}
	w, err := m.book.Wallet(context.Background(), agent)
	must(m.t, err)
	if left := w.Balance; left < 0 || paid > amount(has) {
		t.Fatalf("%s of %s was paid, %s is left\n%s", paid, has, left, told())
	}
}

// register creates a payer that has an amount, in a wallet or in an escrow.
func (m *stall) register(t *rapid.T, has, pays string) (agent, key string) {
	_, err := escrow.Do(context.Background(), m.book, func(tx *escrow.Tx) (struct{}, error) {
		a, _, made, err := tx.CreateAgent(escrow.Actor{}, escrow.AgentOrder{})
		if err != nil {
			return struct{}{}, err
		}
		agent, key = a.ID, made
		if _, err := tx.Deposit(operator, escrow.PaymentOrder{To: agent, Amount: amount(has)}); err != nil {
			return struct{}{}, err
		}
		if pays == "escrow" {
			_, err = tx.CreateEscrow(escrow.Actor{Agent: agent}, escrow.EscrowOrder{To: "acme", Amount: amount(has)})
		}
		return struct{}{}, err
	})
	must(m.t, err)
	return agent, key
}

// order is a request of a hostile payer.
type order struct {
	target string
	header http.Header
	body   []byte
}

var (
	models  = [2][]string{{`"cheap"`, `"cheap"`, `"dear"`}, {`"Dear"`, `"dear "`, `"cheap\u0000dear"`, `"\u0064ear"`, `["dear"]`, `null`, `""`, `0`}}
	numbers = [2][]string{{"1", "2", "5", "50", "300"}, {"0", "-1", "null", `"1"`, `"50"`, `" 50 "`, "true", "1.0", "1e2", "5e0", "0.5", "NaN", "Infinity", "1e999", "9223372036854775808", "[1]", "{}", `"1_0"`, "-0", "1.9", "01"}}
	truths  = [2][]string{{"true", "false"}, {"null", `"true"`, `"false"`, `"yes"`, "1", "0", "2", `""`, "[]", "{}"}}
	texts   = [2][]string{{`"hello"`, `"hello hello hello hello"`}, {`"\ud83d\ude00 \ud83d"`, `["a","b"]`, `null`, `7`}}
)

// mischief happens only now and then: if everything in a request were odd, it would be refused for the first thing, and the others would
// not be tested.
func mischief(t *rapid.T, what string) bool { return rapid.IntRange(0, 14).Draw(t, what) == 14 }

// drawValue is a value of a field, now and then of the wrong type.
func drawValue(t *rapid.T, field string) string {
	pick := func(values [2][]string) string {
		if mischief(t, "odd") {
			return rapid.SampledFrom(values[1]).Draw(t, field)
		}
		return rapid.SampledFrom(values[0]).Draw(t, field)
	}
	switch field {
	case "model", "name":
		return pick(models)
	case "models":
		return pick([2][]string{{`["cheap"]`, `["cheap","dear"]`, `[]`}, {`"dear"`, `[{"model":"dear"}]`, `null`}})
	case "stream", "include_usage":
		return pick(truths)
	case "input":
		return pick(texts)
	case "previous_response_id":
		return pick([2][]string{{`"resp_1"`, `null`}, {`""`, `["resp_1"]`}})
	case "image":
		return `{"type":"image_url","image_url":{"url":"https://example.com/x.png"}}`
	case "method":
		return pick([2][]string{{`"tools/call"`, `"tools/list"`}, {`"Tools/Call"`, `"tools\/call"`, `"tools/call "`}})
	case "jsonrpc":
		return pick([2][]string{{`"2.0"`}, {`"1.0"`, `2.0`}})
	}
	return pick(numbers)
}

// nested are the fields of objects.
var nested = map[string][]string{
	"stream_options": {"include_usage"}, "generationConfig": {"maxOutputTokens", "candidateCount", "max_output_tokens"},
	"generation_config": {"max_output_tokens", "maxOutputTokens", "candidate_count"}, "options": {"num_predict"},
	"inferenceConfig": {"maxTokens"}, "params": {"name"}, "extra_body": {"model", "max_tokens", "n"},
}

// drawFields are some of the fields and their values. Now and then one occurs twice, or in an odd spelling.
func drawFields(t *rapid.T, names []string) (fields []string) {
	for _, name := range names {
		times := rapid.IntRange(0, 1).Draw(t, name)
		if mischief(t, "twice") {
			times = 2
		}
		for range times {
			var value string
			switch inner := nested[name]; {
			case inner == nil:
				value = drawValue(t, name)
			case mischief(t, "no object"):
				value = rapid.SampledFrom([]string{"null", "[]", `"x"`, "0"}).Draw(t, name)
			default:
				value = "{" + strings.Join(drawFields(t, inner), ",") + "}"
			}
			fields = append(fields, `"`+drawSpelling(t, name)+`":`+value)
		}
	}
	return fields
}

func drawSpelling(t *rapid.T, key string) string {
	if !mischief(t, "spelling") {
		return key
	}
	return rapid.SampledFrom([]string{
		strings.ToUpper(key[:1]) + key[1:], fmt.Sprintf(`\u%04x`, key[0]) + key[1:],
		strings.Replace(strings.Replace(key, "s", "ſ", 1), "k", "K", 1), strings.Replace(key, "e", `\u0065`, 1),
	}).Draw(t, "spelled")
}

// drawRequest is a request in which a thing may be said twice, and differently.
func drawRequest(t *rapid.T, g good) order {
	o := order{header: http.Header{"Content-Type": {"application/json"}}}
	model := rapid.SampledFrom([]string{"cheap", "cheap", "dear"}).Draw(t, "model of the path")
	if mischief(t, "odd path") {
		model = rapid.SampledFrom([]string{"Dear", "dear%20", "cheap%2f..%2fdear", "cheap/../dear", "cheap;dear"}).Draw(t, "odd model")
	}
	path := g.paths[0]
	if rapid.IntRange(0, 3).Draw(t, "another path") == 3 {
		path = rapid.SampledFrom(g.paths).Draw(t, "path")
	}
	o.target = strings.Replace(path, "MODEL", model, 1)
	if rapid.IntRange(0, 5).Draw(t, "query") == 5 {
		o.target += rapid.SampledFrom([]string{"?model=dear", "?model=cheap", "?model=cheap&model=dear", "?Model=dear", "?model=cheap;model=dear", "?m%6fdel=dear", "?model=dear%20"}).Draw(t, "model of the query")
	}
	if g.form && rapid.Bool().Draw(t, "form") {
		o.body, o.header = drawForm(t, g)
		return o
	}
	var parts []string
	if g.name == toolsGood {
		parts = append(parts, `"jsonrpc":"2.0"`, `"method":"tools/call"`, `"params":{"name":"`+rapid.SampledFrom([]string{"cheap", "dear"}).Draw(t, "tool")+`"}`)
	} else {
		parts = append(parts, g.base)
	}
	fields := g.fields
	switch {
	case g.name == toolsGood && !mischief(t, "said again"):
		fields = nil
	case g.fields[0] == "model" && !strings.Contains(path, "MODEL") && !mischief(t, "no model"):
		parts, fields = append(parts, `"model":`+drawValue(t, "model")), fields[1:]
		if mischief(t, "another model") {
			parts = append(parts, `"`+drawSpelling(t, "model")+`":`+drawValue(t, "model"))
		}
	}
	if g.asks != "" && !mischief(t, "unsaid") {
		value := drawValue(t, g.asks)
		parts, fields = append(parts, `"`+g.asks+`":`+value), fields[:1]
	}
	parts = append(parts, drawFields(t, fields)...)
	o.body = []byte("{" + strings.Join(rapid.Permutation(parts).Draw(t, "order"), ",") + "}")
	if mischief(t, "odd document") {
		o.body = drawDocument(t, string(o.body))
	}
	if mischief(t, "odd kind") {
		o.header.Set("Content-Type", rapid.SampledFrom([]string{"", "text/plain", "application/json; charset=utf-16", "application/json; charset=utf-7", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded"}).Draw(t, "kind"))
	}
	if mischief(t, "a form") {
		values := url.Values{}
		for _, f := range g.fields {
			values.Set(f, strings.Trim(drawValue(t, f), `"`))
		}
		o.body = []byte(values.Encode())
		o.header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return o
}

// drawDocument is a body that some programs take for JSON and others don't, or that they read differently.
func drawDocument(t *rapid.T, body string) []byte {
	var wide []byte
	for _, unit := range utf16.Encode([]rune(body)) {
		wide = append(wide, byte(unit), byte(unit>>8))
	}
	return []byte(rapid.SampledFrom([]string{
		"\uFEFF" + body, "\uFEFF\uFEFF" + body, body + `{"model":"dear"}`, strings.Replace(body, ",", `,/*",*/`, 1), "[" + body + "]", string(wide), "\xff\xfe" + string(wide),
		strings.TrimSuffix(body, "}") + `,"x":NaN}`, strings.TrimSuffix(body, "}") + ",}", strings.Replace(body, `"cheap"`, "\"cheap\xff\"", 1),
		"//\n" + body, "\v" + body, "\x00" + body, " \n" + body, body + "\n", `{"model":"dear"}` + body, ")]}'\n" + body,
	}).Draw(t, "document"))
}

// drawForm is a multipart form, not always well-formed.
func drawForm(t *rapid.T, g good) ([]byte, http.Header) {
	var body strings.Builder
	add := func(name, value string) {
		quote, end, extra := `"`, "\r\n", ""
		if mischief(t, "odd part") {
			quote = rapid.SampledFrom([]string{`"`, ``}).Draw(t, "quote")
			end = rapid.SampledFrom([]string{"\r\n", "\n"}).Draw(t, "end")
			extra = rapid.SampledFrom([]string{"", `; filename="x"`, `; name="n"`, `; name*=utf-8''n`, "\r\nContent-Transfer-Encoding: base64"}).Draw(t, "extra")
		}
		fmt.Fprintf(&body, "--x%sContent-Disposition: form-data; name=%s%s%s%s%s%s%s%s", end, quote, name, quote, extra, end, end, value, end)
	}
	add("model", rapid.SampledFrom([]string{"cheap", "cheap", "dear", "Dear"}).Draw(t, "model"))
	if !mischief(t, "unsaid") {
		add(g.asks, strings.Trim(drawValue(t, g.asks), `"`))
	}
	if mischief(t, "said again") {
		field := rapid.SampledFrom(append(slices.Clone(g.fields), "n[]", "N", "Seconds", "model[]")).Draw(t, "field")
		add(field, strings.Trim(drawValue(t, strings.TrimSuffix(strings.ToLower(field), "[]")), `"`))
	}
	body.WriteString("--x--\r\n")
	kind := "multipart/form-data; boundary=x"
	if mischief(t, "odd boundary") {
		kind = rapid.SampledFrom([]string{"multipart/form-data; boundary=y; boundary=x", `multipart/form-data; boundary="x"`, "multipart/form-data; boundary=x; charset=utf-16", "Multipart/Form-Data;boundary=x"}).Draw(t, "kind")
	}
	return []byte(body.String()), http.Header{"Content-Type": {kind}}
}

// TestTheMarketSells: most goods are sold to an honest payer, so that a hostile one could gain something.
func TestTheMarketSells(t *testing.T) {
	t.Parallel()
	m := openMarket(t)
	for _, g := range market {
		for _, stream := range []bool{false, true} {
			body := `{"model":"dear",` + g.base + `}`
			switch {
			case g.asks == "input" || g.name == "embeddings":
				body = `{"model":"dear","input":"hello"}`
			case g.asks != "":
				body = `{"model":"dear","` + g.asks + `":"5"}`
				if g.asks == "n" {
					body = `{"model":"dear","n":5}`
				}
			case g.name == toolsGood:
				body = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"dear"}}`
			case slices.Contains(g.fields, "stream"):
				body = strings.TrimSuffix(body, "}") + fmt.Sprintf(`,"stream":%v}`, stream)
			}
			if !json.Valid([]byte(body)) {
				t.Fatal(body)
			}
			var key string
			rapidless := func() {
				_, err := escrow.Do(t.Context(), m.book, func(tx *escrow.Tx) (struct{}, error) {
					a, _, made, err := tx.CreateAgent(escrow.Actor{}, escrow.AgentOrder{})
					if err == nil {
						key = made
						_, err = tx.Deposit(operator, escrow.PaymentOrder{To: a.ID, Amount: amount("20")})
					}
					return struct{}{}, err
				})
				must(t, err)
			}
			rapidless()
			a := &attempt{header: http.Header{}, after: -1, leave: func() {}}
			m.calls["x"], m.goods["x"] = a, g
			m.moods["x"] = mood{reading: readings[0], places: []string{"path", "body"}, wants: 100, hides: 20}
			r := httptest.NewRequest(http.MethodPost, strings.Replace(g.paths[0], "MODEL", "dear", 1), strings.NewReader(body))
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("X-Call", "x")
			r.Header.Set("Authorization", "Bearer "+key)
			shop := m.shops["wallet"]
			if g.name == toolsGood {
				shop = m.shops["wallet of tools"]
			}
			shop.ServeHTTP(a, r)
			if !a.complete() {
				t.Errorf("%s, streamed %v: %d %s", g.name, stream, a.status, a.received.String())
			}
		}
	}
}
