package gateway

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/tidwall/gjson"
	"github.com/tidwall/sjson"

	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/meter"
)

// ToolRail is a rail that can be paid inside of the Model Context Protocol: a call of a tool brings the payment in its _meta, and a call that
// is refused for lack of money gets a result that says how to pay. So a client of MCP needs to know nothing of HTTP.
type ToolRail interface {
	Rail
	// MetaName is the name under which the _meta of a call has a payment.
	MetaName() string
	// TakeTool reads a payment from the _meta of a call, as Take does from the header of a request.
	TakeTool(payment json.RawMessage) (Payable, error)
	// ChallengeTool returns what a client is told in the result of a call that needs a payment.
	ChallengeTool(need Need) any
}

func (g *Gateway) toolRail() (ToolRail, bool) {
	for _, rail := range g.options.Rails {
		if rail, is := rail.(ToolRail); is {
			return rail, true
		}
	}
	return nil, false
}

// toolCall returns the message of a request that calls one tool of an MCP server, and nothing else. It needs the body.
func (a *arrival) toolCall() (message gjson.Result, is bool) {
	if a.body == nil || a.request.Method != http.MethodPost {
		return message, false
	}
	message = gjson.ParseBytes(a.body)
	return message, message.IsObject() && message.Get("jsonrpc").Str == "2.0" && message.Get("method").Str == "tools/call" && message.Get("id").Exists()
}

// redeemTool takes the payment from the _meta of a tool's call, if there is one, and makes its payer the payer of the call.
func (a *arrival) redeemTool() (paid bool, refusal *ledger.Refusal) {
	rail, takes := a.gateway.toolRail()
	if !takes || !a.mayBeTool() {
		return false, nil
	}
	if a.body == nil {
		if refusal := a.readBody(); refusal != nil {
			return false, refusal
		}
		setBody(a.request, a.body)
	}
	message, is := a.toolCall()
	if !is {
		return false, nil
	}
	payment := message.Get("params._meta").Get(escapePath(rail.MetaName()))
	if !payment.Exists() {
		return false, nil
	}
	p, err := rail.TakeTool(json.RawMessage(payment.Raw))
	if err != nil {
		return false, asRefusal(err)
	}
	if refusal := a.dropMeta(rail.MetaName()); refusal != nil {
		return false, refusal
	}
	if err := a.accept(rail, p); err != nil {
		return false, asRefusal(err)
	}
	return true, nil
}

// mayBeTool reports whether a request may be a message of MCP on a route that reads such messages.
func (a *arrival) mayBeTool() bool {
	r := a.request
	return r.Method == http.MethodPost && hasBody(r) && a.route.sellsTools() && !a.route.Shadow && checkReading(r) == nil
}

// sellsTools reports whether a route has prices for the calls of tools.
func (r *Route) sellsTools() bool {
	return r.Tariff.ToolsOnly() || r.Rates != nil && r.Rates.Uses(meter.ToolCall)
}

// dropMeta removes a payment from the _meta of a call, since it is not for the server of the tool.
func (a *arrival) dropMeta(name string) *ledger.Refusal {
	path := "params._meta." + escapePath(name)
	for gjson.GetBytes(a.body, path).Exists() { // a name may be there twice
		body, err := sjson.DeleteBytes(a.body, path)
		if err != nil || len(body) >= len(a.body) {
			return refusePayment("the payment can't be read", "invalid_payload")
		}
		a.body = body
	}
	setBody(a.request, a.body)
	return nil
}

// escapePath writes a member's name as a part of a path of gjson.
func escapePath(name string) string {
	return strings.NewReplacer(".", `\.`, "*", `\*`, "?", `\?`).Replace(name)
}

// passesFree reports whether a request of a caller without key and payment is one that costs nothing, such as the opening of a session of
// MCP or the list of its tools. Without these no client of MCP would get as far as to a call, and so to a payment.
func (a *arrival) passesFree() bool {
	if _, takes := a.gateway.toolRail(); !takes || !a.mayBeTool() || a.body == nil {
		return false
	}
	q := &asked{arrival: a, rates: a.route.Rates}
	call, err := q.inspect(a.request, a.body)
	if err != nil || call.API != "mcp" || call.Malformed || leavesHTTP(a.request) {
		return false
	}
	q.call = call
	return q.free()
}

// boundFree limits, by address, messages that nobody pays and for which the provider works.
func (a *arrival) boundFree() *ledger.Refusal {
	if often := api.FreeMessages.Take(a.gateway.book.Claims(), a.gateway.options.Client(a.request)); often != nil {
		return asRefusal(often)
	}
	return nil
}

// tellTool answers a call of a tool that needs a payment with a result that says how to pay. told is false if that is not the way to answer.
func (a *arrival) tellTool(w http.ResponseWriter, refusal *ledger.Refusal) (told bool) {
	rail, takes := a.gateway.toolRail()
	message, is := a.toolCall()
	if !takes || !is || !a.offersRails(refusal) {
		return false
	}
	required, err := json.Marshal(rail.ChallengeTool(a.need(refusal)))
	if err != nil {
		return false // can't happen: it has only texts and numbers
	}
	result := map[string]any{
		"isError": true, "structuredContent": json.RawMessage(required), "content": []map[string]string{{"type": "text", "text": string(required)}},
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(map[string]any{"jsonrpc": "2.0", "id": json.RawMessage(message.Get("id").Raw), "result": result})
	return true
}
