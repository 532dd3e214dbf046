package wire

import "github.com/tallygate/tallygate/meter/sse"

// arraySplitter splits a JSON array that is streamed (Gemini without alt=sse) into its elements. The brackets and commas
// between them go with the element that follows; the last bracket stays back.
type arraySplitter struct {
	depth    int // open containers, the array itself included
	inString bool
	escaped  bool
	open     bool // in an element
	done     bool // the element has ended
}

func (s *arraySplitter) scan(p []byte, data func([]byte)) (int, sse.End) {
	start := 0
	for i, c := range p {
		if s.inString {
			switch {
			case s.escaped:
				s.escaped = false
			case c == '\\':
				s.escaped = true
			case c == '"':
				s.inString = false
			}
			continue
		}
		switch c {
		case '"':
			s.inString = true
		case '{', '[':
			if s.depth++; s.depth == 2 && !s.open {
				s.open, start = true, i
			}
		case '}', ']':
			if s.depth--; s.depth == 1 && s.open {
				data(p[start : i+1])
				s.open, s.done = false, true
				return i + 1, sse.Event
			}
		}
	}
	if s.open {
		data(p[start:])
	}
	return len(p), sse.More
}

func (s *arraySplitter) event() (string, bool) { return "", s.done }
func (s *arraySplitter) partial() bool         { return s.open }
func (s *arraySplitter) next()                 { s.done = false }
func (s *arraySplitter) write(Note) []byte     { return nil }
func (s *arraySplitter) finish() []byte        { return nil }
