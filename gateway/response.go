package gateway

import (
	"errors"
	"io"
	"maps"
	"mime"
	"net/http"
	"runtime/debug"
	"strings"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// response stands between the provider's handlers and the client. It counts what goes by, and holds back what would make
// the client believe that the answer is complete until its charge is durable.
//
// The handlers below call it one call at a time (reverse_proxy locks its flush timer against its writes).
type response struct {
	http.ResponseWriter
	call   *admitted
	own    http.Header // the header as it was before the handlers below added to it
	status int
	body   body // how the answer goes on; nil until its header is there
}

// body is a way for an answer to go to the client. Implementations: [passing], [unreadable], [refused], and of those that are charged [kept], [streamed]
// and [tunneled].
type body interface {
	// write takes what the handlers write.
	write(p []byte) (n int, err error)
	// flush sends what is there, as far as it may go.
	flush() error
	// complete ends an answer whose handlers have ended. It returns what to panic with where the client must see it as incomplete.
	complete() (cause any)
	// failed is told of the error that the handlers ended with, and returns the one that is to be answered.
	failed(err error) error
	// broken ends an answer whose handlers have panicked with p. It returns what the server is told: what to panic with, or an error that
	// is to be answered.
	broken(p any) (cause any, err error)
	// close gives up what the body holds.
	close()
}

// run serves the request. cause is what the handlers panicked with, if the panic must go on.
func (w *response) run(next Handler) (cause any, err error) {
	defer func() {
		if p := recover(); p != nil {
			if p != http.ErrAbortHandler {
				w.call.route.logger().Error("handler panicked", "panic", p, "stack", string(debug.Stack()))
			}
			cause, err = w.broken(p)
		}
	}()
	if err := next.ServeHTTP(w, w.call.request); err != nil {
		return nil, w.failed(err)
	}
	if w.body == nil {
		w.WriteHeader(http.StatusOK)
	}
	if refused, ok := w.body.(*unreadable); ok {
		return nil, refused.failed(badGateway(errCoding))
	}
	return w.body.complete(), nil
}

// failed is [body]'s, also where no answer has begun.
func (w *response) failed(err error) error {
	switch {
	case w.call.hasYielded():
		return err
	case w.body != nil || w.refuses(w.call.whyBarred(), false):
		return w.body.failed(err)
	}
	dropOwn(w.Header())
	return w.giveUp(err)
}

// broken is [body]'s, also where no answer has begun.
func (w *response) broken(p any) (cause any, err error) {
	if w.body != nil || w.refuses(w.call.whyBarred(), false) {
		return w.body.broken(p)
	}
	return w.brokenUnseen(p)
}

// brokenUnseen ends an answer that was cut before the client has seen anything of it.
func (w *response) brokenUnseen(p any) (cause any, err error) {
	w.call.cancel()
	if p != http.ErrAbortHandler || w.call.clientGone() {
		return p, nil
	}
	w.discard()
	w.Header().Set(headerRequest, w.call.id)
	return nil, badGateway(errors.New("the upstream ended its response too early"))
}

// giveUp ends a call whose answer is replaced by that to an error.
func (w *response) giveUp(err error) error {
	w.call.cancel()
	w.Header().Set(headerRequest, w.call.id)
	return err
}

// discard takes back what the handlers below have put into the header of an answer that does not go out.
func (w *response) discard() {
	h := w.Header()
	clear(h)
	maps.Copy(h, w.own)
}

func (w *response) close() {
	if w.body != nil {
		w.body.close()
	}
}

// passes reports whether the answer goes by as if no meter were there.
func (w *response) passes() bool {
	_, ok := w.body.(*passing)
	return ok
}

// WriteHeader decides how the answer goes on.
func (w *response) WriteHeader(status int) {
	if status >= 100 && status < 200 && status != http.StatusSwitchingProtocols {
		dropOwn(w.Header())
		w.ResponseWriter.WriteHeader(status)
		return
	}
	if w.body != nil {
		return
	}
	w.status = status
	c := w.call
	if c.hasYielded() {
		w.body = &passing{response: w}
		w.ResponseWriter.WriteHeader(status)
		return
	}
	dropOwn(w.Header())
	w.Header().Set(headerRequest, c.id)
	exposeOwn(w.Header())
	if w.refuses(c.whyBarred(), false) {
		return
	}
	if (status < http.StatusBadRequest || c.route.charged(status)) && w.refuses(c.unseen(), true) {
		return
	}
	if c.pay.costs() && !w.leavesHTTP() {
		keepPrivate(w.Header())
	}
	switch {
	case !c.pay.costs() || !c.route.charged(status):
		c.cancel()
		w.Header().Set(headerCharge, "0")
		w.pass()
	case w.leavesHTTP():
		w.tunnel()
	default:
		w.begin()
	}
}

// refuses puts a refusal, if there is one, in the place of whatever is answered. worked says that somebody has worked for the answer.
func (w *response) refuses(refusal *ledger.Refusal, worked bool) bool {
	if refusal == nil {
		return false
	}
	w.body = &refused{response: w, refusal: refusal, worked: worked}
	return true
}

// pass lets the answer by. What is said in our name in an event stream is taken out, so that it may get shorter.
func (w *response) pass() {
	body := &passing{response: w}
	if isEventStream(w.Header()) {
		body.ours = new(muffler)
		w.Header().Del("Content-Length")
	}
	w.body = body
	w.ResponseWriter.WriteHeader(w.status)
}

// leavesHTTP reports whether a tunnel follows: a WebSocket, which HTTP/2 opens by CONNECT and an answer of 200.
func (w *response) leavesHTTP() bool {
	return w.status == http.StatusSwitchingProtocols || w.call.request.Method == http.MethodConnect && w.status/100 == 2
}

// begin starts an answer that is charged.
func (w *response) begin() {
	h := w.Header()
	c := w.call
	counted := &counted{response: w, length: -1}
	bodiless := c.request.Method == http.MethodHead || w.status == http.StatusNoContent || w.status == http.StatusNotModified
	if !bodiless {
		counted.length = contentLength(h)
	}
	if !bodiless && c.reads() && !counted.decode() {
		w.body = &unreadable{w}
		return
	}
	sse := isEventStream(h)
	kind, _, _ := mime.ParseMediaType(h.Get("Content-Type"))
	document := kind == "application/json" && counted.length >= 0 // also where a stream was asked for: that would not know its length
	c.begin(w.status, h, sse)
	switch {
	case bodiless || counted.length == 0:
		counted.keep(true)
	case sse || h.Get("Trailer") != "" || counted.length > smallBody && !c.mayHold(min(counted.length, MaxKept+1), 0) || c.call.Stream && !document || isIncremental(h):
		counted.stream()
	default:
		counted.keep(counted.length >= 0 || kind == "application/json" || c.keeps())
	}
}

// Write takes what the handlers write.
func (w *response) Write(p []byte) (int, error) {
	if w.body == nil {
		w.WriteHeader(http.StatusOK)
	}
	return w.body.write(p)
}

// FlushError sends what is there, as far as it may go.
func (w *response) FlushError() error {
	if w.body == nil {
		w.WriteHeader(http.StatusOK)
	}
	return w.body.flush()
}

// Flush is [http.Flusher]'s. An error shows at the next write.
func (w *response) Flush() { _ = w.FlushError() }

// ReadFrom keeps io.Copy from writing past the meter.
func (w *response) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{w}, r)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Push is [http.Pusher]'s.
func (w *response) Push(target string, o *http.PushOptions) error {
	if pusher, ok := w.ResponseWriter.(http.Pusher); ok {
		return pusher.Push(target, o)
	}
	return http.ErrNotSupported
}

// flushClient sends what was written to the client.
func (w *response) flushClient() error {
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// sendHeader makes sure that a header which was written has gone out, before trailers take its place: HTTP/3's server reads it only when it
// sends it.
func (w *response) sendHeader() {
	if w.call.request.ProtoMajor >= 3 {
		_ = w.flushClient()
	}
}

// isEventStream reports whether an answer is an event stream that can be read.
func isEventStream(h http.Header) bool {
	kind, _, _ := mime.ParseMediaType(h.Get("Content-Type"))
	return kind == "text/event-stream" && !compressed(h)
}

func compressed(h http.Header) bool {
	coding := h.Get("Content-Encoding")
	return coding != "" && !strings.EqualFold(coding, "identity")
}

// Interface guards
var (
	_ http.ResponseWriter = (*response)(nil)
	_ http.Flusher        = (*response)(nil)
	_ http.Pusher         = (*response)(nil)
	_ io.ReaderFrom       = (*response)(nil)
)
