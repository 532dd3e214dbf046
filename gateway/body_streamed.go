package gateway

import (
	"cmp"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"
)

// streamed is an answer that is passed on as it comes, except for its end. If its charge is not known before, it follows in trailers.
type streamed struct {
	*counted
	sse bool
	// known says that the header states the charge.
	known bool
	ours  muffler // for an event stream
	clean []byte  // what ours lets through
	out   []byte
	// bound says that the last byte would show the client that the answer is complete. It is the byte with the number until, or if that is -1 any
	// byte may be. last is that byte, if it has come.
	bound   bool
	until   int64
	last    []byte
	open    bool          // the header states no length
	gone    bool          // the client accepts nothing more
	began   time.Time     // when the header was sent
	waited  time.Duration // how long all writes together waited for the client
	stalled bool          // the last write waited a long time for the client
	unpaid  bool          // the money has run out, and what the answer has used is awaited, since the provider keeps it
	cut     bool          // bytes are missing, so the client must not take the answer for complete
	ended   bool          // the stream has ended properly: by its terminal event, or by Tallygate
	beyond  int           // bytes that came after the end
}

// stream sends the header. After that the answer is passed on as it comes.
func (c *counted) stream() *streamed {
	b := &streamed{counted: c, began: c.call.gateway.now()}
	c.body = b
	call, h := c.call, c.Header()
	r := call.request
	if _, known := call.pay.known(); known {
		b.known = !c.grpc // whether it is charged is known at its end
	}
	b.sse = isEventStream(h)
	wantsTrailers := strings.Contains(strings.ToLower(r.Header.Get("Te")), "trailers")
	if b.sse || r.ProtoMajor == 1 && wantsTrailers && !b.known {
		// An event stream may get shorter on its way, and HTTP/1.1 has no trailers together with a Content-Length.
		h.Del("Content-Length")
	}
	// Chunks and HTTP/2 have an end of their own, which is not sent while the handler runs.
	b.open = h.Get("Content-Length") == ""
	b.bound, b.until = !b.open || !r.ProtoAtLeast(1, 1), contentLength(h)
	switch {
	case b.known:
		call.promiseCharge(h)
	case r.ProtoMajor >= 2 || r.ProtoAtLeast(1, 1) && b.open:
		for _, name := range chargeHeaders {
			if call.mayState(name) {
				h.Add("Trailer", name)
			}
		}
	}
	c.ResponseWriter.WriteHeader(c.status)
	return b
}

func (b *streamed) write(p []byte) (int, error) {
	if b.ended {
		if b.beyond += len(p); b.beyond > smallBody {
			return 0, errSettled
		}
		return len(p), nil
	}
	return b.accept(p, b.take)
}

// take counts the next bytes of the body, and sends what may be sent. The price of the bytes is held before they are sent.
func (b *streamed) take(p []byte) (err error) {
	if b.sse {
		p = b.muffle(p)
	}
	if len(p) == 0 {
		return nil
	}
	defer func() { b.cut = b.cut || err != nil && !b.ended }()
	if b.unpaid {
		return b.hear(p)
	}
	out, exhausted, err := b.call.answer.chunk(append(b.out[:0], b.last...), p)
	if err != nil {
		return err
	}
	if !b.call.answer.passes || len(b.last) > 0 { // otherwise it may be p, which is not ours
		b.out = out
	}
	if err := b.forward(out); err != nil {
		return err
	}
	if cap(b.out) > smallBody { // after a large event, a stream gives its memory back
		b.out = nil
	}
	switch {
	case exhausted && b.call.call.Stays:
		b.unpaid = true
		return b.hear(nil)
	case exhausted:
		if err := b.stop(); err != nil {
			return err
		}
		return errExhausted
	case b.open && b.call.answer.isOver():
		// This event ends the stream for the client, although the upstream may stay connected for long.
		if err := b.finish(); err != nil {
			return err
		}
		b.ended = true
		return b.flushClient()
	default:
		return nil
	}
}

// hear counts the next bytes of an answer of which nothing more is sent.
func (b *streamed) hear(p []byte) (err error) {
	if err = b.call.answer.hear(p); err == nil && b.call.answer.isOver() {
		err = b.stop()
	}
	return err
}

// muffle removes comments that look like Tallygate's from the next bytes of an event stream.
func (b *streamed) muffle(p []byte) []byte {
	if cap(b.clean) > smallBody {
		b.clean = nil
	}
	b.clean = b.ours.write(b.clean[:0], p)
	return b.clean
}

// forward sends p, except for its last byte if that would complete the answer.
func (b *streamed) forward(p []byte) error {
	if b.bound && b.taken >= b.until && len(p) > 0 {
		b.last = append(b.last[:0], p[len(p)-1])
		p = p[:len(p)-1]
	}
	return b.send(p)
}

func (b *streamed) send(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	began := b.call.gateway.now()
	_, err := b.ResponseWriter.Write(p)
	b.waitedSince(began)
	if err != nil {
		b.gone = true
		if !b.call.finishesUnheard() && !b.call.readsOn {
			return err
		}
	}
	return nil
}

// waitedSince takes note of how long something has waited for the client.
func (b *streamed) waitedSince(began time.Time) {
	wait := b.call.gateway.now().Sub(began)
	b.waited += wait
	b.stalled = wait >= b.call.gateway.stall
}

// stop ends a stream whose money has run out, with an error event if the provider's format has one.
func (b *streamed) stop() error {
	event := b.call.answer.stopEvent()
	end, err := b.call.settle(ending{cut: cutFunds})
	if err != nil || event == nil {
		return errExhausted
	}
	b.setTrailers(end)
	if err := b.send(slices.Concat(b.last, b.comment(end), event)); err != nil {
		return err
	}
	b.ended = true
	return b.flushClient()
}

func (b *streamed) flush() error {
	defer b.waitedSince(b.call.gateway.now())
	return b.flushClient()
}

func (b *streamed) complete() (cause any) {
	if b.ended {
		b.setTrailers(b.call.end)
		return nil
	}
	if !b.finishTaking(b.take) {
		panic(http.ErrAbortHandler)
	}
	return b.end()
}

// end ends a stream whose body is complete.
func (b *streamed) end() (cause any) {
	if b.cut { // the handler went on although a write had failed
		panic(http.ErrAbortHandler)
	}
	if b.ended {
		b.setTrailers(b.call.end)
		return nil
	}
	if b.finish() != nil {
		return http.ErrAbortHandler
	}
	return nil
}

// finish charges the answer, and sends the rest of it.
func (b *streamed) finish() error {
	if b.unpaid {
		return b.stop()
	}
	if b.left() { // what it used is known now; its client does not get the end
		_, err := b.call.settle(ending{cut: cutClient})
		return cmp.Or(err, errLeft)
	}
	end, err := b.call.settle(b.ending())
	var withheld *withheldError
	if errors.As(err, &withheld) { // the answer has come except for its end, so it ends like a stream whose money ran out before
		return b.stop()
	}
	if err != nil {
		return err
	}
	b.setTrailers(end)
	return b.send(slices.Concat(b.last, b.comment(end), b.call.answer.tail()))
}

// failed ends a stream whose handlers have failed. It panics, because an error that is returned after the header looks like a complete
// answer to the client.
func (b *streamed) failed(error) error { panic(http.ErrAbortHandler) }

// broken settles an answer that was cut: by the client, by the upstream, or by Tallygate.
func (b *streamed) broken(p any) (cause any, err error) {
	if b.ended {
		b.setTrailers(b.call.end)
		return nil, nil
	}
	c := b.call
	if _, err := c.settle(ending{cut: b.cutBy()}); err != nil && !errors.Is(err, errAborted) {
		c.route.logger().Error("charging a response that was cut", "request", c.id, "error", err)
	}
	return p, nil
}

// left reports whether the client has left and the route does not wait for the end of the answer.
func (b *streamed) left() bool {
	return (b.gone || b.call.clientGone()) && !b.call.finishesUnheard()
}

// stalls reports whether the client has kept the answer from going on: an upstream that breaks off then has waited too, and it is the client who cuts
// the answer. It may wait at once for long, or again and again for most of the time.
func (b *streamed) stalls() bool {
	return b.stalled || b.waited >= b.call.gateway.stall && b.waited > b.call.gateway.now().Sub(b.began)/2
}

// cutBy returns who has cut an answer that broke off.
func (b *streamed) cutBy() string {
	switch {
	case b.unpaid:
		return cutFunds
	case b.left() || b.stalls():
		return cutClient
	}
	return cutUpstream
}

// setTrailers sets the charge as trailers. It removes what the upstream has set under the same names.
func (b *streamed) setTrailers(end *settled) {
	b.sendHeader()
	h := b.Header()
	dropOwn(h)
	if !b.known {
		b.call.writeCharge(h, end)
	}
}

// comment states the charge in a comment of an event stream, if clients of its format skip comments. Whoever reads the raw stream sees it.
func (b *streamed) comment(end *settled) []byte {
	charge := &end.charge
	text := "tallygate request=" + b.call.id + " charge=" + end.amount + " units=" + end.units + " balance=" + charge.Balance.String()
	if charge.Credit > 0 {
		text += " credit=" + charge.Credit.String()
	}
	return b.call.answer.comment(text)
}
