package caddymodule

import (
	"errors"
	"io"
	"maps"
	"mime"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

// smallBody is the size in bytes up to which a response is kept until it is charged, so that its charge can stand in its
// headers. A longer or streamed one flows at once, all but its end.
const smallBody = 64 << 10

// mode is how the body of a response goes to the client.
type mode int

const (
	undecided mode = iota // no header yet
	passing               // costs nothing, or is charged elsewhere: as if no meter were there
	keeping               // small: kept until it is charged
	streaming             // passed on as it comes, all but its end
	refused               // it can't be read, so it does not go out
	tunneling             // the connection has left HTTP: its messages are counted as they go to the client
)

// response stands between the provider's handlers and the client. It counts what goes by, and holds back what would make
// the client believe that the response is complete until its charge is durable.
//
// The handlers below call it one call at a time (reverse_proxy locks its flush timer against its writes).
type response struct {
	*caddyhttp.ResponseWriterWrapper
	call   *call
	own    http.Header // the header as it was before the handlers below added to it
	mode   mode
	status int
	length int64 // of the body, as its Content-Length has it; -1: not known
	taken  int64 // bytes of the body that have come from the handlers
	coding *decoder
	kept   []byte
	whole  bool // kept although the handler flushes: a single document
	out    []byte
	last   []byte // the last byte so far, where it shows the client that the response is complete
	bound  bool   // it does
	sse    bool
	ours   muffler // of an event stream
	clean  []byte  // what it lets pass
	gone   bool    // the client no longer takes what is written
	cut    bool    // bytes are missing: the client must not take the response for complete
	ended  bool    // the stream has ended properly: by the event that ends it, or by us
	beyond int     // bytes that came after that
}

var (
	errAborted   = errors.New("the server is stopping")
	errSettled   = errors.New("the response is charged already")
	errExhausted = errors.New("the money for this call has run out")
	errCoding    = errors.New("the upstream's response is compressed in a way that can't be counted")
)

// serve lets the request through to the provider's handlers and sees its response to its end.
func (c *call) serve(w http.ResponseWriter, next caddyhttp.Handler) error {
	rw := &response{
		ResponseWriterWrapper: &caddyhttp.ResponseWriterWrapper{ResponseWriter: w},
		call:                  c,
		own:                   w.Header().Clone(),
		length:                -1,
	}
	defer rw.coding.close()
	cause, err := rw.run(next)
	c.report()
	if cause != nil {
		panic(cause)
	}
	if err == nil || c.hasYielded() {
		return err
	}
	if rw.mode == passing { // it failed after its header: the error would be logged with the caller's key
		c.logger.Error("the provider's handlers failed in the middle of an answer", zap.String("request", c.id), zap.Error(err))
		return nil
	}
	return answerFailure(w, c.request, c.id, err, c.logger)
}

// run serves the request. cause is what the handlers panicked with, if the panic must go on.
func (w *response) run(next caddyhttp.Handler) (cause any, err error) {
	defer func() {
		if p := recover(); p != nil {
			if p != http.ErrAbortHandler {
				w.call.logger.Error("handler panicked", zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
			}
			cause, err = w.broken(p)
		}
	}()
	err = next.ServeHTTP(w, w.call.request)
	switch {
	case err != nil:
		return nil, w.failed(err)
	case w.mode == refused:
		return nil, w.failed(caddyhttp.Error(http.StatusBadGateway, errCoding))
	}
	if w.coding != nil {
		if err := w.coding.end(w.take); err != nil {
			panic(http.ErrAbortHandler)
		}
	}
	if w.cut || w.length > w.taken {
		// The handler has not minded that a write failed, or has written less than it announced.
		panic(http.ErrAbortHandler)
	}
	return w.complete(), nil
}

// failed returns the error that the handlers have ended with. Caddy answers with it, so that nothing of a response that was
// begun may stand in its way.
func (w *response) failed(err error) error {
	switch {
	case w.mode == passing || w.call.hasYielded():
		return err
	case w.mode == streaming || w.mode == tunneling:
		// What is returned after the header looks complete to the client; only a panic does not.
		panic(http.ErrAbortHandler)
	case w.mode == undecided:
		dropOwn(w.Header())
	default:
		w.discard()
	}
	w.call.cancel()
	w.Header().Set(headerRequest, w.call.id)
	return err
}

// WriteHeader decides how the response goes on.
func (w *response) WriteHeader(status int) {
	if status >= 100 && status < 200 && status != http.StatusSwitchingProtocols {
		dropOwn(w.Header())
		w.ResponseWriter.WriteHeader(status)
		return
	}
	if w.mode != undecided {
		return
	}
	w.status = status
	c := w.call
	if c.hasYielded() {
		w.mode = passing
		w.ResponseWriter.WriteHeader(status)
		return
	}
	dropOwn(w.Header())
	w.Header().Set(headerRequest, c.id)
	exposeOwn(w.Header())
	switch {
	case c.auth == nil || !c.meter.charged(status):
		w.mode = passing
		c.cancel()
		w.Header().Set(headerCharge, "0")
		if w.sse = isEventStream(w.Header()); w.sse {
			w.Header().Del("Content-Length") // it may get shorter
		}
		w.ResponseWriter.WriteHeader(status)
	case w.leavesHTTP() && c.fixed:
		w.upgrade()
	case w.leavesHTTP():
		w.mode = tunneling
		c.begin(http.StatusSwitchingProtocols, w.Header(), false)
		w.ResponseWriter.WriteHeader(status)
	default:
		w.begin()
	}
}

// leavesHTTP reports whether a tunnel follows: a WebSocket, which HTTP/2 opens by CONNECT and an answer of 200.
func (w *response) leavesHTTP() bool {
	return w.status == http.StatusSwitchingProtocols || w.call.request.Method == http.MethodConnect && w.status/100 == 2
}

// upgrade charges a connection that leaves HTTP before it does.
func (w *response) upgrade() {
	w.mode = passing
	w.call.begin(w.status, w.Header(), false)
	if _, err := w.call.settle(cutNone); err != nil {
		panic(http.ErrAbortHandler)
	}
	w.call.writeCharge(w.Header())
	w.ResponseWriter.WriteHeader(w.status)
}

// begin starts a response that is charged.
func (w *response) begin() {
	h := w.Header()
	kind, _, _ := mime.ParseMediaType(h.Get("Content-Type"))
	bodiless := w.call.request.Method == http.MethodHead || w.status == http.StatusNoContent || w.status == http.StatusNotModified
	if length, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64); err == nil && !bodiless {
		w.length = length
	}
	if !bodiless && w.call.reads() && !w.decode() {
		w.mode = refused
		return
	}
	w.sse = isEventStream(h)
	w.call.begin(w.status, h, w.sse)
	switch {
	case bodiless || w.length == 0:
		w.mode, w.whole = keeping, true
	case w.sse || h.Get("Trailer") != "" || w.length > smallBody && !w.call.mayHold(int(min(w.length, mostKept+1)), 0) || w.call.asked.Stream || caddyhttp.IsIncremental(h):
		w.stream()
	default:
		w.mode, w.whole = keeping, w.length >= 0 || kind == "application/json" || w.call.keeps()
	}
}

// decode has a body decoded that comes compressed although it wasn't asked to: what is counted must be read, and the client
// did not ask for it either, as far as the upstream was told. It reports false where that can't be done.
func (w *response) decode() bool {
	h := w.Header()
	if !compressed(h) {
		return true
	}
	if w.status == http.StatusPartialContent || len(h.Values("Content-Encoding")) > 1 {
		return false
	}
	if w.coding = newDecoder(h.Get("Content-Encoding")); w.coding == nil {
		return false
	}
	h.Del("Content-Encoding")
	h.Del("Content-Length")
	return true
}

// isEventStream reports whether a response is an event stream that can be read.
func isEventStream(h http.Header) bool {
	kind, _, _ := mime.ParseMediaType(h.Get("Content-Type"))
	return kind == "text/event-stream" && !compressed(h)
}

func compressed(h http.Header) bool {
	coding := h.Get("Content-Encoding")
	return coding != "" && !strings.EqualFold(coding, "identity")
}

// stream sends the header: from here on the response flows, and its charge, where it isn't known yet, follows in trailers.
func (w *response) stream() {
	w.mode = streaming
	c, h := w.call, w.Header()
	wantsTrailers := strings.Contains(strings.ToLower(c.request.Header.Get("Te")), "trailers")
	if w.sse || c.request.ProtoMajor == 1 && wantsTrailers && !c.fixed {
		// An event stream may lose events on its way, and HTTP/1.1 has no trailers beside a Content-Length.
		h.Del("Content-Length")
	}
	// Chunks and HTTP/2 have an end of their own, which stays back as long as the handler runs.
	w.bound = h.Get("Content-Length") != "" || !c.request.ProtoAtLeast(1, 1)
	switch {
	case c.fixed:
		c.promiseCharge(h)
	case c.request.ProtoMajor >= 2 || c.request.ProtoAtLeast(1, 1) && h.Get("Content-Length") == "":
		for _, name := range chargeHeaders {
			if c.mayState(name) {
				h.Add("Trailer", name)
			}
		}
	}
	w.ResponseWriter.WriteHeader(w.status)
}

// Write counts p and passes on what may go to the client now.
func (w *response) Write(p []byte) (int, error) {
	if w.mode == undecided {
		w.WriteHeader(http.StatusOK)
	}
	switch {
	case w.mode == passing && w.sse:
		if err := w.send(w.muffle(p)); err != nil {
			return 0, err
		}
		return len(p), nil
	case w.mode == passing:
		return w.ResponseWriter.Write(p)
	case w.ended:
		if w.beyond += len(p); w.beyond > smallBody {
			return 0, errSettled
		}
		return len(p), nil
	case w.mode == refused:
		return 0, errCoding
	case w.status == http.StatusNoContent || w.status == http.StatusNotModified:
		return 0, http.ErrBodyNotAllowed
	case w.length >= 0 && w.taken+int64(len(p)) > w.length:
		return 0, http.ErrContentLength
	}
	w.taken += int64(len(p))
	take := w.take
	if w.coding != nil {
		take = func(p []byte) error { return w.coding.write(p, w.take) }
	}
	if err := take(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// take takes the next bytes of the body as they are counted.
func (w *response) take(p []byte) error {
	if w.mode == keeping {
		if w.call.mayHold(len(w.kept)+len(p), len(p)) {
			w.kept = append(w.kept, p...)
			return nil
		}
		if err := w.letGo(); err != nil {
			return err
		}
	}
	return w.pass(p)
}

// letGo turns a kept response into a streamed one.
func (w *response) letGo() error {
	w.stream()
	kept := w.kept
	w.kept = nil
	return w.pass(kept)
}

// pass counts the next bytes of a streamed response and sends on what may go. What they cost is held before they go.
func (w *response) pass(p []byte) (err error) {
	if w.sse {
		p = w.muffle(p)
	}
	if len(p) == 0 {
		return nil
	}
	defer func() { w.cut = w.cut || err != nil && !w.ended }()
	var exhausted bool
	w.out, exhausted, err = w.call.count(append(w.out[:0], w.last...), p)
	if err != nil {
		return err
	}
	if err := w.forward(w.out); err != nil {
		return err
	}
	if cap(w.out) > smallBody { // a large event: a stream does not keep the room
		w.out = nil
	}
	switch {
	case exhausted:
	case w.Header().Get("Content-Length") == "" && w.call.isOver():
		// The client is done with this event, although the upstream may stay for long.
		if err := w.finish(); err != nil {
			return err
		}
		w.ended = true
		return w.flush()
	default:
		return nil
	}
	if err := w.stop(); err != nil {
		return err
	}
	return errExhausted
}

// muffle takes what is said in our name out of the next bytes of an event stream.
func (w *response) muffle(p []byte) []byte {
	if cap(w.clean) > smallBody {
		w.clean = nil
	}
	w.clean = w.ours.write(w.clean[:0], p)
	return w.clean
}

// forward sends p, all but its last byte where that would complete the response.
func (w *response) forward(p []byte) error {
	if w.bound && len(p) > 0 {
		w.last = append(w.last[:0], p[len(p)-1])
		p = p[:len(p)-1]
	}
	return w.send(p)
}

func (w *response) send(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if _, err := w.ResponseWriter.Write(p); err != nil {
		w.gone = true
		if w.call.meter.OnCancel != cancelFinish {
			return err
		}
	}
	return nil
}

// stop ends a stream whose money has run out, with an error event in the provider's own format where it has one.
func (w *response) stop() error {
	end := w.call.stopEvent()
	if _, err := w.call.settle(cutFunds); err != nil || end == nil {
		return errExhausted
	}
	w.setTrailers()
	if err := w.send(slices.Concat(w.last, w.comment(), end)); err != nil {
		return err
	}
	w.ended = true
	return w.flush()
}

// FlushError sends what is there, unless the response is kept until it is charged.
func (w *response) FlushError() error {
	switch w.mode {
	case undecided:
		w.WriteHeader(http.StatusOK)
		return w.FlushError()
	case refused:
		return nil
	case keeping:
		if w.whole {
			return nil
		}
		if err := w.letGo(); err != nil {
			return err
		}
	}
	return w.flush()
}

func (w *response) flush() error {
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// ReadFrom keeps io.Copy from writing past the meter.
func (w *response) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{w}, r)
}

// complete charges a response whose handlers have ended, and sends the rest of it. It returns what to panic with where the
// client must see the response as incomplete.
func (w *response) complete() (cause any) {
	if w.mode == undecided {
		w.WriteHeader(http.StatusOK)
	}
	switch {
	case w.mode == passing:
		if !w.call.hasYielded() {
			w.sendHeader()
			dropOwn(w.Header()) // trailers
		}
		return nil
	case w.ended:
		w.setTrailers()
		return nil
	case w.mode == keeping:
		return w.completeKept()
	case w.mode == tunneling:
		_, _ = w.call.settle(cutNone) // a failure is logged; the connection is gone
		return nil
	}
	if w.finish() != nil {
		return http.ErrAbortHandler
	}
	return nil
}

// finish charges a streamed response, and sends the rest of it.
func (w *response) finish() error {
	w.call.quality = w.call.judge()
	if _, err := w.call.settle(cutNone); err != nil {
		return err
	}
	w.setTrailers()
	return w.send(slices.Concat(w.last, w.comment(), w.call.tail()))
}

func (w *response) completeKept() (cause any) {
	c := w.call
	if c.clientGone() && c.meter.OnCancel != cancelFinish {
		c.cancel() // it has left before the first byte
		return http.ErrAbortHandler
	}
	if len(w.kept) > 0 {
		var err error
		if w.out, err = c.countWhole(w.kept); err != nil {
			return http.ErrAbortHandler
		}
	}
	w.out = append(w.out, c.tail()...)
	if c.keeps() {
		c.answer = c.seal(w.status, w.Header(), w.out)
	}
	c.quality = c.judge()
	if _, err := c.settle(cutNone); err != nil {
		if errors.Is(err, errAborted) {
			return http.ErrAbortHandler
		}
		w.discard()
		w.Header().Set(headerRequest, c.id)
		writeProblem(w.ResponseWriter, asRefusal(err))
		return nil
	}
	c.writeCharge(w.Header())
	w.ResponseWriter.WriteHeader(w.status)
	if len(w.kept) == 0 {
		return nil
	}
	if w.send(w.out) != nil {
		return http.ErrAbortHandler
	}
	return nil
}

// broken settles a response that was cut: by the client, by the upstream, or by us. It returns what to tell the server.
func (w *response) broken(p any) (cause any, err error) {
	c := w.call
	switch {
	case w.ended:
		w.setTrailers()
		return nil, nil
	case w.mode == passing:
		return p, nil
	case w.mode == refused:
		return nil, w.failed(caddyhttp.Error(http.StatusBadGateway, errCoding))
	case w.mode != streaming && w.mode != tunneling:
		c.cancel()
		if p != http.ErrAbortHandler || c.clientGone() {
			return p, nil
		}
		// The upstream has died in the middle of a response of which the client has seen nothing.
		w.discard()
		w.Header().Set(headerRequest, c.id)
		return nil, caddyhttp.Error(http.StatusBadGateway, errors.New("the upstream ended its response too early"))
	}
	cut := cutUpstream
	if (w.gone || c.clientGone()) && c.meter.OnCancel != cancelFinish {
		cut = cutClient
	}
	if _, err := c.settle(cut); err != nil && !errors.Is(err, errAborted) {
		c.logger.Error("charging a response that was cut", zap.String("request", c.id), zap.Error(err))
	}
	return p, nil
}

// discard takes back what the handlers below have put into the header of a response that does not go out.
func (w *response) discard() {
	h := w.Header()
	clear(h)
	maps.Copy(h, w.own)
}

// setTrailers puts the charge where trailers are read from. What the upstream has put there under our names goes.
func (w *response) setTrailers() {
	w.sendHeader()
	h := w.Header()
	dropOwn(h)
	if !w.call.fixed {
		w.call.writeCharge(h)
	}
}

// sendHeader makes sure that a header which was written has gone out, before trailers take its place: HTTP/3's server reads it only when it
// sends it.
func (w *response) sendHeader() {
	if w.call.request.ProtoMajor >= 3 {
		_ = w.flush()
	}
}

// comment is the line of an event stream that states the charge: clients skip it, and whoever reads the raw stream sees it.
func (w *response) comment() []byte {
	if !w.sse {
		return nil
	}
	charge := w.call.charge
	line := ": tallygate request=" + w.call.id + " charge=" + charge.Amount.String() +
		" units=" + unitsOf(charge) + " balance=" + charge.Balance.String() + "\n"
	return []byte(line)
}

// Interface guards
var (
	_ http.ResponseWriter = (*response)(nil)
	_ io.ReaderFrom       = (*response)(nil)
)
