package wire

import (
	"bytes"
	"encoding/json"
	"strconv"
	"unicode"
	"unicode/utf8"

	"github.com/tallygate/tallygate/meter"
)

// maxDepth is how deeply a request's JSON may be nested.
const maxDepth = 1000

// reader reads the JSON of a request, once and strictly. Providers read JSON in different ways: Go accepts a key in any case, and Python
// and JavaScript take the last of two equal keys. The provider must read what this reader reads. So two keys of an object that any provider
// takes for the same key are refused, and a known field is written in its usual spelling. Keys that no provider's API knows, such as those
// of a tool's arguments, must differ, but may differ only in case.
type reader struct {
	body  []byte
	at    int
	depth int

	fields []found
	edits  []edit   // in the order of the body
	keys   [][]byte // of the open objects
	input  inputs
	wrong  error // the first error
}

// found is the value of a known field.
type found struct {
	*node
	raw []byte
}

// edit replaces the bytes of the body from start to end.
type edit struct {
	start, end int
	text       string
}

// read reads one JSON document that fills the body. It returns false if the body is not JSON.
func (r *reader) read(n *node) bool {
	if !r.value(n, nil) {
		return false
	}
	r.space()
	return r.at == len(r.body)
}

// rewritten returns the body with the edits.
func (r *reader) rewritten() []byte {
	out, at := make([]byte, 0, len(r.body)+64), 0
	for _, e := range r.edits {
		out = append(append(out, r.body[at:e.start]...), e.text...)
		at = e.end
	}
	return append(out, r.body[at:]...)
}

func (r *reader) refuse(field, reason string) {
	if r.wrong == nil {
		r.wrong = &meter.AmbiguousError{Field: field, Reason: reason}
	}
}

func (r *reader) space() {
	for r.at < len(r.body) {
		switch r.body[r.at] {
		case ' ', '\t', '\r', '\n':
			r.at++
		default:
			return
		}
	}
}

// take reads the byte c, after any white space.
func (r *reader) take(c byte) bool {
	r.space()
	if r.at < len(r.body) && r.body[r.at] == c {
		r.at++
		return true
	}
	return false
}

// value reads a value. key is the folded key of the object's field that contains it.
func (r *reader) value(n *node, key []byte) bool {
	r.space()
	if r.at == len(r.body) {
		return false
	}
	switch c := r.body[r.at]; c {
	case '{':
		return r.nested(n, r.object)
	case '[':
		return r.nested(n, func(n *node) bool { return r.array(n, key) })
	case '"':
		raw, ok := r.text()
		if ok {
			r.input.text(key, raw)
		}
		return ok
	case 't':
		return r.word("true")
	case 'f':
		return r.word("false")
	case 'n':
		return r.word("null")
	default:
		return r.number(n)
	}
}

func (r *reader) nested(n *node, read func(*node) bool) bool {
	r.at++
	r.depth++
	ok := r.depth <= maxDepth && read(n)
	r.depth--
	return ok
}

func (r *reader) word(w string) bool {
	ok := bytes.HasPrefix(r.body[r.at:], []byte(w))
	r.at += len(w)
	return ok
}

// array reads the elements of an array.
func (r *reader) array(n *node, key []byte) bool {
	if r.take(']') {
		return true
	}
	if n != nil && n != vocabulary { // the elements of a batch are requests
		n = n.any
	}
	for {
		if !r.value(n, key) {
			return false
		}
		if r.take(']') {
			return true
		}
		if !r.take(',') {
			return false
		}
	}
}

// Up to fewKeys keys of an object are compared one by one. A known object may have up to maxKeys keys.
const (
	fewKeys = 24
	maxKeys = 1000
)

// object reads the fields of an object.
func (r *reader) object(n *node) bool {
	if r.take('}') {
		return true
	}
	if n != nil && n.children == nil && n.any == nil { // an object without known fields, such as a tool's arguments
		n = nil
	}
	base := len(r.keys)
	var many map[string]bool
	for {
		r.space()
		start := r.at
		if r.at == len(r.body) || r.body[r.at] != '"' {
			return false
		}
		raw, ok := r.text()
		if !ok {
			return false
		}
		key := r.key(n, raw)
		folded := fold(key)
		if n != nil {
			key = folded
		}
		many = r.once(n, base, key, many)
		var child *node
		if n != nil {
			if child = n.children[string(folded)]; child == nil {
				child = n.any
			} else if string(raw) != child.key {
				r.edits = append(r.edits, edit{start + 1, r.at - 1, child.key})
			}
		}
		if !r.take(':') || !r.field(child, folded) {
			return false
		}
		if r.take('}') {
			r.keys = r.keys[:base]
			return true
		}
		if !r.take(',') {
			return false
		}
	}
}

// field reads the value of an object's field.
func (r *reader) field(n *node, key []byte) bool {
	r.space()
	start := r.at
	r.input.key(key, r.body[start:])
	uses, isApart := len(r.input.uses), r.at < len(r.body) && r.isApart(key)
	if !r.value(n, key) {
		return false
	}
	if isApart {
		r.input.uses = r.input.uses[:uses]
	}
	if n != nil && n.keep && !r.has(n) {
		r.fields = append(r.fields, found{n, r.body[start:r.at]})
	}
	return true
}

func (r *reader) has(n *node) bool {
	for _, f := range r.fields {
		if f.node == n {
			return true
		}
	}
	return false
}

// key returns a key without its escapes.
func (r *reader) key(n *node, raw []byte) []byte {
	key := raw
	if bytes.IndexByte(raw, '\\') >= 0 {
		key = unescape(raw)
	}
	if n != nil && (bytes.ContainsFunc(key, odd) || string(key) == "__proto__") {
		r.refuse(shown(key), "programs read this key in different ways")
	}
	return key
}

// odd reports whether some readers lose a character: the replacement for half of a surrogate pair, or a control character.
func odd(c rune) bool { return c == utf8.RuneError || unicode.IsControl(c) }

// once notes a key of the object whose keys begin at base. Keys of a known object are folded. Of an unknown object with very many keys only
// the first are compared.
func (r *reader) once(n *node, base int, key []byte, many map[string]bool) map[string]bool {
	twice := false
	switch {
	case many == nil:
		for _, k := range r.keys[base:] {
			twice = twice || bytes.Equal(k, key)
		}
		if r.keys = append(r.keys, key); len(r.keys)-base > fewKeys {
			many = make(map[string]bool, 2*fewKeys)
			for _, k := range r.keys[base:] {
				many[string(k)] = true
			}
		}
	case many[string(key)]:
		twice = true
	case len(many) < maxKeys:
		many[string(key)] = true
	case n != nil && r.wrong == nil:
		r.wrong = meter.ErrTooManyKeys
	}
	if twice && r.wrong == nil { // only the first is reported, to save memory
		r.refuse(n.pathOf(key), "the key occurs twice in its object, perhaps in another spelling: state it once")
	}
	return many
}

// maxShown is how many bytes of a key are shown in an error.
const maxShown = 100

func shown(key []byte) string {
	return string(bytes.ToValidUTF8(key[:min(len(key), maxShown)], []byte("\uFFFD")))
}

// text reads a string, and returns the text between its quotes.
func (r *reader) text() (raw []byte, ok bool) {
	start := r.at + 1
	for i := start; i < len(r.body); i++ {
		switch c := r.body[i]; {
		case c == '"':
			r.at = i + 1
			return r.body[start:i], true
		case c < ' ':
			return nil, false
		case c == '\\':
			if i++; i == len(r.body) {
				return nil, false
			}
			switch r.body[i] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				if !hex4(r.body[i+1:]) {
					return nil, false
				}
				i += 4
			default:
				return nil, false
			}
		}
	}
	return nil, false
}

func hex4(p []byte) bool {
	if len(p) < 4 {
		return false
	}
	for _, c := range p[:4] {
		if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'f') {
			return false
		}
	}
	return true
}

// number reads a number. If it is a known number of things and is whole, it is rewritten without a point and an exponent, which not all
// providers accept.
func (r *reader) number(n *node) bool {
	start := r.at
	digits := func() bool {
		from := r.at
		for r.at < len(r.body) && '0' <= r.body[r.at] && r.body[r.at] <= '9' {
			r.at++
		}
		return r.at > from
	}
	is := func(chars string) bool {
		if r.at < len(r.body) && bytes.IndexByte([]byte(chars), r.body[r.at]) >= 0 {
			r.at++
			return true
		}
		return false
	}
	is("-")
	if !is("0") && !digits() {
		return false
	}
	simple := true
	if is(".") {
		if simple = false; !digits() {
			return false
		}
	}
	if is("eE") {
		simple = false
		if is("+-"); !digits() {
			return false
		}
	}
	if n != nil && n.role != plain {
		r.whole(start, simple)
	}
	return true
}

// whole writes the number that was read since start as an integer, if it is one.
func (r *reader) whole(start int, simple bool) {
	raw := string(r.body[start:r.at])
	if simple && raw != "-0" {
		return
	}
	if f, err := strconv.ParseFloat(raw, 64); err == nil && f >= -MaxTokens && f <= MaxTokens && f == float64(int64(f)) {
		r.edits = append(r.edits, edit{start, r.at, strconv.FormatInt(int64(f), 10)})
	}
}

// unescape decodes the text between the quotes of a string.
func unescape(raw []byte) []byte {
	quoted := make([]byte, 0, len(raw)+2)
	quoted = append(append(append(quoted, '"'), raw...), '"')
	var s string
	if json.Unmarshal(quoted, &s) != nil {
		return raw
	}
	return []byte(s)
}

// fold maps keys that some reader takes for the same key to the same text. Go's encoding/json compares keys under simple case folding, in
// which ſ is s and the kelvin sign is k; other readers take ı and İ for i. If the folded text is key, fold returns key itself.
func fold(key []byte) []byte {
	for i, c := range key {
		if c >= utf8.RuneSelf || 'A' <= c && c <= 'Z' {
			folded := append(make([]byte, 0, len(key)), key[:i]...)
			for _, c := range string(key[i:]) {
				folded = utf8.AppendRune(folded, foldRune(c))
			}
			return folded
		}
	}
	return key
}

// foldRune returns the lowest of the runes that differ only in case; for ASCII letters the lower-case letter.
func foldRune(c rune) rune {
	switch {
	case 'A' <= c && c <= 'Z':
		return c + 'a' - 'A'
	case c < utf8.RuneSelf:
		return c
	case c == 'ı', c == 'İ':
		return 'i'
	}
	least := c
	for next := unicode.SimpleFold(c); next != c; next = unicode.SimpleFold(next) {
		least = min(least, next)
	}
	if least != c {
		return foldRune(least)
	}
	return c
}
