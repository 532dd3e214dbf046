package gateway

import (
	"net/http"
	"strconv"

	"github.com/dunglas/httpsfv"
)

// smallBody is the size in bytes up to which an answer is kept until it is charged, so that its charge can stand in its
// headers. A longer or streamed one flows at once, all but its end.
const smallBody = 64 << 10

// counted is what kept and streamed answers have in common: the bytes that come from the handlers, decoded and held against the length
// that the header announces.
type counted struct {
	*response
	length int64 // of the body, as its Content-Length has it; -1: not known
	taken  int64 // bytes of the body that have come from the handlers
	coding *decoder
}

// decode has a body decoded that comes compressed although it wasn't asked to: what is counted must be read, and the client
// did not ask for it either, as far as the upstream was told. It reports false where that can't be done.
func (c *counted) decode() bool {
	h := c.Header()
	if !compressed(h) {
		return true
	}
	if c.status == http.StatusPartialContent || len(h.Values("Content-Encoding")) > 1 {
		return false
	}
	if c.coding = newDecoder(h.Get("Content-Encoding")); c.coding == nil {
		return false
	}
	h.Del("Content-Encoding")
	h.Del("Content-Length")
	return true
}

// accept takes what the handlers write, and hands it to take as it is counted.
func (c *counted) accept(p []byte, take func([]byte) error) (int, error) {
	switch {
	case c.status == http.StatusNoContent || c.status == http.StatusNotModified:
		return 0, http.ErrBodyNotAllowed
	case c.length >= 0 && c.taken+int64(len(p)) > c.length:
		return 0, http.ErrContentLength
	}
	c.taken += int64(len(p))
	if err := c.decoded(p, take); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (c *counted) decoded(p []byte, take func([]byte) error) error {
	if c.coding != nil {
		return c.coding.write(p, take)
	}
	return take(p)
}

// finishTaking takes what decoding has left, and reports whether the body has come whole. A handler may have written less than it
// announced.
func (c *counted) finishTaking(take func([]byte) error) (whole bool) {
	if c.coding != nil && c.coding.end(take) != nil {
		return false
	}
	return c.length <= c.taken
}

func (c *counted) close() { c.coding.close() }

// contentLength is the length that a header announces, -1 where it announces none.
func contentLength(h http.Header) int64 {
	if length, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64); err == nil {
		return length
	}
	return -1
}

// isIncremental reports whether an answer asks to be passed on as it comes:
// https://www.ietf.org/archive/id/draft-ietf-httpbis-incremental-04.html
func isIncremental(h http.Header) bool {
	values := h.Values("Incremental")
	if len(values) == 0 {
		return false
	}
	item, err := httpsfv.UnmarshalItem(values)
	is, ok := item.Value.(bool)
	return err == nil && ok && is
}
