package gateway_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/pricing"
)

// TestATaskBelongsToWhoCalledTheTool: what an MCP server has taken on as a task is asked for and cancelled by the agent whose call made it, and by
// nobody else, in whichever way server and client speak of tasks.
func TestATaskBelongsToWhoCalledTheTool(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ call, result, get string }{
		"MCP of 2025-11-25": {`"method":"tools/call","params":{"name":"slow","arguments":{},"task":{"ttl":60000}}`, `{"task":{"taskId":"t1","status":"working"}}`, `"method":"tasks/result","params":{"taskId":"t1"}`},
		"MCP's extension":   {`"method":"tools/call","params":{"name":"slow","arguments":{}}`, `{"resultType":"task","taskId":"t1","status":"working"}`, `"method":"tasks/get","params":{"taskId":"t1"}`},
		"A2A":               {`"method":"message/send","params":{"message":{}}`, `{"kind":"task","id":"t1","status":{"state":"submitted"}}`, `"method":"tasks/get","params":{"id":"t1"}`},
	} {
		for _, stream := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", stream ", stream), func(t *testing.T) {
				t.Parallel()
				s := openShop(t, escrow.Rules{}, gateway.Options{}, toolRoute(t), func(w http.ResponseWriter, _ *http.Request) {
					answer := `{"jsonrpc":"2.0","id":1,"result":` + test.result + `}`
					if stream {
						w.Header().Set("Content-Type", "text/event-stream")
						fmt.Fprintf(w, "data: %s\n\n", answer)
						return
					}
					w.Header().Set("Content-Type", "application/json")
					fmt.Fprint(w, answer)
				})
				bob := s.another("bob")
				rpc := func(key, message string) (int, string) {
					r, answer := s.call(key, http.MethodPost, "/mcp", `{"jsonrpc":"2.0","id":1,`+message+`}`)
					return r.StatusCode, answer
				}
				status, answer := rpc(s.key, test.get)
				want(t, "before the call: "+answer, status, http.StatusNotFound)
				status, answer = rpc(s.key, test.call)
				want(t, "the call: "+answer, status, http.StatusOK)
				for _, message := range []string{test.get, strings.Replace(test.get, "tasks/result", "tasks/cancel", 1), strings.Replace(test.get, "tasks/result", "tasks/get", 1)} {
					status, answer = rpc(s.key, message)
					want(t, message+": "+answer, status, http.StatusOK)
					status, answer = rpc(bob, message)
					want(t, "another's "+message+": "+answer, status, http.StatusNotFound)
					want(t, "code", gjson.Get(answer, "code").String(), "unknown_resource")
				}
				status, answer = rpc(bob, `"method":"tasks/list"`)
				want(t, "the list: "+answer, status, http.StatusUnprocessableEntity)
				want(t, "charges", len(s.charges()), 1)
			})
		}
	}
}

// toolRoute has a price for tools alone.
func toolRoute(t *testing.T) gateway.Route {
	t.Helper()
	price, err := pricing.ParseToolPrice(strings.Fields("* 0.01 per call"))
	must(t, err)
	tariff := &pricing.Tariff{Tools: []pricing.ToolPrice{price}}
	must(t, tariff.Compile(nil))
	return gateway.Route{Tariff: tariff}
}
