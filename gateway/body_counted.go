package gateway

import (
	"net/http"
	"strconv"

	"github.com/dunglas/httpsfv"
)

// smallBody is the size in bytes up to which an answer is held back until it is charged, so that its headers can state the charge. A longer
// or streamed answer is passed on at once, except for its end.
const smallBody = 64 << 10

// counted is the common part of kept and streamed answers: it decodes the bytes that come from the handlers, and compares their number with
// the length that the header states.
type counted struct {
	*response
	length int64 // the Content-Length; -1: not known
	taken  int64 // bytes of the body that the handlers have written
	coding *decoder
	frames *grpcFrames // of an answer of gRPC-Web; otherwise nil
}

// decode makes the body decoded if the provider compressed it although it was not asked to. It must be decoded to be counted, and the
// client did not ask for compression either, as far as the provider knows. decode returns false if the body can't be decoded.
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

// accept takes what the handlers write, and passes it to take, decoded.
func (c *counted) accept(p []byte, take func([]byte) error) (int, error) {
	switch {
	case c.status == http.StatusNoContent || c.status == http.StatusNotModified:
		return 0, http.ErrBodyNotAllowed
	case c.length >= 0 && c.taken+int64(len(p)) > c.length:
		return 0, http.ErrContentLength
	}
	c.taken += int64(len(p))
	c.frames.feed(p)
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

// finishTaking takes the rest of the decoded bytes, and reports whether the body is complete. A handler may have written less than the
// header states.
func (c *counted) finishTaking(take func([]byte) error) (whole bool) {
	if c.coding != nil && c.coding.end(take) != nil {
		return false
	}
	return c.length <= c.taken
}

// ending is how an answer ended whose handlers have sent all of it. The call behind an answer of gRPC may have failed all the same.
func (c *counted) ending() ending {
	messages := c.taken > 0
	if c.frames != nil {
		messages = c.frames.any
	}
	if c.grpc && c.call.route.failedGRPC(c.Header(), c.frames, messages) {
		return ending{cut: cutUpstream, failed: true}
	}
	return ending{cut: cutNone, quality: c.call.answer.judge()}
}

func (c *counted) close() { c.coding.close() }

// contentLength returns the length that a header states, or -1.
func contentLength(h http.Header) int64 {
	if length, err := strconv.ParseInt(valueOf(h, "Content-Length"), 10, 64); err == nil {
		return length
	}
	return -1
}

// isIncremental reports whether an answer asks to be passed on without buffering:
// https://www.ietf.org/archive/id/draft-ietf-httpbis-incremental-04.html
func isIncremental(h http.Header) bool {
	values := h["Incremental"]
	if len(values) == 0 {
		return false
	}
	item, err := httpsfv.UnmarshalItem(values)
	is, ok := item.Value.(bool)
	return err == nil && ok && is
}
