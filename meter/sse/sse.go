// Package sse splits a stream of server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html) into its events, with
// a [Scanner]. The stream may come in pieces that are cut anywhere. Memory is constant: a Scanner returns the data of an event while it
// reads, and keeps none of it.
package sse

import "bytes"

// maxName is how many bytes of an event's name are kept. A longer name is cut.
const maxName = 64

// End says why [Scanner.Scan] returned.
type End uint8

const (
	More    End = iota // all bytes were read, and the event goes on
	Event              // an event has ended; see [Scanner.HasData]
	Comment            // a comment or blank line outside of any event has ended; it can be passed on at once
)

type field uint8

const (
	fieldNone field = iota // the name is being read
	fieldData
	fieldEvent
	fieldOther // a comment, an id, a retry, or unknown
)

// Scanner splits a stream into events. The zero value is ready; call [Scanner.Next] after each event.
type Scanner struct {
	name    []byte // of the event
	hasData bool   // a data line with at least one byte was read, or a second data line
	lines   int    // data lines that have begun
	fields  bool   // the event has a line that is not a comment

	line    []byte // the field's name, as far as it was read (at most 8 bytes)
	inLine  bool   // the line has at least a byte
	field   field
	space   bool // the next byte comes after the colon: a space is skipped
	cr      bool // the byte before was a CR that ended a line
	crlf    bool // lines have ended with CRLF so far
	waiting bool // the event's end lacks the LF of its CRLF

	data func([]byte)
}

// Name is the event's name, empty for the default "message".
func (s *Scanner) Name() string { return string(s.name) }

// HasData reports whether the event has data. Clients ignore an event without data.
func (s *Scanner) HasData() bool { return s.hasData }

// InEvent reports whether an event or a comment has begun and not ended.
func (s *Scanner) InEvent() bool { return s.inLine || s.fields || s.waiting }

// Next makes s ready for the next event.
func (s *Scanner) Next() {
	s.name, s.hasData, s.lines, s.fields, s.waiting = s.name[:0], false, 0, false, false
}

// Scan reads p up to the end of the event, or of a comment line, and returns how many bytes it read. It calls data with the event's data in
// pieces. Lines are joined by LF.
func (s *Scanner) Scan(p []byte, data func([]byte)) (n int, end End) {
	s.data = data
	for n < len(p) {
		c := p[n]
		if s.waiting { // an LF still belongs to the blank line; otherwise the CR alone has ended it
			s.waiting = false
			if c == '\n' {
				n++
			}
			s.cr = false
			return n, s.blank()
		}
		if s.cr {
			s.cr = false
			if c == '\n' {
				s.crlf = true
				n++
				continue
			}
			s.crlf = false
		}
		if c == '\n' || c == '\r' {
			n++
			s.cr = c == '\r'
			if end := s.endLine(c == '\r'); end != More {
				return n, end
			}
			continue
		}
		n += s.readLine(p[n:])
	}
	return n, More
}

// endLine ends a line. cr says that it was ended by a CR, which an LF may follow.
func (s *Scanner) endLine(cr bool) End {
	if !s.inLine {
		if cr && s.crlf {
			s.cr, s.waiting = false, true
			return More
		}
		return s.blank()
	}
	if s.field == fieldNone { // a line without a colon is a field without a value
		s.startField()
	}
	comment := s.field == fieldOther && len(s.line) == 0
	s.inLine, s.line, s.field = false, s.line[:0], fieldNone
	if comment && !s.fields && !cr {
		return Comment
	}
	s.fields = s.fields || !comment
	return More
}

func (s *Scanner) blank() End {
	if s.fields {
		return Event
	}
	return Comment
}

// readLine reads a part of a line. p has at least one byte and does not begin with the end of a line.
func (s *Scanner) readLine(p []byte) int {
	s.inLine = true
	if s.field == fieldNone {
		return s.readField(p)
	}
	if s.space {
		s.space = false
		if p[0] == ' ' {
			return 1
		}
	}
	n := LineEnd(p)
	switch s.field {
	case fieldData:
		s.hasData = true
		s.data(p[:n])
	case fieldEvent:
		s.name = append(s.name, p[:min(n, maxName-len(s.name))]...)
	}
	return n
}

// readField reads a part of a line up to its colon.
func (s *Scanner) readField(p []byte) int {
	for n, c := range p {
		switch {
		case c == ':':
			s.startField()
			s.space = true
			return n + 1
		case c == '\n' || c == '\r':
			return n
		case len(s.line) == 0 && (c == 0xEF || c == 0xBB || c == 0xBF): // a byte order mark is skipped
		case len(s.line) < 8:
			s.line = append(s.line, c)
		}
	}
	return len(p)
}

// LineEnd returns how many bytes of p come before the end of a line, which may lie beyond p. It looks no further than maxLook, since a stream whose
// lines end with CR alone would be searched for LF again at each of them.
func LineEnd(p []byte) int {
	p = p[:min(len(p), maxLook)]
	if lf := bytes.IndexByte(p, '\n'); lf >= 0 {
		p = p[:lf]
	}
	if cr := bytes.IndexByte(p, '\r'); cr >= 0 {
		return cr
	}
	return len(p)
}

const maxLook = 4 << 10

func (s *Scanner) startField() {
	switch string(s.line) {
	case "data":
		s.field = fieldData
		if s.lines++; s.lines > 1 {
			s.hasData = true
			s.data([]byte{'\n'})
		}
	case "event":
		s.field, s.name = fieldEvent, s.name[:0]
	default:
		s.field = fieldOther
	}
}
