package canon

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// The major types of CBOR.
const (
	majorUint  = 0
	majorMinus = 1
	majorBytes = 2
	majorText  = 3
	majorList  = 4
	majorMap   = 5
)

const (
	simpleFalse = 0xf4
	simpleTrue  = 0xf5
	simpleNull  = 0xf6
)

// most bounds lists and maps that are read here. The library bounds them too, at more.
const most = 1 << 12

func appendHead(to []byte, major byte, n uint64) []byte {
	major <<= 5
	switch {
	case n < 24:
		return append(to, major|byte(n))
	case n < 1<<8:
		return append(to, major|24, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(to, major|25), uint16(n))
	case n < 1<<32:
		return binary.BigEndian.AppendUint32(append(to, major|26), uint32(n))
	default:
		return binary.BigEndian.AppendUint64(append(to, major|27), n)
	}
}

func appendText(to []byte, s string) []byte {
	return append(appendHead(to, majorText, uint64(len(s))), s...)
}

// head reads the head of a value of a major type: a number or a length.
func (f *Form) head(major byte) uint64 {
	if f.at >= len(f.bytes) || f.bytes[f.at]>>5 != major {
		return f.fail()
	}
	short := f.bytes[f.at] & 31
	f.at++
	if short < 24 {
		return uint64(short)
	}
	size := 1 << (short - 24)
	if short > 27 || len(f.bytes)-f.at < size {
		return f.fail()
	}
	var n uint64
	for _, b := range f.bytes[f.at : f.at+size] {
		n = n<<8 | uint64(b)
	}
	f.at += size
	return n
}

// fail leaves the record to the library.
func (f *Form) fail() uint64 {
	f.failed = true
	return 0
}

// count reads the head of a list or a map.
func (f *Form) count(major byte) int {
	n := f.head(major)
	if n > most {
		n = f.fail()
	}
	return int(n)
}

// string reads a text. All texts of a record are parts of one copy of it.
func (f *Form) string() string {
	n := f.head(majorText)
	if n > uint64(len(f.bytes)-f.at) {
		n = f.fail()
	}
	if n == 0 {
		return ""
	}
	if f.text == "" {
		f.text = string(f.bytes)
	}
	s := f.text[f.at : f.at+int(n)]
	f.at += int(n)
	if !utf8.ValidString(s) {
		f.fail()
	}
	return s
}

// Text is a field with a text.
func Text[S ~string](f *Form, key Key, s *S) {
	if f.reading {
		if f.reads(key) {
			*s = S(f.string())
		}
	} else if f.writes(key, *s == "") {
		f.bytes = appendText(f.bytes, string(*s))
	}
}

// Uint is a field with a whole number that is never below zero.
func Uint[U ~uint8 | ~uint64](f *Form, key Key, u *U) {
	if f.reading {
		if f.reads(key) {
			n := f.head(majorUint)
			if *u = U(n); uint64(*u) != n {
				f.fail()
			}
		}
	} else if f.writes(key, *u == 0) {
		f.bytes = appendHead(f.bytes, majorUint, uint64(*u))
	}
}

// Int is a field with a whole number.
func Int[I ~int | ~int64](f *Form, key Key, i *I) {
	if f.reading {
		if f.reads(key) {
			n := f.int()
			if *i = I(n); int64(*i) != n {
				f.fail()
			}
		}
	} else if f.writes(key, *i == 0) {
		if *i >= 0 {
			f.bytes = appendHead(f.bytes, majorUint, uint64(*i))
		} else {
			f.bytes = appendHead(f.bytes, majorMinus, ^uint64(int64(*i)))
		}
	}
}

func (f *Form) int() int64 {
	minus := f.at < len(f.bytes) && f.bytes[f.at]>>5 == majorMinus
	major := byte(majorUint)
	if minus {
		major = majorMinus
	}
	n := int64(f.head(major))
	if n < 0 { // beyond an int64
		f.fail()
	}
	if minus {
		return ^n
	}
	return n
}

// Bool is a field that is true or false.
func Bool(f *Form, key Key, b *bool) {
	if f.reading {
		if f.reads(key) {
			*b = f.simple(simpleTrue)
			if !*b && !f.simple(simpleFalse) {
				f.fail()
			}
		}
	} else if f.writes(key, !*b) {
		value := byte(simpleFalse)
		if *b {
			value = simpleTrue
		}
		f.bytes = append(f.bytes, value)
	}
}

// simple reads a value of one byte, if that comes next.
func (f *Form) simple(value byte) bool {
	if f.at >= len(f.bytes) || f.bytes[f.at] != value {
		return false
	}
	f.at++
	return true
}

// Time is a field with a time, as text in UTC. The zero time is null.
func Time(f *Form, key Key, t *time.Time) {
	if f.reading {
		if f.reads(key) && !f.simple(simpleNull) {
			read, err := time.Parse(time.RFC3339, f.string())
			if *t = read; err != nil {
				f.fail()
			}
		}
	} else if f.writes(key, t.IsZero()) {
		f.writeTime(t.UTC())
	}
}

func (f *Form) writeTime(t time.Time) {
	if t.IsZero() {
		f.bytes = append(f.bytes, simpleNull)
		return
	}
	if t.Year() < 0 || t.Year() > 9999 {
		f.fail()
	}
	var room [len(time.RFC3339Nano)]byte
	text := t.AppendFormat(room[:0], time.RFC3339Nano)
	f.bytes = append(appendHead(f.bytes, majorText, uint64(len(text))), text...)
}

// Hash is a field with a hash.
func Hash(f *Form, key Key, hash *[32]byte) {
	if f.reading {
		if f.reads(key) {
			if f.head(majorBytes) != 32 || len(f.bytes)-f.at < 32 {
				f.fail()
				return
			}
			f.at += copy(hash[:], f.bytes[f.at:])
		}
	} else if f.writes(key, false) {
		f.bytes = append(appendHead(f.bytes, majorBytes, 32), hash[:]...)
	}
}

// List is a field with texts. Its key is not marked by [Always].
func List(f *Form, key Key, list *[]string) {
	if f.reading {
		if f.reads(key) {
			n := f.count(majorList)
			*list = make([]string, 0, n)
			for i := 0; i < n && !f.failed; i++ {
				*list = append(*list, f.string())
			}
		}
	} else if f.writes(key, len(*list) == 0) {
		f.bytes = appendHead(f.bytes, majorList, uint64(len(*list)))
		for _, s := range *list {
			f.bytes = appendText(f.bytes, s)
		}
	}
}

// Map is a field with texts by names. Its key is not marked by [Always].
func Map(f *Form, key Key, texts *map[string]string) {
	if f.reading {
		if f.reads(key) {
			f.readMap(texts)
		}
	} else if f.writes(key, len(*texts) == 0) {
		f.writeMap(*texts)
	}
}

func (f *Form) readMap(texts *map[string]string) {
	n := f.count(majorMap)
	*texts = make(map[string]string, n)
	for i := 0; i < n && !f.failed; i++ {
		name := f.string()
		(*texts)[name] = f.string()
	}
	if len(*texts) != n { // the same name twice
		f.fail()
	}
}

// writeMap writes the names in the order of their bytes in CBOR, which begin with their length.
func (f *Form) writeMap(texts map[string]string) {
	var room [8]string
	names := room[:0]
	for name := range texts {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b)) })
	f.bytes = appendHead(f.bytes, majorMap, uint64(len(names)))
	for _, name := range names {
		f.bytes = appendText(appendText(f.bytes, name), texts[name])
	}
}

// Rare is a field that most records do not have. A record that has it is left to the library.
func Rare(f *Form, _ Key, empty bool) {
	if !f.reading && !empty {
		f.fail()
	}
}
