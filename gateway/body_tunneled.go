package gateway

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
)

// tunneled is a connection that has left HTTP. Its messages are counted as they go to the client.
type tunneled struct{ *streamed }

// tunnel starts a connection that leaves HTTP. If its price is known, the call is charged before.
func (w *response) tunnel() {
	c := w.call
	if _, known := c.pay.known(); !known {
		c.begin(http.StatusSwitchingProtocols, w.Header(), false)
		w.body = &tunneled{&streamed{counted: &counted{response: w, length: -1}}}
		w.ResponseWriter.WriteHeader(w.status)
		return
	}
	w.body = &passing{response: w}
	c.begin(w.status, w.Header(), false)
	end, err := c.settle(ending{cut: cutNone})
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	c.writeCharge(w.Header(), end)
	w.ResponseWriter.WriteHeader(w.status)
}

func (b *tunneled) complete() any {
	if b.ended {
		return b.streamed.complete()
	}
	if b.cut {
		panic(http.ErrAbortHandler)
	}
	if b.call.talkIsRefused() {
		_, _ = b.call.settle(ending{cut: cutClient})
		if b.call.request.Method == http.MethodConnect { // a connection that was handed out has heard it
			_ = b.send(b.call.answer.stopEvent())
		}
		return nil
	}
	_, err := b.call.settle(ending{cut: b.call.cutTalk()}) // a failure was logged; the connection is gone
	if withheld := (*withheldError)(nil); errors.As(err, &withheld) {
		_, _ = b.call.settle(ending{cut: cutFunds})
	}
	return nil
}

// Hijack returns the connection of an upgraded request. What goes to the client through it is counted, and what the client says is heard.
func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(w.ResponseWriter).Hijack()
	w.taken = w.taken || err == nil
	if shadow, ok := w.body.(*overheard); ok && err == nil {
		return shadow.hijacked(conn, buffered)
	}
	if err != nil {
		return conn, buffered, err
	}
	if _, counted := w.body.(*tunneled); counted {
		tunnel := &tunnel{Conn: conn, call: w.call}
		buffered.Writer.Reset(tunnel)
		return tunnel, buffered, hearEarly(tunnel, buffered)
	}
	if w.call.talk != nil {
		heard := &heard{conn, w.call.talk}
		return heard, buffered, hearEarly(heard, buffered)
	}
	return conn, buffered, nil
}

// hearing is a connection whose client is heard.
type hearing interface {
	io.Reader
	hear(p []byte) error
}

// hearEarly reads what the client has sent before the connection was handed out.
func hearEarly(conn hearing, buffered *bufio.ReadWriter) error {
	early, _ := buffered.Peek(buffered.Reader.Buffered())
	if err := conn.hear(early); err != nil {
		return err
	}
	// What is not buffered yet is read from the connection.
	buffered.Reader = bufio.NewReaderSize(io.MultiReader(bytes.NewReader(bytes.Clone(early)), conn), max(4096, len(early)))
	_, err := buffered.Peek(len(early))
	return err
}

// heard is a connection whose price is known, so that nothing is counted. It ends when what its client says is refused.
type heard struct {
	net.Conn
	talk *talk
}

func (h *heard) Read(p []byte) (int, error) {
	n, err := h.Conn.Read(p)
	if refused := h.hear(p[:n]); refused != nil {
		return 0, refused
	}
	return n, err
}

func (h *heard) hear(p []byte) error {
	err := h.talk.hear(p)
	if err != nil {
		_ = h.Close()
	}
	return err
}

// tunnel is a connection that has left HTTP (a WebSocket), under a meter.
type tunnel struct {
	net.Conn
	call    *admitted
	sending sync.Mutex // of what goes to the client: frames by the upstream, and the one that ends the connection
}

// Read reads what the client sends. A message that is refused is not passed on: the client gets the reason, and the connection ends. If time
// is charged, the time that has passed is paid first, because a server that only listens sends nothing at which it could be paid.
func (t *tunnel) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	if refused := t.hear(p[:n]); refused != nil {
		return 0, refused
	}
	if talk := t.call.talk; talk != nil && (err != nil || talk.reader.Closed()) {
		talk.leave()
	}
	if n == 0 || !t.call.takesTime() {
		return n, err
	}
	t.sending.Lock()
	defer t.sending.Unlock()
	exhausted, failed := t.call.answer.pass()
	switch {
	case exhausted:
		return 0, t.stop()
	case failed != nil:
		_ = t.Close()
		return 0, failed
	}
	return n, err
}

func (t *tunnel) hear(p []byte) error {
	if t.call.talk == nil {
		return nil
	}
	err := t.call.talk.hear(p)
	if err != nil {
		t.sending.Lock()
		defer t.sending.Unlock()
		_, _ = t.call.settle(ending{cut: cutClient})
		_, _ = t.Conn.Write(t.call.answer.stopEvent())
		_ = t.Close()
	}
	return err
}

// Write counts p and sends it. When the money has run out, it sends an error in the protocol's own form, and closes.
func (t *tunnel) Write(p []byte) (int, error) {
	t.sending.Lock()
	defer t.sending.Unlock()
	out, exhausted, err := t.call.answer.chunk(nil, p)
	if err != nil {
		_ = t.Close()
		return 0, err
	}
	if _, err := t.Conn.Write(out); err != nil {
		t.call.talk.ended(cutClient)
		if !t.call.readsOn || !t.call.isAnswering() {
			return 0, err
		}
	}
	switch {
	case exhausted:
		return 0, t.stop()
	case t.call.answer.isOver():
		if err := t.finish(); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// finish charges the connection when the upstream has sent its close frame, and then sends that frame. The client answers it, so both sides
// see the code.
func (t *tunnel) finish() error {
	t.call.talk.ended(cutUpstream)
	_, err := t.call.settle(ending{cut: t.call.cutTalk()})
	if withheld := (*withheldError)(nil); errors.As(err, &withheld) {
		return t.stop()
	}
	if err != nil {
		_ = t.Close()
		return err
	}
	_, err = t.Conn.Write(t.call.answer.tail())
	return err
}

// stop charges what was sent, sends an error in the protocol's own form, and closes.
func (t *tunnel) stop() error {
	_, _ = t.call.settle(ending{cut: cutFunds})
	_, _ = t.Conn.Write(t.call.answer.stopEvent())
	_ = t.Close()
	return errExhausted
}

// Close ends the connection, as reverse_proxy does when one side has ended it.
func (t *tunnel) Close() error {
	t.call.talk.ended(cutUpstream)
	return t.Conn.Close()
}

// CloseWrite ends one direction of the connection, as reverse_proxy does when the upstream has ended that direction.
func (t *tunnel) CloseWrite() error {
	t.call.talk.ended(cutUpstream)
	if half, ok := t.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return t.Close()
}
