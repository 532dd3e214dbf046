package caddymodule

import (
	"errors"
	"io"
	"maps"
	"mime"
	"net/http"
	"runtime/debug"
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
	kept   []byte
	whole  bool // kept although the handler flushes: a single document
	out    []byte
	sse    bool
	gone   bool // the client no longer takes what is written
	ended  bool // we have ended the stream ourselves, properly
}

var (
	errAborted   = errors.New("the server is stopping")
	errExhausted = errors.New("the money for this call has run out")
)

// serve lets the request through to the provider's handlers and sees its response to its end.
func (c *call) serve(w http.ResponseWriter, next caddyhttp.Handler) error {
	rw := &response{
		ResponseWriterWrapper: &caddyhttp.ResponseWriterWrapper{ResponseWriter: w},
		call:                  c,
		own:                   w.Header().Clone(),
	}
	err, cause := rw.run(next)
	c.report()
	if cause != nil {
		panic(cause)
	}
	return err
}

// run serves the request. cause is what the handlers panicked with, if the panic must go on.
func (w *response) run(next caddyhttp.Handler) (err error, cause any) { //nolint:revive // the panic is the rarer of the two
	defer func() {
		if p := recover(); p != nil {
			if p != http.ErrAbortHandler {
				w.call.logger.Error("handler panicked", zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
			}
			err, cause = w.broken(p)
		}
	}()
	err = next.ServeHTTP(w, w.call.request)
	if err != nil && w.mode != passing && !w.call.hasYielded() {
		if w.mode == streaming {
			// What is returned after the header looks complete to the client; only a panic does not.
			panic(http.ErrAbortHandler)
		}
		w.call.cancel()
		w.discard()
		w.Header().Set(headerRequest, w.call.id)
		return err, nil
	}
	return err, w.complete()
}

// WriteHeader decides how the response goes on.
func (w *response) WriteHeader(status int) {
	if status >= 100 && status < 200 && status != http.StatusSwitchingProtocols {
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
	switch {
	case c.auth == nil || !c.meter.charged(status):
		w.mode = passing
		c.cancel()
		w.Header().Set(headerCharge, "0")
		w.ResponseWriter.WriteHeader(status)
	case status == http.StatusSwitchingProtocols && c.fixed:
		w.upgrade()
	case status == http.StatusSwitchingProtocols:
		w.mode = tunneling
		c.begin(status, w.Header())
		w.ResponseWriter.WriteHeader(status)
	default:
		w.begin()
	}
}

// upgrade charges a connection that leaves HTTP before it does.
func (w *response) upgrade() {
	w.mode = passing
	w.call.begin(w.status, w.Header())
	if _, err := w.call.settle(cutNone); err != nil {
		panic(http.ErrAbortHandler)
	}
	w.call.writeCharge(w.Header())
	w.ResponseWriter.WriteHeader(w.status)
}

// begin starts a response that is charged.
func (w *response) begin() {
	h := w.Header()
	w.call.begin(w.status, h)
	kind, _, _ := mime.ParseMediaType(h.Get("Content-Type"))
	length, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64)
	known := err == nil
	w.sse = kind == "text/event-stream"
	bodiless := w.call.request.Method == http.MethodHead || w.status == http.StatusNoContent || known && length == 0
	switch {
	case bodiless:
		w.mode, w.whole = keeping, true
	case w.sse || h.Get("Trailer") != "" || known && length > smallBody || w.call.asked.Stream:
		w.stream()
	default:
		w.mode, w.whole = keeping, known || kind == "application/json"
	}
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
	switch w.mode {
	case passing:
		return w.ResponseWriter.Write(p)
	case keeping:
		if len(w.kept)+len(p) <= smallBody {
			w.kept = append(w.kept, p...)
			return len(p), nil
		}
		if err := w.letGo(); err != nil {
			return 0, err
		}
	}
	if err := w.pass(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// letGo turns a kept response into a streamed one.
func (w *response) letGo() error {
	w.stream()
	kept := w.kept
	w.kept = nil
	return w.pass(kept)
}

// pass counts the next bytes of a streamed response and sends on what may go. What they cost is held before they go.
func (w *response) pass(p []byte) error {
	var exhausted bool
	var err error
	w.out, exhausted, err = w.call.count(w.out[:0], p)
	if err != nil {
		return err
	}
	if err := w.send(w.out); err != nil {
		return err
	}
	if !exhausted {
		return nil
	}
	if err := w.stop(); err != nil {
		return err
	}
	return errExhausted
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
	if err := w.send(append(w.comment(), end...)); err != nil {
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
	case w.mode == passing || w.ended:
		return nil
	case w.mode == keeping:
		return w.completeKept()
	case w.mode == tunneling:
		_, _ = w.call.settle(cutNone) // a failure is logged; the connection is gone
		return nil
	}
	if _, err := w.call.settle(cutNone); err != nil {
		return http.ErrAbortHandler
	}
	w.setTrailers()
	tail := w.call.tail()
	if w.sse {
		tail = append(w.comment(), tail...)
	}
	if w.send(tail) != nil {
		return http.ErrAbortHandler
	}
	return nil
}

func (w *response) completeKept() (cause any) {
	c := w.call
	if len(w.kept) > 0 {
		var err error
		if w.out, _, err = c.count(nil, w.kept); err != nil {
			return http.ErrAbortHandler
		}
	}
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
	if w.send(append(w.out, c.tail()...)) != nil {
		return http.ErrAbortHandler
	}
	return nil
}

// broken settles a response that was cut: by the client, by the upstream, or by us. It returns what to tell the server.
func (w *response) broken(p any) (err error, cause any) { //nolint:revive // see run
	c := w.call
	switch {
	case w.ended:
		return nil, nil
	case w.mode == passing:
		return nil, p
	case w.mode != streaming && w.mode != tunneling:
		c.cancel()
		if p != http.ErrAbortHandler || c.clientGone() {
			return nil, p
		}
		// The upstream has died in the middle of a response of which the client has seen nothing.
		w.discard()
		w.Header().Set(headerRequest, c.id)
		return caddyhttp.Error(http.StatusBadGateway, errors.New("the upstream ended its response too early")), nil
	}
	cut := cutUpstream
	if w.gone || c.clientGone() {
		cut = cutClient
	}
	if _, err := c.settle(cut); err != nil && !errors.Is(err, errAborted) {
		c.logger.Error("charging a response that was cut", zap.String("request", c.id), zap.Error(err))
	}
	return nil, p
}

// discard takes back what the handlers below have put into the header of a response that does not go out.
func (w *response) discard() {
	h := w.Header()
	clear(h)
	maps.Copy(h, w.own)
}

// setTrailers puts the charge where trailers are read from. What the upstream has put there under our names goes.
func (w *response) setTrailers() {
	h := w.Header()
	dropOwn(h)
	if !w.call.fixed {
		w.call.writeCharge(h)
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
