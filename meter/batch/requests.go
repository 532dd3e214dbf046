package batch

import (
	"bytes"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/wire"
)

// The requests of a batch are read as if each came alone: which models they name, and what they name that the provider keeps. What leaves its
// answer where it can be read for nothing is refused, since the results of a batch are charged only when they are fetched.

// inner are where the request stands in one of a batch: in OpenAI's and Mistral's lines, in Anthropic's, in Gemini's, and in xAI's.
var inner = []string{"body", "params", "request", "batch_request"}

// isRequest reports whether a line of a file is a request of a batch, whatever the file is said to be for.
func isRequest(line gjson.Result) bool {
	if !line.IsObject() {
		return false
	}
	named, asks := false, false
	line.ForEach(func(key, v gjson.Result) bool {
		switch name := strings.ToLower(key.Str); {
		case name == "custom_id", name == "key", name == "batch_request_id":
			named = true
		case slices.Contains(inner, name):
			asks = asks || v.IsObject()
		}
		return true
	})
	return named && asks
}

// readLines reads the lines of a file that was uploaded, if it is one of requests: because it is for a batch, or since its lines are requests. It
// returns false for any other file.
func readLines(r *wire.Request, c *meter.Call, content []byte, isBatch bool) bool {
	for line := range bytes.Lines(content) {
		isBatch = isBatch || mayBeRequest(line) && isRequest(gjson.ParseBytes(line))
	}
	if !isBatch {
		return false
	}
	n := 0
	for line := range bytes.Lines(content) {
		n++
		where := "line " + strconv.Itoa(n)
		if n == 1 {
			line = bytes.TrimPrefix(line, []byte("\xEF\xBB\xBF"))
		}
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		if !gjson.ValidBytes(line) || line[0] != '{' || bytes.ContainsFunc(line, splits) {
			r.Refuse(where, "expected a JSON object, in which other ends of lines are escaped")
			return true
		}
		readRequest(r, c, where, gjson.ParseBytes(line))
		if r.Err() != nil {
			return true
		}
	}
	return true
}

// mayBeRequest is a quick look at a line.
func mayBeRequest(line []byte) bool {
	return bytes.IndexByte(line, '{') >= 0 && (bytes.Contains(line, []byte("custom_id")) || bytes.Contains(line, []byte("key")) || bytes.Contains(line, []byte(`\u`))) && gjson.ValidBytes(line)
}

// splits reports whether some programs take a character for the end of a line.
func splits(c rune) bool {
	switch c {
	case '\r', '\v', '\f', 0x1C, 0x1D, 0x1E, 0x85, 0x2028, 0x2029, utf8.RuneError:
		return true
	}
	return false
}

// readRequest reads one request of a batch, and what is within it.
func readRequest(r *wire.Request, c *meter.Call, where string, request gjson.Result) {
	if !request.IsObject() || r.Err() != nil {
		return
	}
	if url := request.Get("url"); strings.Contains(strings.ToLower(url.String()), "/threads") || strings.Contains(strings.ToLower(url.String()), "/conversations") {
		r.Fail(stays(where + ".url"))
		return
	}
	readBody(r, c, where, request)
	request.ForEach(func(key, v gjson.Result) bool {
		within := slices.Contains(inner, strings.ToLower(key.Str))
		if !within || !v.IsObject() {
			return true
		}
		readBody(r, c, where+"."+key.Str, v)
		if strings.EqualFold(key.Str, "batch_request") { // xAI names the request after its kind
			v.ForEach(func(kind, v gjson.Result) bool {
				if v.IsObject() {
					readBody(r, c, where+"."+key.Str+"."+kind.Str, v)
				}
				return r.Err() == nil
			})
		}
		return r.Err() == nil
	})
}

// readBody reads the body of a request of a batch.
func readBody(r *wire.Request, c *meter.Call, where string, body gjson.Result) {
	in := wire.NewRequest(meter.Head{Method: http.MethodPost, Path: r.Path}, []byte(body.Raw))
	call := in.Call(fileAPI)
	if err := in.Err(); err != nil {
		if ambiguous := (*meter.AmbiguousError)(nil); errors.As(err, &ambiguous) {
			err = &meter.AmbiguousError{Field: where + "." + ambiguous.Field, Reason: ambiguous.Reason}
		}
		r.Fail(err)
		return
	}
	for _, field := range []string{"conversation", "store", "background"} {
		if v := in.Get(field); v.Exists() && v.Type != gjson.Null && v.Type != gjson.False {
			r.Fail(stays(where + "." + field))
			return
		}
	}
	for _, model := range append([]string{call.Model}, call.Models...) {
		r.Also(c, where, model)
	}
	if call.Elsewhere != "" && c.Elsewhere == "" {
		c.Elsewhere = where + "." + call.Elsewhere
	}
	for field, kind := range map[string]string{"previous_response_id": "response", "previous_interaction_id": "interaction"} {
		in.Follow(c, field, kind)
	}
	uses, err := in.Uses()
	for _, use := range uses {
		if !slices.Contains(c.Stored.Uses, use) {
			c.Stored.Uses = append(c.Stored.Uses, use)
		}
	}
	if err != nil || len(c.Stored.Uses) > maxUses || len(c.Follows) > maxUses {
		r.Refuse(where, "the batch names more than 1000 files, responses and the like")
	}
}

// maxUses bounds how many resources the requests of a batch may name.
const maxUses = 1000

func stays(field string) error {
	return &meter.LaterError{Field: field, Reason: "in a batch an answer can't be kept where it can be read without being fetched: leave it out"}
}
