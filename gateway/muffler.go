package gateway

import (
	"bytes"
	"strings"
)

// muffler keeps an upstream from speaking as us in an event stream: of a comment that begins with our name nothing but the colon stays,
// and so the line stays a comment. It works on pieces that are cut anywhere, and holds no more back than the beginning of our name.
type muffler struct {
	place linePlace
	held  []byte // letters that may be the beginning of our name
}

// linePlace is where in a line of an event stream the next byte is.
type linePlace uint8

const (
	atStart   linePlace = iota // of the stream: a byte order mark may stand here
	onNewLine                  // at the beginning of a line
	inComment                  // after a colon, and white space
	inName                     // after letters of our name
	inLine                     // in what needs no look
	inOurs                     // in what goes
)

const ourName = "tallygate"

// write appends to dst what of p may go on.
func (m *muffler) write(dst, p []byte) []byte {
	for len(p) > 0 {
		if m.place == inLine || m.place == inOurs {
			n := bytes.IndexAny(p, "\r\n")
			if n < 0 {
				n = len(p)
			}
			if m.place == inLine {
				dst = append(dst, p[:n]...)
			}
			if p = p[n:]; len(p) == 0 {
				return dst
			}
		}
		c := p[0]
		p = p[1:]
		m.step(c)
		if m.place == inName {
			m.held = append(m.held, c)
			continue
		}
		if len(m.held) > 0 && m.place != inOurs {
			dst = append(dst, m.held...)
		}
		m.held = m.held[:0]
		if m.place != inOurs {
			dst = append(dst, c)
		}
	}
	return dst
}

// step goes past a byte. It leaves the place inName while what came since the colon may become our name.
func (m *muffler) step(c byte) {
	switch {
	case c == '\r' || c == '\n':
		m.place = onNewLine
	case m.place == atStart && strings.IndexByte("\xEF\xBB\xBF", c) >= 0:
	case m.place <= onNewLine && c == ':', m.place == inComment && (c == ' ' || c == '\t'):
		m.place = inComment
	case (m.place == inComment || m.place == inName) && c|0x20 == ourName[len(m.held)]:
		if m.place = inName; len(m.held)+1 == len(ourName) {
			m.place = inOurs
		}
	default:
		m.place = inLine
	}
}
