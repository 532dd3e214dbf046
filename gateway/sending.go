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
)

// A meter prices the request that comes to it. The handlers between the meter and the provider may make another one of it, by a rewrite for
// the most part: so it is looked at once more when it is sent.

// MaySend reports whether a request below a meter may go to the provider as it now is. A handler that sends requests asks this last, when it
// has made all its changes to the method, the URL and the body of r, and does not send what may not go: the meter then answers a refusal,
// whatever the handler answers or ends with. MaySend puts a body in the place of r.Body that breaks off where it is not the one that the meter
// has read.
//
// Of handlers that do not ask, the meter judges the request that it gave them when they answer.
func MaySend(r *http.Request) bool {
	call, ok := r.Context().Value(callKey{}).(*admitted)
	return !ok || call.maySend(r)
}

// target is where a request goes. What a request costs may depend on it.
type target struct{ method, path, query string }

func targetOf(r *http.Request) target { return target{r.Method, r.URL.Path, r.URL.RawQuery} }

// String leaves out the query, in which keys of the provider's may stand.
func (t target) String() string { return t.method + " " + t.path }

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

// bar refuses the call, whatever is answered.
func (a *admitted) bar(refusal *ledger.Refusal) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.barred == nil {
		a.barred = refusal
	}
}

// whyBarred is why the call is refused, whatever is answered; nil where it is not.
func (a *admitted) whyBarred() *ledger.Refusal {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.barred
}

// unseen refuses an answer of a handler that has not asked whether it may send what it was given, where that does not cost the same.
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

// departs refuses a request that does not cost the same as the one that was judged.
func (a *admitted) departs(r *http.Request, body []byte) *ledger.Refusal {
	sent := targetOf(r)
	if sent == a.judged && len(body) == len(a.body) {
		return nil
	}
	if checkReading(r) == nil {
		if call, err := a.inspect(r, body); err == nil && a.costsAs(call, r) {
			return nil
		}
	}
	made := "makes " + sent.String() + " of " + a.judged.String()
	if sent.String() == a.judged.String() {
		made = "changes the query or the body of " + sent.String()
	}
	return refuse(api.NoPrice, "this server's configuration "+made+", "+behind)
}

// behind ends a refusal of what the configuration has changed.
const behind = "so that it may not cost the same: the provider must put the meter behind what changes the request"

// costsAs reports whether a call costs what the judged one does, whatever is answered.
func (a *admitted) costsAs(call *meter.Call, r *http.Request) bool {
	if a.free() {
		return call.Free && !leavesHTTP(r)
	}
	now := *call
	now.Body, now.Format = nil, nil
	return reflect.DeepEqual(a.first, now)
}

// watchBody has the request's body compared with the judged one as it goes.
func (a *admitted) watchBody(r *http.Request) *ledger.Refusal {
	judged := a.call.Body
	if r.ContentLength >= 0 && r.ContentLength != int64(len(judged)) {
		return a.otherBody()
	}
	body := r.Body
	if again, ok := body.(*watchedBody); ok { // it is sent again
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
	rest []byte // of the judged body
}

// Read breaks off, as if the client had left, before the first bytes that were not judged: a provider does not work on half a request.
func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if rest, ok := bytes.CutPrefix(b.rest, p[:n]); ok && (err != io.EOF || len(rest) == 0) {
		b.rest = rest
		return n, err
	}
	b.call.bar(b.call.otherBody())
	return 0, errOtherBody
}

// errOtherBody is a cancellation for whoever sends: it is not the upstream that has failed.
var errOtherBody error = otherBodyError{}

type otherBodyError struct{}

func (otherBodyError) Error() string        { return "the request's body is not the one that was priced" }
func (otherBodyError) Is(target error) bool { return target == context.Canceled }
