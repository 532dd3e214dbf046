package wire

import (
	"bytes"
	"mime"
	"slices"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/meter"
)

// form is what a multipart form says that matters for its price.
type form struct {
	fields  map[string]string // the fields that are read
	file    []byte            // the last file
	files   int               // how many there are
	plain   bool              // a part that is called file is none
	sources int               // the parts that are a file, or whose name says that they may be one or tell where one is
	tokens  int64             // the highest number of input tokens of its files: an image, or a file of audio
}

// formFields are the fields of a form that are read.
var formFields = set("model model_id stream seconds duration purpose response_format " + lower(countNames+" "+callbackNames))

const (
	maxField     = 1024 // bytes of a form's field
	maxFieldName = 256  // bytes of its name
	maxParts     = 1000
)

// IsMultipart reports whether the body is declared as a multipart form.
func (r *Request) IsMultipart() bool { return strings.HasPrefix(r.contentType(), "multipart/") }

// IsForm reports whether the body is declared as a form of either kind.
func (r *Request) IsForm() bool {
	return r.IsMultipart() || strings.HasPrefix(r.contentType(), "application/x-www-form-urlencoded")
}

func (r *Request) contentType() string { return lower(strings.TrimSpace(r.Header.Get("Content-Type"))) }

// ReadForm fills in what a multipart form asks for.
func (r *Request) ReadForm(c *meter.Call) { r.readForm(c) }

func (r *Request) readForm(c *meter.Call) form {
	f := r.form()
	c.Malformed, c.InputTokens = false, f.tokens
	r.Named(c, f.fields["model"])
	r.Also(c, "model_id", f.fields["model_id"])
	switch stream := lower(f.fields["stream"]); stream {
	case "", "true", "false":
		c.Stream = stream == "true"
	default:
		r.Refuse("stream", "expected true or false")
	}
	for _, name := range strings.Fields(lower(callbackNames)) {
		if value := lower(f.fields[name]); value != "" && value != "false" {
			c.Elsewhere = name
		}
	}
	for name := range strings.FieldsSeq(lower(countNames)) {
		if value, found := f.fields[name]; found {
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil || n < 1 || n > maxChoices {
				r.Refuse(name, "expected a whole number from 1 to "+strconv.Itoa(maxChoices))
			}
			c.Choices = max(c.Choices, n)
		}
	}
	for _, name := range []string{"seconds", "duration"} {
		if value, found := f.fields[name]; found {
			if c.Asked == nil {
				c.Asked = meter.Units{}
			}
			r.askSeconds(c, name, value)
		}
	}
	return f
}

// ReadUpload fills in what the upload of a file asks for. It returns the file's purpose, and its content.
func (r *Request) ReadUpload(c *meter.Call) (purpose string, file []byte) {
	f := r.form()
	c.Malformed = false
	if f.files > 1 || f.plain {
		r.Refuse("file", "expected one file, with a name")
	}
	return f.fields["purpose"], f.file
}

// ReadRecording is [Request.ReadForm] for the upload of a recording. It returns the recording, or nil if the provider may find another one in
// the form or by it, and the format of the answer that is asked for.
func (r *Request) ReadRecording(c *meter.Call) (file []byte, format string) {
	f := r.readForm(c)
	if f.sources == 1 {
		file = f.file
	}
	return file, f.fields["response_format"]
}

// sourceNames are in the names of the fields that are a recording, or tell where it is: file, audio_url, file_id, source_uri. Their values may
// be anything: bytes, base64, a URL, an id.
var sourceNames = []string{"file", "audio", "media", "url", "uri"}

// isSource reports whether a field of this folded name may be a recording, or tell where it is.
func isSource(name string) bool {
	return slices.ContainsFunc(sourceNames, func(part string) bool { return strings.Contains(name, part) })
}

// ReferInForm notes what a multipart form names. The error is that of a form which can be read in more than one way.
func (r *Request) ReferInForm() error {
	r.form()
	return r.Err()
}

// refer notes what a field of a form names. It is read as JSON: video[id] and video.id as {"video":{"id":...}}, file_ids[0] as
// {"file_ids":[...]}. A value may be JSON itself.
func (r *Request) refer(name string, value []byte) {
	if text := bytes.TrimSpace(value); len(text) == 0 || text[0] != '{' && text[0] != '[' || !gjson.ValidBytes(text) {
		value = gjson.AppendJSONString(nil, string(value))
	}
	var before, after string
	for _, key := range strings.FieldsFunc(name, func(c rune) bool { return c == '[' || c == ']' || c == '.' }) {
		if key = strings.TrimSpace(key); strings.Trim(key, "0123456789") == "" {
			before, after = before+"[", "]"+after
		} else {
			before, after = before+`{"`+key+`":`, "}"+after
		}
	}
	uses, err := NewRequest(meter.Head{}, slices.Concat([]byte(before), value, []byte(after))).Uses()
	for _, used := range uses {
		r.input.refer(used)
	}
	if err != nil {
		r.Fail(err)
	}
}

// form reads the body as a form. Parsers read malformed forms in different ways, so these are refused: each boundary must end a part, and
// each part must say clearly and once what it is.
func (r *Request) form() form {
	f := form{fields: map[string]string{}}
	boundary := r.boundary()
	delimiter := []byte("--" + boundary)
	rest, found := bytes.CutPrefix(r.Body, delimiter)
	if boundary == "" || !found {
		r.Refuse("body", "expected a form that begins with the boundary in Content-Type")
		return f
	}
	between := append([]byte("\r\n"), delimiter...)
	for parts := 0; ; parts++ {
		if end := bytes.TrimSuffix(rest, []byte("\r\n")); string(end) == "--" {
			return f
		}
		part, more, found := bytes.Cut(rest, between)
		part, begun := bytes.CutPrefix(part, []byte("\r\n"))
		head, value, split := bytes.Cut(part, []byte("\r\n\r\n"))
		if !found || !begun || !split || parts == maxParts || bytes.Contains(part, delimiter) || !r.part(&f, string(head), value) {
			r.Refuse("body", "the form is malformed")
			return f
		}
		rest = more
	}
}

// boundary returns the boundary in Content-Type, or "" if it is not a plain one.
func (r *Request) boundary() string {
	kind := r.Header.Get("Content-Type")
	media, params, err := mime.ParseMediaType(kind)
	b := params["boundary"]
	if err != nil || media != "multipart/form-data" || len(b) > 70 || strings.Trim(b, letters+"'()+_,-./:=?") != "" ||
		strings.Count(lower(kind), "boundary") != 1 || !strings.Contains(lower(kind), "boundary=") {
		return ""
	}
	return b
}

const letters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

// part reads one part of a form.
func (r *Request) part(f *form, head string, value []byte) bool {
	name, file, ok := disposition(head)
	if !ok {
		return false
	}
	size := int64(len(value))
	if !file || size <= maxField {
		r.refer(name, value)
	}
	if file {
		f.file = value
		f.files++
		if strings.HasPrefix(name, "image") || name == "mask" {
			f.tokens += ImageTokens
			size = 0
		}
		f.tokens += MediaBound(size)
	} else {
		f.tokens += size + 16
	}
	folded := strings.TrimSuffix(string(fold([]byte(name))), "[]")
	f.plain = f.plain || folded == "file" && !file
	if file || isSource(folded) {
		f.sources++
	}
	if !formFields[folded] {
		return true
	}
	if _, twice := f.fields[folded]; twice || name != folded || file || size > maxField {
		r.Refuse(folded, "expected this field of the form once, spelled as it is here, as a short text")
		return true
	}
	r.checkName(folded, string(value))
	f.fields[folded] = string(value)
	return true
}

// disposition reads the header of a part.
func disposition(head string) (name string, file, ok bool) {
	var said string
	for line := range strings.SplitSeq(head, "\r\n") {
		key, value, found := strings.Cut(line, ":")
		if !found || key == "" || strings.Trim(key, letters+"-") != "" || strings.ContainsFunc(value, func(c rune) bool { return c != '\t' && odd(c) }) {
			return "", false, false // folded lines, and characters at which some parsers cut
		}
		switch lower(key) {
		case "content-disposition":
			if said != "" {
				return "", false, false
			}
			said = strings.TrimSpace(value)
		case "content-type":
			if _, params, err := mime.ParseMediaType(value); err != nil || !isUTF8(params["charset"]) {
				return "", false, false
			}
		case "content-transfer-encoding":
			switch strings.ToLower(strings.TrimSpace(value)) {
			case "7bit", "8bit", "binary":
			default:
				return "", false, false
			}
		}
	}
	kind, params, err := mime.ParseMediaType(said)
	if err != nil || kind != "form-data" {
		return "", false, false
	}
	name = params["name"]
	_, file = params["filename"]
	small := lower(said)
	once := strings.Count(small, "name=")-strings.Count(small, "filename=") == 1 && strings.Count(small, "name*") == strings.Count(small, "filename*")
	plain := strings.Contains(said, `name="`+name+`"`) || strings.Contains(said, "name="+name)
	return name, file, name != "" && len(name) <= maxFieldName && strings.Trim(name, letters+"_-.[] ") == "" && once && plain
}
