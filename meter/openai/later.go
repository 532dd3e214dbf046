package openai

import (
	"net/http"
	"strings"

	"github.com/tidwall/sjson"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/wire"
)

// The kinds of answers that are fetched later.
const (
	laterResponse = "response"
	laterChat     = "deferred"
	laterAsync    = "async"
)

// asyncAPI is an answer inside an object that states the status of its request.
// https://docs.perplexity.ai/api-reference/async-sonar-api-request-get
var asyncAPI = &wire.API{Name: "chat.completions", Dialect: wire.New(wrapped("response."))}

// wrapped returns the dialect of chat for answers that are below a path.
func wrapped(at string) wire.Dialect {
	d := chat
	d.Rules, d.Answers, d.Edit = nil, nil, nil
	for _, rule := range chat.Rules {
		if rule.In != wire.Stream {
			rule.Path = at + rule.Path
			d.Rules = append(d.Rules, rule)
		}
	}
	for _, path := range chat.Answers {
		d.Answers = append(d.Answers, at+path)
	}
	d.Rules = append(d.Rules, wire.Rule{Path: "id", Makes: "chat/completions"}, wire.Rule{Path: "status"}, wire.Rule{Path: "model"})
	d.End = func(t *wire.State, m *wire.Message) wire.Verdict {
		t.ID, t.Model = m.Get("id").String(), m.Get("model").String()
		switch m.Get("status").String() {
		case "FAILED":
			t.Failed = true
		case "COMPLETED":
		default:
			t.Pending = true
		}
		return endChatAt(t, m, at)
	}
	return d
}

// wrappedFormat is an API whose requests are inside an object too, so that their output can't be limited here.
type wrappedFormat struct{ meter.Format }

func (wrappedFormat) LimitOutput(*meter.Call, int64) bool { return false }
func (wrappedFormat) LeastOutput(*meter.Call) int64       { return 0 }

// inspectAsync reads a request for chat completions that are fetched later. Perplexity's is inside an object; Z.ai's is not
// (https://docs.z.ai/api-reference).
func inspectAsync(r *wire.Request) (*meter.Call, error) {
	if !r.Has("request") {
		c, err := inspectChat(r, chatAPI, nil)
		return answeredLater(r, c, laterAsync, err)
	}
	if !r.IsObject("request") {
		return nil, &meter.AmbiguousError{Field: "request", Reason: "expected an object"}
	}
	inner := wire.NewRequest(r.Head, []byte(r.Get("request").Raw))
	c, err := inspectChat(inner, &wire.API{Name: asyncAPI.Name, Dialect: asyncAPI.Dialect, Limits: chatLimits, Endless: endless}, nil)
	if c, err = answeredLater(inner, c, laterAsync, err); err != nil {
		return nil, err
	}
	if err := inner.Err(); err != nil {
		return nil, err
	}
	if c.Body, err = sjson.SetRawBytes(r.Body, "request", c.Body); err != nil {
		return nil, err
	}
	if c.Elsewhere == "" {
		c.Elsewhere = r.Elsewhere()
	}
	c.Format = wrappedFormat{c.Format}
	return c, nil
}

// answeredLater notes that the answer to a call comes later, and of which kind it is. It refuses calls that can't be metered then.
func answeredLater(r *wire.Request, c *meter.Call, kind string, err error) (*meter.Call, error) {
	switch {
	case err != nil:
		return nil, err
	case c.Stream:
		return nil, &meter.LaterError{Field: "stream", Reason: "an answer that comes later can't be metered as a stream: leave one of the two out"}
	case r.Has("conversation") && r.Get("conversation").Raw != "null":
		return nil, &meter.LaterError{Field: "conversation", Reason: "an answer that comes later can't be metered if it goes into a conversation: leave one of the two out"}
	}
	c.Later = kind
	return c, nil
}

// inspectFetch reads a request that fetches an answer for which an earlier request has asked. It returns nil for any other request.
func inspectFetch(r *wire.Request) *meter.Call {
	get := r.Method == http.MethodGet
	cancel := r.Post("/cancel")
	for _, f := range []struct {
		is         bool
		collection string
		kind       string
		api        *wire.API
		stored     bool // answers that came at once can be fetched there too
	}{
		{get, "/chat/deferred-completion/", laterChat, chatAPI, false},
		{get, "/async-result/", laterAsync, chatAPI, false},
		{get, "/async/chat/completions/", laterAsync, asyncAPI, false},
		{get, "/async/sonar/", laterAsync, asyncAPI, false},
		{get && !strings.HasSuffix(r.Clean, "/input_items") || cancel, "/responses/", laterResponse, responsesAPI, true},
	} {
		if !f.is || len(r.Body) > 0 && !r.Object() {
			continue
		}
		c := r.Call(f.api)
		if r.Fetch(c, f.collection, f.kind) {
			c.Free = f.stored && (cancel || len(r.Body) == 0)
			return c
		}
	}
	return nil
}
