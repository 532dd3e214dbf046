package demo

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// chatRequest is what the demo reads of OpenAI's chat completion request. It accepts and ignores the API's other fields.
type chatRequest struct {
	Model               string    `json:"model"`
	Messages            []message `json:"messages"`
	Stream              bool      `json:"stream"`
	Tools               []toolDef `json:"tools"`
	N                   *int      `json:"n"`
	MaxTokens           int       `json:"max_tokens"`
	MaxCompletionTokens int       `json:"max_completion_tokens"`
	StreamOptions       *struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
}

const mostChoices = 128 // OpenAI's own limit

// problem says what is wrong with the request, and in which parameter. message is empty if nothing is.
func (q chatRequest) problem() (param, message string) {
	switch {
	case q.Model == "":
		return "model", "you must provide a model parameter"
	case len(q.Messages) == 0:
		return "messages", "messages must have at least one message"
	case q.N != nil && (*q.N < 1 || *q.N > mostChoices):
		return "n", fmt.Sprintf("n must be from 1 to %d", mostChoices)
	case q.MaxTokens < 0:
		return "max_tokens", "max_tokens must not be negative"
	case q.MaxCompletionTokens < 0:
		return "max_completion_tokens", "max_completion_tokens must not be negative"
	case q.StreamOptions != nil && !q.Stream:
		return "stream_options", "the 'stream_options' parameter is only allowed when 'stream' is enabled"
	}
	return "", ""
}

type chatUsage struct {
	PromptTokens      int               `json:"prompt_tokens"`
	CompletionTokens  int               `json:"completion_tokens"`
	TotalTokens       int               `json:"total_tokens"`
	PromptDetails     promptDetails     `json:"prompt_tokens_details"`
	CompletionDetails completionDetails `json:"completion_tokens_details"`
}

type promptDetails struct {
	CachedTokens int `json:"cached_tokens"`
}

type completionDetails struct {
	ReasoningTokens int `json:"reasoning_tokens"`
}

type chatResponse struct {
	ID      string       `json:"id"`
	Object  string       `json:"object"`
	Created int64        `json:"created"`
	Model   string       `json:"model"`
	Choices []chatChoice `json:"choices"`
	// Usage is absent from a stream that was not asked for it. In one that was, it is null in all chunks but the last.
	Usage json.RawMessage `json:"usage,omitempty"`
}

type chatChoice struct {
	Index   int          `json:"index"`
	Message *chatMessage `json:"message,omitempty"`
	Delta   *chatMessage `json:"delta,omitempty"`
	// FinishReason is null until the choice's last chunk.
	FinishReason *string `json:"finish_reason"`
}

type chatMessage struct {
	Role    string  `json:"role,omitempty"`
	Content *string `json:"content,omitempty"`

	ToolCalls []chatToolCall `json:"tool_calls,omitempty"`
}

type chatToolCall struct {
	Index    int      `json:"index"`
	ID       string   `json:"id"`
	Type     string   `json:"type"`
	Function toolCall `json:"function"`
}

// message is the answer as a message.
func (a reply) message() chatMessage {
	if a.call != nil {
		return chatMessage{Role: "assistant", ToolCalls: []chatToolCall{{ID: newID("call_"), Type: "function", Function: *a.call}}}
	}
	return chatMessage{Role: "assistant", Content: new(a.text())}
}

func chatCompletions(w http.ResponseWriter, r *http.Request, pace pace) {
	var q chatRequest
	if err := readJSON(w, r, &q); err != nil {
		openAIError(w, http.StatusBadRequest, "", err.Error())
		return
	}
	if param, message := q.problem(); message != "" {
		openAIError(w, http.StatusBadRequest, param, message)
		return
	}
	if q.Model == brokenModel {
		openAIError(w, http.StatusInternalServerError, "", "this model always fails")
		return
	}
	limit := q.MaxCompletionTokens
	if limit == 0 {
		limit = q.MaxTokens
	}
	choices := 1
	if q.N != nil {
		choices = *q.N
	}
	said := say(q.Messages, limit)
	if call := callOf(q.Messages, q.Tools); call != nil {
		said = reply{call: call, tokens: call.tokens()}
	}
	usage := chatUsage{PromptTokens: promptTokens(q.Messages), CompletionTokens: choices * said.tokens}
	usage.TotalTokens = usage.PromptTokens + usage.CompletionTokens
	response := chatResponse{ID: newID("chatcmpl-"), Created: time.Now().Unix(), Model: q.Model}
	if q.Stream {
		response.stream(startEvents(w), r, pace, said, choices, q.StreamOptions != nil && q.StreamOptions.IncludeUsage, usage)
		return
	}
	response.Object = "chat.completion"
	response.Usage = json.RawMessage(encode(usage))
	for i := range choices {
		choice := chatChoice{Index: i, Message: new(said.message()), FinishReason: new(said.finish())}
		response.Choices = append(response.Choices, choice)
	}
	answer(w, http.StatusOK, response)
}

// stream sends the answer piece by piece, for all choices in turn, and at the end its usage if that was asked for.
func (c chatResponse) stream(out events, r *http.Request, pace pace, said reply, choices int, withUsage bool, usage chatUsage) {
	c.Object = "chat.completion.chunk"
	if withUsage {
		c.Usage = json.RawMessage("null")
	}
	send := func(delta chatMessage, finish *string) {
		for i := range choices {
			c.Choices = []chatChoice{{Index: i, Delta: &delta, FinishReason: finish}}
			out.send("", c)
		}
	}
	if said.call != nil {
		send(said.message(), nil)
	} else {
		send(chatMessage{Role: "assistant", Content: new("")}, nil)
	}
	for _, piece := range said.pieces {
		if !pace.wait(r) {
			return
		}
		send(chatMessage{Content: &piece}, nil)
	}
	send(chatMessage{}, new(said.finish()))
	if withUsage {
		c.Choices = []chatChoice{}
		c.Usage = json.RawMessage(encode(usage))
		out.send("", c)
	}
	out.send("", "[DONE]")
}

// finish is OpenAI's word for why the answer ended.
func (a reply) finish() string {
	switch {
	case a.call != nil:
		return "tool_calls"
	case a.cut:
		return "length"
	}
	return "stop"
}

func listModels(w http.ResponseWriter, _ *http.Request) {
	type model struct {
		ID      string `json:"id"`
		Object  string `json:"object"`
		Created int64  `json:"created"`
		OwnedBy string `json:"owned_by"`
	}
	answer(w, http.StatusOK, struct {
		Object string  `json:"object"`
		Data   []model `json:"data"`
	}{"list", []model{
		{ID: "demo-mini", Object: "model", OwnedBy: "tallygate-demo"},
		{ID: "demo-large", Object: "model", OwnedBy: "tallygate-demo"},
		{ID: brokenModel, Object: "model", OwnedBy: "tallygate-demo"},
	}})
}

// openAIError answers in the form of OpenAI's errors. param is the wrong parameter, if there is one.
func openAIError(w http.ResponseWriter, status int, param, message string) {
	type body struct {
		Message string  `json:"message"`
		Type    string  `json:"type"`
		Param   *string `json:"param"`
		Code    *string `json:"code"`
	}
	kind := "invalid_request_error"
	if status >= http.StatusInternalServerError {
		kind = "server_error"
	}
	failure := body{Message: message, Type: kind}
	if param != "" {
		failure.Param = &param
	}
	answer(w, status, map[string]body{"error": failure})
}
