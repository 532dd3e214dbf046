package wire

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"path"
	"strings"

	"github.com/tidwall/gjson"
	"github.com/tidwall/sjson"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/skim"
	"github.com/tallygate/tallygate/meter/tokens"
)

// Request is a request as the formats look at it.
type Request struct {
	meter.Head
	// Clean is the path in lower case, since some providers take any case. Path keeps its case. Neither has repeated or trailing
	// slashes.
	Clean string
	Body  []byte
	// JSON is the body where it is a JSON object; otherwise it does not exist.
	JSON gjson.Result
}

// NewRequest prepares a request.
func NewRequest(h meter.Head, body []byte) *Request {
	h.Path = path.Clean("/" + h.Path)
	r := &Request{Head: h, Clean: lower(h.Path), Body: body}
	if trimmed := bytes.TrimLeft(body, " \t\r\n"); len(trimmed) > 0 && trimmed[0] == '{' {
		r.JSON = gjson.ParseBytes(body)
	}
	return r
}

// lower is s with its ASCII letters in lower case. Unlike strings.ToLower it keeps the length.
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// Post reports whether the request is a POST to a path that ends in suffix, such as "/chat/completions".
func (r *Request) Post(suffix string) bool {
	return r.Method == http.MethodPost && strings.HasSuffix(r.Clean, suffix)
}

// Upgrade reports whether the request asks for a WebSocket at a path that ends in suffix. Over HTTP/2 that is a CONNECT.
func (r *Request) Upgrade(suffix string) bool {
	upgrade := r.Method == http.MethodGet && strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
	return (upgrade || r.Method == http.MethodConnect) && strings.HasSuffix(r.Clean, suffix)
}

// Unrepeated returns [meter.ErrRepeated] if a key stands twice in the body, or in one of the objects at the given paths, and
// [meter.ErrTooManyKeys] if one of them has too many.
func (r *Request) Unrepeated(paths ...string) error {
	objects := []gjson.Result{r.JSON}
	for _, path := range paths {
		objects = append(objects, r.JSON.Get(path))
	}
	return Unrepeated(objects...)
}

// maxKeys bounds the keys of an object that must not have a key twice.
const maxKeys = 1000

// Unrepeated returns [meter.ErrRepeated] if one of the objects has a key twice, in the same or another case, and
// [meter.ErrTooManyKeys] if it has too many. Servers differ in which of two equal keys they take.
func Unrepeated(objects ...gjson.Result) error {
	for _, o := range objects {
		if !o.IsObject() {
			continue
		}
		var err error
		seen := map[string]bool{}
		o.ForEach(func(key, _ gjson.Result) bool {
			k := strings.ToLower(key.String())
			switch {
			case seen[k]:
				err = fmt.Errorf("%w: %.100q", meter.ErrRepeated, key.String())
			case len(seen) == maxKeys:
				err = meter.ErrTooManyKeys
			}
			seen[k] = true
			return err == nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// FreeCall returns a call that uses no tokens.
func (r *Request) FreeCall(name string) *meter.Call {
	c := r.Call(&API{Name: name, Dialect: Generic.Dialect})
	c.Free, c.InputOnly = true, true
	return c
}

// Call returns a call of the API, with the fields filled in that do not depend on the API.
func (r *Request) Call(api *API) *meter.Call {
	c := &meter.Call{API: api.Name, Body: r.Body, Format: api}
	if r.JSON.Exists() {
		c.Malformed = !Valid(r.Body)
	} else {
		c.Malformed = !strings.HasPrefix(r.Header.Get("Content-Type"), "multipart/form-data")
	}
	c.Model = r.JSON.Get("model").String()
	c.Stream = r.JSON.Get("stream").Bool()
	c.InputTokens, c.InputOpen = inputBound(r.Body, c.Model)
	return c
}

// MaxOutput returns how many output tokens the body allows by its field at path, such as "max_tokens": at most [MaxTokens], and
// 0 where there is no such field.
func (r *Request) MaxOutput(path string) int64 {
	return min(max(0, r.JSON.Get(path).Int()), MaxTokens)
}

// maxDepth bounds how deeply a request's JSON may be nested. gjson's validation is recursive, and a stack that overflows ends
// the process.
const maxDepth = 1000

// Valid reports whether body is JSON that is not nested beyond reason.
func Valid(body []byte) bool {
	depth := 0
	for i := 0; i < len(body); i++ {
		switch body[i] {
		case '{', '[':
			if depth++; depth > maxDepth {
				return false
			}
		case '}', ']':
			depth--
		case '"':
			value, _ := cutString(body[i+1:])
			i += len(value) + 1
		}
	}
	return gjson.ValidBytes(body)
}

// API is one operation of a provider. It implements [meter.Format].
type API struct {
	Name    string
	Dialect *Dialect
	// Limit, where set, returns the body with its output limited to n tokens over all choices, and the limit that the body then
	// has. ok is false where that can't be done.
	Limit func(c *meter.Call, n int64) (body []byte, limit int64, ok bool)
}

// Counter implements [meter.Format].
func (a *API) Counter(c *meter.Call, status int, h http.Header) meter.Counter {
	return NewCounter(a.Dialect, c, status, h)
}

// LimitOutput implements [meter.Format].
func (a *API) LimitOutput(c *meter.Call, n int64) bool {
	if a.Limit == nil || c.Malformed {
		return false
	}
	body, limit, ok := a.Limit(c, n)
	if ok {
		c.Body, c.MaxOutput = body, limit
	}
	return ok
}

// LimitAt returns an [API.Limit] for answers that the body's field at path limits, such as "max_tokens".
func LimitAt(path string) func(c *meter.Call, n int64) (body []byte, limit int64, ok bool) {
	return func(c *meter.Call, n int64) ([]byte, int64, bool) {
		body, err := sjson.SetBytes(c.Body, path, n)
		return body, n, err == nil
	}
}

// The most tokens that media can count. For an image, OpenAI documents at most 48,169 for gpt-4o-mini (2,833 + 8 tiles of
// 5,667) and 24,600 for the rest (10,000 patches times 2.46); Anthropic's 4,784 and Gemini's 2,240 are below. Of audio and video,
// Gemini's video counts most: 300 tokens a second, which has at least 4 kB.
const (
	ImageTokens     = 24_600
	imageTokensMini = 48_169
	mediaBytes      = 9 // the least for one token of audio or video
)

// MediaBound returns the most tokens that size bytes of audio or video can count.
func MediaBound(size int64) int64 { return size/mediaBytes + 64 }

// inputBound returns the most tokens that a JSON request body can count as input. That is the body's length, since a token has
// at least a byte, and what a provider puts around a message is shorter than the JSON around it. Images, audio and video in
// base64 have bounds of their own instead. open says that the body refers to something that it does not contain.
func inputBound(body []byte, model string) (most int64, open bool) {
	perImage := int64(ImageTokens)
	if strings.Contains(model, "4o-mini") {
		perImage = imageTokensMini
	}
	most = int64(len(body)) + 64
	var key, value []byte
	document, byURL := false, false // in Anthropic's, a "type" within a document says that it is fetched from a URL
	for rest := body; ; {
		i := bytes.IndexByte(rest, '"')
		if i < 0 {
			return most, open || document && byURL
		}
		value, rest = cutString(rest[i+1:])
		if next := bytes.TrimLeft(rest, " \t\r\n"); len(next) > 0 && next[0] == ':' {
			key = value
			open = open || remote[string(key)]
			continue
		}
		switch string(key) {
		case "type":
			switch string(value) {
			case "image_url", "image", "input_image", "image_file":
				most += perImage
			case "document":
				document = true
			case "url":
				byURL = true
			default:
				open = open || isHosted(value)
			}
		case "data", "url", "image_url", "bytes", "image", "images", "file_data", "b64_json":
			switch mediaOf(value) {
			case "image":
				most += perImage - int64(len(value))
			case "audio", "video":
				most += MediaBound(int64(len(value))*3/4) - int64(len(value))
			}
		}
	}
}

// hosted are the beginnings of the types of tools that run at a provider. What such a tool returns is input, again each time
// that the model goes on.
var hosted = []string{"web_", "code_", "tool_search", "mcp", "file_search", "computer", "shell", "x_search", "collections_search", "advisor",
	"url_", "google_", "browser_"}

func isHosted(tool []byte) bool {
	for _, prefix := range hosted {
		if bytes.HasPrefix(tool, []byte(prefix)) {
			return true
		}
	}
	return false
}

// remote are the keys by which a request makes the provider add to the input what the body does not contain.
var remote = map[string]bool{"previous_response_id": true, "conversation": true, "file_id": true, "file_url": true, "file_uri": true,
	"fileUri": true, "cachedContent": true, "cached_content": true, "web_search_options": true, "googleSearch": true,
	"google_search": true, "urlContext": true, "url_context": true, "codeExecution": true, "code_execution": true, "fileSearch": true,
	"googleMaps": true, "googleSearchRetrieval": true, "mcp_servers": true, "video_url": true, "audio_url": true, "document_url": true, "s3Location": true,
	"search_parameters": true, "plugins": true, "container": true}

// cutString splits p, which begins within a string, at the quote that ends the string.
func cutString(p []byte) (value, rest []byte) {
	for i := 0; ; {
		j := bytes.IndexByte(p[i:], '"')
		if j < 0 {
			return p, nil
		}
		i += j
		slashes := 0
		for k := i - 1; k >= 0 && p[k] == '\\'; k-- {
			slashes++
		}
		if slashes%2 == 0 {
			return p[:i], p[i+1:]
		}
		i++
	}
}

// mediaOf tells what a string of base64 holds, by its first bytes: "image", "audio", "video", or "" for anything else.
func mediaOf(s []byte) string {
	if len(s) < 256 {
		return ""
	}
	if bytes.HasPrefix(s, []byte("data:")) {
		i := bytes.Index(s[:256], []byte(";base64,"))
		if i < 0 {
			return ""
		}
		s = s[i+len(";base64,"):]
	}
	head := make([]byte, 48)
	n, err := base64.StdEncoding.Decode(head, s[:min(64, len(s)&^3)])
	if err != nil {
		return ""
	}
	detected := http.DetectContentType(head[:n])
	kind, _, _ := strings.Cut(detected, "/")
	switch {
	case detected == "application/ogg":
		return "audio"
	case kind == "image", kind == "audio", kind == "video":
		return kind
	}
	return ""
}

// Prompt estimates the tokens of a request's input.
type Prompt struct {
	paths              *skim.Paths
	perMark, perPrompt int64
}

// NewPrompt returns a Prompt that counts the tokens of the strings at the paths of texts, perMark for each value at the paths of
// marks, and perPrompt once.
func NewPrompt(perMark, perPrompt int64, texts, marks []string) *Prompt {
	var patterns []skim.Pattern
	for _, path := range texts {
		patterns = append(patterns, skim.Pattern{Path: path, Kind: skim.Text})
	}
	for _, path := range marks {
		patterns = append(patterns, skim.Pattern{Path: path, Kind: skim.Mark})
	}
	return &Prompt{skim.Compile(patterns), perMark, perPrompt}
}

// maxPrompt bounds the text of a prompt that is tokenised, in bytes. The rest of a longer one is taken to be like its beginning.
const maxPrompt = 256 << 10

// Tokens estimates the tokens of the call's input.
func (p *Prompt) Tokens(c *meter.Call) int64 {
	encoding := tokens.ForModel(c.Model)
	sink := promptSink{text: tokens.NewText(encoding)}
	skim.New(p.paths, &sink).Write(c.Body)
	n := sink.text.Count()
	if sink.size > maxPrompt {
		n = n * sink.size / maxPrompt
	}
	if sink.marks > 0 {
		n += encoding.Prompt
	}
	return max(0, n+sink.marks*p.perMark+p.perPrompt)
}

// promptSink is the [skim.Sink] of a Prompt. It counts the beginning of the prompt's text.
type promptSink struct {
	text  *tokens.Text
	size  int64 // bytes of all the text
	last  int
	marks int64
}

func (s *promptSink) Value(int, []byte) {}

func (s *promptSink) Mark(int) { s.marks++ }

func (s *promptSink) Text(i int, piece []byte) {
	if i != s.last {
		s.last = i
		s.text.Break()
	}
	if room := maxPrompt - s.size; room > 0 {
		s.text.Write(piece[:min(int64(len(piece)), room)])
	}
	s.size += int64(len(piece))
}
