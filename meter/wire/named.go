package wire

import (
	"slices"
	"strings"

	"github.com/tallygate/tallygate/meter"
)

// named finds what a JSON object names at the provider, while it goes by: ids in the fields of [Reference], wherever they stand. It reads the
// object strictly, in bounded memory.
type named struct {
	stack   []nest
	text    []byte // of the string that is being read, as far as it can be a key or an id
	size    int    // of that string
	inText  bool   // within a string
	escaped bool
	isKey   bool // the next string is a key
	uses    []meter.Resource
	wrong   error // the first error
}

// nest is an object or an array that is open.
type nest struct {
	object bool
	key    string // the folded key of the field that it is the value of, or an element of that
	field  string // of an object: the folded key of the field that is being read
	apart  bool   // what stands there is not the provider's words
	item   bool   // it is an element of the input
	id     string // of an item
	kind   string
	role   bool
	sealed bool
}

// maxNamed is how many bytes of a string are read as a key or an id.
const maxNamed = 4096

// read reads the next bytes of the object. What is not JSON, and some readers take for it, is refused: comments, other quotes, names without any.
func (d *named) read(p []byte) {
	for _, c := range p {
		switch {
		case d.wrong != nil:
			return
		case d.inText && (d.escaped || c != '"'):
			d.escaped = !d.escaped && c == '\\'
			if d.size++; len(d.text) < maxNamed {
				d.text = append(d.text, c)
			}
		case d.inText:
			d.inText = false
			d.string()
		case c == '"':
			d.inText, d.text, d.size = true, d.text[:0], 0
		default:
			d.mark(c)
		}
	}
}

// mark reads a character outside of strings.
func (d *named) mark(c byte) {
	switch {
	case c == '{', c == '[':
		d.open(c == '{')
	case c == '}', c == ']':
		d.close()
	case c == ',':
		d.isKey = len(d.stack) > 0 && d.stack[len(d.stack)-1].object
	case strings.IndexByte(": \t\r\n0123456789+-.eEtrufalsn", c) < 0:
		d.refuse("message", "expected a JSON object")
	}
}

func (d *named) open(object bool) {
	n := nest{object: object, key: d.key()}
	if depth := len(d.stack); depth == maxDepth {
		d.refuse("message", "it is nested too deeply")
		return
	} else if depth > 0 {
		around := d.stack[depth-1]
		n.apart = around.apart || d.isApart(n, around)
		n.item = object && !n.apart && n.key == "input"
	}
	d.stack, d.isKey = append(d.stack, n), object
}

// isApart is as [reader.isApart]. In the older form of a message the request is its response.
func (d *named) isApart(n, around nest) bool {
	switch {
	case !n.object:
		return arraysApart[n.key]
	case n.key == "response":
		return len(d.stack) > 1
	case n.key == "input":
		return around.object && len(d.stack) > 1 && (len(d.stack) > 2 || around.key != "response")
	}
	return apart[n.key]
}

func (d *named) close() {
	if len(d.stack) == 0 {
		return
	}
	n := d.stack[len(d.stack)-1]
	d.stack, d.isKey = d.stack[:len(d.stack)-1], false
	if n.item && n.id != "" && (n.kind == "item_reference" || n.kind == "" && !n.role || n.kind == "reasoning" && !n.sealed) {
		d.use(referred("items", n.id))
	}
}

// key is the folded key of the field whose value is read, or an element of it.
func (d *named) key() string {
	if len(d.stack) == 0 {
		return ""
	}
	if n := d.stack[len(d.stack)-1]; n.object {
		return n.field
	} else {
		return n.key
	}
}

// string reads a string that has come to its end.
func (d *named) string() {
	if len(d.stack) == 0 {
		return
	}
	n := &d.stack[len(d.stack)-1]
	if d.isKey {
		n.field, d.isKey = string(fold(unescaped(d.text))), false
		return
	}
	key := d.key()
	if n.apart || references[key] == "" && key != "id" && !n.item {
		return
	}
	if d.size > len(d.text) {
		if references[key] != "" || key == "id" {
			d.refuse(key, "it is too long")
		}
		return
	}
	text := string(unescaped(d.text))
	if n.item && n.object {
		n.has(key, text)
	}
	if kind := idsOf[n.key]; key == "id" && n.object && kind != "" && text != "" {
		d.use(referred(kind, text))
	} else if r, ok := Reference(key, text); ok && key != "conversation" { // that is a word of Realtime's, and refused elsewhere
		d.use(r)
	}
}

// has notes a field of an item.
func (n *nest) has(key, text string) {
	switch key {
	case "id":
		n.id = text
	case "type":
		n.kind = text
	case "role":
		n.role = true
	case "encrypted_content":
		n.sealed = text != ""
	}
}

// idsOf are the objects whose id names a resource, and its kind.
var idsOf = map[string]string{"container": "containers", "video": "videos", "audio": "audio"}

func (d *named) use(r meter.Resource) {
	if len(d.uses) > maxUses {
		d.refuse("message", "it names more than 1000 files, responses and the like")
	} else if !slices.Contains(d.uses, r) {
		d.uses = append(d.uses, r)
	}
}

func (d *named) refuse(field, reason string) {
	if d.wrong == nil {
		d.wrong = &meter.AmbiguousError{Field: field, Reason: reason}
	}
}

// reset makes d ready for another object.
func (d *named) reset() {
	d.stack, d.text, d.inText, d.escaped, d.isKey = d.stack[:0], d.text[:0], false, false, false
}
