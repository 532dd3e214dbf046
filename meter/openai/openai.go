package openai

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/wire"
)

// Inspect recognises a request by the end of its path, wherever the API is mounted: /v1, /openai/deployments/NAME,
// /compatible-mode/v1, ... It returns nil for a request that is not OpenAI's.
func Inspect(r *wire.Request) (*meter.Call, error) {
	switch {
	case r.Post("/chat/completions"):
		return inspectChat(r, chatAPI, quietChat)
	case r.Post("/completions"):
		return inspectChat(r, completions, quietComplete)
	case r.Post("/responses"), r.Post("/responses/compact"):
		return inspectResponses(r)
	case r.Post("/responses/input_tokens"), r.Post("/cancel") && strings.Contains(r.Clean, "/responses/"):
		return r.FreeCall("responses.input_tokens"), nil
	case r.Post("/runs") && strings.Contains(r.Clean, "/threads/"), r.Post("/threads/runs"), r.Post("/submit_tool_outputs"):
		return inspectRun(r)
	case r.Post("") && strings.Contains(r.Clean, "/conversations") && present(r.JSON.Get("inputs")): // Mistral's; OpenAI's have items
		return inspectConversation(r)
	case r.Post("embeddings"): // Voyage: /multimodalembeddings, /contextualizedembeddings
		return inspectMedia(r, embeddingsAPI, true)
	case r.Post("/moderations"):
		return inspectMedia(r, moderationsAPI, true)
	case r.Post("/images"), r.Post("/images/generations"), r.Post("/images/edits"), r.Post("/images/variations"):
		return inspectMedia(r, imagesAPI, false)
	case r.Post("/audio/transcriptions"), r.Post("/audio/translations"), r.Post("/listen"), r.Post("/stt"):
		return inspectMedia(r, transcriptionsAPI, false)
	case r.Post("/audio/speech"):
		return inspectMedia(r, speechAPI, false)
	case r.Post("/ocr"):
		return inspectMedia(r, ocrAPI, true)
	case r.Upgrade("/realtime"), r.Upgrade("/responses"):
		return inspectRealtime(r), nil
	case r.Method == http.MethodGet && strings.HasSuffix(r.Clean, "/content") && strings.Contains(r.Clean, "/files/"):
		return inspectFile(r), nil
	}
	return nil, nil
}

// InspectShape recognises chat completions by the request's body, on a path that no format knows. Where the path names the model
// and the body does not, the API is less like OpenAI's, so the body is not changed.
func InspectShape(r *wire.Request) (*meter.Call, error) {
	switch {
	case !r.Post("") || !r.JSON.Get("messages.0.role").Exists():
		return nil, nil
	case r.JSON.Get("model").String() != "":
		return inspectChat(r, chatAPI, quietChat)
	case deployment(r) != "" || r.JSON.Get("model_id").String() != "":
		return inspectChat(r, chatAPI, nil)
	}
	return nil, nil
}

// inspectMedia reads a request that may be a form (audio, images).
func inspectMedia(r *wire.Request, api *wire.API, inputOnly bool) (*meter.Call, error) {
	if err := r.Unrepeated(); err != nil {
		return nil, err
	}
	c := r.Call(api)
	c.InputOnly = inputOnly
	c.Choices = max(1, r.JSON.Get("n").Int())
	if media, params, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err == nil && media == "multipart/form-data" {
		c.Malformed = false
		fields, bound, err := form(r.Body, params["boundary"])
		if err != nil {
			return nil, err
		}
		c.Model, c.Stream, c.InputTokens = fields["model"], fields["stream"] == "true", bound
	} else if api == transcriptionsAPI && !r.JSON.Exists() { // Deepgram: the body is the audio
		query, _ := url.ParseQuery(r.Query)
		c.Malformed, c.Model, c.InputTokens = false, query.Get("model"), wire.MediaBound(int64(len(r.Body)))
	}
	c.Model = cmp.Or(deployment(r), c.Model)
	return c, nil
}

// maxField is how many bytes of a form's field are kept: more than any model's name has.
const maxField = 1024

// form reads the fields of a form that decide its cost, and returns the most tokens that the form can count. An image and a file
// of audio count the most that they can be.
func form(body []byte, boundary string) (fields map[string]string, bound int64, err error) {
	fields = map[string]string{}
	parts := multipart.NewReader(bytes.NewReader(body), boundary)
	for {
		part, err := parts.NextPart()
		if err != nil {
			return fields, bound, nil // the end, or no form, which the provider will refuse
		}
		if part.FileName() != "" {
			size, _ := io.Copy(io.Discard, part)
			if strings.HasPrefix(part.FormName(), "image") || part.FormName() == "mask" {
				size = 0
				bound += wire.ImageTokens
			}
			bound += wire.MediaBound(size)
			continue
		}
		value, _ := io.ReadAll(part)
		bound += int64(len(value)) + 16
		name := part.FormName()
		if name != "model" && name != "stream" { // the other fields do not decide the cost
			continue
		}
		if _, found := fields[name]; found {
			return nil, 0, fmt.Errorf("%w: %q", meter.ErrRepeated, name)
		}
		fields[name] = string(value[:min(len(value), maxField)])
	}
}
