package gateway_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/gateway"
)

// TestAnswersThatShowNoAnswer: where the answer may be something else, because the request only looked like a chat, or because of its media
// type, nothing of it goes out before output, usage or an error was read in it.
func TestAnswersThatShowNoAnswer(t *testing.T) {
	t.Parallel()
	const (
		chat   = `{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true}`
		gemini = "/v1beta/models/m:streamGenerateContent"
	)
	chunk := `data: {"choices":[{"index":0,"delta":{"content":"hello"}}]}` + "\n\n"
	other := strings.Repeat(`data: {"token":{"text":"hello "}}`+"\n\n", 100)
	for _, test := range []struct {
		name, path, request, kind, answer string
		status                            int
	}{
		{"a chat", "/serving-endpoints/m/invocations", chat, sse, ": wait\n\n" + chunk + "data: [DONE]\n\n", 200},
		{"a chat in one long event", "/serving-endpoints/m/invocations", chat, sse, `data: {"x":"` + strings.Repeat("x", 100_000) + `","choices":[{"delta":{"content":"hello"}}]}` + "\n\ndata: [DONE]\n\n", 200},
		{"Cloudflare's events", "/ai/run/@cf/m", chat, sse, `data: {"response":"hello"}` + "\n\ndata: [DONE]\n\n", 200},
		{"events of another API", "/serving-endpoints/m/invocations", chat, sse, other, 502},
		{"more of them than are held back", "/serving-endpoints/m/invocations", chat, sse, strings.Repeat(other, 100), 502},
		{"lines of another API", "/my/chat", chat, lines, `{"status":"success"}` + "\n", 502},
		{"a document of another API", "/my/chat", chat, plainJSON, `{"generated_text":"hello"}`, 502},
		{"nothing", "/my/chat", chat, "", "", 502},
		{"protobuf", gemini, `{"contents":[]}`, "application/x-protobuf", "\x0a\xff\x07" + strings.Repeat("hello ", 1000), 502},
		{"a script", gemini, `{"contents":[]}`, "text/javascript", `// API callback` + "\n" + `foo([{"candidates":[{"content":{"parts":[{"text":"hello"}]}}]}]);`, 502},
		{"events with another media type", "/v1/chat/completions", chat, "text/plain", chunk + "data: [DONE]\n\n", 200},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := openShop(t, escrow.Rules{}, gateway.Options{}, tokenRoute(t), func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", test.kind)
				for piece := range strings.SplitAfterSeq(test.answer, "\n") {
					_, _ = io.WriteString(w, piece)
					_ = http.NewResponseController(w).Flush()
				}
			})
			must(t, s.do(func(tx *escrow.Tx) error {
				_, err := tx.Deposit(operator, escrow.PaymentOrder{To: "alice", Amount: amount("99")})
				return err
			}))
			answer, body := s.call(s.key, http.MethodPost, test.path, test.request)
			if answer.StatusCode != test.status || strings.Contains(body, "hello") != (test.status == 200) {
				t.Errorf("%s %.300s", answer.Status, body)
			}
			if charged := s.balance("alice") != "100"; charged != (test.status == 200) {
				t.Errorf("balance %s", s.balance("alice"))
			}
		})
	}
}
