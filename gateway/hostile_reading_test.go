package gateway_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"mime"
	"mime/multipart"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf16"
)

// reading is how a provider reads requests: like the libraries of its language.
type reading struct {
	name     string
	fold     bool // keys that are equal but for case are one key
	first    bool // of equal keys the first counts, else the last
	comments bool // comments and trailing commas are skipped
	trailing bool // what follows the document is not looked at
	detects  bool // UTF-16 and a byte order mark are understood
	numbers  bool // NaN and Infinity are numbers
	lax      bool // "1" and true are numbers, "yes" is true
	truthy   bool // all but false, 0, null and "" is true
	kind     bool // only a body that is said to be JSON is read as such
}

var readings = []reading{
	{name: "Go", fold: true},
	{name: "Go, a stream", fold: true, trailing: true},
	{name: "Python", detects: true, numbers: true, truthy: true},
	{name: "pydantic", detects: true, lax: true},
	{name: "JavaScript", detects: true, lax: true, truthy: true, kind: true},
	{name: "the first key", first: true},
	{name: "JSON5", comments: true, trailing: true, detects: true, numbers: true, lax: true, truthy: true},
}

// object is a JSON object with its keys in order, including keys that occur twice.
type object struct {
	keys   []string
	values []any
}

// missing is the value of a key that is not there.
type missing struct{}

var errReading = errors.New("the provider does not understand this")

// get returns the value at a path of keys.
func (r reading) get(v any, path ...string) any {
	for _, key := range path {
		o, ok := v.(*object)
		if !ok {
			return missing{}
		}
		v = missing{}
		for i, k := range o.keys {
			if k != key && (!r.fold || !strings.EqualFold(k, key)) {
				continue
			}
			if v = o.values[i]; r.first {
				break
			}
		}
	}
	return v
}

// integer returns a value as a whole number, or 0 if it is none.
func (r reading) integer(v any) int {
	switch v := v.(type) {
	case missing, nil:
		return 0
	case float64:
		if v != math.Trunc(v) && !r.lax {
			panic(errReading)
		}
		return clampInt(v)
	case bool:
		if r.lax && v {
			return 1
		}
		if r.lax {
			return 0
		}
	case string:
		if f, err := strconv.ParseFloat(strings.ReplaceAll(strings.TrimSpace(v), "_", ""), 64); r.lax && err == nil {
			return clampInt(f)
		}
	}
	panic(errReading)
}

func clampInt(f float64) int {
	switch {
	case math.IsNaN(f), f < 0:
		return 0
	case f > 1e6:
		return 1e6
	}
	return int(f)
}

// boolean returns a value as true or false.
func (r reading) boolean(v any) bool {
	switch v := v.(type) {
	case missing, nil:
		return false
	case bool:
		return v
	case float64:
		if r.truthy || r.lax {
			return v != 0
		}
	case string:
		if r.truthy {
			return v != ""
		}
		switch strings.ToLower(v) {
		case "1", "true", "yes", "on", "t", "y":
			if r.lax {
				return true
			}
		case "0", "false", "no", "off", "f", "n":
			if r.lax {
				return false
			}
		}
	default:
		if r.truthy {
			return true
		}
	}
	panic(errReading)
}

func (r reading) text(v any) string {
	switch v := v.(type) {
	case missing, nil:
		return ""
	case string:
		return v
	case []any:
		if r.truthy && len(v) == 1 { // String(["x"]) is "x"
			return r.text(v[0])
		}
	}
	panic(errReading)
}

// body reads a body: as a form if it is declared as one, otherwise as JSON.
func (r reading) body(contentType string, body []byte) any {
	kind, params, _ := mime.ParseMediaType(contentType)
	switch kind {
	case "application/x-www-form-urlencoded":
		if !bytes.HasPrefix(bytes.TrimSpace(body), []byte("{")) {
			values, _ := url.ParseQuery(string(body))
			o := &object{}
			for k, vs := range values {
				for _, v := range vs {
					o.keys, o.values = append(o.keys, k), append(o.values, any(v))
				}
			}
			return o
		}
	case "multipart/form-data":
		o := &object{}
		form := multipart.NewReader(bytes.NewReader(body), params["boundary"])
		for {
			part, err := form.NextPart()
			if err != nil {
				return o
			}
			value, _ := io.ReadAll(part)
			o.keys, o.values = append(o.keys, part.FormName()), append(o.values, any(string(value)))
		}
	}
	if r.kind && kind != "application/json" {
		return &object{}
	}
	if r.detects {
		body = fromUTF16(bytes.TrimPrefix(body, []byte("\xEF\xBB\xBF")))
	}
	p := &lenient{reading: r, in: string(body)}
	v := p.value(0)
	p.space()
	if p.in != "" && !r.trailing {
		panic(errReading)
	}
	return v
}

// fromUTF16 decodes a body that looks like UTF-16, by the rules of Python's json.loads.
func fromUTF16(body []byte) []byte {
	var order binary.ByteOrder
	switch {
	case len(body) < 2 || len(body)%2 != 0:
		return body
	case body[0] == 0xFF && body[1] == 0xFE, body[0] != 0 && body[1] == 0:
		order = binary.LittleEndian
	case body[0] == 0xFE && body[1] == 0xFF, body[0] == 0 && body[1] != 0:
		order = binary.BigEndian
	default:
		return body
	}
	var units []uint16
	for i := 0; i < len(body); i += 2 {
		units = append(units, order.Uint16(body[i:]))
	}
	return []byte(strings.TrimPrefix(string(utf16.Decode(units)), "\uFEFF"))
}

// lenient reads JSON as loosely as its reading does.
type lenient struct {
	reading
	in string
}

func (p *lenient) space() {
	for {
		p.in = strings.TrimLeft(p.in, " \t\r\n")
		if !p.comments {
			return
		}
		switch {
		case strings.HasPrefix(p.in, "//"):
			_, p.in, _ = strings.Cut(p.in, "\n")
		case strings.HasPrefix(p.in, "/*"):
			_, p.in, _ = strings.Cut(p.in, "*/")
		default:
			return
		}
	}
}

// take reads a word, if it is next.
func (p *lenient) take(word string) (found bool) {
	p.space()
	p.in, found = strings.CutPrefix(p.in, word)
	return found
}

func (p *lenient) value(depth int) any {
	switch {
	case depth > 50:
		panic(errReading)
	case p.take("{"):
		o := &object{}
		for n := 0; !p.take("}"); n++ {
			if n > 0 && !p.take(",") {
				panic(errReading)
			}
			if n > 0 && p.comments && p.take("}") {
				break
			}
			key, ok := p.value(depth + 1).(string)
			if !ok || !p.take(":") {
				panic(errReading)
			}
			o.keys, o.values = append(o.keys, key), append(o.values, p.value(depth+1))
		}
		return o
	case p.take("["):
		list := []any{}
		for n := 0; !p.take("]"); n++ {
			if n > 0 && !p.take(",") {
				panic(errReading)
			}
			list = append(list, p.value(depth+1))
		}
		return list
	case p.take(`"`):
		return p.text()
	case p.take("true"):
		return true
	case p.take("false"):
		return false
	case p.take("null"):
		return nil
	case p.numbers && p.take("NaN"):
		return math.NaN()
	case p.numbers && p.take("Infinity"):
		return math.Inf(1)
	}
	n := len(p.in) - len(strings.TrimLeft(p.in, "+-.0123456789eE"))
	f, err := strconv.ParseFloat(p.in[:n], 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		panic(errReading)
	}
	p.in = p.in[n:]
	return f
}

// text reads a string after its opening quote.
func (p *lenient) text() string {
	var out strings.Builder
	for {
		i := strings.IndexAny(p.in, `"\`)
		if i < 0 {
			panic(errReading)
		}
		out.WriteString(p.in[:i])
		c := p.in[i]
		p.in = p.in[i+1:]
		if c == '"' {
			return out.String()
		}
		if p.in == "" {
			panic(errReading)
		}
		c, p.in = p.in[0], p.in[1:]
		switch c {
		case 'u':
			c := p.unit()
			if rest, more := strings.CutPrefix(p.in, `\u`); more && utf16.IsSurrogate(c) {
				behind := &lenient{p.reading, rest}
				if pair := utf16.DecodeRune(c, behind.unit()); pair != '\uFFFD' {
					c, p.in = pair, behind.in
				}
			}
			out.WriteRune(c) // half of a pair is U+FFFD
		case 'n', 't', 'r', 'b', 'f':
			out.WriteByte(' ')
		default:
			out.WriteByte(c)
		}
	}
}

// unit reads the four digits of an escaped UTF-16 unit.
func (p *lenient) unit() rune {
	if len(p.in) < 4 {
		panic(errReading)
	}
	n, err := strconv.ParseUint(p.in[:4], 16, 32)
	if err != nil {
		panic(errReading)
	}
	p.in = p.in[4:]
	return rune(n)
}
