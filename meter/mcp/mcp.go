// Package mcp reads the Model Context Protocol over streamable HTTP. [Inspect] recognises a request. A POST has a JSON-RPC message or, in
// an older revision, a batch of them. Its answer is JSON, or a stream of events with notifications before the result.
// https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#streamable-http
package mcp

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/wire"
)

const (
	maxCalls = 1024 // in a batch
	maxID    = 1024 // bytes of an id
)

// calls is the API of one request. tools are the names of the tools that it calls, by the ids that their answers will have. others are the ids of
// its messages that call none. stored is what it has to do with tasks, which the server keeps.
type calls struct {
	wire.API
	tools  map[string]string
	others map[string]bool
	stored meter.Stored
}

// waiting are the calls of a request whose answers have not come yet, as its answer goes by.
type waiting struct {
	tools     map[string]string
	known     map[string]bool // ids of messages that call no tool, and of answers that were read
	succeeded int64           // calls, by their own ids
	unmatched int             // results for ids that nobody has asked with: the server has written the ids in its own way
}

// take returns the tool that an answer is of. A repeated answer is of none.
func (w *waiting) take(id string) (tool string, found bool) {
	tool, found = w.tools[id]
	delete(w.tools, id)
	if found {
		w.known[id] = true
	}
	return tool, found
}

// unmatch notes a result for an id that nobody has asked with. It is that of a call all the same, but nobody knows of which.
func (w *waiting) unmatch(id string) {
	if !w.known[id] && w.unmatched < len(w.tools) {
		w.known[id] = true
		w.unmatched++
	}
}

// tell states in t how many calls have succeeded.
func (w *waiting) tell(t *wire.State) {
	w.unmatched = min(w.unmatched, len(w.tools))
	if n := w.succeeded + int64(w.unmatched); n > 0 {
		t.Sums[meter.ToolCall] = meter.Whole(n)
	}
	if t.Unmatched = int64(w.unmatched); w.unmatched > 0 {
		t.Waiting = slices.Sorted(maps.Values(w.tools))
	}
}

// Counter implements [meter.Format].
func (a *calls) Counter(c *meter.Call, status int, h http.Header) meter.Counter {
	w := &waiting{tools: maps.Clone(a.tools), known: maps.Clone(a.others)}
	return wire.NewCounter(answers.Starting(func(t *wire.State, _ http.Header) {
		t.Scratch = w
		t.Tools, t.ToolsFailed = map[string]int64{}, map[string]int64{}
		if status != http.StatusAccepted && status != http.StatusNoContent {
			return
		}
		// A server of an older revision has accepted the calls, and answers them on another stream, where they are not counted.
		for id, tool := range a.tools {
			delete(w.tools, id)
			t.Tools[tool]++
			w.succeeded++
		}
		w.tell(t)
	}), c, status, h)
}

// answers matches answers to calls. A call has failed if its answer is an error, or a result with isError.
// https://modelcontextprotocol.io/specification/2025-11-25/server/tools#error-handling
var answers = wire.New(wire.Dialect{
	Rules: []wire.Rule{
		{Path: "id"}, {Path: "result", Mark: true}, {Path: "result.isError"}, {Path: "result.resultType"}, {Path: "error", Mark: true}, {Path: "error"},
		{Path: "result.task.taskId", Makes: tasks}, {Path: "result.taskId", Makes: tasks}, // the latter: the draft, and A2A
		{Path: "result.task.id", Makes: tasks}, {Path: "result.id", Makes: tasks}, // A2A
	},
	Elements: true,
	End: func(t *wire.State, m *wire.Message) wire.Verdict {
		waiting := t.Scratch.(*waiting)
		failed := m.Failed("error")
		if !failed && !m.Has("result") {
			return wire.Pass
		}
		id, _ := idOf(m.Get("id"))
		tool, asked := waiting.take(id)
		switch isError := failed || m.Get("result.isError").Bool(); {
		case asked && isError:
			t.ToolsFailed[tool]++
		case m.Get("result.resultType").Str == "input_required":
			// The server asks its client something. The client calls the tool again with its answer, and that call gets the result:
			// https://modelcontextprotocol.io/specification/draft/basic/patterns/mrtr
		case asked:
			t.Tools[tool]++
			waiting.succeeded++
		case !isError:
			waiting.unmatch(id)
		}
		waiting.tell(t)
		if len(waiting.tools) == waiting.unmatched {
			return wire.Final // a server should close the stream now
		}
		return wire.Pass
	},
	Stop: func(code, message string) []wire.Note {
		return []wire.Note{{Event: "message", Data: wire.JSON(map[string]any{
			"jsonrpc": "2.0", "id": nil, "error": map[string]any{"code": -32000, "message": code + ": " + message}})}}
	},
})

// Inspect recognises a request by its body, a POST of JSON-RPC 2.0. It returns nil for other requests. A message that calls no tool is
// free: a ping, a notification, or a client's response to a question of the server during a call (sampling, elicitation, roots). A method that
// MCP does not have is priced as a tool of its name. A GET that
// opens or resumes a stream, and a DELETE that ends a session, cost nothing either: the calls whose answers they bring were charged when
// they were made.
func Inspect(r *wire.Request) (*meter.Call, error) {
	if r.Method != http.MethodPost {
		return nil, nil
	}
	if !r.Batch() && !r.Object() {
		return nil, unreadable(r)
	}
	body := gjson.ParseBytes(r.Body)
	first := body
	if body.IsArray() {
		first = body.Get("0")
	}
	if !isRPC(first) && !isResponse(first) {
		return nil, refuseHidden(r, body)
	}
	api := &calls{tools: map[string]string{}, others: map[string]bool{}}
	api.Name = "mcp"
	var err error
	add := func(_, m gjson.Result) bool {
		err = api.add(m)
		return err == nil
	}
	if body.IsArray() {
		body.ForEach(add)
	} else {
		add(gjson.Result{}, body)
	}
	if err != nil {
		return nil, err
	}
	c := r.Call(&api.API)
	c.Malformed = false
	c.Format = api
	c.Stream, c.InputOnly, c.InputOpen = true, true, false
	c.Tools = slices.Sorted(maps.Values(api.tools))
	c.Free = len(api.tools) == 0
	c.Stored = api.stored
	c.Stored.Makes = !c.Free
	return c, nil
}

// add notes the call in a message, if it calls a tool.
func (a *calls) add(m gjson.Result) error {
	if !isRPC(m) && m.Get("method").Exists() || !m.IsObject() {
		return &meter.AmbiguousError{Field: "method", Reason: "expected a message of JSON-RPC 2.0 and nothing else"}
	}
	method := m.Get("method").String()
	if like := likeness(method); like != "" && method != like {
		return &meter.AmbiguousError{Field: "method", Reason: "expected " + like}
	}
	a.nameTasks(method, m.Get("params"))
	if method == "" || methods[method] || strings.HasPrefix(method, "notifications/") {
		if id, ok := idOf(m.Get("id")); ok && len(a.others) < maxCalls {
			a.others[id] = true
		}
		return nil
	}
	id, ok := idOf(m.Get("id"))
	if _, twice := a.tools[id]; !ok || twice || len(a.tools) == maxCalls {
		return fmt.Errorf("%w: %.40s of id %.40s", meter.ErrUnanswered, method, m.Get("id").Raw)
	}
	if method != toolsCall {
		a.tools[id] = method
		return nil
	}
	name := m.Get("params.name")
	if !m.Get("params").IsObject() || name.Type != gjson.String || strings.ContainsFunc(name.Str, unicode.IsControl) || strings.TrimSpace(name.Str) != name.Str {
		return &meter.AmbiguousError{Field: "params.name", Reason: "expected the name of a tool"}
	}
	a.tools[id] = name.Str
	return nil
}

// toolsCall is the method that calls a tool.
const toolsCall = "tools/call"

// methods are the others of MCP, which are free. A method of another protocol, or of a server's own, is work whose price is that of a tool of
// its name. https://modelcontextprotocol.io/specification/2025-11-25/schema, and the draft that follows it
var methods = func() map[string]bool {
	names := map[string]bool{}
	for name := range strings.FieldsSeq("initialize ping server/discover logging/setLevel completion/complete tools/list prompts/list prompts/get " +
		"resources/list resources/templates/list resources/read resources/subscribe resources/unsubscribe subscriptions/listen " +
		"tasks/get tasks/list tasks/result tasks/cancel tasks/update sampling/createMessage elicitation/create roots/list") {
		names[name] = true
	}
	return names
}()

// tasks is the kind of what a server keeps of a call that it has taken on as a task. Later requests name it by its id.
// https://modelcontextprotocol.io/specification/2025-11-25/basic/utilities/tasks, https://a2a-protocol.org/latest/specification
const tasks = "tasks"

// errTasksListed is why a list of tasks is refused.
var errTasksListed = errors.New("the server's tasks are not those of one agent alone, so they are not listed: ask for each by its id")

// nameTasks notes the tasks that a request names, wherever it does so but in what a tool is called with.
func (a *calls) nameTasks(method string, params gjson.Result) {
	about := strings.HasPrefix(method, tasks+"/")
	if !about && !methods[method] && method != toolsCall {
		return // its parameters are what a tool is called with
	}
	if method == "tasks/list" {
		a.stored.Unclear = errTasksListed
		return
	}
	named := false
	var walk func(v gjson.Result, top bool)
	name := func(id gjson.Result) {
		named = true
		r, ok := meter.NamedResource(tasks, id.String())
		if !ok || id.Type != gjson.String {
			r.ID = ""
		}
		switch {
		case slices.Contains(a.stored.Uses, r):
		case len(a.stored.Uses) == maxCalls:
			a.stored.Unclear = &meter.AmbiguousError{Field: "params", Reason: "the body names more than 1024 tasks"}
		default:
			a.stored.Uses = append(a.stored.Uses, r)
		}
	}
	walk = func(v gjson.Result, top bool) {
		v.ForEach(func(key, v gjson.Result) bool {
			switch {
			case strings.EqualFold(key.Str, "arguments"):
			case v.IsObject() || v.IsArray() && !strings.EqualFold(key.Str, "taskIds"):
				walk(v, false)
			case v.IsArray():
				v.ForEach(func(_, id gjson.Result) bool { name(id); return true })
			case strings.EqualFold(key.Str, "taskId"), about && top && strings.EqualFold(key.Str, "id"): // the latter: A2A
				name(v)
			}
			return true
		})
	}
	walk(params, true)
	if about && !named {
		name(gjson.Result{})
	}
}

// strict are the methods that a server must not read in another way than this package, by their letters: those that call a tool, and those that
// name a task.
var strict = func() map[string]string {
	byLetters := map[string]string{"toolscall": toolsCall, "calltool": toolsCall, "toolcall": toolsCall}
	for method := range methods {
		if strings.HasPrefix(method, tasks+"/") {
			byLetters[letters(method)] = method
		}
	}
	return byLetters
}()

// likeness returns the one of those that a server which is less strict could take a method for: one that ignores case and punctuation, or decodes
// the method as a path. It is empty if there is none.
func likeness(method string) string {
	if decoded, err := url.PathUnescape(method); err == nil {
		method = decoded
	}
	return strict[letters(method)]
}

// letters are the letters of a method, in lower case.
func letters(method string) string {
	return strings.Map(func(c rune) rune {
		if c >= 0xFF01 && c <= 0xFF5E { // the wide forms of ASCII
			c -= 0xFEE0
		}
		switch c = unicode.ToLower(c); {
		case c == 'ſ':
			return 's'
		case 'a' <= c && c <= 'z':
			return c
		}
		return -1
	}, method)
}

// refuseHidden refuses what is not a valid JSON-RPC message, but would call a tool or name a task on a server that is less strict.
func refuseHidden(r *wire.Request, body gjson.Result) error {
	hidden := func(m gjson.Result) bool {
		return m.Get("method").Type == gjson.String && likeness(m.Get("method").Str) != ""
	}
	found := body.IsObject() && hidden(body)
	if body.IsArray() {
		body.ForEach(func(_, m gjson.Result) bool {
			found = m.IsObject() && hidden(m)
			return !found
		})
	}
	if found {
		r.Refuse("method", "expected a message of JSON-RPC 2.0 and nothing else")
		return r.Err()
	}
	return nil
}

// unreadable refuses a body that is not JSON, but would call a tool or name a task on a server that accepts comments or UTF-16.
func unreadable(r *wire.Request) error {
	if begin := bytes.TrimLeft(r.Body, " \t\r\n\x00\xFE\xFF"); len(begin) == 0 || !bytes.ContainsAny(begin[:1], "{[/#") {
		return nil
	}
	text := bytes.ReplaceAll(r.Body, []byte{0}, nil)
	if bytes.IndexByte(text, '\\') >= 0 {
		text = escapes.ReplaceAllFunc(text, func(e []byte) []byte {
			n, _ := strconv.ParseUint(string(e[len(e)-2:]), 16, 8)
			return []byte{byte(n)}
		})
		text = bytes.ReplaceAll(text, []byte(`\/`), []byte("/"))
	}
	text = bytes.ToLower(text)
	for _, method := range strict {
		if bytes.Contains(text, []byte(method)) {
			return &meter.AmbiguousError{Field: "body", Reason: "expected JSON in UTF-8"}
		}
	}
	return nil
}

// escapes are the escapes of ASCII characters in JSON and its extensions.
var escapes = regexp.MustCompile(`(?i)\\(u00|x)[0-9a-f]{2}`)

// idOf returns a message's id in a form that can be compared, since servers may write the same number or text in another way than the
// request. ok is false if it is not a valid id: a server may take such a message for a notification, and still do the work.
func idOf(v gjson.Result) (id string, ok bool) {
	switch v.Type {
	case gjson.Number:
		number := v.Num + 0 // -0 is 0
		return strconv.FormatFloat(number, 'g', -1, 64), !math.IsInf(v.Num, 0) && !math.IsNaN(v.Num)
	case gjson.String:
		return v.Str, len(v.Str) <= maxID
	default:
		return "", false
	}
}

// isRPC reports whether v is a message of JSON-RPC, and nothing else: it has no field that makes it a request to a server of another kind.
// https://www.jsonrpc.org/specification#request_object
func isRPC(v gjson.Result) bool {
	return hasOnly(v, "jsonrpc", "id", "method", "params") && v.Get("jsonrpc").String() == "2.0" && v.Get("method").Type == gjson.String
}

// isResponse reports whether v answers a request of the server, and is nothing else: it has no field that another program could take for a
// call. https://www.jsonrpc.org/specification#response_object
func isResponse(v gjson.Result) bool {
	return hasOnly(v, "jsonrpc", "id", "result", "error") && v.Get("jsonrpc").String() == "2.0" && v.Get("id").Exists() &&
		v.Get("result").Exists() != v.Get("error").Exists()
}

// hasOnly reports whether v is an object whose fields have these names, each at most once.
func hasOnly(v gjson.Result, names ...string) bool {
	if !v.IsObject() {
		return false
	}
	seen, only := 0, true
	v.ForEach(func(key, _ gjson.Result) bool {
		at := slices.Index(names, key.Str)
		only = at >= 0 && seen>>at&1 == 0
		if only {
			seen |= 1 << at
		}
		return only
	})
	return only
}
