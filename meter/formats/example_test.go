package formats_test

import (
	"fmt"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/formats"
)

// The format shows in the path and the body. A request that no format knows is metered too: by calls, events and bytes.
func ExampleInspect() {
	for _, request := range []struct{ path, body string }{
		{"/v1/chat/completions", `{"model":"gpt-4o","n":2,"max_tokens":100,"messages":[]}`},
		{"/v1beta/models/gemini-2.5-flash:streamGenerateContent", `{"contents":[]}`},
		{"/mcp", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search"}}`},
		{"/v1/messages/count_tokens", `{"model":"claude-haiku-4-5","messages":[]}`},
		{"/weather", `{"city":"Oslo"}`},
		{"/v1/chat/completions", `{"model":"cheap","model":"dear"}`},
	} {
		call, err := formats.Inspect(meter.Head{Method: "POST", Path: request.path}, []byte(request.body))
		if err != nil {
			fmt.Println("refused:", err)
			continue
		}
		fmt.Printf("api=%q model=%q stream=%v free=%v max_output=%d tools=%q\n", call.API, call.Model, call.Stream, call.Free, call.MaxOutput, call.Tools)
	}
	// Output:
	// api="chat.completions" model="gpt-4o" stream=false free=false max_output=200 tools=[]
	// api="streamGenerateContent" model="gemini-2.5-flash" stream=true free=false max_output=0 tools=[]
	// api="mcp" model="" stream=true free=false max_output=0 tools=["search"]
	// api="messages.count_tokens" model="claude-haiku-4-5" stream=false free=true max_output=0 tools=[]
	// api="" model="" stream=false free=false max_output=0 tools=[]
	// refused: model: the key occurs twice in its object, perhaps in another spelling: state it once
}
