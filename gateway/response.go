package gateway

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/meter/wire"
)

// response stands between the provider's handlers and the client. It counts what passes. Until the charge is durable it holds back the part
// that would make the client believe that the answer is complete.
//
// The handlers below make one call at a time (reverse_proxy uses one lock for its flush timer and its writes).
type response struct {
	http.ResponseWriter
	call   *admitted
	own    headerFields // the header before the handlers below added to it
	status int
	body   body   // how the answer is passed on; nil until its header is written
	pages  *pages // nil unless the call asks for a list
	grpc   bool   // it is an answer of gRPC, whose trailers tell whether it is charged
	taken  bool   // a handler has taken over the connection
	nobody bool   // no handler has answered
}

// headerFields are the fields that a header had at some time.
type headerFields []headerField

type headerField struct {
	name   string
	values []string
}

func fieldsOf(h http.Header) headerFields {
	fields := make(headerFields, 0, len(h))
	for name, values := range h {
		fields = append(fields, headerField{name, slices.Clone(values)})
	}
	return fields
}

// body is a way in which an answer goes to the client. Implementations: [passing], [unreadable] and [refused]; for answers that are
// charged [kept], [streamed] and [tunneled]; and in shadow mode [overheard].
type body interface {
	// write takes bytes that the handlers write.
	write(p []byte) (n int, err error)
	// flush sends what was written, as far as it may be sent.
	flush() error
	// complete ends an answer whose handlers have returned without an error. If the client must see the answer as incomplete, complete returns
	// the value to panic with.
	complete() (cause any)
	// failed gets the error that the handlers have returned, and returns the error to answer with.
	failed(err error) error
	// broken ends an answer whose handlers have panicked with p. It returns the value to panic with, or an error to answer with.
	broken(p any) (cause any, err error)
	// close releases what the body holds.
	close()
}

// run serves the request. cause is the value of the handlers' panic, if the panic must go on.
func (w *response) run(next Handler) (cause any, err error) {
	defer func() {
		if p := recover(); p != nil {
			if p != http.ErrAbortHandler {
				w.call.route.logger().Error("handler panicked", "panic", p, "stack", string(debug.Stack()))
			}
			cause, err = w.broken(p)
		}
	}()
	w.pages = w.call.listed()
	for again := true; again; again = w.turns() {
		if err := next.ServeHTTP(w, w.call.request); err != nil {
			return nil, w.failed(err)
		}
		if w.body == nil {
			w.finishUnanswered()
		}
	}
	if refused, ok := w.body.(*unreadable); ok {
		return nil, refused.failed(badGateway(errCoding))
	}
	return w.body.complete(), nil
}

// finishUnanswered answers with an empty 200 as net/http does, because no handler has answered. That is nothing to sell, so it costs nothing.
func (w *response) finishUnanswered() {
	if w.taken || w.call.hasYielded() {
		w.WriteHeader(http.StatusOK)
		return
	}
	w.nobody = true
	w.WriteHeader(http.StatusOK)
}

// failed implements [body], also if no answer has begun.
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

// broken implements [body], also if no answer has begun.
func (w *response) broken(p any) (cause any, err error) {
	if w.body != nil || w.refuses(w.call.whyBarred(), false) {
		return w.body.broken(p)
	}
	w.call.cancel()
	return p, nil // a handler has aborted the connection: no answer was on its way
}

// brokenUnseen ends an answer that was cut before the client got anything of it.
func (w *response) brokenUnseen(p any) (cause any, err error) {
	w.call.cancel()
	if p != http.ErrAbortHandler || w.call.clientGone() {
		return p, nil
	}
	w.discard()
	w.Header().Set(headerRequest, w.call.id)
	return nil, badGateway(errors.New("the upstream ended its response too early"))
}

// giveUp ends a call whose answer is replaced by the answer to an error.
func (w *response) giveUp(err error) error {
	w.call.cancel()
	w.Header().Set(headerRequest, w.call.id)
	return err
}

// discard removes what the handlers below have added to the header of an answer that is not passed on.
func (w *response) discard() {
	h := w.Header()
	clear(h)
	for _, of := range w.own {
		h[of.name] = of.values
	}
}

func (w *response) close() {
	if w.body != nil {
		w.body.close()
	}
}

// passes reports whether the answer passes as if there were no meter.
func (w *response) passes() bool {
	switch w.body.(type) {
	case *passing, *overheard:
		return true
	default:
		return false
	}
}

// WriteHeader decides how the answer is passed on.
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
	h := w.Header()
	dropOwn(h)
	h[headerRequest] = []string{c.id}
	if c.route.Shadow {
		w.overhear()
		return
	}
	c.tellOwed(h)
	c.writeReceipt(h, status)
	exposeOwn(h)
	if w.refuses(c.whyBarred(), false) {
		return
	}
	if (status < http.StatusBadRequest || c.route.charged(status)) && w.refuses(c.unseen(), true) {
		return
	}
	if w.sifts() {
		w.body = &sifted{response: w}
		return
	}
	w.open()
}

// open sends the header of an answer that goes on, or has it wait for the charge.
func (w *response) open() {
	c := w.call
	if gone := c.stored().Deletes; gone != nil && w.status/100 == 2 {
		c.deleted(*gone)
	}
	if (c.pay.costs() || c.isPayersOwn()) && !w.leavesHTTP() {
		keepPrivate(w.Header())
	}
	switch {
	case w.isFree():
		c.cancel()
		w.Header().Set(headerCharge, "0")
		w.pass()
	case w.leavesHTTP():
		w.tunnel()
	default:
		w.begin()
	}
}

// refuses replaces the answer by a refusal, if there is one. worked says that the provider has worked for the answer.
func (w *response) refuses(refusal *ledger.Refusal, worked bool) bool {
	if refusal == nil {
		return false
	}
	w.body = &refused{response: w, refusal: refusal, worked: worked}
	return true
}

// pass lets the answer pass. Comments in an event stream that look like Tallygate's are removed, so the answer may get shorter.
func (w *response) pass() {
	body := &passing{response: w}
	if isEventStream(w.Header()) {
		body.ours = new(muffler)
		w.Header().Del("Content-Length")
	}
	w.body = body
	w.ResponseWriter.WriteHeader(w.status)
}

// isFree reports whether the answer costs nothing, as its header tells.
func (w *response) isFree() bool {
	c := w.call
	if w.grpc = isGRPC(w.Header()); w.grpc {
		if code, ok := statedGRPC(w.Header()); ok && !c.route.chargedGRPC(code) {
			return true
		}
	}
	return w.nobody || !c.pay.costs() || !c.route.charged(w.status)
}

// leavesHTTP reports whether the connection becomes a tunnel. That is a WebSocket, which HTTP/2 opens by CONNECT and an answer of 200.
func (w *response) leavesHTTP() bool {
	return w.status == http.StatusSwitchingProtocols || w.call.request.Method == http.MethodConnect && w.status/100 == 2
}

// begin starts an answer that is charged.
func (w *response) begin() {
	h := w.Header()
	c := w.call
	counted := &counted{response: w, length: -1}
	if w.grpc {
		counted.frames = newGRPCFrames(h)
	}
	bodiless := c.request.Method == http.MethodHead || w.status == http.StatusNoContent || w.status == http.StatusNotModified
	if !bodiless {
		counted.length = contentLength(h)
	}
	if !bodiless && c.reads() && !counted.decode() {
		w.body = &unreadable{w}
		return
	}
	sse := isEventStream(h)
	kind := mediaType(h)
	document := kind == "application/json" && counted.length >= 0 // also if a stream was asked for, since a stream would have no stated length
	c.begin(w.status, h, sse)
	streams := sse || valueOf(h, "Trailer") != "" || c.call.Stream && !document || isIncremental(h)
	tells := !streams && c.tellsInBody()
	waits := c.answer.mustShow
	flows := streams || !tells && counted.length > smallBody && !c.mayHold(min(counted.length, MaxKept+1), 0)
	if flows && !waits && !bodiless && counted.length != 0 && w.refuses(c.secureStream(h, w.status), true) {
		return
	}
	switch {
	case bodiless || counted.length == 0:
		counted.keep(true)
	case flows && !waits:
		counted.stream()
	default:
		body := counted.keep(!flows && (counted.length >= 0 || kind == "application/json" || c.keeps() || tells && !wire.IsLines(kind)))
		if waits && !body.whole {
			body.scout, body.streams = c.call.Counter(w.status, h), flows
		}
	}
}

// Write takes bytes that the handlers write.
func (w *response) Write(p []byte) (int, error) {
	if w.body == nil {
		w.WriteHeader(http.StatusOK)
	}
	return w.body.write(p)
}

// FlushError sends what was written, as far as it may be sent.
func (w *response) FlushError() error {
	if w.body == nil {
		w.WriteHeader(http.StatusOK)
	}
	return w.body.flush()
}

// Flush implements [http.Flusher]. An error appears at the next write.
func (w *response) Flush() { _ = w.FlushError() }

// ReadFrom prevents io.Copy from writing to the client directly, past the meter.
func (w *response) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{w}, r)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Push implements [http.Pusher].
func (w *response) Push(target string, o *http.PushOptions) error {
	if pusher, ok := w.ResponseWriter.(http.Pusher); ok {
		return pusher.Push(target, o)
	}
	return http.ErrNotSupported
}

// flushClient sends to the client what was written to it.
func (w *response) flushClient() error {
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// sendHeader makes sure that a header that was written is sent before trailers replace it: the HTTP/3 server reads the header only when it
// sends it.
func (w *response) sendHeader() {
	if w.call.request.ProtoMajor >= 3 {
		_ = w.flushClient()
	}
}

// valueOf returns the first value of a header whose name has its usual case. It is quicker than Get.
func valueOf(h http.Header, name string) string {
	if values := h[name]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// mediaType returns the media type of an answer, without its parameters.
func mediaType(h http.Header) string {
	stated := valueOf(h, "Content-Type")
	switch stated {
	case "", "application/json", "text/event-stream": // most answers: nothing has to be parsed
		return stated
	}
	kind, _, _ := mime.ParseMediaType(stated)
	return kind
}

// isEventStream reports whether an answer is an event stream that can be read.
func isEventStream(h http.Header) bool {
	return mediaType(h) == "text/event-stream" && !compressed(h)
}

func compressed(h http.Header) bool {
	coding := valueOf(h, "Content-Encoding")
	return coding != "" && !strings.EqualFold(coding, "identity")
}

// Interface guards
var (
	_ http.ResponseWriter = (*response)(nil)
	_ http.Flusher        = (*response)(nil)
	_ http.Pusher         = (*response)(nil)
	_ io.ReaderFrom       = (*response)(nil)
)
