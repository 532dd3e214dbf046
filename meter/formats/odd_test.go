package formats_test

import (
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/tallygate/tallygate/internal/rounds"
	"github.com/tallygate/tallygate/meter"
)

// TestCutBeforeTheCompletion: a total of the prompt alone says nothing of what is still to come.
func TestCutBeforeTheCompletion(t *testing.T) {
	call, err := post("/v1beta/models/gemini-2.5-flash:streamGenerateContent", `{}`)
	if err != nil {
		t.Fatal(err)
	}
	c := call.Counter(200, http.Header{"Content-Type": {"text/event-stream"}})
	c.Feed(nil, []byte(events(`{"candidates":[{"content":{"parts":[{"text":"hello there, and more"}]}}],"usageMetadata":{"promptTokenCount":8,"totalTokenCount":8}}`)))
	if u := c.Usage(false); u.Units[meter.Output] == 0 || u.Source != meter.Estimated {
		t.Errorf("counted %v, %s", u.Units, u.Source)
	}
}

// TestNotFooled: a request to a model stays one, however it is dressed, and nothing else becomes one, or a message of MCP.
func TestNotFooled(t *testing.T) {
	for path, body := range map[string]string{
		"/v1/chat/completions": `{"jsonrpc":"2.0","method":"tools/list","model":"m","messages":[{"role":"user"}]}`,
		"/my/chat":             `{"jsonrpc":"2.0","method":"tools/list","model":"m","messages":[{"role":"user"}]}`,
	} {
		if c, err := post(path, body); err != nil || c.Free || c.API != "chat.completions" {
			t.Errorf("%s: %+v, %v", path, c, err)
		}
	}
	for _, body := range []string{
		`{"source":"dear","destination":"cheap","model":"cheap","messages":[{"role":"user"}]}`,
		`{"source":"dear","destination":"cheap","jsonrpc":"2.0","id":1,"method":"ping"}`,
		`{"jsonrpc":"2.0","id":1,"method":"dear","model":"cheap","messages":[{"role":"user"}]}`,
	} {
		if c, err := post("/api/copy", body); err == nil && (c.Free || c.API != "") {
			t.Errorf("%s: %+v", body, c)
		}
	}
	if _, err := post("/v1/responses", `{"model":"m","background":true,"stream":true}`); err == nil {
		t.Error("a stream of a response in the background was taken")
	}
	if _, err := post("/mcp", `{"jsonrpc":"2.0","id":1,"method":"tools/list","Method":"tools/call"}`); err == nil {
		t.Error("two methods were taken")
	}
}

// TestDeep: JSON that is nested without end is told from what can be read, not followed down.
func TestDeep(t *testing.T) {
	deep := strings.Repeat("[", rounds.Of(1<<20, 10<<20))
	for _, body := range []string{`{"model":"m","x":` + deep, `{"jsonrpc":"2.0","method":"tools/call","id":1,"params":` + deep, deep} {
		for _, path := range []string{"/v1/chat/completions", "/mcp"} {
			c, err := post(path, body)
			if err != nil { // refused is as good
				continue
			}
			if c.API != "" && !c.Malformed {
				t.Errorf("%s: %+v", path, c.API)
			}
			if c.API == "" {
				continue
			}
			r := c.Counter(200, http.Header{"Content-Type": {"application/json"}})
			r.Feed(nil, []byte(body))
			r.Usage(true)
		}
	}
}

// TestWide: JSON of very many parts takes no more memory than it has itself.
func TestWide(t *testing.T) {
	many := rounds.Of(1<<18, 2<<20)
	for _, body := range []string{
		"[" + strings.Repeat("1,", 4*many) + "1]",
		`[{"jsonrpc":"2.0","method":"ping"}` + strings.Repeat(",{}", 2*many) + "]",
		`{"model":"m","messages":[` + strings.Repeat("{},", 2*many) + "{}]}",
		`{"model":"m"` + strings.Repeat(`,"a":1`, many) + "}",
	} {
		for _, path := range []string{"/v1/chat/completions", "/mcp"} {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, _ = post(path, body)
			runtime.ReadMemStats(&after)
			if took := after.TotalAlloc - before.TotalAlloc; took > uint64(4*len(body)) {
				t.Errorf("%s, %.40s...: %d MB for a body of %d MB", path, body, took>>20, len(body)>>20)
			}
		}
	}
	keys := []byte(`{"model":"m"`)
	for i := range 2000 {
		keys = fmt.Appendf(keys, `,"k%d":1`, i)
	}
	if _, err := post("/v1/chat/completions", string(keys)+"}"); !errors.Is(err, meter.ErrTooManyKeys) {
		t.Errorf("2000 keys: %v", err)
	}
}
