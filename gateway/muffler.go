package gateway

import (
	"strings"

	"github.com/tallygate/tallygate/meter/sse"
)

// muffler prevents an upstream from sending comments in Tallygate's name in an event stream. Of a comment that begins with that name, only
// the colon is passed on, so the line is still a comment. The pieces may be cut anywhere. muffler holds back no more than the beginning of
// the name.
type muffler struct {
	place linePlace
	held  []byte // letters that may be the beginning of the name
}

// linePlace is the place of the next byte in a line of an event stream.
type linePlace uint8

const (
	atStart   linePlace = iota // at the beginning of the stream: a byte order mark may follow
	onNewLine                  // at the beginning of a line
	inComment                  // after a colon, and white space
	inName                     // after letters of the name
	inLine                     // in a line that is passed on
	inOurs                     // in a line that is removed
)

const ourName = "tallygate"

// write appends to dst the bytes of p that may be passed on.
func (m *muffler) write(dst, p []byte) []byte {
	for len(p) > 0 {
		if m.place == inLine || m.place == inOurs {
			n := sse.LineEnd(p)
			if m.place == inLine {
				dst = append(dst, p[:n]...)
			}
			if p = p[n:]; len(p) == 0 || p[0] != '\r' && p[0] != '\n' {
				continue
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

// step moves past one byte. The place stays inName as long as the letters since the colon may become the name.
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
