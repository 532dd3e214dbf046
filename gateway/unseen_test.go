package gateway_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/gateway"
)

// leaving is a client that leaves after the first bytes.
type leaving struct {
	*httptest.ResponseRecorder
	leave context.CancelFunc
}

func (w *leaving) Write(p []byte) (int, error) {
	n, err := w.ResponseRecorder.Write(p)
	w.leave()
	return n, err
}

// TestThoughtsOfACancelledCall: a client that leaves a model with hidden reasoning before the usage has come pays for the largest output
// that the call could have had. So leaving is not cheaper than reading to the end. Reasoning that is shown is counted, and a usage that is
// stated is charged.
func TestThoughtsOfACancelledCall(t *testing.T) {
	t.Parallel()
	const chunk = `data: {"object":"chat.completion.chunk","model":"MODEL","choices":[{"index":0,"delta":{"DELTA":" x"}}]}` + "\n\n"
	const usage = `data: {"object":"chat.completion.chunk","model":"MODEL","choices":[],"usage":{"prompt_tokens":0,"completion_tokens":500,"total_tokens":500}}` + "\n\n"
	const begun = `data: {"type":"message_start","message":{"model":"MODEL","usage":{"input_tokens":0,"output_tokens":1}}}` + "\n\n"
	const says = `data: {"type":"content_block_delta","delta":{"text":" x"}}` + "\n\n"
	const thinks = `data: {"type":"content_block_delta","delta":{"thinking":" x"}}` + "\n\n"
	const gemini = `data: {"candidates":[{"content":{"parts":[{"text":" x"}]}}]}` + "\n\n"
	for _, test := range []struct {
		name, request, model, answer string
		charge                       string // at 0.0001 a token
	}{
		{"by its name", `{"model":"gpt-5","messages":[],"max_tokens":600,"stream":true}`, "gpt-5", chunk, "0.06"},
		{"as it is answered", `{"model":"alias","messages":[],"max_tokens":600,"stream":true}`, "o3-2025", chunk, "0.06"},
		{"by what is asked", `{"model":"m","messages":[],"max_tokens":600,"stream":true,"reasoning_effort":"high"}`, "m", chunk, "0.06"},
		{"several choices", `{"model":"gpt-5","messages":[],"max_tokens":600,"n":2,"stream":true}`, "gpt-5", chunk, "0.12"},
		{"without a bound", `{"model":"gpt-5","messages":[],"stream":true}`, "gpt-5", chunk, "0.4096"},
		{"beyond the money", `{"model":"gpt-5","messages":[],"max_tokens":600,"n":100,"stream":true}`, "gpt-5", chunk, "1"},
		{"a model that does not think", `{"model":"m","messages":[],"max_tokens":600,"stream":true}`, "m", chunk, "0.0001"},
		{"thoughts that are shown", `{"model":"m","messages":[],"max_tokens":600,"stream":true,"reasoning_effort":"high"}`, "m", strings.Replace(chunk, "DELTA", "reasoning_content", 1), "0.0001"},
		{"a summary of its thoughts", `{"model":"gpt-5","messages":[],"max_tokens":600,"stream":true}`, "gpt-5", strings.Replace(chunk, "DELTA", "reasoning_content", 1), "0.06"},
		{"its usage came", `{"model":"gpt-5","messages":[],"max_tokens":600,"stream":true}`, "gpt-5", chunk + usage, "0.05"},

		{"Claude, before it says anything", `{"model":"claude-opus-4","messages":[],"max_tokens":600,"stream":true,"thinking":{"type":"enabled","budget_tokens":500}}`, "claude-opus-4", begun, "0.06"},
		{"Claude, adaptive", `{"model":"claude-opus-4","messages":[],"max_tokens":600,"stream":true,"thinking":{"type":"adaptive"}}`, "claude-opus-4", begun + says, "0.06"},
		{"Claude, of which a summary is shown", `{"model":"claude-opus-4","messages":[],"max_tokens":600,"stream":true,"thinking":{"type":"enabled","budget_tokens":500}}`, "claude-opus-4", begun + thinks, "0.06"},
		{"Claude 3, whose thoughts are shown", `{"model":"claude-3-7-sonnet","messages":[],"max_tokens":600,"stream":true,"thinking":{"type":"enabled","budget_tokens":500}}`, "claude-3-7-sonnet", begun + thinks, "0.0001"},
		{"Claude, that does not think", `{"model":"claude-opus-4","messages":[],"max_tokens":600,"stream":true,"thinking":{"type":"disabled"}}`, "claude-opus-4", begun + says, "0.0001"},
		{"Claude, whose usage came", `{"model":"claude-opus-4","messages":[],"max_tokens":600,"stream":true,"thinking":{"type":"enabled","budget_tokens":500}}`, "claude-opus-4",
			begun + says + `data: {"type":"message_delta","delta":{},"usage":{"output_tokens":500}}` + "\n\n", "0.05"},

		{"Gemini, with a budget", `{"contents":[],"generationConfig":{"maxOutputTokens":600,"thinkingConfig":{"thinkingBudget":100}}}`, "", gemini, "0.06"},
		{"Gemini, whatever it likes", `{"contents":[],"generationConfig":{"maxOutputTokens":600,"thinkingConfig":{"includeThoughts":true}}}`, "", gemini, "0.06"},
		{"Gemini, in the other spelling", `{"contents":[],"generation_config":{"max_output_tokens":600,"thinking_config":{"thinking_level":"high"}}}`, "", gemini, "0.06"},
		{"Gemini, without a thought", `{"contents":[],"generationConfig":{"maxOutputTokens":600,"thinkingConfig":{"thinkingBudget":0}}}`, "", gemini, "0.0001"},
		{"Gemini, that is not asked for any", `{"contents":[],"generationConfig":{"maxOutputTokens":600}}`, "", gemini, "0.0001"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{}, nil)
			meter := gateway.New(s.book, gateway.Options{})
			meter.SetHangUpGrace(time.Millisecond)
			route := &gateway.Route{Payee: "acme", Rates: rates(t, "0.0001 per output_token"), Logger: slog.New(slog.DiscardHandler)}
			handler := meter.Handler(route, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/event-stream")
				_, _ = io.WriteString(w, strings.NewReplacer("MODEL", test.model, "DELTA", "content").Replace(test.answer))
				<-r.Context().Done()
				panic(http.ErrAbortHandler)
			}))
			ctx, leave := context.WithCancel(t.Context())
			path := "/v1/chat/completions"
			switch {
			case strings.Contains(test.request, "claude"):
				path = "/v1/messages"
			case strings.Contains(test.request, "contents"):
				path = "/v1beta/models/tuned:streamGenerateContent"
			}
			r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(test.request)).WithContext(ctx)
			r.Header.Set("Authorization", "Bearer "+s.key)
			func() {
				defer func() { _ = recover() }()
				handler.ServeHTTP(&leaving{httptest.NewRecorder(), leave}, r)
			}()
			if charges := s.charges(); len(charges) != 1 {
				t.Fatalf("%d charges", len(charges))
			}
			want(t, "charge", s.charges()[0].Amount, test.charge)
		})
	}
}
