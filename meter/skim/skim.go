// Package skim reads JSON of any size in bounded memory. The JSON may come in pieces cut anywhere. A [Reader] reads the values at given
// paths, returns the text of given strings, and skips the rest. It follows only the structure (strings, brackets, commas), so it never
// fails on invalid JSON: it returns what it could read.
package skim

import (
	"bytes"
	"slices"
	"strings"
)

// MaxKept is the most bytes that a kept value can have.
const MaxKept = 64 << 10

// maxKey bounds the length of a key that can match a path.
const maxKey = 128

// Kind says what is done with a value at a path.
type Kind uint8

const (
	Keep Kind = iota // report the raw value once it is complete
	Text             // report the decoded text of a string in pieces, and then its end; within an object or array, look for matches
	Mark             // report only that there is a value; within an object or array, look for matches
	Skip             // do nothing; the pattern is there so that the patterns after it have the same index as without Skip
)

// Pattern is a path, and what is done with the values there. A path is keys joined by dots. The key `*` matches any key, and any element of
// an array.
type Pattern struct {
	Path string
	Kind Kind
}

// Paths is a compiled set of patterns.
type Paths struct {
	root  *node
	fold  func([]byte) []byte // see Folding; nil compares keys as they are
	names int                 // the index of keys at no path, see Others; -1 if they are not reported
}

// Folding returns paths that compare fold(key), instead of the key of the document, with the key of a pattern. The keys of the patterns must be
// folded already.
func (p *Paths) Folding(fold func([]byte) []byte) *Paths { return &Paths{p.root, fold, p.names} }

// Others makes p report the text of all other strings, too, under the index i, and all other keys under the index i+1. The keys in names, and
// those of the document itself, are not reported, and the strings there have the index i+1. Quiet keys are not reported either. What is below
// an opaque key is skipped. Each number in an array is a mark of the index i+2.
func (p *Paths) Others(i int, names, quiet, opaque []string) {
	known := map[string]*node{}
	others := func(text int, star *node, keys []string) *node {
		n := newNode()
		n.text, n.star, n.children = text, star, known
		for _, key := range keys {
			known[key] = n
		}
		return n
	}
	other := others(i, nil, nil)
	other.star = other
	name := others(i+1, other, names)
	others(i, other, quiet)
	for _, key := range opaque {
		known[key] = newNode()
	}
	p.root.rest(i, other, known)
	p.root.star, p.names = name, i+1
}

// rest adds to a node, and to those below it, what is at no path.
func (n *node) rest(i int, others *node, known map[string]*node) {
	for _, child := range n.children {
		child.rest(i, others, known)
	}
	if n.keep < 0 && n.text < 0 {
		n.text = i
	}
	if n.star != nil {
		n.star.rest(i, others, known)
		return
	}
	n.star = others
	if n.children == nil {
		n.children = map[string]*node{}
	}
	for key, child := range known {
		if n.children[key] == nil {
			n.children[key] = child
		}
	}
}

type node struct {
	children map[string]*node
	star     *node
	keep     int // index of the pattern, -1 for none
	text     int
	mark     int
}

func newNode() *node { return &node{keep: -1, text: -1, mark: -1} }

// Compile compiles patterns. A [Sink] gets the index of the pattern that matched. The empty path matches the whole document.
func Compile(patterns []Pattern) *Paths {
	root := newNode()
	for i, p := range patterns {
		if p.Kind == Skip {
			continue
		}
		n := root
		if p.Path != "" {
			for _, key := range strings.Split(p.Path, ".") {
				n = n.add(key)
			}
		}
		switch p.Kind {
		case Keep:
			n.keep = i
		case Text:
			n.text = i
		case Mark:
			n.mark = i
		}
	}
	return &Paths{root: root, names: -1}
}

func (n *node) add(key string) *node {
	if key == "*" {
		if n.star == nil {
			n.star = newNode()
		}
		return n.star
	}
	if n.children == nil {
		n.children = map[string]*node{}
	}
	if n.children[key] == nil {
		n.children[key] = newNode()
	}
	return n.children[key]
}

// spelled returns a key of the document in the form that is compared.
func (p *Paths) spelled(key []byte) []byte {
	if p.fold == nil {
		return key
	}
	return p.fold(key)
}

func (n *node) child(key []byte) *node {
	if c := n.children[string(key)]; c != nil {
		return c
	}
	return n.star
}

// Sink gets what a [Reader] finds, in the order of the document. i is the index of the pattern. A slice is valid only during the call.
type Sink interface {
	// Value gets a value as it is written in the document. It gets nil instead of a value with more than [MaxKept] bytes.
	Value(i int, raw []byte)
	// Text gets the next piece of a string's text, and nil at the end of the string.
	Text(i int, piece []byte)
	// Mark is called for each value at a path of the kind Mark.
	Mark(i int)
}

type frame struct {
	node   *node // its children are compared with the members of the container
	object bool
}

type mode uint8

const (
	between   mode = iota // tokens
	inKey                 // a key of an object that is searched
	inString              // a string that is skipped or kept
	inText                // a string whose text is reported
	inLiteral             // a number, true, false or null
)

// Reader reads one document after another. The zero value is not usable: see [New].
type Reader struct {
	paths *Paths
	sink  Sink

	stack []frame // the open containers that are searched for matches
	depth int     // how many open containers are inside the last of them, and are skipped or kept
	mode  mode
	cur   *node // the node of the value that is being read, or comes next; nil if no path leads there
	isKey bool  // the next string is a key
	esc   bool  // the last byte was a backslash (only in the modes inKey and inString)
	key   []byte
	long  bool // the key is too long to match

	keeping int // the index of the pattern whose value is being kept; -1 if none is
	kept    []byte
	over    bool // the value is longer than MaxKept, so it is not kept

	text unescaper
	done bool
}

// New returns a Reader that reports to sink what the paths select.
func New(paths *Paths, sink Sink) *Reader {
	r := &Reader{paths: paths, sink: sink}
	r.text.emit = func(p []byte) { sink.Text(r.cur.text, p) }
	r.Reset()
	return r
}

// Reset prepares r for another document.
func (r *Reader) Reset() {
	r.stack, r.key, r.kept = r.stack[:0], r.key[:0], r.kept[:0]
	r.depth, r.mode, r.cur, r.keeping = 0, between, r.paths.root, -1
	r.isKey, r.esc, r.long, r.over, r.done = false, false, false, false, false
	r.text.reset()
}

// Done reports whether the document is complete.
func (r *Reader) Done() bool { return r.done }

// Open reports whether the document has begun and is not complete.
func (r *Reader) Open() bool {
	return !r.done && (len(r.stack) > 0 || r.depth > 0 || r.mode != between)
}

// Write reads p up to the end of the document and returns how many bytes it took.
func (r *Reader) Write(p []byte) (n int) {
	for n < len(p) && !r.done {
		n += r.step(p[n:])
	}
	return n
}

// Close tells r that no more bytes follow. A number at the end of the input is complete only then, since another digit might have come.
func (r *Reader) Close() {
	if r.mode == inLiteral {
		r.endValue()
	}
}

func (r *Reader) step(p []byte) int {
	switch r.mode {
	case inKey:
		return r.readKey(p)
	case inString:
		return r.skipString(p)
	case inText:
		n, end := r.text.read(p)
		if end {
			r.sink.Text(r.cur.text, nil)
			r.endValue()
		}
		return n
	case inLiteral:
		n := slices.IndexFunc(p, endsLiteral)
		if n < 0 {
			r.keep(p)
			return len(p)
		}
		r.keep(p[:n])
		r.endValue()
		return n
	}
	if r.depth > 0 {
		return r.skipNested(p)
	}
	return r.token(p[0])
}

// endsLiteral reports whether c can't be part of a number, true, false or null.
func endsLiteral(c byte) bool {
	switch c {
	case ',', ':', '{', '}', '[', ']', '"', ' ', '\t', '\r', '\n':
		return true
	}
	return false
}

// token reads a byte between the values of a container that is searched, or at the top level.
func (r *Reader) token(c byte) int {
	switch c {
	case ' ', '\t', '\r', '\n', 0xEF, 0xBB, 0xBF: // the last three: a byte order mark
	case ':':
		r.isKey = false
	case ',':
		if len(r.stack) > 0 {
			top := r.stack[len(r.stack)-1]
			r.isKey, r.cur = top.object, top.node.star
		}
	case '"':
		if r.isKey {
			r.mode, r.key, r.long, r.esc = inKey, r.key[:0], false, false
			return 1
		}
		r.beginString()
	case '{', '[':
		r.open(c)
	case '}', ']':
		if len(r.stack) == 0 {
			r.done = true // nothing was opened, so this is no document
			return 1
		}
		r.stack = r.stack[:len(r.stack)-1]
		r.endValue()
	default:
		r.begin()
		if r.paths.names >= 0 && (c == '-' || '0' <= c && c <= '9') && len(r.stack) > 0 && !r.stack[len(r.stack)-1].object {
			r.sink.Mark(r.paths.names + 1)
		}
		r.mode = inLiteral
		r.keepByte(c)
	}
	return 1
}

// begin is called at the first byte of a value. r.cur is the value's node.
func (r *Reader) begin() {
	if r.cur == nil {
		return
	}
	if r.cur.mark >= 0 {
		r.sink.Mark(r.cur.mark)
	}
	if r.cur.keep >= 0 {
		r.keeping, r.kept, r.over = r.cur.keep, r.kept[:0], false
	}
}

func (r *Reader) beginString() {
	r.begin()
	if r.cur != nil && r.cur.text >= 0 && r.keeping < 0 {
		r.mode = inText
		r.text.reset()
		return
	}
	r.mode, r.esc = inString, false
	r.keepByte('"')
}

func (r *Reader) open(c byte) {
	r.begin()
	if r.cur == nil || r.keeping >= 0 {
		r.depth = 1
		r.keepByte(c)
		return
	}
	r.stack = append(r.stack, frame{r.cur, c == '{'})
	r.isKey = c == '{'
	r.cur = r.cur.star
}

func (r *Reader) readKey(p []byte) int {
	if n := bytes.IndexByte(p, '"'); n >= 0 && !r.esc && len(r.key)+n <= maxKey && bytes.IndexByte(p[:n], '\\') < 0 { // as most keys are
		r.key = append(r.key, p[:n]...)
		r.mode, r.isKey = between, false
		r.findKey()
		return n + 1
	}
	for i, c := range p {
		switch {
		case r.esc:
			r.esc = false
		case c == '\\':
			r.esc = true
		case c == '"':
			r.mode = between
			r.isKey = false
			r.findKey()
			return i + 1
		}
		if len(r.key) < maxKey || r.paths.names >= 0 {
			r.key = append(r.key, c)
		} else {
			r.long = true
		}
	}
	return len(p)
}

// findKey finds the node of the value that follows the key.
func (r *Reader) findKey() {
	in := r.stack[len(r.stack)-1].node
	if r.long { // it is none that a path names
		r.cur = in.star
		return
	}
	key := unescapeKey(r.key)
	if r.cur = in.child(r.paths.spelled(key)); r.paths.names >= 0 && r.cur == in.star && in != r.paths.root {
		r.sink.Text(r.paths.names, key)
		r.sink.Text(r.paths.names, nil)
	}
}

// skipString reads the rest of a string that is skipped or kept as it is.
func (r *Reader) skipString(p []byte) int {
	i, quote := 0, -1
	for i < len(p) {
		if r.esc {
			r.esc = false
			i++
			continue
		}
		if quote < i {
			quote = i + indexOrLen(p[i:], '"')
		}
		if j := bytes.IndexByte(p[i:quote], '\\'); j >= 0 {
			r.esc = true
			i += j + 1
			continue
		}
		if quote == len(p) {
			break
		}
		i = quote + 1
		r.keep(p[:i])
		r.mode = between
		if r.depth == 0 {
			r.endValue()
		}
		return i
	}
	r.keep(p)
	return len(p)
}

// skipNested reads the inside of a container that is skipped or kept as it is.
func (r *Reader) skipNested(p []byte) int {
	for i, c := range p {
		switch c {
		case '{', '[':
			r.depth++
		case '}', ']':
			if r.depth--; r.depth == 0 {
				r.keep(p[:i+1])
				r.endValue()
				return i + 1
			}
		case '"':
			r.keep(p[:i+1])
			r.mode, r.esc = inString, false
			return i + 1
		}
	}
	r.keep(p)
	return len(p)
}

// endValue is called at the end of a value. The next token belongs to the container around it.
func (r *Reader) endValue() {
	r.mode = between
	if r.keeping >= 0 {
		value := r.kept
		if r.over {
			value = nil
		}
		r.sink.Value(r.keeping, value)
		r.keeping = -1
	}
	r.cur, r.isKey = nil, false
	r.done = len(r.stack) == 0
}

func (r *Reader) keep(p []byte) {
	if r.keeping < 0 || r.over {
		return
	}
	if r.over = len(r.kept)+len(p) > MaxKept; !r.over {
		r.kept = append(r.kept, p...)
	}
}

func (r *Reader) keepByte(c byte) {
	if r.keeping >= 0 {
		r.kept = append(r.kept, c)
	}
}
