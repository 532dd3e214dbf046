package wire

import (
	"bytes"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/tallygate/tallygate/meter/sse"
)

// MaxEvent is the size in bytes up to which an event is held until it is complete. A larger one is passed on as it comes, except for its
// last bytes, without which no client takes it for complete.
const MaxEvent = 128 << 10

const byteOrderMark = "\xEF\xBB\xBF"

const (
	lastBytes = 16       // held back of a message that is too large to be held as a whole
	maxSpare  = 32 << 10 // bytes of memory that a stream keeps for its next message
)

// IsLines reports whether a media type is that of lines of JSON, each of which is a message.
func IsLines(media string) bool {
	switch media {
	case "application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonl", "application/stream+json", "application/jsonlines":
		return true
	}
	return false
}

// IsReadable reports whether messages can be expected in an answer of a media type. An answer without a type may have any.
func IsReadable(media string) bool {
	switch media {
	case "", "text/event-stream", amazonStream, "application/json":
		return true
	}
	return IsLines(media) || strings.HasSuffix(media, "+json")
}

// amazonStream is the media type of Amazon's event streams.
const amazonStream = "application/vnd.amazon.eventstream"

// newFramer chooses a framer by the response's content type or, if that does not say, by the body's first byte.
func newFramer(c *counter, status int, h http.Header) framer {
	if status == http.StatusSwitchingProtocols || c.d.Frames && status == http.StatusOK {
		return newMessages(c, &frameSplitter{})
	}
	if status == http.StatusNoContent || status == http.StatusNotModified {
		return &whole{}
	}
	media, _, _ := mime.ParseMediaType(h.Get("Content-Type"))
	kind, _, _ := strings.Cut(media, "/")
	switch {
	case media == "text/event-stream":
		return newMessages(c, &sseSplitter{})
	case IsLines(media):
		return newMessages(c, &lineSplitter{})
	case media == amazonStream:
		return newMessages(c, newAmazonSplitter())
	case kind == "audio", kind == "image", kind == "video":
		return &whole{}
	}
	return &sniffer{json: media == "application/json" || strings.HasSuffix(media, "+json")}
}

// sniffer chooses the framer by the body's first byte that is not white space.
type sniffer struct {
	json   bool // the content type says so
	framer framer
}

func (s *sniffer) feed(c *counter, dst, chunk []byte) []byte {
	if s.framer == nil {
		rest := bytes.TrimLeft(chunk, " \t\r\n")
		for len(rest) > 0 && strings.IndexByte(byteOrderMark, rest[0]) >= 0 { // the mark may come in pieces
			rest = rest[1:]
		}
		if len(rest) == 0 {
			return append(dst, chunk...)
		}
		s.framer = s.choose(c, rest[0])
	}
	return s.framer.feed(c, dst, chunk)
}

// choose returns the framer for a body that begins with first. No JSON document begins like an SSE event. A message of Amazon's begins with
// its size, whose first byte is 0 below 16 MiB.
func (s *sniffer) choose(c *counter, first byte) framer {
	switch {
	case first == '{' && c.d.Lines && !s.json:
		return newMessages(c, &lineSplitter{})
	case first == '[' && c.state.Call.Stream:
		return newMessages(c, &arraySplitter{})
	case first == '{', first == '[':
		c.use(Whole)
		return &whole{json: true}
	case strings.IndexByte("deir:", first) >= 0 && c.state.Call.Stream: // data, event, id, retry, a comment
		return newMessages(c, &sseSplitter{})
	case first == 0 && c.state.Call.Stream:
		return newMessages(c, newAmazonSplitter())
	}
	return &whole{}
}

func (s *sniffer) finish(c *counter) []byte {
	if s.framer == nil {
		return nil
	}
	return s.framer.finish(c)
}

func (s *sniffer) passing(c *counter) bool { return s.framer != nil && s.framer.passing(c) }

func (s *sniffer) atEnd() bool { return s.framer != nil && s.framer.atEnd() }

func (s *sniffer) write(notes []Note) []byte {
	if s.framer == nil {
		return nil
	}
	return s.framer.write(notes)
}

// whole passes a body on as it comes, except for its last byte, without which no client takes it for complete.
type whole struct {
	json bool
	last []byte
}

func (w *whole) feed(c *counter, dst, chunk []byte) []byte {
	if len(chunk) == 0 {
		return dst
	}
	for p := chunk; w.json && !c.dumb && len(p) > 0; {
		p = p[c.skim.Write(p):]
		if c.skim.Done() {
			c.end("")
		}
	}
	dst = append(dst, w.last...)
	dst = append(dst, chunk[:len(chunk)-1]...)
	w.last = append(w.last[:0], chunk[len(chunk)-1])
	return dst
}

func (w *whole) finish(c *counter) []byte {
	if w.json && c.skim.Open() { // the document was cut, or is a number
		c.end("")
	}
	return w.last
}

func (w *whole) passing(c *counter) bool { return w.json && c.skim.Open() }

func (w *whole) atEnd() bool { return false }

func (w *whole) write([]Note) []byte { return nil }

// splitter finds the messages of a framed stream.
type splitter interface {
	// scan reads like [sse.Scanner.Scan].
	scan(p []byte, data func([]byte)) (n int, end sse.End)
	// event returns the name of the message that has ended, and whether it has data.
	event() (name string, hasData bool)
	// partial reports whether a message has begun and not ended, and would count as a message if the body ended here.
	partial() bool
	next()
	write(n Note) []byte
	// finish returns what ends the stream after Tallygate's notes.
	finish() []byte
}

// messages passes on one message after the other.
type messages struct {
	split splitter
	data  func([]byte) // takes the data of the message
	buf   []byte       // the unfinished message
	over  bool         // the message is too large to be held, so its bytes are passed on as they come
	held  []byte       // what is held back
	state holding
	final bool // the message that certainly ends the stream has come
	// inside says that a part of a message was passed on, and its end was not.
	inside bool
}

type holding uint8

const (
	flowing  holding = iota // nothing is held
	maybeEnd                // held is one message that may be the last, and comments after it
	atEnd                   // held begins with the terminal message
)

func newMessages(c *counter, s splitter) *messages {
	c.use(Stream)
	return &messages{split: s, data: c.data}
}

func (f *messages) feed(c *counter, dst, chunk []byte) []byte {
	for len(chunk) > 0 {
		n, end := f.split.scan(chunk, f.data)
		f.buf = append(f.buf, chunk[:n]...)
		chunk = chunk[n:]
		switch {
		case end == sse.Event:
			dst = f.message(c, dst)
			f.inside = false
		case end == sse.Comment:
			f.split.next()
			dst = f.move(dst)
		case f.over || len(f.buf) > MaxEvent:
			f.over, f.inside = true, true
			c.commitText()
			dst = f.moveAllBut(dst, min(len(f.buf), lastBytes))
		}
	}
	return dst
}

// message passes on a message that has ended, holds it back, or drops it.
func (f *messages) message(c *counter, dst []byte) []byte {
	name, hasData := f.split.event()
	over := f.over
	f.over = false
	f.split.next()
	if !hasData {
		return f.move(dst)
	}
	verdict := c.end(name)
	f.final = f.final || verdict == Final
	if f.state == atEnd {
		if verdict != Terminal && verdict != Final {
			c.events++
		}
		return f.move(dst)
	}
	if verdict == Drop && !over {
		f.buf = f.buf[:0]
		return dst
	}
	dst = f.release(c, dst)
	switch verdict {
	case Terminal, Final:
		f.state = atEnd
	case Last:
		f.state = maybeEnd
	default:
		c.events++
		if c.d.Edit != nil && !over && !c.dumb {
			f.buf = c.d.Edit(&c.state, f.buf)
		}
	}
	return f.move(dst)
}

// move passes the buffer on, or adds it to what is held back.
func (f *messages) move(dst []byte) []byte { return f.moveAllBut(dst, 0) }

// moveAllBut does the same without the last bytes of the buffer.
func (f *messages) moveAllBut(dst []byte, last int) []byte {
	n := len(f.buf) - last
	if f.state == flowing {
		dst = append(dst, f.buf[:n]...)
	} else {
		f.held = append(f.held, f.buf[:n]...)
		if len(f.held) > 2*MaxEvent { // so much follows that it was not the end
			dst = append(dst, f.held...)
			f.held, f.state = nil, flowing
		}
	}
	rest := f.buf[n:]
	if cap(f.buf) > maxSpare {
		f.buf = nil
	}
	f.buf = append(f.buf[:0], rest...)
	return dst
}

// release passes on a message that was held back because it could have been the last.
func (f *messages) release(c *counter, dst []byte) []byte {
	if f.state != maybeEnd {
		return dst
	}
	c.events++
	dst = append(dst, f.held...)
	f.held, f.state = f.held[:0], flowing
	return dst
}

func (f *messages) finish(c *counter) []byte {
	var tail []byte
	if f.split.partial() { // the final newline is missing
		tail = f.message(c, tail)
	}
	if f.state == maybeEnd {
		c.events++
	}
	return append(append(tail, f.held...), f.buf...)
}

func (f *messages) passing(*counter) bool { return f.over }

func (f *messages) atEnd() bool { return f.state == atEnd && f.final }

func (f *messages) write(notes []Note) []byte {
	if f.over {
		return nil
	}
	var out []byte
	for _, n := range notes {
		out = append(out, f.split.write(n)...)
	}
	return append(out, f.split.finish()...)
}

type sseSplitter struct{ sse.Scanner }

func (s *sseSplitter) scan(p []byte, data func([]byte)) (int, sse.End) { return s.Scan(p, data) }
func (s *sseSplitter) event() (string, bool)                           { return s.Name(), s.HasData() }
func (s *sseSplitter) partial() bool                                   { return s.InEvent() }
func (s *sseSplitter) next()                                           { s.Next() }

func (s *sseSplitter) finish() []byte { return nil }

func (s *sseSplitter) write(n Note) []byte {
	var out []byte
	if n.Event != "" {
		out = fmt.Appendf(out, "event: %s\n", n.Event)
	}
	return fmt.Appendf(out, "data: %s\n\n", n.Data)
}

// lineSplitter splits JSON lines.
type lineSplitter struct{ open, hasData bool }

func (s *lineSplitter) scan(p []byte, data func([]byte)) (int, sse.End) {
	n := bytes.IndexByte(p, '\n')
	line := p
	if n >= 0 {
		line = p[:n]
	}
	if len(line) > 0 {
		s.open = true
		s.hasData = s.hasData || len(bytes.Trim(line, " \t\r")) > 0 // JSON's white space consists of single bytes
		data(line)
	}
	if n < 0 {
		return len(p), sse.More
	}
	return n + 1, sse.Event
}

func (s *lineSplitter) event() (string, bool) { return "", s.hasData }
func (s *lineSplitter) partial() bool         { return s.open }
func (s *lineSplitter) next()                 { *s = lineSplitter{} }
func (s *lineSplitter) finish() []byte        { return nil }
func (s *lineSplitter) write(n Note) []byte   { return append(slices.Clip(n.Data), '\n') }
