package demo

import (
	"encoding/json"
	"errors"
	"hash/fnv"
	"net/http"
	"strconv"
	"time"
)

// responsesRequest is what the demo reads of a request to OpenAI's responses. It accepts and ignores the API's other fields.
type responsesRequest struct {
	Model           string    `json:"model"`
	Instructions    string    `json:"instructions"`
	Input           input     `json:"input"`
	MaxOutputTokens int       `json:"max_output_tokens"`
	Stream          bool      `json:"stream"`
	Tools           []toolDef `json:"tools"`
}

// input is what is asked: a text, or a list of items, of which only messages and the results of tools count.
type input []message

func (in *input) UnmarshalJSON(data []byte) error {
	var text string
	if json.Unmarshal(data, &text) == nil {
		*in = input{{Role: "user", Content: content(text)}}
		return nil
	}
	var items []struct {
		message
		Type   string  `json:"type"`
		Output content `json:"output"`
	}
	if err := json.Unmarshal(data, &items); err != nil {
		return errors.New("input must be a string or a list of items")
	}
	for _, item := range items {
		if item.Type == "function_call_output" {
			item.message = message{Role: roleTool, Content: item.Output}
		}
		*in = append(*in, item.message)
	}
	return nil
}

type responsesUsage struct {
	InputTokens   int               `json:"input_tokens"`
	InputDetails  promptDetails     `json:"input_tokens_details"`
	OutputTokens  int               `json:"output_tokens"`
	OutputDetails completionDetails `json:"output_tokens_details"`
	TotalTokens   int               `json:"total_tokens"`
}

// object is a JSON object whose fields need no type of their own.
type object map[string]any

// createResponse serves OpenAI's responses: whole, or as a stream of events.
func createResponse(w http.ResponseWriter, r *http.Request, pace pace) {
	var q responsesRequest
	if err := readJSON(w, r, &q); err != nil {
		openAIError(w, http.StatusBadRequest, "", err.Error())
		return
	}
	switch {
	case q.Model == "":
		openAIError(w, http.StatusBadRequest, "model", "you must provide a model parameter")
		return
	case len(q.Input) == 0:
		openAIError(w, http.StatusBadRequest, "input", "input must have at least one item")
		return
	case q.MaxOutputTokens < 0:
		openAIError(w, http.StatusBadRequest, "max_output_tokens", "max_output_tokens must not be negative")
		return
	case q.Model == brokenModel:
		openAIError(w, http.StatusInternalServerError, "", "this model always fails")
		return
	}
	conversation := []message(q.Input)
	if q.Instructions != "" {
		conversation = append([]message{{Role: "developer", Content: content(q.Instructions)}}, conversation...)
	}
	usage := responsesUsage{InputTokens: promptTokens(conversation)}
	answered := object{
		"id": newID("resp_"), "object": "response", "created_at": time.Now().Unix(), "model": q.Model, "status": "completed", "error": nil,
		"incomplete_details": nil, "instructions": q.Instructions, "parallel_tool_calls": false, "tool_choice": "auto", "tools": []object{}, "metadata": object{},
	}
	var item object
	var said reply
	if called := callOf(conversation, q.Tools); called != nil {
		usage.OutputTokens = called.tokens()
		item = object{"type": "function_call", "id": newID("fc_"), "call_id": newID("call_"), "status": "completed", "name": called.Name, "arguments": called.Arguments}
	} else {
		said = say(conversation, q.MaxOutputTokens)
		usage.OutputTokens = said.tokens
		part := object{"type": "output_text", "text": said.text(), "annotations": []object{}}
		item = object{"type": "message", "id": newID("msg_"), "role": "assistant", "status": "completed", "content": []object{part}}
		if said.cut {
			answered["status"], answered["incomplete_details"], item["status"] = "incomplete", object{"reason": "max_output_tokens"}, "incomplete"
		}
	}
	usage.TotalTokens = usage.InputTokens + usage.OutputTokens
	answered["output"], answered["usage"] = []object{item}, usage
	if !q.Stream {
		answer(w, http.StatusOK, answered)
		return
	}
	streamResponse(startEvents(w), r, pace, answered, item, said)
}

// streamResponse sends a response as events.
func streamResponse(out events, r *http.Request, pace pace, answered, item object, said reply) {
	seq := 0
	send := func(kind string, event object) {
		event["type"], event["sequence_number"] = kind, seq
		seq++
		out.send(kind, event)
	}
	begun := object{}
	for name, value := range answered {
		begun[name] = value
	}
	begun["status"], begun["output"], begun["usage"] = "in_progress", []object{}, nil
	send("response.created", object{"response": begun})
	if item["type"] == "message" {
		at := object{"item_id": item["id"], "output_index": 0, "content_index": 0}
		send("response.output_item.added", object{"output_index": 0, "item": object{"type": "message", "id": item["id"], "role": "assistant", "status": "in_progress", "content": []object{}}})
		send("response.content_part.added", join(at, object{"part": object{"type": "output_text", "text": "", "annotations": []object{}}}))
		for _, piece := range said.pieces {
			if !pace.wait(r) {
				return
			}
			send("response.output_text.delta", join(at, object{"delta": piece}))
		}
		send("response.output_text.done", join(at, object{"text": said.text()}))
		send("response.content_part.done", join(at, object{"part": item["content"].([]object)[0]}))
	} else {
		at := object{"item_id": item["id"], "output_index": 0}
		send("response.output_item.added", object{"output_index": 0, "item": join(item, object{"status": "in_progress", "arguments": ""})})
		send("response.function_call_arguments.delta", join(at, object{"delta": item["arguments"]}))
		send("response.function_call_arguments.done", join(at, object{"arguments": item["arguments"]}))
	}
	send("response.output_item.done", object{"output_index": 0, "item": item})
	send("response."+answered["status"].(string), object{"response": answered})
}

// join returns the fields of both objects; those of the second count.
func join(a, b object) object {
	both := object{}
	for name, value := range a {
		both[name] = value
	}
	for name, value := range b {
		both[name] = value
	}
	return both
}

// embeddings serves OpenAI's embeddings. A made-up vector depends on the text alone, so that the same text always has the same one.
func embeddings(w http.ResponseWriter, r *http.Request) {
	var q struct {
		Model      string          `json:"model"`
		Input      json.RawMessage `json:"input"`
		Dimensions int             `json:"dimensions"`
		Encoding   string          `json:"encoding_format"`
	}
	if err := readJSON(w, r, &q); err != nil {
		openAIError(w, http.StatusBadRequest, "", err.Error())
		return
	}
	var texts []string
	if one := ""; json.Unmarshal(q.Input, &one) == nil {
		texts = []string{one}
	} else if err := json.Unmarshal(q.Input, &texts); err != nil {
		openAIError(w, http.StatusBadRequest, "input", "input must be a string or a list of strings")
		return
	}
	switch {
	case q.Model == "":
		openAIError(w, http.StatusBadRequest, "model", "you must provide a model parameter")
		return
	case len(texts) == 0 || len(texts) > mostTexts:
		openAIError(w, http.StatusBadRequest, "input", "input must have from 1 to "+strconv.Itoa(mostTexts)+" texts")
		return
	case q.Dimensions < 0 || q.Dimensions > mostDimensions:
		openAIError(w, http.StatusBadRequest, "dimensions", "dimensions must be from 1 to "+strconv.Itoa(mostDimensions))
		return
	case q.Encoding != "" && q.Encoding != "float":
		openAIError(w, http.StatusBadRequest, "encoding_format", "this model answers with floats only")
		return
	case q.Model == brokenModel:
		openAIError(w, http.StatusInternalServerError, "", "this model always fails")
		return
	}
	if q.Dimensions == 0 {
		q.Dimensions = 8
	}
	tokens := 0
	data := make([]object, len(texts))
	for i, text := range texts {
		tokens += countTokensOf(text)
		data[i] = object{"object": "embedding", "index": i, "embedding": vectorOf(text, q.Dimensions)}
	}
	answer(w, http.StatusOK, object{"object": "list", "data": data, "model": q.Model, "usage": object{"prompt_tokens": tokens, "total_tokens": tokens}})
}

const (
	mostTexts      = 256
	mostDimensions = 256
)

func vectorOf(text string, dimensions int) []float64 {
	vector := make([]float64, dimensions)
	digest := fnv.New32a()
	_, _ = digest.Write([]byte(text))
	for i := range vector {
		_, _ = digest.Write([]byte{byte(i)})
		vector[i] = float64(digest.Sum32()%2001)/1000 - 1
	}
	return vector
}

// roleTool is the role of a tool's result.
const roleTool = "tool"

// toolDef is a tool that a request offers, in the form of chat completions or of responses.
type toolDef struct {
	Name       string   `json:"name"`
	Parameters schema   `json:"parameters"`
	Function   *toolDef `json:"function"`
}

// schema is what the demo reads of a tool's parameters.
type schema struct {
	Properties map[string]struct {
		Type string `json:"type"`
	} `json:"properties"`
	Required []string `json:"required"`
}

type toolCall struct {
	Name      string `json:"name"`
	Arguments string `json:"arguments"`
}

// callOf returns the model's call of a tool: it calls the first tool that it is offered, once, and answers when it has the result. Its texts are
// what was asked. It returns nil if the model answers.
func callOf(conversation []message, tools []toolDef) *toolCall {
	last := conversation[len(conversation)-1]
	if len(tools) == 0 || last.Role == roleTool {
		return nil
	}
	tool := tools[0]
	if tool.Function != nil {
		tool = *tool.Function
	}
	if tool.Name == "" { // a tool of the provider's own, such as web_search
		return nil
	}
	arguments := map[string]any{}
	for _, name := range tool.Parameters.Required {
		switch tool.Parameters.Properties[name].Type {
		case "number", "integer":
			arguments[name] = 1
		case "boolean":
			arguments[name] = true
		case "array":
			arguments[name] = []any{}
		case "object":
			arguments[name] = object{}
		default:
			arguments[name] = string(last.Content)
		}
	}
	return &toolCall{tool.Name, encode(arguments)}
}

// tokens is what the model counts for a call.
func (c toolCall) tokens() int { return countTokensOf(c.Name) + countTokensOf(c.Arguments) + 3 }
