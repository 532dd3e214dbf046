package wire

import (
	"encoding/binary"

	"github.com/tallygate/tallygate/meter/sse"
)

// endOfStream is the name of a message that ends the stream in any format.
const endOfStream = "\x00end"

// frameSplitter splits what a server sends over a WebSocket (RFC 6455) into messages. It can't read compressed messages, so the client's
// Sec-WebSocket-Extensions must not reach the server.
type frameSplitter struct {
	header  []byte // the header of the current frame, as far as it was read
	left    uint64 // bytes of the frame's payload that are still to come
	mask    [4]byte
	masked  int // bytes of the payload so far, for the position in the mask
	inFrame bool
	open    bool // a message has begun
	closing bool // the last message was a close frame
	skip    bool // the message is compressed
}

const (
	opText   = 1
	opBinary = 2
	opClose  = 8
)

func (s *frameSplitter) scan(p []byte, data func([]byte)) (n int, end sse.End) {
	for n < len(p) {
		if !s.inFrame {
			s.header = append(s.header, p[n])
			n++
			if !s.readHeader() {
				continue
			}
		}
		take := min(uint64(len(p)-n), s.left)
		s.payload(p[n:n+int(take)], data)
		n += int(take)
		if s.left -= take; s.left > 0 {
			return n, sse.More
		}
		if end := s.endFrame(); end != sse.More {
			return n, end
		}
	}
	return n, sse.More
}

// readHeader reports whether the frame's header is complete.
func (s *frameSplitter) readHeader() bool {
	h := s.header
	if len(h) < 2 {
		return false
	}
	size := 2
	length := uint64(h[1] & 0x7F)
	switch length {
	case 126:
		size += 2
	case 127:
		size += 8
	}
	if h[1]&0x80 != 0 {
		size += 4
	}
	if len(h) < size {
		return false
	}
	switch length {
	case 126:
		length = uint64(binary.BigEndian.Uint16(h[2:]))
	case 127:
		length = binary.BigEndian.Uint64(h[2:])
	}
	s.mask = [4]byte{}
	if h[1]&0x80 != 0 {
		copy(s.mask[:], h[size-4:])
	}
	if op := h[0] & 0x0F; op == opText || op == opBinary {
		s.open, s.skip = true, h[0]&0x40 != 0
	}
	s.inFrame, s.left, s.masked = true, length, 0
	return true
}

func (s *frameSplitter) payload(p []byte, data func([]byte)) {
	if s.header[0]&0x0F > opBinary || s.skip || len(p) == 0 {
		return
	}
	if s.mask != [4]byte{} { // servers do not mask, but a mask would do no harm
		plain := make([]byte, len(p))
		for i, c := range p {
			plain[i] = c ^ s.mask[(s.masked+i)&3]
		}
		p = plain
	}
	s.masked += len(p)
	data(p)
}

func (s *frameSplitter) endFrame() sse.End {
	op, final := s.header[0]&0x0F, s.header[0]&0x80 != 0
	s.header, s.inFrame = s.header[:0], false
	switch {
	case op == opClose:
		s.closing = true
		return sse.Event
	case op > opBinary && !s.open: // ping, pong
		return sse.Comment
	case op <= opBinary && final:
		return sse.Event
	}
	return sse.More
}

func (s *frameSplitter) event() (string, bool) {
	if s.closing {
		return endOfStream, true
	}
	return "", true
}

func (s *frameSplitter) partial() bool { return false }

func (s *frameSplitter) next() { s.open, s.closing, s.skip = false, false, false }

func (s *frameSplitter) write(n Note) []byte {
	frame := []byte{0x80 | opText, byte(len(n.Data))}
	if len(n.Data) > 125 {
		frame = binary.BigEndian.AppendUint16([]byte{0x80 | opText, 126}, uint16(min(len(n.Data), 0xFFFF)))
	}
	return append(frame, n.Data[:min(len(n.Data), 0xFFFF)]...)
}

// finish closes the connection with "policy violation".
func (s *frameSplitter) finish() []byte { return []byte{0x80 | opClose, 2, 0x03, 0xF0} }
