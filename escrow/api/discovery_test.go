package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/shopspring/decimal"

	"github.com/tallygate/tallygate/escrow/api"
)

func TestDocumentsOfWhatIsSold(t *testing.T) {
	offer := map[string]any{"method": "x402", "intent": "charge", "amount": "100000", "currency": "0xasset", "network": "eip155:8453"}
	tariff := api.Tariff{Route: "/v1/*", Payee: "llm", Prices: []api.TariffPrice{{Class: "input", Amount: decimal.NewFromInt(3), Per: 1_000_000, Unit: "token"}}}
	sold := []api.Sold{
		{Path: "/v1/*", Methods: []string{"post"}, Offers: []map[string]any{offer}, Tariffs: []api.Tariff{tariff}, More: true},
		{Path: "/escrow", Methods: []string{"get"}, Tariffs: []api.Tariff{tariff}},
		{Path: "/a/*/b/*", Methods: []string{"get"}},
	}
	g := newGate(t, rules(), api.Options{Prefix: "/gate", Sold: func(*http.Request) []api.Sold { return sold }})
	doc := g.do("GET", "/openapi.json", "", "").want(200, "x-service-info.docs.llms", "/gate/llms.txt")
	paths := doc.body["paths"].(map[string]any)
	for path, part := range map[string]string{
		"/v1/{path}":          `"x-payment-info":{"offers":[{"amount":"100000"`,
		"/a/{path}/b/{path2}": `"name":"path2"`,
	} {
		if _, has := paths[path]; !has || !strings.Contains(doc.text, part) {
			t.Errorf("no %s with %s", path, part)
		}
	}
	if own, _ := paths["/escrow"].(map[string]any); own["post"] == nil || strings.Contains(fmt.Sprint(own), "x-prices") {
		t.Errorf("the API's own path is %v", own)
	}
	well := g.do("GET", "/.well-known/x402", "", "").want(200, "kind", "resource-server", "resources.0.url", "http://gate/v1/", "resources.0.method", "POST", "resources.0.accepts.0.amount", "100000")
	if n := len(well.body["resources"].([]any)); n != 1 {
		t.Errorf("%d resources: %s", n, well.text)
	}
	if text := g.do("GET", "/llms.txt", "", "").text; !strings.Contains(text, "- x402 (header PAYMENT-REQUIRED): 100000 units of 0xasset on eip155:8453\n\n## Register") {
		t.Errorf("the text is %s", text)
	}
	newGate(t, rules(), api.Options{}).do("GET", "/.well-known/x402", "", "").want(404)
}
