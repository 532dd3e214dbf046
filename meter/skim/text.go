package skim

import (
	"bytes"
	"unicode/utf16"
	"unicode/utf8"
)

// unescaper decodes the text between the quotes of a JSON string. The text may come in pieces.
type unescaper struct {
	emit func([]byte)
	esc  bool // the byte before was a backslash
	hex  int  // how many digits of \uXXXX are missing yet
	code rune
	high rune // a high surrogate whose low one has not come yet, or 0
	buf  [2 * utf8.UTFMax]byte
}

func (u *unescaper) reset() {
	u.esc, u.hex, u.code, u.high = false, 0, 0, 0
}

// read decodes p up to the closing quote. It returns how many bytes it took, and whether the string has ended.
func (u *unescaper) read(p []byte) (n int, end bool) {
	quote := -1 // where the next quote is that was looked for
	for n < len(p) {
		switch {
		case u.hex > 0:
			u.digit(p[n])
			n++
		case u.esc:
			u.escaped(p[n])
			n++
		default:
			if quote < n {
				quote = n + indexOrLen(p[n:], '"')
			}
			if plain := indexOrLen(p[n:quote], '\\'); plain > 0 {
				u.flushHigh()
				u.emit(p[n : n+plain])
				n += plain
			}
			if n == len(p) {
				return n, false
			}
			if n++; p[n-1] == '"' {
				u.flushHigh()
				return n, true
			}
			u.esc = true
		}
	}
	return n, false
}

// indexOrLen returns the index of c in p or, if p does not contain it, the length of p.
func indexOrLen(p []byte, c byte) int {
	if i := bytes.IndexByte(p, c); i >= 0 {
		return i
	}
	return len(p)
}

func (u *unescaper) escaped(c byte) {
	u.esc = false
	if c == 'u' {
		u.hex, u.code = 4, 0
		return
	}
	u.flushHigh()
	if i := bytes.IndexByte([]byte("bfnrt"), c); i >= 0 {
		c = "\b\f\n\r\t"[i]
	}
	u.buf[0] = c
	u.emit(u.buf[:1])
}

func (u *unescaper) digit(c byte) {
	u.hex--
	switch {
	case c >= '0' && c <= '9':
		u.code = u.code<<4 | rune(c-'0')
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		u.code = u.code<<4 | rune(c|0x20-'a'+10)
	default:
		u.code = u.code << 4
	}
	if u.hex > 0 {
		return
	}
	if u.high != 0 {
		if r := utf16.DecodeRune(u.high, u.code); r != utf8.RuneError {
			u.high = 0
			u.rune(r)
			return
		}
		u.flushHigh()
	}
	if u.code >= 0xD800 && u.code < 0xDC00 {
		u.high = u.code
		return
	}
	u.rune(u.code)
}

// flushHigh writes U+FFFD for a high surrogate that has no low one after it.
func (u *unescaper) flushHigh() {
	if u.high != 0 {
		u.high = 0
		u.rune(utf8.RuneError)
	}
}

func (u *unescaper) rune(r rune) {
	u.emit(u.buf[:utf8.EncodeRune(u.buf[:], r)])
}

// unescapeKey decodes a key. A key without a backslash is returned as it is.
func unescapeKey(key []byte) []byte {
	if bytes.IndexByte(key, '\\') < 0 {
		return key
	}
	var out []byte
	u := unescaper{emit: func(p []byte) { out = append(out, p...) }}
	u.read(key)
	u.flushHigh()
	return out
}
