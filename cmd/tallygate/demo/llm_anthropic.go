package demo

import (
	"net/http"
)

// messagesRequest is what the demo reads of Anthropic's messages request. It accepts and ignores the API's other fields.
type messagesRequest struct {
	Model     string    `json:"model"`
	System    content   `json:"system"`
	Messages  []message `json:"messages"`
	MaxTokens int       `json:"max_tokens"`
	Stream    bool      `json:"stream"`
}

// conversation returns everything that the model reads, beginning with the system prompt.
func (q messagesRequest) conversation() []message {
	if q.System == "" {
		return q.Messages
	}
	return append([]message{{Role: "system", Content: q.System}}, q.Messages...)
}

type messagesUsage struct {
	InputTokens              int `json:"input_tokens"`
	CacheCreationInputTokens int `json:"cache_creation_input_tokens"`
	CacheReadInputTokens     int `json:"cache_read_input_tokens"`
	OutputTokens             int `json:"output_tokens"`
}

type textBlock struct {
	Type string `json:"type"`
	Text string `json:"text"`
}

type messagesResponse struct {
	ID           string        `json:"id"`
	Type         string        `json:"type"`
	Role         string        `json:"role"`
	Model        string        `json:"model"`
	Content      []textBlock   `json:"content"`
	StopReason   *string       `json:"stop_reason"`
	StopSequence *string       `json:"stop_sequence"`
	Usage        messagesUsage `json:"usage"`
}

func messages(w http.ResponseWriter, r *http.Request, pace pace) {
	var q messagesRequest
	if err := readJSON(w, r, &q); err != nil {
		anthropicError(w, http.StatusBadRequest, err.Error())
		return
	}
	switch {
	case q.Model == "":
		anthropicError(w, http.StatusBadRequest, "model: field required")
		return
	case len(q.Messages) == 0:
		anthropicError(w, http.StatusBadRequest, "messages: at least one message is required")
		return
	case q.MaxTokens < 1:
		anthropicError(w, http.StatusBadRequest, "max_tokens: must be 1 or more")
		return
	case q.Model == brokenModel:
		anthropicError(w, http.StatusInternalServerError, "this model always fails")
		return
	}
	said := say(q.Messages, q.MaxTokens)
	stop := "end_turn"
	if said.cut {
		stop = "max_tokens"
	}
	response := messagesResponse{
		ID: newID("msg_"), Type: "message", Role: "assistant", Model: q.Model, Content: []textBlock{},
		Usage: messagesUsage{InputTokens: promptTokens(q.conversation())},
	}
	if q.Stream {
		response.stream(startEvents(w), r, pace, said, stop)
		return
	}
	response.Content = []textBlock{{"text", said.text()}}
	response.StopReason = &stop
	response.Usage.OutputTokens = said.tokens
	answer(w, http.StatusOK, response)
}

// stream sends the answer as Anthropic does: the first event states the input and one token of output, and the last event but one
// states the whole output.
func (m messagesResponse) stream(out events, r *http.Request, pace pace, said reply, stop string) {
	type object map[string]any
	m.Usage.OutputTokens = 1
	out.send("message_start", object{"type": "message_start", "message": m})
	out.send("content_block_start", object{"type": "content_block_start", "index": 0, "content_block": textBlock{Type: "text"}})
	out.send("ping", object{"type": "ping"})
	for _, piece := range said.pieces {
		if !pace.wait(r) {
			return
		}
		delta := textBlock{"text_delta", piece}
		out.send("content_block_delta", object{"type": "content_block_delta", "index": 0, "delta": delta})
	}
	out.send("content_block_stop", object{"type": "content_block_stop", "index": 0})
	m.Usage.OutputTokens = said.tokens
	end := object{"stop_reason": stop, "stop_sequence": nil}
	out.send("message_delta", object{"type": "message_delta", "delta": end, "usage": m.Usage})
	out.send("message_stop", object{"type": "message_stop"})
}

func countTokens(w http.ResponseWriter, r *http.Request) {
	var q messagesRequest
	if err := readJSON(w, r, &q); err != nil {
		anthropicError(w, http.StatusBadRequest, err.Error())
		return
	}
	answer(w, http.StatusOK, map[string]int{"input_tokens": promptTokens(q.conversation())})
}

func anthropicError(w http.ResponseWriter, status int, message string) {
	kind := "invalid_request_error"
	if status >= http.StatusInternalServerError {
		kind = "api_error"
	}
	answer(w, status, map[string]any{"type": "error", "error": map[string]string{"type": kind, "message": message}})
}
