package gateway_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/pricing"
)

// TestToolsOfABatch: the tools that ran for an answer cost as much in the results of a batch as where the answer comes at once.
func TestToolsOfABatch(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("words ", 20_000) // more than is kept of an item
	for name, test := range map[string]struct{ output, beside, usage, charge string }{
		"none":           {`{"type":"message","content":[]}`, ``, ``, "0.01"},
		"web searches":   {`{"type":"web_search_call","action":{"type":"search"}},{"type":"web_search_call","action":{"type":"open_page"}},{"type":"web_search_call","action":{"type":"search","query":"` + long + `"}}`, ``, ``, "1.01"},
		"stated beside":  {`{"type":"web_search_call"}`, `"tool_usage":{"web_search":{"num_requests":3}},`, ``, "1.51"},
		"stated by xAI":  {`{"type":"message"}`, ``, `"server_side_tool_usage_details":{"web_search_calls":1,"x_search_calls":1,"file_search_calls":1,"code_interpreter_calls":1},`, "1.13"},
		"file searches":  {`{"type":"file_search_call","results":[{"text":"` + long + `"}]},{"type":"file_search_call"}`, ``, ``, "0.05"},
		"code":           {`{"type":"code_interpreter_call","container_id":"c1"},{"type":"code_interpreter_call","container_id":"c1"},{"type":"code_interpreter_call","container_id":"c2"}`, ``, ``, "0.21"},
		"an image model": {`{"type":"image_generation_call","result":"AAAA"}`, `"tool_usage":{"image_gen":{"input_tokens":0,"output_tokens":10,"total_tokens":10}},`, ``, "0.51"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			answer := `{"id":"r1","object":"response","status":"completed","model":"m","output":[` + test.output + `],` + test.beside +
				`"usage":{` + test.usage + `"input_tokens":0,"output_tokens":1,"total_tokens":1}}`
			provider := new(shelf)
			provider.put("/v1/responses", "application/json", answer)
			provider.put("/v1/files/f/content", "application/octet-stream", `{"custom_id":"1","response":{"status_code":200,"body":`+answer+"}}\n")
			for _, ask := range []struct{ method, path, body string }{{"POST", "/v1/responses", `{"model":"m","input":"x","store":false,"max_output_tokens":16}`}, {"GET", "/v1/files/f/content", ""}} {
				s := openShop(t, escrow.Rules{}, gateway.Options{}, toolsRoute(t), provider.ServeHTTP)
				must(t, s.do(func(tx *escrow.Tx) error {
					_, err := tx.Deposit(operator, escrow.PaymentOrder{To: "alice", Amount: amount("10")})
					return err
				}))
				r, body := s.call(s.key, ask.method, ask.path, ask.body)
				want(t, ask.path+": "+body[:min(len(body), 200)], r.StatusCode, http.StatusOK)
				want(t, ask.path, s.charged(), test.charge)
			}
		})
	}
}

// charged is what the last call cost.
func (s *shop) charged() string { return s.charges()[0].Amount.String() }

// toolsRoute has prices for what tools use.
func toolsRoute(t *testing.T) gateway.Route {
	t.Helper()
	model := func(glob string, prices ...string) pricing.Model {
		m := pricing.Model{Glob: glob}
		for _, price := range prices {
			class, words, _ := strings.Cut(price, " ")
			p, err := pricing.ParseClassPrice(class, strings.Fields(words))
			must(t, err)
			m.Prices = append(m.Prices, p)
		}
		return m
	}
	tariff := &pricing.Tariff{Models: []pricing.Model{
		model("m", "output 0.01 per token", "web_search 0.5 per web_search", "file_search 0.02 per file_search", "code_session 0.1 per code_session"),
		model("gpt-image-1", "output 0.05 per token"),
	}}
	must(t, tariff.Compile(nil))
	return gateway.Route{Tariff: tariff, Shared: shared(t, "*")}
}
