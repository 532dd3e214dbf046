package gateway

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"reflect"

	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/formats"
)

// A meter computes the price from the request that arrives at it. Handlers between the meter and the provider may change that request, for
// example by a rewrite. So the request is checked again before it is sent.

// MaySend reports whether a request below a meter may be sent to the provider as it is now. A handler that sends requests calls it after
// its last change to the method, the URL, the headers and the body of r. If MaySend returns false, the handler must not send the request; the meter then
// answers with a refusal, whatever the handler answers or returns. MaySend also replaces r.Body: reading the new body fails at the first
// byte that differs from the body that the meter has read.
//
// If a handler does not call MaySend, the meter checks the request that it gave to the handler when the handler answers.
func MaySend(r *http.Request) bool {
	delete(r.Header, headerWithin)
	switch of := r.Context().Value(callKey{}).(type) {
	case *quoted:
		of.sends = true
		return false
	case *admitted:
		return of.maySend(r)
	default:
		return true
	}
}

// BearsOnPrice reports whether the price of a request may depend on one of its headers: whether [MaySend] looks at it.
func BearsOnPrice(header string) bool {
	return formats.IsPricedHeader(header) || isMethodOverride(header)
}

// ConfiguresRouter reports whether a header configures a router behind the meter, so that another model may answer. Callers may not send it. A
// provider's own handler sets it after it has called [MaySend].
func ConfiguresRouter(header string) bool { return formats.IsRouterHeader(header) }

// target is where a request goes, and its headers on which the price may depend, see [formats.PricedHeaders].
type target struct{ method, path, query, headers string }

func targetOf(r *http.Request) target {
	return target{r.Method, r.URL.Path, r.URL.RawQuery, formats.PricedHeaders(r.Header)}
}

// String leaves out the query, which may contain keys of the provider.
func (t target) String() string { return t.method + " " + t.path }

// judge notes what the request asks for as it is now.
func (q *asked) judge(call *meter.Call) {
	q.judged, q.first = targetOf(q.request), bareCall(call)
}

// bareCall returns a call without its body and format, to be compared with another.
func bareCall(call *meter.Call) *meter.Call {
	c := *call
	c.Body, c.Format = nil, nil
	return &c
}

func (a *admitted) maySend(r *http.Request) bool {
	if a.judged == (target{}) || a.hasYielded() {
		return true
	}
	body, bodiless := a.body, r.Body == nil || r.Body == http.NoBody
	if bodiless {
		body = nil
	}
	refusal := a.departs(r, body)
	switch {
	case a.route.Shadow:
		a.wouldRefuse(refusal)
		refusal = nil
	case refusal == nil && !bodiless:
		refusal = a.watchBody(r)
	}
	a.bar(refusal)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seen = true
	return a.barred == nil
}

// bar makes the meter answer with a refusal, whatever the handlers answer.
func (a *admitted) bar(refusal *ledger.Refusal) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.barred == nil {
		a.barred = refusal
	}
}

// whyBarred is the refusal that was set by bar, or nil.
func (a *admitted) whyBarred() *ledger.Refusal {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.barred
}

// unseen refuses an answer if its handler did not call MaySend, and the request as it is now may have another price.
func (a *admitted) unseen() *ledger.Refusal {
	a.mu.Lock()
	seen := a.seen
	a.mu.Unlock()
	if seen || a.judged == (target{}) {
		return nil
	}
	refusal := a.departs(a.request, a.body)
	if a.route.Shadow {
		a.wouldRefuse(refusal)
		return nil
	}
	return refusal
}

// departs refuses a request that may cost more or less than the one that was judged.
func (a *admitted) departs(r *http.Request, body []byte) *ledger.Refusal {
	sent := targetOf(r)
	overridden := overridesMethod(r.Header)
	if sent == a.judged && len(body) == len(a.body) && !overridden {
		return nil
	}
	if !overridden && checkReading(r) == nil {
		if call, err := a.inspect(r, body); err == nil && a.costsAs(call, r) {
			return nil
		}
	}
	made := "makes " + sent.String() + " of " + a.judged.String()
	if sent.String() == a.judged.String() {
		made = "changes the query, the headers or the body of " + sent.String()
	}
	return refuse(api.NoPrice, "this server's configuration "+made+", "+behind)
}

// behind is the end of a refusal of a request that the configuration has changed.
const behind = "so it may have another price: the operator must put the meter behind the handlers that change the request"

// costsAs reports whether a call has the same price as the judged one, whatever the provider answers, and names the same resources.
func (a *admitted) costsAs(call *meter.Call, r *http.Request) bool {
	if a.free() {
		return call.Free && !leavesHTTP(r) && (!a.route.separates() || reflect.DeepEqual(a.first.Stored, call.Stored))
	}
	return reflect.DeepEqual(a.first, bareCall(call))
}

// watchBody compares the request's body with the judged one while it is sent.
func (a *admitted) watchBody(r *http.Request) *ledger.Refusal {
	judged := a.call.Body
	if r.ContentLength >= 0 && r.ContentLength != int64(len(judged)) {
		return a.otherBody()
	}
	body := r.Body
	if again, ok := body.(*watchedBody); ok { // the request is sent again
		body = again.ReadCloser
	}
	r.Body = &watchedBody{ReadCloser: body, call: a, rest: judged}
	return nil
}

func (a *admitted) otherBody() *ledger.Refusal {
	return refuse(api.NoPrice, "this server's configuration changes the body of "+a.judged.String()+", "+behind)
}

// watchedBody is a request's body on its way to the provider.
type watchedBody struct {
	io.ReadCloser
	call *admitted
	rest []byte // the part of the judged body that was not read yet
}

// Read fails before the first byte that was not judged, as if the client had left. So no provider gets a complete request with another
// body.
func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if rest, ok := bytes.CutPrefix(b.rest, p[:n]); ok && (err != io.EOF || len(rest) == 0) {
		b.rest = rest
		return n, err
	}
	b.call.bar(b.call.otherBody())
	return 0, errOtherBody
}

// errOtherBody counts as a cancellation, so that the proxy does not take it for a failure of the upstream.
var errOtherBody error = otherBodyError{}

type otherBodyError struct{}

func (otherBodyError) Error() string        { return "the request's body is not the one that was priced" }
func (otherBodyError) Is(target error) bool { return target == context.Canceled }
