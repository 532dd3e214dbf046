package gateway_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/shopspring/decimal"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/pricing"
)

// TestWhatTheTariffDoesNotSellIsRefused: what a request asks for needs a price of its own; the prices of other things do not stand for it.
func TestWhatTheTariffDoesNotSellIsRefused(t *testing.T) {
	t.Parallel()
	models := func(glob string) []pricing.Model {
		list := perToken(t, "0.001")
		list[0].Glob = glob
		return list
	}
	perCall := models("*")
	call, err := pricing.ParseClassPrice("call", strings.Fields("0.001 per call"))
	must(t, err)
	perCall[0].Prices = append(perCall[0].Prices, call)
	amount := decimal.New(1, -2)
	tools := []pricing.ToolPrice{{Glob: "a*", Amount: amount}}
	const rpc = `{"jsonrpc":"2.0","id":1,"method":"%","params":{"name":"a"}}`
	for _, test := range []struct {
		name, method, path, body string
		tariff                   pricing.Tariff
		status                   int
		charged                  string
	}{
		{"a model", "POST", "/v1/chat/completions", `{"model":"m","messages":[]}`, pricing.Tariff{Models: models("m"), Tools: tools}, 200, "0.002"},
		{"no model, where tools are sold", "POST", "/v1/chat/completions", `{"messages":[]}`, pricing.Tariff{Models: models("m"), Tools: tools}, 422, "0"},
		{"no model, where only tools are sold", "POST", "/v1/messages", `{"max_tokens":9,"messages":[]}`, pricing.Tariff{Tools: tools}, 422, "0"},
		{"a path without a model", "POST", "/v1beta/models/m:countTokens/:generateContent", `{"contents":[]}`, pricing.Tariff{Models: models("m"), Tools: tools}, 422, "0"},
		{"a tool", "POST", "/mcp", strings.Replace(rpc, "%", "tools/call", 1), pricing.Tariff{Models: models("m"), Tools: tools}, 200, "0.01"},
		{"a catalog of tools", "POST", "/mcp", strings.Replace(rpc, "%", "tools/list", 1), pricing.Tariff{Tools: tools}, 200, "0"},
		{"a method of another protocol", "POST", "/mcp", strings.Replace(rpc, "%", "message/send", 1), pricing.Tariff{Models: models("*"), Tools: tools}, 422, "0"},
		{"a method that is sold as a tool", "POST", "/mcp", strings.Replace(rpc, "%", "answer", 1), pricing.Tariff{Tools: tools}, 200, "0.01"},
		{"a notification of such a method", "POST", "/mcp", `{"jsonrpc":"2.0","method":"answer"}`, pricing.Tariff{Tools: tools}, 422, "0"},
		{"a key of the provider", "POST", "/v1/realtime/client_secrets", `{}`, pricing.Tariff{Models: perCall}, 422, "0"},
		{"a token of the provider", "POST", "/v1alpha/auth_tokens", `{}`, pricing.Tariff{Models: perCall}, 422, "0"},
		{"other work, dressed as a chat", "POST", "/api/copy", `{"source":"b","destination":"m","model":"m","messages":[{"role":"user"}]}`, pricing.Tariff{Models: models("m")}, 422, "0"},
		{"other work, dressed as a message of MCP", "POST", "/api/copy", `{"source":"b","destination":"m","jsonrpc":"2.0","id":1,"method":"ping"}`, pricing.Tariff{Models: models("m"), Tools: tools}, 422, "0"},
		{"a method that is sold as a tool, dressed as a chat", "POST", "/mcp", `{"jsonrpc":"2.0","id":1,"method":"answer","model":"m","messages":[{"role":"user"}]}`, pricing.Tariff{Models: models("m"), Tools: tools}, 422, "0"},
		{"a model that the path names", "POST", "/v1/projects/p/locations/l/publishers/mistralai/models/b:rawPredict", `{"model":"m","messages":[{"role":"user"}]}`, pricing.Tariff{Models: models("m")}, 422, "0"},
		{"a message beside others", "POST", "/v1/chat", `{"model":"m","message":"x","messages":[{"role":"user"}]}`, pricing.Tariff{Models: models("m")}, 422, "0"},
		{"another form of an answer", "POST", "/v1beta/models/m:streamGenerateContent?alt=proto", `{"contents":[]}`, pricing.Tariff{Models: models("m")}, 422, "0"},
		{"any other call", "POST", "/v1/other", `{}`, pricing.Tariff{Models: perCall}, 200, "0.001"},
	} {
		must(t, test.tariff.Compile(nil))
		asked := 0
		s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{Tariff: &test.tariff, Shared: shared(t, "*")}, func(w http.ResponseWriter, r *http.Request) {
			asked++
			answer := `{"id":"1","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}`
			if r.URL.Path == "/mcp" {
				answer = `{"jsonrpc":"2.0","id":1,"result":{}}`
			}
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, answer)
		})
		response, body := s.call(s.key, test.method, test.path, test.body, "Content-Type", "application/json")
		charged := "0"
		for _, c := range s.charges() {
			charged = c.Amount.String()
		}
		if response.StatusCode != test.status || charged != test.charged || (test.status == 200) != (asked == 1) {
			t.Errorf("%s: %d %s, charged %s, the provider was asked %d times", test.name, response.StatusCode, body, charged, asked)
		}
	}
}
