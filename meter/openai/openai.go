package openai

import (
	"slices"
	"strings"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/wire"
)

// Inspect recognises a request by the end of its path, wherever the API is mounted: /v1, /openai/deployments/NAME, /compatible-mode/v1, ...
// It returns nil for other requests.
func Inspect(r *wire.Request) (*meter.Call, error) {
	switch {
	case r.Post("/async/chat/completions"), r.Post("/async/sonar"):
		return inspectAsync(r)
	case r.Post("/chat/completions"):
		return inspectChat(r, chatAPI, quietChat)
	case r.Post("/completions"):
		return inspectChat(r, completions, quietComplete)
	case r.Post("/responses"), r.Post("/responses/compact"):
		return inspectResponses(r)
	case r.Post("/responses/input_tokens"):
		return r.FreeCall("responses.input_tokens"), nil
	case r.Post("/runs") && strings.Contains(r.Clean, "/threads/"), r.Post("/threads/runs"), r.Post("/submit_tool_outputs"):
		return inspectRun(r)
	case r.Post("") && strings.Contains(r.Clean, "/conversations") && present(r.Get("inputs")): // Mistral's; OpenAI's conversations have items
		return inspectConversation(r)
	case r.Post("embeddings"): // Voyage: /multimodalembeddings, /contextualizedembeddings
		return inspectMedia(r, embeddingsAPI, true)
	case r.Post("/moderations"):
		return inspectMedia(r, moderationsAPI, true)
	case r.Post("/images"), r.Post("/images/generations"), r.Post("/images/edits"), r.Post("/images/variations"):
		c, err := inspectMedia(r, imagesAPI, false)
		r.AskImages(c)
		return c, err
	case r.Post("/videos"), r.Post("/videos/generations"), r.Post("/videos/edits"), r.Post("/videos/extensions"),
		r.Post("/remix") && strings.Contains(r.Clean, "/videos/"):
		c, err := inspectMedia(r, videosAPI, false)
		r.AskSeconds(c, "seconds", "duration")
		c.ByAsked = true
		return c, err
	case r.Post("/audio/transcriptions"), r.Post("/audio/translations"), r.Post("/listen"), r.Post("/stt"):
		return inspectTranscription(r)
	case r.Post("/audio/speech"):
		c, err := inspectMedia(r, speechAPI, false)
		r.AskCharacters(c, "input", "text")
		c.Mute = r.Get("stream_format").String() != "sse"
		return c, err
	case r.Post("/speak"), r.Post("") && strings.Contains(r.Clean, "/text-to-speech/"): // Deepgram, ElevenLabs
		c, err := inspectMedia(r, speechAPI, false)
		r.AskCharacters(c, "text", "input")
		c.ByAsked, c.Mute = true, true
		return c, err
	case r.Post("/containers"):
		return inspectContainer(r), nil
	case r.Post("/ocr"):
		return inspectMedia(r, ocrAPI, true)
	case r.Upgrade("/realtime"):
		return inspectSocket(r, realtimeAPI), nil
	case r.Upgrade("/responses"):
		c := inspectSocket(r, socketAPI)
		c.Keeps, c.TalksOf = laterResponse, laterResponse
		return c, nil
	}
	return inspectFetch(r), nil
}

// chatEnds are the ends of further paths at which providers serve chat completions. Such a path may serve other things too, so the body must
// look like a chat, and so must the answer. At any other path no body makes a chat: a server that ignores fields it does not know would do
// other work for it.
var chatEnds = []string{
	"/chat",                            // Writer: https://dev.writer.com/api-reference, IBM watsonx: /ml/v1/text/chat
	"/text/chat_stream",                // IBM watsonx: https://cloud.ibm.com/apidocs/watsonx-ai#text-chat-stream
	"/invocations",                     // Databricks, SageMaker
	"/inference:complete",              // Snowflake: https://docs.snowflake.com/en/user-guide/snowflake-cortex/cortex-rest-api
	"/chatcompletion_v2",               // MiniMax
	"/sonar",                           // Perplexity
	":rawpredict", ":streamrawpredict", // Vertex AI, models of other publishers than Anthropic
}

// InspectShape recognises chat completions by the request's body, at the paths of [chatEnds] and of Cloudflare's models. If the path names the
// model and the body does not, the API is less similar to OpenAI's, so the body is not changed.
func InspectShape(r *wire.Request) (c *meter.Call, err error) {
	chats := strings.Contains(r.Clean, "/ai/run/") || slices.ContainsFunc(chatEnds, r.Post)
	switch {
	case !r.Post("") || !chats || !r.Has("messages.*.role"):
		return nil, nil
	case r.Get("model").String() != "":
		c, err = inspectChat(r, chatAPI, quietChat)
	case r.Deployment() != "" || r.Get("model_id").String() != "":
		c, err = inspectChat(r, chatAPI, nil)
	}
	if c != nil {
		c.ByShape = true
	}
	return c, err
}

// inspectMedia reads a request that may be a form (audio, images).
func inspectMedia(r *wire.Request, api *wire.API, inputOnly bool) (*meter.Call, error) {
	c := r.Call(api)
	c.InputOnly = inputOnly
	switch {
	case r.IsMultipart():
		r.ReadForm(c)
	case api == transcriptionsAPI && !r.LooksJSON() && !r.IsForm(): // Deepgram: the body is the audio, and the query names the model
		c.Malformed, c.InputTokens = false, wire.MediaBound(int64(len(r.Body)))
	}
	r.Named(c, r.Deployment())
	return c, nil
}
