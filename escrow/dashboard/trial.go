package dashboard

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// A trial is a call that a page makes to what is sold, with the key of the session. The server itself sends it, through all the handlers that any
// client's call goes through: so the key stays out of the page, and nothing is left out of what a call has to pass. What the call answers goes to
// the page in frames, a line of JSON each. So it is never shown or run as a document of this server, whatever the provider sends.

// maxTrial bounds what a page sends for a trial.
const maxTrial = 64 << 10

// trial is the request that the page asks for.
type trial struct {
	Method string `json:"method"`
	Path   string `json:"path"` // with its query
	Body   string `json:"body"` // JSON, or empty
	Key    string `json:"key"`  // of the customer, for a test call of a provider; empty: one is made
	Most   string `json:"most"` // that a provider lends to the customer of a test call

	url *url.URL
}

// frame is a part of what a page is told about a trial.
type frame struct {
	Step    string            `json:"step,omitempty"`    // what happens next, in words
	Status  int               `json:"status,omitempty"`  // the answer begins
	Headers map[string]string `json:"headers,omitempty"` // of the answer, or its trailers
	Body    string            `json:"body,omitempty"`    // a part of it, as base64
	End     bool              `json:"end,omitempty"`     // the answer is complete
	Broken  bool              `json:"broken,omitempty"`  // the answer has broken off
	Charge  string            `json:"charge,omitempty"`  // the request whose charge was made
	Problem *problem          `json:"problem,omitempty"` // why it does not go on
}

// frames writes frames to a page.
type frames struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

func (f *frames) send(one frame) {
	if line, err := json.Marshal(one); err == nil {
		_, _ = f.w.Write(append(line, '\n')) // if the page is gone, the request's context ends
		_ = f.control.Flush()
	}
}

// trialKey is the context key of a trial, so that no trial makes another one.
type trialKey struct{}

// startTrial reads what the page asks for. If it returns false, it has answered.
func (p *pages) startTrial(w http.ResponseWriter, r *http.Request) (v *visit, t trial, ok bool) {
	v = p.begin(w, r)
	if v == nil {
		return nil, t, false
	}
	refuse := func(status int, why string) (*visit, trial, bool) {
		http.Error(w, why, status)
		return nil, t, false
	}
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != "application/json" { // which no form of another site can send
		return refuse(http.StatusUnsupportedMediaType, "a trial is sent as JSON")
	}
	if r.Context().Value(trialKey{}) != nil {
		return refuse(http.StatusConflict, "a trial can't make another one")
	}
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxTrial))
	if err == nil {
		err = json.Unmarshal(text, &t)
	}
	if err != nil {
		return refuse(http.StatusUnprocessableEntity, "this is not a trial: "+err.Error())
	}
	if why := p.wrongTrial(r, &t); why != "" {
		return refuse(http.StatusUnprocessableEntity, why)
	}
	return v, t, true
}

// wrongTrial says what is wrong with a trial, if anything is.
func (p *pages) wrongTrial(r *http.Request, t *trial) (why string) {
	if t.Method == "" {
		t.Method = http.MethodGet
	}
	switch t.Method {
	case http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
	default:
		return "the method is GET, POST, PUT, PATCH or DELETE"
	}
	if t.Body != "" && !isJSON(t.Body) {
		return "the body is not JSON"
	}
	at, err := url.ParseRequestURI(t.Path)
	if err != nil || at.IsAbs() || at.Host != "" || !strings.HasPrefix(at.Path, "/") {
		return "the path begins with /"
	}
	t.url = at
	shop, err := p.o.Shop(r)
	if err != nil || !shop.sells(at.Path) {
		return "nothing is sold at this path"
	}
	return ""
}

// sells reports whether a path is one of a route that is sold.
func (s Shop) sells(path string) bool {
	for _, g := range s.goods() {
		for _, covered := range g.Paths {
			if begin, open := strings.CutSuffix(covered, "*"); path == covered || open && strings.HasPrefix(path, begin) {
				return true
			}
		}
	}
	return false
}

// trialForm is what the form for a trial shows.
type trialForm struct {
	Routes    []trialRoute
	Route     string // the one that is picked
	Path      string
	Example   example
	MCP       string // the address for clients of MCP
	Send      string // where the page sends the trial; empty: the reader has no key to send it with
	Rehearsal bool   // it is a provider's test call
	Open      bool   // agents register themselves
}

// trialRoute is a route that the form offers.
type trialRoute struct{ Path, Payee string }

// trialForm returns the form for a trial of what one payee sells, or all payees if it is empty. It is nil if there is nothing to try.
func (v *visit) trialForm(shop Shop, payee string) *trialForm {
	form := &trialForm{MCP: shop.MCP(), Rehearsal: payee != "", Open: shop.Open}
	switch {
	case form.Rehearsal:
		form.Send = v.pages.base + "/rehearse"
	case v.Me != nil && !v.operator():
		form.Send = v.pages.base + "/call"
	}
	var picked *example
	for _, g := range shop.goods() {
		for _, path := range g.Paths {
			e := shop.exampleAt(g, path)
			if e == nil || payee != "" && g.Payee != payee || !g.isFor(v.r.Host) {
				continue
			}
			form.Routes = append(form.Routes, trialRoute{path, g.Payee})
			if picked == nil || path == v.param("route") {
				picked, form.Route = e, path
			}
		}
	}
	if picked == nil {
		return nil
	}
	form.Example = *picked
	if path := v.param("path"); strings.HasPrefix(path, "/") {
		form.Example.Method, form.Example.URL, form.Example.Body = cmp.Or(v.param("method"), form.Example.Method), shop.Origin+path, v.param("body")
	}
	form.Path = strings.TrimPrefix(form.Example.URL, shop.Origin)
	if form.Example.MCP {
		form.MCP = form.Example.URL
	}
	return form
}

// isFor reports whether a route is for a host.
func (g goods) isFor(host string) bool {
	name := (&url.URL{Host: host}).Hostname()
	return g.host == "" || slices.ContainsFunc(strings.FieldsFunc(g.host, func(c rune) bool { return c == ' ' || c == ',' }), func(one string) bool {
		rest, any := strings.CutPrefix(one, "*")
		return one == host || strings.EqualFold(one, name) || any && strings.HasSuffix(name, rest)
	})
}

// call answers with what a call with the key of the session answers.
func (p *pages) call(w http.ResponseWriter, r *http.Request) {
	v, t, ok := p.startTrial(w, r)
	if !ok {
		return
	}
	out := beginFrames(w)
	if got := v.try(out, t, v.key); got.charged() {
		out.send(frame{Charge: got.request})
	}
}

func beginFrames(w http.ResponseWriter) *frames {
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store, no-transform") // compression would hold frames back
	w.Header().Set("X-Accel-Buffering", "no")
	return &frames{w, http.NewResponseController(w)}
}

// try makes a call with a key, and sends what it answers to the page. headers are pairs.
func (v *visit) try(out *frames, t trial, key string, headers ...string) *tried {
	ctx := context.WithValue(v.r.Context(), trialKey{}, true)
	r, err := http.NewRequestWithContext(ctx, t.Method, "http://"+v.r.Host+t.url.RequestURI(), strings.NewReader(t.Body))
	if err != nil {
		out.send(frame{Problem: &problem{Status: http.StatusUnprocessableEntity, Title: "This can't be called.", Detail: err.Error()}})
		return &tried{}
	}
	r.Header = clientHeaders(v.r.Header)
	r.RequestURI, r.URL.Scheme, r.URL.Host = t.url.RequestURI(), "", ""
	r.RemoteAddr, r.TLS = v.r.RemoteAddr, v.r.TLS
	r.Header.Set("Authorization", "Bearer "+key)
	r.Header.Set("Accept", acceptMCP+", */*")
	r.Header.Set("Te", "trailers")
	if t.Body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	got := &tried{out: out, header: make(http.Header)}
	got.serve(v.pages.o.Serve, r)
	return got
}

// clientHeaders are the headers of a page's request that a call has too: those about the client and the way on which it came.
func clientHeaders(of http.Header) http.Header {
	header := of.Clone()
	maps.DeleteFunc(header, func(name string, _ []string) bool {
		for _, begin := range []string{"Accept", "Authorization", "Connection", "Content-", "Cookie", "If-", "Keep-Alive", "Origin", "Pragma", "Priority", "Range", "Referer", "Sec-", "Tallygate-", "Te", "Trailer", "Transfer-Encoding", "Upgrade"} {
			if strings.HasPrefix(name, begin) {
				return true
			}
		}
		return false
	})
	return header
}

// tried is the answer to a trial, which goes to the page as it comes.
type tried struct {
	out       *frames
	header    http.Header
	announced map[string]bool // headers that were sent with the status
	status    int
	request   string // the id of the request
	refusal   []byte // the beginning of an answer that is a problem
}

// maxRefusal bounds what is kept of a problem.
const maxRefusal = 16 << 10

// serve makes the call and sends the end of the answer.
func (g *tried) serve(by func(http.ResponseWriter, *http.Request), r *http.Request) {
	defer func() {
		switch broken := recover(); broken {
		case nil:
			if g.status == 0 {
				g.WriteHeader(http.StatusOK)
			}
			g.out.send(frame{End: true, Headers: g.trailers()})
		case http.ErrAbortHandler: // so the server ends answers that are not complete
			g.out.send(frame{Broken: true})
		default:
			panic(broken)
		}
	}()
	by(g, r)
}

// Header implements http.ResponseWriter.
func (g *tried) Header() http.Header { return g.header }

// WriteHeader implements http.ResponseWriter.
func (g *tried) WriteHeader(status int) {
	if g.status != 0 || status < 200 {
		return
	}
	g.status, g.request, g.announced = status, g.header.Get("Tallygate-Request"), make(map[string]bool)
	shown := make(map[string]string)
	for name, values := range g.header {
		g.announced[name] = true
		shown[name] = strings.Join(values, ", ")
	}
	g.out.send(frame{Status: status, Headers: shown})
}

// Write implements http.ResponseWriter.
func (g *tried) Write(p []byte) (int, error) {
	if g.status == 0 {
		g.WriteHeader(http.StatusOK)
	}
	if g.status >= 400 {
		g.refusal = append(g.refusal, p[:min(len(p), maxRefusal-len(g.refusal))]...)
	}
	if len(p) > 0 {
		g.out.send(frame{Body: base64.StdEncoding.EncodeToString(p)})
	}
	return len(p), nil
}

// FlushError is there for handlers that flush: each frame is sent at once.
func (g *tried) FlushError() error {
	if g.status == 0 {
		g.WriteHeader(http.StatusOK)
	}
	return nil
}

// Flush implements http.Flusher.
func (g *tried) Flush() { _ = g.FlushError() }

// trailers are the headers that were set after the answer had begun.
func (g *tried) trailers() map[string]string {
	shown := make(map[string]string)
	for name, values := range g.header {
		late, prefixed := strings.CutPrefix(name, http.TrailerPrefix)
		if len(values) > 0 && (prefixed || !g.announced[name]) {
			shown[late] = strings.Join(values, ", ")
		}
	}
	return shown
}

// charged reports whether the call was made, so that it may have a charge.
func (g *tried) charged() bool { return g.request != "" && g.status < 400 }

// refused returns what the gateway said if it did not make the call for want of money; nil otherwise.
func (g *tried) refused() object {
	if g.status != http.StatusPaymentRequired {
		return nil
	}
	why, err := decodeObject(g.refusal)
	if err != nil {
		return nil
	}
	return why
}

// problemOf returns an error as a page is told of it.
func (v *visit) problemOf(err error) *problem {
	refused := (*problem)(nil)
	if !errors.As(err, &refused) {
		v.pages.o.Logger.Error("a trial failed", "error", err)
		return &problem{Status: http.StatusInternalServerError, Title: "Something went wrong here.", Detail: "The server's log says what."}
	}
	return refused
}
