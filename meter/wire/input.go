package wire

import (
	"bytes"
	"encoding/base64"
	"net/http"
	"strings"

	"github.com/tallygate/tallygate/meter"
)

// Bounds of media, in tokens. An image: OpenAI's documented maximum is 48,169 for gpt-4o-mini (2,833 + 8 tiles of 5,667) and 24,600 for
// other models (10,000 patches times 2.46); Anthropic's 4,784 and Gemini's 2,240 are lower. Audio and video: Gemini's video has the most
// tokens for its size, 300 a second, with at least 4 kB a second.
const (
	ImageTokens     = 24_600
	imageTokensMini = 48_169
	mediaBytes      = 9 // for one token of audio or video
)

// MediaBound returns the highest number of tokens that size bytes of audio or video can have.
func MediaBound(size int64) int64 { return size/mediaBytes + 64 }

// inputs is what the strings of a request's JSON tell about the size of its input. Strings in all places are read, so that the input is
// never taken for smaller than it is.
type inputs struct {
	images   int64 // parts that are an image, by their type
	urls     int64 // parts that are an image, by their key
	embedded int64 // images that are in the body
	beside   int64 // tokens to add to the number of bytes; may be negative
	open     bool  // the body refers to something without a bound
	refers   bool  // the body refers to something that is not in it
	document bool  // there is a part of the type document, which may be given by its URL
	byURL    bool  // there is a part that is given by its URL
	uses     []meter.Resource
}

// bound returns the highest number of input tokens of a body of size bytes. A token has at least one byte, and what a provider adds to a
// message is shorter than the JSON around it. So the bound is the length of the body, without images, audio and video in base64, which have
// bounds of their own. open says that there is no bound.
func (in *inputs) bound(size int64, model string) (most int64, open bool) {
	perImage := int64(ImageTokens)
	if strings.Contains(model, "4o-mini") {
		perImage = imageTokensMini
	}
	images := max(0, in.images, in.urls) + in.embedded
	return max(0, size+in.beside) + 64 + images*perImage, in.open || in.document && in.byURL
}

// key reads a folded key and the value that follows.
func (in *inputs) key(key, value []byte) {
	switch {
	case bytes.HasPrefix(value, []byte("null")), bytes.HasPrefix(value, []byte("false")):
	case string(key) == "image_url":
		in.urls++
	case remote[string(key)], bytes.HasPrefix(value, []byte("{")) && isHosted(string(key)):
		in.open = true
	}
}

// unescaped is the text of a string that may have escapes.
func unescaped(raw []byte) []byte {
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw
	}
	return unescape(raw)
}

// maxType is how many bytes of a short string are read: the name of a type, the scheme of a URL.
const maxType = 64

// text reads a string below a folded key.
func (in *inputs) text(key, raw []byte) {
	short := raw
	if len(raw) <= 4*maxType && bytes.IndexByte(raw, '\\') >= 0 {
		short = unescape(raw)
	}
	in.refers = in.refers || isReference(short)
	if references[string(key)] != "" {
		if named, ok := Reference(string(key), string(unescaped(raw))); ok {
			in.refer(named)
		}
	}
	switch string(key) {
	case "type", "tools":
		if len(short) <= maxType {
			in.kind(string(fold(short)))
		}
	case "data", "url", "image_url", "image", "images", "bytes", "file_data", "filedata", "b64_json":
		before := in.embedded
		if in.data(raw); in.embedded > before && strings.HasSuffix(string(key), "url") {
			in.urls-- // it was counted by its key already
		}
	}
}

// kind reads the folded name of a type.
func (in *inputs) kind(name string) {
	switch name {
	case "image_url", "image", "input_image", "image_file":
		in.images++
	case "document":
		in.document = true
	case "url":
		in.byURL = true
	case "item_reference":
		in.open = true
	default:
		in.open = in.open || isHosted(name)
	}
}

// data reads a string that may be a file in base64.
func (in *inputs) data(raw []byte) {
	size := int64(len(raw))
	switch mediaOf(raw) {
	case "image":
		in.embedded++
		in.beside -= size
	case "audio", "video":
		in.beside += MediaBound(size*3/4) - size
	case "document": // a page may have a hundred bytes and thousands of tokens
		in.open = true
	}
}

// isReference reports whether a string is the URL of something that is not in the body.
func isReference(s []byte) bool {
	if len(s) < len("s3://") || bytes.IndexByte([]byte("hHgGsSfF"), s[0]) < 0 {
		return false
	}
	scheme, _, found := strings.Cut(string(s[:min(len(s), len("https:"))]), ":")
	if !found {
		return false
	}
	switch strings.ToLower(scheme) {
	case "http", "https", "gs", "s3", "file":
		return bytes.IndexByte(s, ' ') < 0
	}
	return false
}

// hosted are the beginnings of the types of tools that run at a provider. The provider reads their results as input, each time that its
// model continues.
var hosted = []string{"web_", "code_", "tool_search", "mcp", "file_search", "computer", "shell", "x_search", "collections_search", "advisor",
	"url_", "google_", "browser_"}

func isHosted(tool string) bool {
	for _, prefix := range hosted {
		if strings.HasPrefix(tool, prefix) {
			return true
		}
	}
	return false
}

// remote are the folded keys of things that a provider adds to the input from elsewhere.
var remote = set("previous_response_id conversation conversation_id thread_id assistant_id agent_id prompt_id preset file_id file_ids fileid file_url file_uri " +
	"fileuri cachedcontent cached_content web_search_options googlesearch google_search urlcontext url_context codeexecution " +
	"code_execution filesearch file_search vector_store_ids googlemaps google_maps googlesearchretrieval google_search_retrieval " +
	"mcp_servers connectors connector_id data_sources datasources video_url audio_url document_url s3location search_parameters plugins container")

func set(words string) map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(words) {
		m[w] = true
	}
	return m
}

// mediaOf returns what a string of base64 contains, by its first bytes: "image", "audio", "video", "document", or "" for anything else.
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
	case detected == "application/pdf", detected == "application/zip": // zip: office documents
		return "document"
	case kind == "image", kind == "audio", kind == "video":
		return kind
	}
	return ""
}
