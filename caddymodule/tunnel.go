package caddymodule

import (
	"bufio"
	"net"
	"net/http"
)

// Hijack hands out the connection of an upgraded request, with what goes to the client counted on its way.
func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil || w.mode != tunneling {
		return conn, buffered, err
	}
	tunnel := &tunnel{Conn: conn, response: w}
	buffered.Writer.Reset(tunnel)
	return tunnel, buffered, nil
}

// tunnel is a connection that has left HTTP (a WebSocket), under a meter.
type tunnel struct {
	net.Conn
	response *response
}

// Write counts p and sends it on. When the money has run out it sends the error in the protocol's own form, and closes.
func (t *tunnel) Write(p []byte) (int, error) {
	c := t.response.call
	out, exhausted, err := c.count(nil, p)
	if err != nil {
		_ = t.Close()
		return 0, err
	}
	if _, err := t.Conn.Write(out); err != nil {
		return 0, err
	}
	if !exhausted {
		return len(p), nil
	}
	_, _ = c.settle(cutFunds)
	_, _ = t.Conn.Write(c.stopEvent())
	_ = t.Close()
	return 0, errExhausted
}

// CloseWrite ends one direction of the connection, as reverse_proxy does when the upstream has ended its.
func (t *tunnel) CloseWrite() error {
	if half, ok := t.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return t.Close()
}
