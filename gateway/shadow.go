package gateway

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"

	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/meter/formats"
)

// In shadow mode the request goes to the provider, and the answer to the client, byte by byte as they would without a meter, and at the same
// time. Only Tallygate's own keys and headers are removed. A copy of the request is kept, and is read when the answer begins.

// shadowing is what a call in shadow mode keeps until its answer begins.
type shadowing struct {
	copy    *http.Request   // the request as it arrived
	sent    *http.Request   // the request that the handlers got, which they may change
	refusal *ledger.Refusal // why it would have been refused before its body is read; nil if it would not
	body    *heardBody      // nil if the body is not needed, or there is none
}

// overhear serves a call in shadow mode.
func (a *arrival) overhear(w http.ResponseWriter, next Handler) error {
	r := a.request
	s := &shadowing{copy: r.Clone(r.Context())}
	if IsEarly(r) {
		s.refusal = RefuseEarly()
	} else {
		s.refusal = a.identify()
	}
	if hasBody(r) && a.needsBody() {
		s.body = &heardBody{ReadCloser: r.Body, of: a}
		r.Body = s.body
		defer s.body.heard()
	}
	call := &admitted{asked: &asked{arrival: a}, pay: free{}, shadow: s}
	s.sent = r.WithContext(context.WithValue(r.Context(), callKey{}, call)) // an inner meter finds the key there
	a.request = s.sent
	a.introduce(s.sent)
	defer func() {
		if call.done != nil {
			call.leave()
		}
	}()
	return call.serve(w, next)
}

// needsBody reports whether the price, or the name of a call that is made again, depends on the body.
func (a *arrival) needsBody() bool {
	perCall := false
	if a.route.Rates != nil {
		_, perCall = a.route.Rates.Fixed()
	}
	return !perCall || a.route.readsBody() || a.terms.idempotencyKey != ""
}

// understandLate finds out what was asked for, now that the answer begins. If it can't, the answer passes without a record.
func (a *admitted) understandLate() {
	s, arrived := a.shadow, a.arrival
	if s == nil || a.done != nil || a.isOver() {
		return
	}
	refusal := s.refusal
	if refusal == nil {
		refusal = arrived.refused
	}
	arrived.request = s.copy.WithContext(s.sent.Context())
	if refusal == nil {
		refusal = s.recall(arrived.request)
	}
	var asked *asked
	if refusal == nil {
		asked, refusal = arrived.understandAll()
	}
	if refusal == nil {
		var pay payment
		if pay, refusal = asked.authorise(); refusal == nil {
			a.mu.Lock()
			a.asked, a.pay = asked, pay
			a.mu.Unlock()
			a.listen()
			a.begins(func() {})
			if asked.judged != (target{}) {
				refusal = a.departs(s.sent, a.body)
			}
		}
	}
	if !isPreflight(s.copy) { // it has no key, and is not refused
		a.wouldRefuse(refusal)
	}
}

// recall gives a request the body that has passed.
func (s *shadowing) recall(r *http.Request) *ledger.Refusal {
	r.Body = http.NoBody
	if s.body == nil {
		return nil
	}
	body, whole := s.body.heard()
	if !whole {
		return refuse(api.RequestTooLarge, "the request body is longer than this route reads")
	}
	setBody(r, body)
	return nil
}

// heardBody is a request's body in shadow mode. It keeps a copy of what is read of it.
type heardBody struct {
	io.ReadCloser
	of *arrival

	mu    sync.Mutex // of what is below, because a transport may read on when the answer has begun
	bytes []byte
	long  bool // there is no room for it
	over  bool // no more is kept
}

func (b *heardBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over || n <= 0 {
		return n, err
	}
	size := int64(len(b.bytes) + n)
	if size > b.of.route.maxBody() || !b.of.takeRoom(int64(n), size) {
		b.bytes, b.long, b.over = nil, true, true
		return n, err
	}
	b.bytes = append(b.bytes, p[:n]...)
	return n, err
}

// heard returns what was read of the body. It is false if there was no room for it. Nothing more is kept.
func (b *heardBody) heard() ([]byte, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
	return b.bytes, !b.long
}

// overheard is an answer in shadow mode: it passes as it comes, and is counted.
type overheard struct {
	*counted
	deaf bool   // it can't be counted
	tell []byte // a copy of an answer that may tell of resources; nil if it does not, or is too long
	told bool   // it may tell of resources
}

// overhear sends the header of an answer in shadow mode.
func (w *response) overhear() {
	c, h := w.call, w.Header()
	c.understandLate()
	b := &overheard{counted: &counted{response: w, length: contentLength(h)}}
	w.body = b
	if gone := c.stored().Deletes; gone != nil && w.status/100 == 2 {
		c.deleted(*gone)
	}
	b.told = w.sifts() && !compressed(h)
	switch {
	case w.isFree():
		c.cancel()
		b.deaf = true
	case w.leavesHTTP():
		c.begin(http.StatusSwitchingProtocols, h, false)
	default:
		b.listen()
	}
	h.Set(headerCharge, "0")
	w.ResponseWriter.WriteHeader(w.status)
}

// listen begins to count the answer. If it is compressed, a copy is decoded.
func (b *overheard) listen() {
	c, h := b.call, b.Header()
	if b.grpc {
		b.frames = newGRPCFrames(h)
	}
	if compressed(h) && c.reads() {
		coding := h.Get("Content-Encoding")
		h = h.Clone()
		h.Del("Content-Encoding")
		if b.coding = newDecoder(coding); b.coding == nil || b.status == http.StatusPartialContent {
			c.wouldRefuse(refuse(api.UpstreamFailed, errCoding.Error()))
			c.cancel()
			b.deaf = true
			return
		}
	}
	c.begin(b.status, h, isEventStream(h))
}

// hear counts what has gone to the client.
func (b *overheard) hear(p []byte) {
	b.taken += int64(len(p))
	if b.told {
		if b.tell = append(b.tell, p...); len(b.tell) > maxSifted {
			b.tell, b.told = nil, false
		}
	}
	if b.deaf || len(p) == 0 {
		return
	}
	b.frames.feed(p)
	if b.decoded(p, b.count) != nil {
		b.deaf = true
	}
}

func (b *overheard) count(p []byte) error {
	_, err := b.call.answer.whole(nil, p)
	return err
}

func (b *overheard) write(p []byte) (int, error) {
	n, err := b.ResponseWriter.Write(p)
	b.hear(p[:n])
	return n, err
}

func (b *overheard) flush() error { return b.flushClient() }

func (b *overheard) complete() any {
	b.sendHeader()
	dropOwn(b.Header()) // trailers
	if b.told {
		b.note()
	}
	e := ending{cut: cutNone}
	bodiless := b.call.request.Method == http.MethodHead || b.status == http.StatusNoContent || b.status == http.StatusNotModified
	switch {
	case b.call.isOver():
		return nil
	case !bodiless && (b.length > b.taken || b.coding != nil && b.coding.end(b.count) != nil):
		e.cut = cutUpstream
	default:
		e = b.ending()
	}
	b.settle(e)
	return nil
}

// settle records the answer. What would be withheld is not recorded.
func (b *overheard) settle(e ending) {
	_, err := b.call.settle(e)
	if withheld := (*withheldError)(nil); errors.As(err, &withheld) {
		b.call.wouldRefuse(withheld.refusal)
		b.call.cancel()
	}
}

// note takes note of the resources that the answer tells of.
func (b *overheard) note() {
	c := b.call
	told := formats.Told(c.stored().Tells, b.tell)
	if c.stored().Makes {
		told = formats.Made(c.call, b.status, b.Header(), b.tell)
	}
	if err := c.own(c.unnoted(c.made(told, c.at))); err != nil {
		c.route.logger().Error("recording resources", "request", c.id, "error", err)
	}
}

// broke records an answer that was cut.
func (b *overheard) broke() {
	e := ending{cut: cutUpstream}
	if b.call.clientGone() {
		e.cut = cutClient
	}
	if !b.call.isOver() {
		b.settle(e)
	}
}

func (b *overheard) failed(err error) error    { b.broke(); return err }
func (b *overheard) broken(p any) (any, error) { b.broke(); return p, nil }

// overheardConn is a connection that has left HTTP in shadow mode. It passes on what both sides say, and counts it.
type overheardConn struct {
	net.Conn
	answer *overheard
}

// hijacked returns the connection that a handler takes over.
func (b *overheard) hijacked(conn net.Conn, buffered *bufio.ReadWriter) (net.Conn, *bufio.ReadWriter, error) {
	if b.deaf {
		return conn, buffered, nil
	}
	c := &overheardConn{conn, b}
	early, _ := buffered.Peek(buffered.Reader.Buffered())
	c.said(early)
	buffered.Writer.Reset(c)
	return c, buffered, nil
}

func (c *overheardConn) said(p []byte) {
	if talk := c.answer.call.talk; talk != nil && len(p) > 0 {
		_ = talk.hear(p) // in shadow mode it refuses nothing
	}
}

func (c *overheardConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.said(p[:n])
	return n, err
}

func (c *overheardConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.answer.hear(p[:n])
	return n, err
}

// CloseWrite ends one direction of the connection, as reverse_proxy does when the upstream has ended that direction.
func (c *overheardConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}
