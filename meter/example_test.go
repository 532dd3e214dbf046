package meter_test

import (
	"fmt"
	"log"
	"net/http"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/formats"
)

// A request and its whole answer: what was asked for, and what it used.
func Example() {
	call, err := formats.Inspect(meter.Head{Method: "POST", Path: "/v1/chat/completions"},
		[]byte(`{"model": "gpt-4o-mini", "max_tokens": 50, "messages": [{"role": "user", "content": "How do owls hunt?"}]}`))
	if err != nil {
		log.Fatal(err) // the request can't be metered for sure
	}
	fmt.Println("asked:", call.API, call.Model, "at most", call.MaxOutput, "tokens of output")

	counter := call.Counter(http.StatusOK, http.Header{"Content-Type": {"application/json"}})
	counter.Feed(nil, []byte(`{"model": "gpt-4o-mini-2024-07-18", "choices": [{"message": {"content": "By ear."}}],
		"usage": {"prompt_tokens": 12, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}}`))
	usage := counter.Usage(true)
	fmt.Println("used:", usage.Model, usage.Units)
	fmt.Println("source:", usage.Source)
	// Output:
	// asked: chat.completions gpt-4o-mini at most 50 tokens of output
	// used: gpt-4o-mini-2024-07-18 byte=190,cached=4,call=1,input=8,output=3
	// source: stated
}

// A stream goes on to the client piece by piece. What makes the client believe that it is complete stays back until the end,
// so that it can be charged first.
func Example_stream() {
	call, err := formats.Inspect(meter.Head{Method: "POST", Path: "/v1/chat/completions"},
		[]byte(`{"model":"gpt-4o-mini","stream":true,"messages":[{"role":"user","content":"How do owls hunt?"}]}`))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("to the provider: %s\n", call.Body) // the usage is asked for, too

	counter := call.Counter(http.StatusOK, http.Header{"Content-Type": {"text/event-stream"}})
	for _, chunk := range []string{
		"data: {\"choices\":[{\"delta\":{\"content\":\"By \"}}]}\n\ndata: {\"choi",
		"ces\":[{\"delta\":{\"content\":\"ear.\"}}]}\n\n",
		"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":3}}\n\n",
		"data: [DONE]\n\n",
	} {
		fmt.Printf("to the client: %q\n", counter.Feed(nil, []byte(chunk)))
	}
	usage := counter.Usage(true) // charge it, and only then send the rest
	fmt.Println("used:", usage.Units)
	fmt.Printf("to the client: %q\n", counter.Tail())
	// Output:
	// to the provider: {"model":"gpt-4o-mini","stream":true,"messages":[{"role":"user","content":"How do owls hunt?"}],"stream_options":{"include_usage":true}}
	// to the client: "data: {\"choices\":[{\"delta\":{\"content\":\"By \"}}]}\n\n"
	// to the client: "data: {\"choices\":[{\"delta\":{\"content\":\"ear.\"}}]}\n\n"
	// to the client: ""
	// to the client: ""
	// used: byte=113,call=1,event=2,input=12,output=3
	// to the client: "data: [DONE]\n\n"
}

// The client hangs up in the middle: what it got is counted by a local tokenizer, and the usage says so.
func Example_cut() {
	call, err := formats.Inspect(meter.Head{Method: "POST", Path: "/v1/messages"},
		[]byte(`{"model":"claude-haiku-4-5","max_tokens":500,"stream":true,"messages":[{"role":"user","content":"How do owls hunt?"}]}`))
	if err != nil {
		log.Fatal(err)
	}
	counter := call.Counter(http.StatusOK, http.Header{"Content-Type": {"text/event-stream"}})
	counter.Feed(nil, []byte(`data: {"type":"message_start","message":{"model":"claude-haiku-4-5","usage":{"input_tokens":13,"output_tokens":1}}}`+"\n\n"))
	counter.Feed(nil, []byte(`data: {"type":"content_block_delta","delta":{"type":"text_delta","text":"Owls hunt by"}}`+"\n\n"))
	usage := counter.Usage(false)
	fmt.Println("input:", usage.Units[meter.Input], "output:", usage.Units[meter.Output], usage.Source)
	// Output:
	// input: 13 output: 6 estimated
}

// A request without a limit of its own is given one, here of what the client can still pay.
func ExampleCall_LimitOutput() {
	call, err := formats.Inspect(meter.Head{Method: "POST", Path: "/v1/responses"}, []byte(`{"model":"gpt-5","input":"Tell me everything about owls."}`))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(call.LimitOutput(800), call.MaxOutput)
	fmt.Println(string(call.Body))
	// Output:
	// true 800
	// {"model":"gpt-5","input":"Tell me everything about owls.","max_output_tokens":800}
}
