package gateway_test

import (
	"strings"
	"testing"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/pricing"
)

// TestResultsOfUnknownCalls: a server answers a batch of tool calls with ids of its own. What may be a result of the expensive tool is charged as
// one.
func TestResultsOfUnknownCalls(t *testing.T) {
	t.Parallel()
	tariff := &pricing.Tariff{}
	for _, tool := range []string{"a_cheap 0.001 per call", "b_dear 0.01 per call", "* 0.002 per call"} {
		price, err := pricing.ParseToolPrice(strings.Fields(tool))
		must(t, err)
		tariff.Tools = append(tariff.Tools, price)
	}
	must(t, tariff.Compile(nil))
	const request = `[{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a_cheap"}},{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"b_dear"}},{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"c"}}]`
	for _, test := range []struct {
		name, answer, charge string
		suspect              bool
	}{
		{"its own ids", `[{"id":1,"result":{}},{"id":3,"result":{}},{"id":2,"error":{"code":1}}]`, "0.003", false},
		{"one of any", `[{"id":"x","result":{}}]`, "0.01", true},
		{"two of any", `[{"id":"x","result":{}},{"id":"y","result":{}}]`, "0.012", true},
		{"all", `[{"id":"x","result":{}},{"id":"y","result":{}},{"id":"z","result":{}}]`, "0.013", false},
		{"the expensive one is known", `[{"id":2,"result":{}},{"id":"y","result":{}}]`, "0.012", true},
		{"the last that is left", `[{"id":2,"result":{}},{"id":3,"result":{}},{"id":"y","result":{}}]`, "0.013", false},
	} {
		s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{Tariff: tariff}, document("Content-Type", "application/json", test.answer))
		if _, body, complete := (sold{path: "/mcp", request: request}).ask(t, s, false); !complete {
			t.Fatalf("%s: %s", test.name, body)
		}
		charge := s.charges()[0]
		want(t, test.name, charge.Amount, test.charge)
		want(t, test.name+": suspect", charge.Suspect, test.suspect)
	}
}
