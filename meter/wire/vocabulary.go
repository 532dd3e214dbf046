package wire

import (
	"slices"
	"strings"
)

// role is what a field of a request means for the price.
type role uint8

const (
	plain  role = iota
	output      // the limit of the tokens of a choice
	count       // the number of choices
)

// node is a known field of a request: it is read, or names something that has a price.
type node struct {
	path     string           // keys joined by dots, `*` for any
	key      string           // in its usual spelling
	children map[string]*node // the fields of an object, by their folded keys
	any      *node            // the elements of an array, or the values of an object's other keys
	role     role
	keep     bool // its value is kept for [Request.Get]
}

// outputNames are the providers' names for the limit of a choice's tokens. Many accept more than one of them, and some accept those of
// others, so all that are in a request must have the same value.
const outputNames = "max_tokens max_completion_tokens max_output_tokens max_tokens_to_sample max_new_tokens max_gen_len maximum_tokens " +
	"max_generated_tokens max_response_output_tokens n_predict num_predict maxTokens maxCompletionTokens maxOutputTokens maxNewTokens maxTokenCount"

// countNames are the providers' names for the number of answers.
const countNames = "n best_of n_cmpl num_return_sequences num_generations numResults num_results num_images numberOfImages candidateCount candidate_count sampleCount sample_count"

// modelNames are the providers' names for the model, besides `model`.
const modelNames = "model_id modelId model_name modelName engine"

// budgetNames are what Google calls how many tokens of thought a choice may have.
const budgetNames = "thinkingBudget thinking_budget"

// callbackNames are the providers' names for an address to which the answer is sent.
const callbackNames = "webhook webhook_url webhookUrl webhookConfig webhook_config callback callback_url callbackUrl"

// vocabulary contains the known fields of requests, of all formats together: the fields of each object, by its path. Lists of other models
// that may answer are among them. Unknown fields are passed on unchanged.
var vocabulary = func() *node {
	root := &node{}
	for _, object := range []struct{ path, fields string }{
		{"", "model models fallbacks fallback_models route provider providerOptions preset stream stream_options background service_tier serviceTier speed inference_geo performanceConfig reasoning reasoning_effort " + routerFields + " " + modelNames},
		{"", "messages message prompt prompts input inputs content contents system systemInstruction system_instruction instructions preamble " +
			"chat_history query document documents text texts inputText input_text requests instances tools toolConfig functions thinking"},
		{"", "jsonrpc id method params result error"},
		{"", "previous_response_id conversation cachedContent cached_content"},
		{"", "previous_interaction_id"},
		{"", "seconds duration stream_format store"},
		{"", "metadata litellm_metadata deferred request batch_requests batch memory_limit version " + callbackNames},

		{"parameters", "durationSeconds duration_seconds"},
		{"stream_options", "include_usage"}, {"serviceTier", "type"}, {"performanceConfig", "latency"},
		{"models.*", "model"}, {"fallbacks.*", "model"}, {"fallback_models.*", "model"},
		{"providerOptions", "gateway"}, {"providerOptions.gateway", "models"}, {"providerOptions.gateway.models.*", "model"},
		{"extra_body", "model models stream preset service_tier speed inference_geo " + modelNames},
		{"thinking", "type budget_tokens"},
		{"generationConfig", "thinkingConfig thinking_config"}, {"generation_config", "thinkingConfig thinking_config thinkingLevel thinking_level"},
		{"generationConfig.thinkingConfig", budgetNames}, {"generationConfig.thinking_config", budgetNames},
		{"generation_config.thinkingConfig", budgetNames}, {"generation_config.thinking_config", budgetNames},
		{"additionalModelRequestFields", "thinking reasoning_config"}, {"additionalModelRequestFields.thinking", "type"},
		{"additionalModelRequestFields.reasoning_config", "type"},
		{"prompt", "id"}, {"", "container video data_source store"},
		{"conversation", "id"}, {"container", "id"}, {"video", "id"}, {"data_source", "source"}, {"data_source.source", "type id"},
		{"params", "name arguments"},
		{"requests.*", "model content body params"}, {"requests.*.body", "model"}, {"requests.*.params", "model"},
		{"batch_requests.*", "batch_request"},
		{"requests.*", "model content"}, {"requests.*.content", "parts"}, {"requests.*.content.parts.*", "text"},
		{"content", "parts"}, {"content.parts.*", "text"},
		{"instances.*", "content"},

		{"messages.*", "role content name thinking tool_calls audio"}, {"messages.*.audio", "id"}, {"", "audio modalities purpose"},
		{"messages.*.content.*", "type text thinking name input content image_url source reasoningContent toolUse toolResult"},
		{"messages.*.content.*.content.*", "type text"},
		{"messages.*.content.*.toolUse", "name input"},
		{"messages.*.content.*.toolResult", "content"}, {"messages.*.content.*.toolResult.content.*", "text"},
		{"messages.*.tool_calls.*", "type function"}, {"messages.*.tool_calls.*.function", "name arguments"},
		{"chat_history.*", "role message"},
		{"system.*", "type text"},
		{"systemInstruction", "parts"}, {"systemInstruction.parts.*", "text"},
		{"system_instruction", "parts"}, {"system_instruction.parts.*", "text"},
		{"contents", "parts role"}, {"contents.parts.*", "text"},
		{"contents.*", "parts role"}, {"contents.*.parts.*", "text functionCall functionResponse"},
		{"contents.*.parts.*.functionCall", "name args"}, {"contents.*.parts.*.functionResponse", "name response"},
		{"input.*", "id type role content text arguments output name"}, {"input.*.content.*", "type text image_url"},
		{"inputs.*", "type role content text result"}, {"inputs.*.content.*", "type text"},
		{"tools.*", "type name description function functionDeclarations input_schema parameters container environment"},
		{"tools.*.container", "memory_limit"}, {"tools.*.environment", "memory_limit"},
		{"tools.*.function", "name description"}, {"tools.*.functionDeclarations.*", "name description"},
		{"toolConfig", "tools"}, {"toolConfig.tools.*", "toolSpec"}, {"toolConfig.tools.*.toolSpec", "name description"},
	} {
		root.add(object.path, object.fields, plain)
	}
	for _, path := range append([]string{""}, configs...) {
		root.add(path, outputNames, output)
		root.add(path, countNames, count)
	}
	return root
}()

// configs are the objects in which a request may also state the number of answers and the limit of their tokens.
var configs = []string{"generationConfig", "generation_config", "inferenceConfig", "textGenerationConfig", "imageGenerationConfig", "options", "parameters",
	"completion_args", "sampling_params", "extra_body", "additionalModelRequestFields", "additionalModelRequestFields.inferenceConfig",
	"additionalModelRequestFields.textGenerationConfig"}

// add adds fields to the object at path.
func (n *node) add(path, fields string, r role) {
	if path != "" {
		for _, key := range strings.Split(path, ".") {
			n = n.child(key)
		}
	}
	for _, key := range strings.Fields(fields) {
		n.child(key).role = r
	}
}

// keptInArrays are fields of array elements whose first value is kept. Fields outside of arrays are always kept.
var keptInArrays = []string{"messages.*.role", "messages.*.audio.id", "input.*.id"}

func (n *node) child(key string) *node {
	if key == "*" {
		if n.any == nil {
			n.any = &node{path: n.path + ".*"}
		}
		return n.any
	}
	folded := string(fold([]byte(key)))
	c := n.children[folded]
	if c == nil {
		c = &node{path: strings.TrimPrefix(n.path+"."+key, "."), key: key}
		c.keep = !strings.Contains(c.path, "*") || slices.Contains(keptInArrays, c.path)
		if n.children == nil {
			n.children = map[string]*node{}
		}
		n.children[folded] = c
	}
	if c.key != key {
		panic("fields " + c.key + " and " + key + " differ in case alone")
	}
	return c
}

// pathOf returns the path of a folded key of the object n, for a message.
func (n *node) pathOf(key []byte) string {
	if n != nil {
		if child := n.children[string(key)]; child != nil {
			return child.path
		}
	}
	return shown(key)
}
