package gateway_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
)

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

func (w work) output() int { return w.choices * w.each }

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
