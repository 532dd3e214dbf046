package formats_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/formats"
)

const (
	chatPath     = "/v1/chat/completions"
	textPath     = "/v1/completions"
	messagesPath = "/v1/messages"
	respPath     = "/v1/responses"
	geminiPath   = "/v1beta/models/g:generateContent"
	conversePath = "/model/m/converse"
	titanPath    = "/model/amazon.titan/invoke"
	ollamaPath   = "/api/chat"
)

// refusedFor is the field for which a request is refused, "malformed" where it is not JSON, else empty.
func refusedFor(c *meter.Call, err error) string {
	var ambiguous *meter.AmbiguousError
	switch {
	case errors.As(err, &ambiguous):
		return ambiguous.Field
	case err != nil:
		return err.Error()
	case c.Malformed:
		return "malformed"
	}
	return ""
}

// TestOneReading: what could be read in two ways is refused, by the name of its field.
func TestOneReading(t *testing.T) {
	for _, tt := range []struct{ path, body, field string }{
		// keys that some reader takes for the same
		{chatPath, `{"model":"cheap","model":"dear"}`, "model"},
		{chatPath, `{"model":"cheap","Model":"dear"}`, "model"},
		{chatPath, `{"MODEL":"cheap","model":"dear"}`, "model"},
		{chatPath, `{"mod\u0065l":"cheap","model":"dear"}`, "model"},
		{chatPath, `{"\u006d\u006f\u0064\u0065\u006c":"cheap","MoDeL":"dear"}`, "model"},
		{chatPath, `{"messages":[],"meſſages":[]}`, "messages"},
		{chatPath, `{"max_toKens":1,"max_tokens":2}`, "max_tokens"}, // the kelvin sign
		{chatPath, `{"max_to\u212aens":1,"max_tokens":1}`, "max_tokens"},
		{chatPath, `{"ſtream":true,"stream":false}`, "stream"},
		{chatPath, `{"stream":true,"stream_options":{"include_usage":true,"include_usage":false}}`, "stream_options.include_usage"},
		{chatPath, `{"stream":true,"stream_options":{"include_usage":true,"Include_Usage":false}}`, "stream_options.include_usage"},
		{chatPath, `{"messages":[{"role":"user","content":"a","Content":"b"}]}`, "messages.*.content"},
		{chatPath, `{"messages":[{"role":"user","content":[{"type":"text","\u0074ext":"a","text":"b"}]}]}`, "messages.*.content.*.text"},
		{chatPath, `{"tools":[{"type":"function","Type":"web_search"}]}`, "tools.*.type"},
		{chatPath, `{"x":1,"X":2}`, "x"},
		{chatPath, `{"metadata":{"a":1,"a":2}}`, "a"},
		{chatPath, `{"metadata":{"a":1,"\u0061":2}}`, "a"},
		{chatPath, `{"metadata":{"a":1,"A":2},"messages":[{"a":1},{"a":1}]}`, ""}, // the provider's own keys must differ, no more
		{messagesPath, `{"messages":[{"role":"user","content":[{"type":"tool_use","input":{"ID":1,"id":2}}]}]}`, ""},
		{messagesPath, `{"messages":[{"role":"user","content":[{"type":"tool_use","input":{"id":1,"id":2}}]}]}`, "id"},
		{respPath, `{"previous_response_id":"a","previous_reſponse_id":"b"}`, "previous_response_id"},
		{respPath, `{"previous_response\u005fid":"a","previous_response_id":null}`, "previous_response_id"},
		{geminiPath, `{"generationConfig":{"maxOutputTokens":1,"maxoutputtokens":2}}`, "generationConfig.maxOutputTokens"},
		{geminiPath, `{"generationConfig":{"maxOutputTokens":1},"generation_config":{"maxOutputTokens":1}}`, "generation_config"},
		{conversePath, `{"inferenceConfig":{"maxTokens":1},"InferenceConfig":{"maxTokens":2}}`, "inferenceConfig"},
		{ollamaPath, `{"messages":[],"options":{"num_predict":1,"NUM_PREDICT":2}}`, "options.num_predict"},
		{messagesPath, `{"max_tokens":9,"thinking":{"budget_tokens":1,"Budget_tokens":2}}`, "thinking.budget_tokens"},
		{"/unknown", `{"jsonrpc":"2.0","method":5,"method":"tools/call"}`, "method"},
		{"/unknown", `{"a":1,"a":2}`, "a"},
		// keys of which some reader takes a part
		{chatPath, `{"model\u0000":"x"}`, "model\x00"},
		{chatPath, `{"model\ud800":"x"}`, "model\uFFFD"},
		{chatPath, `{"__proto__":{"max_tokens":9}}`, "__proto__"},
		{chatPath, "{\"mod\xffel\":\"x\"}", "mod\uFFFDel"},
		{chatPath, "{\"user\":\"\xff\"}", "body"},
		// no JSON
		{chatPath, `{"model":"cheap"}{"model":"dear"}`, "malformed"},
		{chatPath, `{"model":"cheap"} x`, "malformed"},
		{chatPath, `{"model":"cheap",}`, "malformed"},
		{chatPath, `{"model":"cheap"/*,"model":"dear"*/}`, "malformed"},
		{chatPath, `{'model':'cheap'}`, "malformed"},
		{chatPath, `{model:"cheap"}`, "malformed"},
		{chatPath, `{"temperature":NaN}`, "malformed"},
		{chatPath, `{"temperature":Infinity}`, "malformed"},
		{chatPath, `{"max_tokens":0x10}`, "malformed"},
		{chatPath, `{"max_tokens":010}`, "malformed"},
		{chatPath, `{"max_tokens":+1}`, "malformed"},
		{chatPath, `{"max_tokens":1.}`, "malformed"},
		{chatPath, `{"max_tokens":.5}`, "malformed"},
		{chatPath, "{\"user\":\"a\nb\"}", "malformed"},
		{chatPath, `{"user":"\x41"}`, "malformed"},
		{chatPath, `{"user":"\u12"}`, "malformed"},
		{chatPath, `[{"model":"cheap"}]`, "malformed"},
		{chatPath, `"model"`, "malformed"},
		{chatPath, "{\x00\"\x00m\x00", "malformed"},
		// values that are not of their type
		{chatPath, `{"model":["dear"]}`, "model"},
		{chatPath, `{"model":{"id":"dear"}}`, "model"},
		{chatPath, `{"model":5}`, "model"},
		{chatPath, `{"model":" dear"}`, "model"},
		{chatPath, `{"model":"dear\u0000"}`, "model"},
		{chatPath, `{"model":"dear\ud83d"}`, "model"},
		{chatPath, `{"stream":"yes"}`, "stream"},
		{chatPath, `{"stream":"true"}`, "stream"},
		{chatPath, `{"stream":1}`, "stream"},
		{chatPath, `{"stream":[]}`, "stream"},
		{messagesPath, `{"stream":"true"}`, "stream"},
		{respPath, `{"stream":1}`, "stream"},
		{respPath, `{"background":1}`, "background"},
		{"/v1/threads/t/runs", `{"stream":"yes"}`, "stream"},
		{chatPath, `{"stream":true,"stream_options":7}`, "stream_options"},
		{chatPath, `{"stream":true,"stream_options":[]}`, "stream_options"},
		{chatPath, `{"stream":true,"stream_options":{"include_usage":2}}`, "stream_options.include_usage"},
		{chatPath, `{"stream":true,"stream_options":{"include_usage":"false"}}`, "stream_options.include_usage"},
		{chatPath, `{"n":"3"}`, "n"},
		{chatPath, `{"n":1.5}`, "n"},
		{chatPath, `{"n":0}`, "n"},
		{chatPath, `{"n":true}`, "n"},
		{chatPath, `{"n":1e30}`, "n"},
		{textPath, `{"best_of":-1}`, "best_of"},
		{"/v1/images/generations", `{"n":"20"}`, "n"},
		{chatPath, `{"tools":"web_search"}`, "tools"},
		{chatPath, `{"tools":1}`, "tools"},
		{geminiPath, `{"generationConfig":{"candidateCount":"2"}}`, "generationConfig.candidateCount"},
	} {
		if got := refusedFor(post(tt.path, tt.body)); got != tt.field {
			t.Errorf("%s %s: refused for %q, want %q", tt.path, tt.body, got, tt.field)
		}
	}
}

// TestOneSpelling: a known key goes on as it is spelled by all, and a whole number without a point.
func TestOneSpelling(t *testing.T) {
	for _, tt := range []struct{ path, body, want string }{
		{chatPath, `{"Model":"m","N":2,"ſtream":false}`, `{"model":"m","n":2,"stream":false}`},
		{chatPath, ` {"mod\u0065l" : "m" , "max_to\u212aens":1e2}`, ` {"model" : "m" , "max_tokens":100}`},
		{chatPath, `{"max_tokens":100.0,"n":2e0,"temperature":1e0}`, `{"max_tokens":100,"n":2,"temperature":1e0}`},
		{chatPath, "\xEF\xBB\xBF" + `{"model":"m"}`, `{"model":"m"}`},
		{chatPath, `{"stream":true,"Stream_Options":{"INCLUDE_USAGE":false}}`, `{"stream":true,"stream_options":{"include_usage":true}}`},
		{chatPath, `{"messages":[{"Role":"user","c\u006fntent":"Model"}],"metadata":{"Model":"m"}}`, `{"messages":[{"role":"user","content":"Model"}],"metadata":{"Model":"m"}}`},
		{chatPath, `{"tools":[{"type":"function","function":{"name":"f","parameters":{"properties":{"Model":{},"model":{}}}}}]}`, ""},
		{respPath, `{"previous_re\u017fponse_id":"r"}`, `{"previous_response_id":"r"}`},
		{geminiPath, `{"GenerationConfig":{"MaxOutputTokens":5.0}}`, `{"generationConfig":{"maxOutputTokens":5}}`},
		{ollamaPath, `{"Messages":[],"Options":{"Num_Predict":-1.0}}`, `{"messages":[],"options":{"num_predict":-1}}`},
		{"/unknown", `{"Model":"m","max_tokens":1e2}`, ""},
		{"/unknown", "\xEF\xBB\xBF" + `{"Model":"m"}`, ""},
	} {
		want := tt.want
		if want == "" {
			want = tt.body
		}
		c, err := post(tt.path, tt.body)
		if err != nil || string(c.Body) != want {
			t.Errorf("%s %s: %v, sends on %s", tt.path, tt.body, err, c.Body)
		}
	}
}

// TestOneBound: bounds of the output that contradict each other, or say nothing, are refused, by whatever name.
func TestOneBound(t *testing.T) {
	for _, tt := range []struct {
		path, body string
		most       int64
		field      string
	}{
		{chatPath, `{"max_completion_tokens":1,"max_tokens":12000}`, 0, "max_tokens"},
		{chatPath, `{"max_tokens":12000,"max_completion_tokens":1}`, 0, "max_completion_tokens"},
		{chatPath, `{"max_tokens":1,"max_output_tokens":12000}`, 0, "max_output_tokens"},
		{chatPath, `{"max_tokens":1,"maxTokens":12000}`, 0, "maxTokens"},
		{chatPath, `{"max_tokens":1,"n_predict":12000}`, 0, "n_predict"},
		{chatPath, `{"max_tokens":1,"options":{"num_predict":12000}}`, 0, "options.num_predict"},
		{chatPath, `{"max_tokens":1,"extra_body":{"max_tokens":12000}}`, 0, "extra_body.max_tokens"},
		{chatPath, `{"max_tokens":1,"max_completion_tokens":-1}`, 0, "max_completion_tokens"},
		{chatPath, `{"max_tokens":5,"max_completion_tokens":5}`, 5, ""},
		{chatPath, `{"max_tokens":5,"max_completion_tokens":null}`, 5, ""},
		{chatPath, `{"max_tokens":null}`, 0, ""},
		{chatPath, `{"max_tokens":-1}`, 0, ""}, // no limit
		{chatPath, `{"maxTokens":5}`, 0, ""},   // not a bound that all know
		{chatPath, `{"max_tokens":true}`, 0, "max_tokens"},
		{chatPath, `{"max_tokens":"1"}`, 0, "max_tokens"},
		{chatPath, `{"max_tokens":0}`, 0, "max_tokens"},
		{chatPath, `{"max_tokens":-2}`, 0, "max_tokens"},
		{chatPath, `{"max_tokens":1.5}`, 0, "max_tokens"},
		{chatPath, `{"max_tokens":[1]}`, 0, "max_tokens"},
		{chatPath, `{"max_tokens":1e400}`, 0, "max_tokens"},
		{chatPath, `{"max_tokens":99999999999999999999}`, 0, "max_tokens"},
		{chatPath, `{"max_tokens":10,"n":3}`, 30, ""},
		{chatPath, `{"max_tokens":10,"n":3,"best_of":5}`, 50, ""},
		{chatPath, `{"max_tokens":10,"num_return_sequences":4}`, 40, ""},
		{textPath, `{"prompt":["a","b","c"],"max_tokens":10,"n":2}`, 60, ""},
		{textPath, `{"prompt":[[1,2],[3]],"max_tokens":10}`, 20, ""},
		{textPath, `{"prompt":[1,2,3],"max_tokens":10}`, 10, ""},
		{"/completion", `{"prompt":["a","b"],"n_predict":10}`, 20, ""},
		{messagesPath, `{"max_tokens":"9"}`, 0, "max_tokens"},
		{messagesPath, `{"max_tokens":9,"max_tokens_to_sample":10}`, 0, "max_tokens_to_sample"},
		{messagesPath, `{"max_tokens":9}`, 9, ""},
		{respPath, `{"max_output_tokens":20,"max_tokens":1}`, 0, "max_tokens"},
		{respPath, `{"max_output_tokens":20}`, 20, ""},
		{geminiPath, `{"generationConfig":{"maxOutputTokens":1,"max_output_tokens":12000}}`, 0, "generationConfig.max_output_tokens"},
		{geminiPath, `{"generationConfig":{"maxOutputTokens":"100"}}`, 0, "generationConfig.maxOutputTokens"},
		{geminiPath, `{"generationConfig":[]}`, 0, "generationConfig"},
		{"/v1internal:generateContent", `{"model":"g","request":{"generationConfig":{"maxOutputTokens":1,"max_output_tokens":12000}}}`, 0, "generationConfig.max_output_tokens"},
		{"/v1internal:generateContent", `{"model":"g","request":{"generationConfig":{"maxOutputTokens":7}}}`, 7, ""},
		{geminiPath, `{"generation_config":{"max_output_tokens":7,"candidate_count":2}}`, 14, ""},
		{conversePath, `{"inferenceConfig":{"maxTokens":1},"additionalModelRequestFields":{"max_tokens":12000}}`, 0, "additionalModelRequestFields.max_tokens"},
		{conversePath, `{"inferenceConfig":{"maxTokens":1},"additionalModelRequestFields":{"inferenceConfig":{"max_new_tokens":12000}}}`, 0, "additionalModelRequestFields.inferenceConfig.max_new_tokens"},
		{conversePath, `{"inferenceConfig":"x"}`, 0, "inferenceConfig"},
		{conversePath, `{"inferenceConfig":{"maxTokens":8}}`, 8, ""},
		{titanPath, `{"textGenerationConfig":{"maxTokenCount":1},"max_tokens":2}`, 0, "max_tokens"},
		{titanPath, `{"textGenerationConfig":{"maxTokenCount":6}}`, 6, ""},
		{"/model/meta.llama/invoke", `{"max_gen_len":6}`, 6, ""},
		{ollamaPath, `{"messages":[],"options":{"num_predict":-2}}`, 0, ""},
		{ollamaPath, `{"messages":[],"options":{"num_predict":0}}`, 0, "options.num_predict"},
		{ollamaPath, `{"messages":[],"options":{"num_predict":9}}`, 9, ""},
		{ollamaPath, `{"messages":[],"options":[9]}`, 0, "options"},
		{"/v2/chat", `{"max_tokens":9,"messages":[]}`, 9, ""},
		{"/v1/generate", `{"prompt":"x","max_tokens":9,"num_generations":3}`, 27, ""},
		{"/ml/v1/text/generation", `{"input":"x","parameters":{"max_new_tokens":9}}`, 9, ""},
		{"/ml/v1/text/generation", `{"input":"x","parameters":{"max_new_tokens":9},"max_tokens":8}`, 0, "max_tokens"},
		{"/completion", `{"prompt":"x","n_predict":-1}`, 0, ""},
		{"/completion", `{"prompt":"x","n_predict":9,"max_tokens":90}`, 0, "max_tokens"},
		{"/v1/threads/t/runs", `{"stream":true,"max_completion_tokens":9}`, 9, ""},
		{"/v1/conversations", `{"inputs":"x","completion_args":{"max_tokens":9}}`, 9, ""},
		{"/v1beta/interactions", `{"generation_config":{"max_output_tokens":9}}`, 9, ""},
	} {
		c, err := post(tt.path, tt.body)
		if got := refusedFor(c, err); got != tt.field {
			t.Errorf("%s %s: refused for %q, want %q", tt.path, tt.body, got, tt.field)
		} else if err == nil && c.MaxOutput != tt.most {
			t.Errorf("%s %s: at most %d, want %d", tt.path, tt.body, c.MaxOutput, tt.most)
		}
	}
}

// TestLimitIsPutIn: every format that has a field for it gets a bound where it has none, and one bound where it has several.
func TestLimitIsPutIn(t *testing.T) {
	for _, tt := range []struct{ path, body, want string }{
		{chatPath, `{"model":"gpt-5"}`, `{"model":"gpt-5","max_completion_tokens":100}`},
		{chatPath, `{"model":"llama"}`, `{"model":"llama","max_tokens":100}`},
		{chatPath, `{"model":"gpt-oss-120b"}`, `{"model":"gpt-oss-120b","max_tokens":100}`},
		{chatPath, `{"model":"openai/gpt-6"}`, `{"model":"openai/gpt-6","max_completion_tokens":100}`},
		{chatPath, `{"max_tokens":-1}`, `{"max_tokens":100}`},
		{chatPath, `{"max_tokens":null,"model":"m"}`, `{"max_tokens":100,"model":"m"}`},
		{chatPath, `{"max_tokens":500,"max_completion_tokens":500}`, `{"max_tokens":100,"max_completion_tokens":100}`},
		{chatPath, `{"max_output_tokens":500,"n_predict":500}`, `{"max_output_tokens":100,"n_predict":100,"max_tokens":100}`},
		{chatPath, `{"max_tokens":500,"options":{"num_predict":500},"n":2}`, `{"max_tokens":50,"options":{"num_predict":50},"n":2}`},
		{textPath, `{"prompt":["a","b"]}`, `{"prompt":["a","b"],"max_tokens":50}`},
		{messagesPath, `{"max_tokens":500}`, `{"max_tokens":100}`},
		{messagesPath, `{}`, `{"max_tokens":100}`},
		{respPath, `{}`, `{"max_output_tokens":100}`},
		{geminiPath, `{}`, `{"generationConfig":{"maxOutputTokens":100}}`},
		{geminiPath, `{"generationConfig":null}`, `{"generationConfig":{"maxOutputTokens":100}}`},
		{geminiPath, `{"generation_config":{"top_k":1}}`, `{"generation_config":{"top_k":1,"maxOutputTokens":100}}`},
		{geminiPath, `{"generationConfig":{"maxOutputTokens":500,"max_output_tokens":500,"candidateCount":2}}`, `{"generationConfig":{"maxOutputTokens":50,"max_output_tokens":50,"candidateCount":2}}`},
		{"/v1beta/interactions", `{}`, `{"generation_config":{"max_output_tokens":100}}`},
		{conversePath, `{}`, `{"inferenceConfig":{"maxTokens":100}}`},
		{conversePath, `{"additionalModelRequestFields":{"max_tokens":500}}`, `{"additionalModelRequestFields":{"max_tokens":100},"inferenceConfig":{"maxTokens":100}}`},
		{titanPath, `{"inputText":"x"}`, `{"inputText":"x","textGenerationConfig":{"maxTokenCount":100}}`},
		{"/model/us.anthropic.claude/invoke", `{}`, `{"max_tokens":100}`},
		{"/model/meta.llama/invoke", `{}`, `{"max_gen_len":100}`},
		{"/model/amazon.nova/invoke", `{"inferenceConfig":{"max_new_tokens":500}}`, `{"inferenceConfig":{"max_new_tokens":100}}`},
		{"/model/whatever/invoke", `{}`, ""},
		{ollamaPath, `{"messages":[]}`, `{"messages":[],"options":{"num_predict":100}}`},
		{ollamaPath, `{"messages":[],"options":{"num_predict":-1}}`, `{"messages":[],"options":{"num_predict":100}}`},
		{"/api/generate", `{}`, `{"options":{"num_predict":100}}`},
		{"/v2/chat", `{}`, `{"max_tokens":100}`},
		{"/ml/v1/text/generation", `{"input":"x"}`, `{"input":"x","parameters":{"max_new_tokens":100}}`},
		{"/completion", `{"prompt":"x"}`, `{"prompt":"x","n_predict":100}`},
		{"/complete", `{"prompt":"x"}`, `{"prompt":"x","maximum_tokens":100}`},
		{"/v1/complete", `{"prompt":"x"}`, `{"prompt":"x","max_tokens_to_sample":100}`},
		{"/v1/threads/t/runs", `{"stream":true}`, `{"stream":true,"max_completion_tokens":100}`},
		{"/v1/conversations", `{"inputs":"x"}`, `{"inputs":"x","completion_args":{"max_tokens":100}}`},
		{"/v1/embeddings", `{}`, ""},
		{"/v1/images/generations", `{}`, ""},
		{"/mcp", `{"jsonrpc":"2.0","method":"tools/list"}`, ""},
	} {
		c, err := post(tt.path, tt.body)
		if err != nil {
			t.Errorf("%s %s: %v", tt.path, tt.body, err)
			continue
		}
		want, ok := tt.want, tt.want != ""
		if !ok {
			want = tt.body
		}
		if c.LimitOutput(100) != ok || string(c.Body) != want || ok && c.MaxOutput != 100 {
			t.Errorf("%s %s: sends on %s, at most %d", tt.path, tt.body, c.Body, c.MaxOutput)
		}
	}
}

// TestModels: whatever names a model that may answer is known.
func TestModels(t *testing.T) {
	for _, tt := range []struct {
		path, query, body string
		model, others     string
		field             string // for which it is refused
	}{
		{chatPath, "", `{"Model":"dear"}`, "dear", "", ""},
		{chatPath, "model=dear", `{}`, "dear", "", ""},
		{chatPath, "model=dear", `{"model":"cheap"}`, "cheap", "dear", ""},
		{chatPath, "deployment=b&model=a", `{}`, "a", "b", ""},
		{chatPath, "model=a&deployment=b&model[]=c", `{"model":"cheap"}`, "cheap", "a c b", ""},
		{chatPath, "model=cheap&model=dear", `{"model":"cheap"}`, "", "", "query"},
		{chatPath, "Model=dear", `{"model":"cheap"}`, "", "", "query"},
		{chatPath, "a=1;model=dear", `{"model":"cheap"}`, "", "", "query"},
		{chatPath, "", `{"model":"cheap","models":["dear","cheap","other"]}`, "cheap", "dear other", ""},
		{chatPath, "", `{"models":["a","b"],"route":"fallback"}`, "a", "b", ""},
		{chatPath, "", `{"model":"cheap","Models":["dear"]}`, "cheap", "dear", ""},
		{chatPath, "", `{"model":"cheap","models":"dear"}`, "cheap", "dear", ""},
		{chatPath, "", `{"model":"cheap","models":[["dear"]]}`, "", "", "models"},
		{chatPath, "", `{"model":"cheap","models":{"a":"dear"}}`, "", "", "models"},
		{chatPath, "", `{"model":"cheap","models":null}`, "cheap", "", ""},
		{chatPath, "", `{"model":"cheap","fallbacks":[{"Model":"dear"},"other"]}`, "cheap", "dear other", ""},
		{chatPath, "", `{"model":"cheap","providerOptions":{"gateway":{"models":["dear"]}}}`, "cheap", "dear", ""},
		{chatPath, "", `{"model":"cheap","model_id":"dear"}`, "cheap", "dear", ""},
		{chatPath, "", `{"model":"cheap","engine":"dear"}`, "cheap", "dear", ""},
		{chatPath, "", `{"model":"cheap","extra_body":{"model":"dear"}}`, "cheap", "dear", ""},
		{chatPath, "", `{"model":null}`, "", "", ""},
		{"/v1/engines/dear/completions", "", `{"prompt":"x"}`, "dear", "", ""},
		{"/v1/engines/dear/completions", "", `{"model":"cheap","prompt":"x"}`, "dear", "cheap", ""},
		{"/engines/llama.cpp/v1/chat/completions", "", `{"model":"m"}`, "m", "", ""},
		{"/engines/v1/chat/completions", "", `{"model":"m"}`, "m", "", ""},
		{"/openai/deployments/dear/chat/completions", "", `{"model":"cheap"}`, "dear", "cheap", ""},
		{"/openai/deployments/dear/chat/completions", "", `{"model":"dear"}`, "dear", "", ""},
		{"/deployments/openai/dear/chat/completions", "", `{"model":"cheap"}`, "openai/dear", "cheap", ""},
		{"/deployments/openai/dear/embeddings", "", `{"input":"x"}`, "openai/dear", "", ""},
		{"/endpoints/dear/invocations", "", `{"model":"cheap","messages":[{"role":"user"}]}`, "dear", "cheap", ""},
		{"/v1/projects/p/locations/l/endpoints/openapi/chat/completions", "", `{"model":"google/m"}`, "google/m", "", ""},
		{"/models/org/dear/v1/chat/completions", "", `{"model":"tgi"}`, "org/dear", "tgi", ""},
		{geminiPath, "", `{"model":"models/g"}`, "g", "", ""},
		{geminiPath, "", `{"model":"models/dear"}`, "g", "models/dear", ""},
		{"/v1beta/models/g:batchEmbedContents", "", `{"requests":[{"model":"models/g"},{"model":"models/dear"}]}`, "g", "dear", ""},
		{"/v1/audio/transcriptions", "model=nova", `{"url":"https://x.y"}`, "nova", "", ""},
		{"/v1/chat/completions", "model=%zz", `{}`, "", "", "query"},
	} {
		c, err := formats.Inspect(meter.Head{Method: "POST", Path: tt.path, Query: tt.query}, []byte(tt.body))
		if got := refusedFor(c, err); got != tt.field {
			t.Errorf("%s?%s %s: refused for %q, want %q", tt.path, tt.query, tt.body, got, tt.field)
		} else if err == nil && (c.Model != tt.model || strings.Join(c.Models, " ") != tt.others) {
			t.Errorf("%s?%s %s: model %q and %q", tt.path, tt.query, tt.body, c.Model, c.Models)
		}
		for range 20 { // whatever the order of a map
			if again, _ := formats.Inspect(meter.Head{Method: "POST", Path: tt.path, Query: tt.query}, []byte(tt.body)); err == nil && (again.Model != c.Model || !slices.Equal(again.Models, c.Models)) {
				t.Fatalf("%s?%s: model %q and %q, and then %q and %q", tt.path, tt.query, c.Model, c.Models, again.Model, again.Models)
			}
		}
	}
}

// TestHeaders: no header makes the provider read another body.
func TestHeaders(t *testing.T) {
	for _, tt := range []struct {
		types       []string
		body, field string
	}{
		{nil, `{"model":"m"}`, ""},
		{[]string{"application/json; charset=utf-8"}, `{"model":"m"}`, ""},
		{[]string{"text/plain"}, `{"model":"m"}`, ""},
		{[]string{"application/x-www-form-urlencoded"}, `{"model":"m","user":"a=b&c"}`, ""}, // curl -d
		{[]string{"application/x-www-form-urlencoded"}, `{"model":"m","user":"&model=dear&"}`, "model"},
		{[]string{"application/x-www-form-urlencoded"}, `{"model":"m","user":"&m%6Fdel=dear&"}`, "model"},
		{[]string{"application/json; charset=utf-7"}, `{"model":"m"}`, "Content-Type"},
		{[]string{"application/json; charset=UTF-16LE"}, `{"model":"m"}`, "Content-Type"},
		{[]string{"application/json", "multipart/form-data; boundary=b"}, `{"model":"m"}`, "Content-Type"},
		{[]string{"multipart/form-data; boundary=b"}, `{"model":"m"}`, "Content-Type"},
		{[]string{"multipart/form-data; boundary=b"}, "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n--b--\r\n", "malformed"},
	} {
		c, err := formats.Inspect(meter.Head{Method: "POST", Path: chatPath, Header: http.Header{"Content-Type": tt.types}}, []byte(tt.body))
		if got := refusedFor(c, err); got != tt.field {
			t.Errorf("%q %s: refused for %q, want %q", tt.types, tt.body, got, tt.field)
		}
	}
}

// TestForms: a form that parsers read in different ways is refused.
func TestForms(t *testing.T) {
	const kind = "multipart/form-data; boundary=b"
	part := func(head, value string) string { return "--b\r\n" + head + "\r\n\r\n" + value + "\r\n" }
	field := func(name, value string) string {
		return part(`Content-Disposition: form-data; name="`+name+`"`, value)
	}
	const end = "--b--\r\n"
	file := part("Content-Disposition: form-data; name=\"file\"; filename=\"a.mp3\"\r\nContent-Type: audio/mpeg", "\x00\x01\r\n\xff")
	for name, tt := range map[string]struct{ kind, body, model, field string }{
		"plain":                     {kind, field("model", "m") + file + end, "m", ""},
		"no line at the end":        {kind, field("model", "m") + "--b--", "m", ""},
		"quoted boundary":           {`multipart/form-data; boundary="b"`, field("model", "m") + end, "m", ""},
		"unquoted name":             {kind, part("content-disposition: form-data; name=model", "m") + end, "m", ""},
		"a file's name in UTF-8":    {kind, part("Content-Disposition: form-data; name=\"file\"; filename=\"a.mp3\"; filename*=UTF-8''%C3%BC.mp3", "x") + field("model", "m") + end, "m", ""},
		"images":                    {kind, field("n", "3") + field("model", "m") + end, "m", ""},
		"twice":                     {kind, field("model", "cheap") + field("model", "dear") + end, "", "model"},
		"another case":              {kind, field("Model", "dear") + end, "", "model"},
		"a list":                    {kind, field("model[]", "dear") + end, "", "model"},
		"as a file":                 {kind, part(`Content-Disposition: form-data; name="model"; filename="x"`, "dear") + end, "", "model"},
		"as a file by filename*":    {kind, part(`Content-Disposition: form-data; name="model"; filename*=UTF-8''x`, "dear") + end, "", "model"},
		"an escaped name":           {kind, part(`Content-Disposition: form-data; name="mo\del"`, "dear") + end, "", "body"},
		"an encoded name":           {kind, part(`Content-Disposition: form-data; name*=UTF-8''model`, "dear") + end, "", "body"},
		"two names":                 {kind, part(`Content-Disposition: form-data; name="x"; name="model"`, "dear") + end, "", "body"},
		"a name in a file's name":   {kind, part(`Content-Disposition: form-data; name="file"; filename="a\"; name=\"model"`, "dear") + end, "", "body"},
		"two dispositions":          {kind, part("Content-Disposition: form-data; name=\"x\"\r\nContent-Disposition: form-data; name=\"model\"", "dear") + end, "", "body"},
		"a folded line":             {kind, part("Content-Disposition: form-data;\r\n name=\"model\"", "dear") + end, "", "body"},
		"a header without a colon":  {kind, field("x", "y") + part("Bad\r\nContent-Disposition: form-data; name=\"model\"", "dear") + end, "", "body"},
		"a header without a name":   {kind, part(": x", "y") + field("model", "dear") + end, "", "body"},
		"without a header":          {kind, "--b\r\n\r\nx\r\n" + field("model", "dear") + end, "", "body"},
		"lines that end in LF":      {kind, strings.ReplaceAll(field("model", "dear")+end, "\r\n", "\n"), "", "body"},
		"a boundary behind LF":      {kind, field("x", "y\n--b\nContent-Disposition: form-data; name=\"model\"\n\ndear\n--b") + end, "", "body"},
		"a boundary with spaces":    {kind, strings.Replace(field("x", "y")+field("model", "dear")+end, "--b\r\n", "--b \r\n", 2), "", "body"},
		"a preamble":                {kind, "x\r\n" + field("model", "dear") + end, "", "body"},
		"an epilogue":               {kind, field("x", "y") + end + field("model", "dear") + end, "", "body"},
		"without an end":            {kind, field("model", "dear"), "", "body"},
		"cut":                       {kind, field("model", "cheap") + "--b\r\nContent-Disposition: form-data; name=\"mod", "", "body"},
		"quoted printable":          {kind, part("Content-Disposition: form-data; name=\"model\"\r\nContent-Transfer-Encoding: quoted-printable", "d=65ar") + end, "", "body"},
		"a charset":                 {kind, part("Content-Disposition: form-data; name=\"model\"\r\nContent-Type: text/plain; charset=utf-7", "dear") + end, "", "body"},
		"another boundary":          {"multipart/form-data; boundary=c", field("model", "dear") + end, "", "body"},
		"two boundaries":            {"multipart/form-data; boundary=b; Boundary=c", field("model", "dear") + end, "", "Content-Type"},
		"an encoded boundary":       {"multipart/form-data; boundary*=UTF-8''b", field("model", "dear") + end, "", "body"},
		"no boundary":               {"multipart/form-data", field("model", "dear") + end, "", "body"},
		"mixed":                     {"multipart/mixed; boundary=b", field("model", "dear") + end, "", "body"},
		"stream: yes":               {kind, field("model", "m") + field("stream", "yes") + end, "", "stream"},
		"n: many":                   {kind, field("model", "m") + field("n", "1e9") + end, "", "n"},
		"a model with a line's end": {kind, field("model", "m\r\n") + end, "", "model"},
		"a model beyond reason":     {kind, field("model", strings.Repeat("m", 2000)) + end, "", "model"},
	} {
		c, err := formats.Inspect(meter.Head{Method: "POST", Path: "/v1/audio/transcriptions", Header: http.Header{"Content-Type": {tt.kind}}}, []byte(tt.body))
		if got := refusedFor(c, err); got != tt.field {
			t.Errorf("%s: refused for %q, want %q", name, got, tt.field)
		} else if err == nil && c.Model != tt.model {
			t.Errorf("%s: model %q", name, c.Model)
		}
	}
}

// TestToolCallsAreRead: no way to write a call of a tool hides it, or its name.
func TestToolCallsAreRead(t *testing.T) {
	for _, tt := range []struct{ body, tools, field string }{
		{`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}}`, "a", ""},
		{`{"JSONRPC":"2.0","ID":1,"Method":"tools\/call","Params":{"Name":"a"}}`, "a", ""},
		{`{"jsonrpc":"2.0","id":1,"meth\u006fd":"t\u006fols/call","paramſ":{"nam\u0065":"a"}}`, "a", ""},
		{`[{"jsonrpc":"2.0","method":"ping","id":1},{"jsonrpc":"2.0","id":2,"Method":"tools/call","params":{"NAME":"a"}}]`, "a", ""},
		{`[{"jsonrpc":"2.0","method":"ping","id":1},{"jsonrpc":"2.0","id":2,"result":{}}]`, "", ""},
		{`{"jsonrpc":"2.0","id":1,"method":"tools/list","Method":"tools/call","params":{"name":"a"}}`, "", "method"},
		{`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","Name":"b"}}`, "", "params.name"},
		{`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"},"paramſ":{"name":"b"}}`, "", "params"},
		{`[{"jsonrpc":"2.0","method":"ping"},{"jsonrpc":"2.0","method":"ping","Method":"tools/call","id":1,"params":{"name":"b"}}]`, "", "method"},
		{`{"jsonrpc":"2.0","id":1,"method":"Tools/Call","params":{"name":"a"}}`, "", "method"},
		{`{"jsonrpc":"2.0","id":1,"method":"tools/call ","params":{"name":"a"}}`, "", "method"},
		{`{"jsonrpc":"2.0","id":1,"method":"tools//call","params":{"name":"a"}}`, "", "method"},
		{`{"jsonrpc":"2.0","id":1,"method":"tools.call","params":{"name":"a"}}`, "", "method"},
		{`{"jsonrpc":"2.0","id":1,"method":"/tools/call/","params":{"name":"a"}}`, "", "method"},
		{`{"jsonrpc":"2.0","id":1,"method":"tools%2Fcall","params":{"name":"a"}}`, "", "method"},
		{`{"jsonrpc":"2.0","id":1,"method":"tools/call\u0000","params":{"name":"a"}}`, "", "method"},
		{`{"jsonrpc":"2.0","id":1,"method":"\uff54ools/call","params":{"name":"a"}}`, "", "method"},
		{`{"jsonrpc":"2.0","id":1,"method":"callTool","params":{"name":"a"}}`, "", "method"},
		{`{"jsonrpc":"2.0","id":1,"method":"message/send","params":{}}`, "message/send", ""}, // of another protocol: it is priced as a tool
		{`{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{}}`, "", ""},
		{`{"jsonrpc":"2.0","method":"notifications/initialized"}`, "", ""},
		{`{"jsonrpc":"2.0","id":1,"method":["tools/call"],"params":{"name":"a"}}`, "", ""}, // no method
		{`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":["a"]}`, "", "params.name"},
		{`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":["a"]}}`, "", "params.name"},
		{`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a "}}`, "", "params.name"},
		{`{"jsonrpc":"2.0","id":1,"method":"tools/call"}`, "", "params.name"},
		{`{"id":1,"method":"tools/call","params":{"name":"a"}}`, "", "method"},
		{`{"jsonrpc":2.0,"id":1,"method":"tools/call","params":{"name":"a"}}`, "", "method"},
		{`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"},"model":"m"}`, "", "method"},
		{`[{"jsonrpc":"2.0","method":"ping"},{"id":1,"method":"tools/call","params":{"name":"a"}}]`, "", "method"},
		{`[{"id":2},{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}}]`, "", "method"},
		{`[{"jsonrpc":"2.0","method":"ping"},[{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}}]]`, "", "method"},
		{`{"jsonrpc":"2.0","id":1,"method":"tools/call",/**/"params":{"name":"a"}}`, "", "body"},
		{`{"jsonrpc":"2.0","id":1,"method":"tools\u002fcall","params":{"name":"a"},}`, "", "body"},
		{"\xFF\xFE" + utf16le(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}}`), "", "body"},
		{utf16le(`{"jsonrpc":"2.0","id":1,"method":"t\u006fols/call","params":{"name":"a"}}`), "", "body"},
	} {
		c, err := post("/mcp", tt.body)
		if got := refusedFor(c, err); got != tt.field {
			t.Errorf("%s: refused for %q, want %q", tt.body, got, tt.field)
		} else if err == nil && strings.Join(c.Tools, " ") != tt.tools {
			t.Errorf("%s: tools %q", tt.body, c.Tools)
		}
	}
}

func utf16le(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		b.Write([]byte{c, 0})
	}
	return b.String()
}

// TestStatedInputStands: what the provider states of an input that is not all in the request is not held against it; what is beyond
// what the request can have used stands too, and is marked.
func TestStatedInputStands(t *testing.T) {
	const many, absurd = 1_500_000, 900_000_000
	for _, tt := range []struct {
		path, request string
		suspect       bool
	}{
		{respPath, `{"input":"hi"}`, true},
		{respPath, `{"input":"hi","previous_response_id":null}`, true},
		{respPath, `{"input":"hi","previous_response_id":"r"}`, false},
		{respPath, `{"input":"hi","previous_response\u005fid":"r"}`, false},
		{respPath, `{"input":"hi","paramſ":1,"previous_reſponse_id":"r"}`, false},
		{respPath, `{"input":"hi","conversation":{"id":"c"}}`, false},
		{respPath, `{"prompt":{"id":"p"}}`, false},
		{respPath, `{"prompt":{"\u0069d":"p"}}`, false},
		{respPath, `{"input":[{"type":"item_reference","id":"i"}]}`, false},
		{respPath, `{"input":[{"type":"item\u005freference","id":"i"}]}`, false},
		{respPath, `{"input":[{"id":"i"}]}`, false},
		{respPath, `{"input":[{"role":"user","content":[{"type":"input_image","image_url":"https://x.y/z.png"}]}]}`, false},
		{respPath, `{"input":[{"role":"user","content":[{"type":"input_file","file_id":"f"}]}]}`, false},
		{respPath, `{"input":[{"role":"user","content":[{"type":"input_file","file\u005fid":"f"}]}]}`, false},
		{respPath, `{"input":[{"role":"user","content":[{"type":"input_file","file_data":"data:application/pdf;base64,JVBERi0xLjQK` + strings.Repeat("A", 400) + `"}]}]}`, false},
		{respPath, `{"input":"hi","tools":[{"type":"file_search","vector_store_ids":["v"]}]}`, false},
		{respPath, `{"input":"hi","tools":[{"t\u0079pe":"web\u005fsearch"}]}`, false},
		{respPath, `{"input":"hi","tools":["web_search"]}`, false},
		{respPath, `{"input":"hi","tools":[{"web_search":{}}]}`, false},
		{chatPath, `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"HTTPS://x.y/z"}}]}]}`, false},
		{chatPath, `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"http\u0073://x.y/z"}}]}]}`, false},
		{chatPath, `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"gs:\/\/x\/z"}}]}]}`, false},
		{chatPath, `{"messages":[{"role":"user","content":"hello"}]}`, true},
		{geminiPath, `{"contents":[{"parts":[{"fileData":{"fileUri":"https://x.y/z"}}]}]}`, false},
		{geminiPath, `{"contents":[],"cachedContent":"c"}`, false},
		{geminiPath, `{"contents":[],"cached_content":"c"}`, false},
		{geminiPath, `{"contents":[],"CachedContent":"c"}`, false},
		{messagesPath, `{"messages":[{"role":"user","content":[{"type":"document","source":{"type":"url","url":"https://x.y"}}]}]}`, false},
		{conversePath, `{"messages":[{"content":[{"document":{"source":{"s3Location":{"uri":"s3://a"}}}}]}]}`, false},
		{"/v1/threads/t/runs", `{"stream":true}`, false},
		{"/v1/conversations", `{"inputs":"x"}`, false},
		{"/v2/chat", `{"messages":[],"connectors":[{"id":"web"}]}`, false},
	} {
		call, err := post(tt.path, tt.request)
		if err != nil {
			t.Errorf("%s: %v", tt.request, err)
			continue
		}
		for stated, suspect := range map[int64]bool{many: tt.suspect, absurd: true} {
			n := strconv.FormatInt(stated, 10)
			var answer string
			switch tt.path {
			case geminiPath:
				answer = `{"usageMetadata":{"promptTokenCount":` + n + `,"candidatesTokenCount":1}}`
			case conversePath:
				answer = `{"usage":{"inputTokens":` + n + `,"outputTokens":1}}`
			case respPath, messagesPath:
				answer = `{"type":"message","usage":{"input_tokens":` + n + `,"output_tokens":1}}`
			case "/v2/chat":
				answer = `{"usage":{"billed_units":{"input_tokens":` + n + `,"output_tokens":1}}}`
			default:
				answer = `{"object":"thread.run","usage":{"prompt_tokens":` + n + `,"completion_tokens":1}}`
			}
			if tt.path == respPath {
				answer = strings.Replace(answer, `"type":"message",`, "", 1)
			}
			c := call.Counter(200, http.Header{"Content-Type": {"application/json"}})
			c.Feed(nil, []byte(answer))
			u := c.Usage(true)
			if got := u.Units[meter.Input]; got != meter.Whole(min(stated, 20_000_000)) || u.Suspect != suspect || u.Source != meter.Stated {
				t.Errorf("%s, %d stated: counts %s, suspect %v, %s", tt.request, stated, got, u.Suspect, u.Source)
			}
		}
	}
}

// TestTheHigherCountStands: an output beyond the request's bound is marked, and not taken for less than it is.
func TestTheHigherCountStands(t *testing.T) {
	for _, tt := range []struct {
		request string
		stated  int64
		want    int64
		suspect bool
	}{
		{`{"max_tokens":100}`, 150_000, 150_000, true},
		{`{"max_tokens":100}`, 90_000, 90_000, false}, // thoughts
		{`{"max_tokens":100}`, 1e11, 10_000_000, true},
		{`{}`, 9_000_000, 9_000_000, false},
		{`{"n":2}`, 1e11, 20_000_000, true},
	} {
		call, err := post(chatPath, tt.request)
		if err != nil {
			t.Fatal(err)
		}
		c := call.Counter(200, http.Header{"Content-Type": {"application/json"}})
		c.Feed(nil, []byte(`{"usage":{"prompt_tokens":1,"completion_tokens":`+strconv.FormatInt(tt.stated, 10)+`}}`))
		if u := c.Usage(true); u.Units[meter.Output] != meter.Whole(tt.want) || u.Suspect != tt.suspect {
			t.Errorf("%s: %d counts as %s, suspect %v", tt.request, tt.stated, u.Units[meter.Output], u.Suspect)
		}
	}
}

// lenient is a request as a provider written in Go reads it.
type lenient struct {
	Model    any `json:"model"`
	Models   any `json:"models"`
	Stream   any `json:"stream"`
	N        any `json:"n"`
	BestOf   any `json:"best_of"`
	Max      any `json:"max_tokens"`
	MaxNew   any `json:"max_completion_tokens"`
	Previous any `json:"previous_response_id"`
	Prompt   any `json:"prompt"`
	Options  struct {
		IncludeUsage any `json:"include_usage"`
	} `json:"stream_options"`
}

// readers read a body as providers do: with keys in any case, and with the last of two keys that are the same.
var readers = map[string]func(body []byte) (lenient, bool){
	"Go": func(body []byte) (l lenient, ok bool) {
		return l, json.NewDecoder(bytes.NewReader(body)).Decode(&l) == nil // what follows the first value is not read
	},
	"Python": func(body []byte) (l lenient, ok bool) {
		var m map[string]any
		if json.Unmarshal(body, &m) != nil {
			return l, false
		}
		l = lenient{Model: m["model"], Models: m["models"], Stream: m["stream"], N: m["n"], BestOf: m["best_of"], Max: m["max_tokens"],
			MaxNew: m["max_completion_tokens"], Previous: m["previous_response_id"], Prompt: m["prompt"]}
		if options, ok := m["stream_options"].(map[string]any); ok {
			l.Options.IncludeUsage = options["include_usage"]
		}
		return l, true
	},
}

// number is what a lenient provider makes of a value that should be a whole number: 0 for none.
func number(v any) int64 {
	switch v := v.(type) {
	case float64:
		return int64(max(min(v, math.MaxInt32*1e6), -1))
	case string:
		n, _ := strconv.ParseFloat(v, 64)
		return number(n)
	case bool:
		if v {
			return 1
		}
	}
	return 0
}

// truthy is what Python and JavaScript take for true.
func truthy(v any) bool {
	switch v := v.(type) {
	case nil:
		return false
	case bool:
		return v
	case float64:
		return v != 0
	case string:
		return v != ""
	}
	return true
}

// agree checks that a provider reads of the body that goes on what the call says.
func (l lenient) agree(t *testing.T, name string, c *meter.Call) {
	t.Helper()
	if model, _ := l.Model.(string); l.Model != nil && model != c.Model && !slices.Contains(c.Models, model) && model != "" {
		t.Errorf("%s reads the model %v, we %q and %q", name, l.Model, c.Model, c.Models)
	}
	if list, ok := l.Models.([]any); ok {
		for _, m := range list {
			if s, ok := m.(string); ok && s != "" && s != c.Model && !slices.Contains(c.Models, s) {
				t.Errorf("%s reads the model %q, we %q and %q", name, s, c.Model, c.Models)
			}
		}
	}
	if truthy(l.Stream) != c.Stream || c.Stream && !truthy(l.Options.IncludeUsage) {
		t.Errorf("%s reads stream %v, usage %v; we %v", name, l.Stream, l.Options.IncludeUsage, c.Stream)
	}
	choices := max(1, number(l.N), number(l.BestOf))
	for _, v := range []any{l.Max, l.MaxNew} {
		if n := number(v); n > 0 && n*choices > c.MaxOutput || v != nil && n <= 0 && c.MaxOutput > 0 {
			t.Errorf("%s reads a bound of %v, %d times; we %d", name, v, choices, c.MaxOutput)
		}
	}
	if l.Previous != nil && l.Previous != false && !c.InputOpen {
		t.Errorf("%s reads a previous response %v, we none", name, l.Previous)
	}
}

// agreeAll checks a body that is taken with all readers, before and after its output is limited, and that what goes on is read
// as what came.
func agreeAll(t *testing.T, body string) (taken bool) {
	t.Helper()
	c, err := post(chatPath, body)
	if err != nil || c.Malformed {
		return false
	}
	check := func() {
		for name, read := range readers {
			l, ok := read(c.Body)
			if !ok {
				t.Errorf("%s does not read %q, which goes on", name, c.Body)
				continue
			}
			l.agree(t, name, c)
		}
	}
	check()
	if c.LimitOutput(40) {
		check()
		if c.MaxOutput < 1 || c.MaxOutput > 40 {
			t.Errorf("limited to %d", c.MaxOutput)
		}
	}
	if again, err := post(chatPath, string(c.Body)); err != nil || again.Model != c.Model || again.MaxOutput != c.MaxOutput {
		t.Errorf("what goes on is read as %+v, %v", again, err)
	}
	return true
}

// FuzzOneReading compares how we read a request with how lenient providers read the one that goes on: they agree, or it is refused.
func FuzzOneReading(f *testing.F) {
	for _, body := range []string{
		`{"model":"m","stream":true,"n":2,"max_tokens":9,"previous_response_id":"r","messages":[]}`,
		`{"Model":"m","STREAM":true,"N":2,"max_toKens":9,"previous_response\u005fid":"r"}`,
		`{"model":"a","Model":"b"}`, `{"model":"a","mod\u0065l":"b"}`, `{"ſtream":true,"stream":false}`, `{"stream":"yes"}`,
		`{"stream":1,"stream_options":{"include_usage":2}}`, `{"stream":true,"Stream_options":{"Include_usage":false}}`,
		`{"max_tokens":1,"max_completion_tokens":2}`, `{"max_tokens":1e2,"n":1.0}`, `{"max_tokens":-1}`, `{"max_tokens":"5"}`, `{"max_tokens":true}`,
		`{"model":"a"}{"model":"b"}`, "\xEF\xBB\xBF{}", `{"models":["a","b"],"model":"c"}`, `{"model":["a"]}`, `{"model":"a\u0000"}`,
		`{"a":{"b":[{"c":null}]},"n":3,"best_of":5,"max_tokens":7}`, `{"stream":null,"model":null,"max_tokens":null}`,
		`{"stream_options":null,"stream":true}`, `{"prompt":["a","b"],"max_tokens":5}`, "{\"model\":\"\xff\"}", `{"\ud800":1,"\ud801":2}`,
	} {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) { agreeAll(t, body) })
}

// TestRandomRequests makes requests of known fields, each in any spelling and of any value, some of them twice.
func TestRandomRequests(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	keys := []string{"model", "models", "stream", "stream_options", "n", "best_of", "max_tokens", "max_completion_tokens", "previous_response_id", "prompt", "user"}
	values := []string{`"a"`, `"b"`, `""`, "null", "true", "false", "0", "1", "2", "9", "9.0", "9e0", "1.5", "-1", "-1.0", "1e3", "1e99", `"9"`, `["a","b"]`, `[]`,
		`{}`, `{"include_usage":true}`, `{"Include_Usage":false}`, `{"include_usage":1}`, `{"include_usage":false,"include_u\u0073age":true}`}
	spell := func(key string) string {
		var b strings.Builder
		for _, c := range key {
			switch random.IntN(40) {
			case 0:
				c = unicode.ToUpper(c)
			case 1:
				c = unicode.SimpleFold(c)
			case 2:
				fmt.Fprintf(&b, `\u%04x`, c)
				continue
			}
			b.WriteRune(c)
		}
		return b.String()
	}
	taken, refused := 0, 0
	for range 50_000 {
		var fields []string
		for range 1 + random.IntN(4) {
			fields = append(fields, `"`+spell(keys[random.IntN(len(keys))])+`":`+values[random.IntN(len(values))])
		}
		body := "{" + strings.Join(fields, ",") + "}"
		if agreeAll(t, body) {
			taken++
		} else {
			refused++
		}
		if t.Failed() {
			t.Fatalf("the request was %s", body)
		}
	}
	if taken < 5000 || refused < 5000 {
		t.Errorf("%d were taken, %d refused: little was tested", taken, refused)
	}
}

// TestWhatConfiguresARouterIsRefused: behind the meter it would have another model answer than the one that is named.
func TestWhatConfiguresARouterIsRefused(t *testing.T) {
	for _, tt := range []struct{ header, body, field string }{
		{"X-Portkey-Config", "", "X-Portkey-Config"}, {"x-portkey-virtual-key", "", "X-Portkey-Virtual-Key"}, {"X-Portkey-Trace-Id", "", ""},
		{"Helicone-Fallbacks", "", "Helicone-Fallbacks"}, {"Helicone-Target-URL", "", "Helicone-Target-Url"}, {"Helicone-User-Id", "", ""},
		{"X-Litellm-Model", "", "X-Litellm-Model"}, {"X-Litellm-Tags", "", "X-Litellm-Tags"}, {"X-Litellm-Timeout", "", ""},
		{"X-Portkey-Azure-Deployment-Id", "", "X-Portkey-Azure-Deployment-Id"}, {"x_portkey_config", "", "X-Portkey-Config"}, {"X-Portkey-Metadata", "", ""},
		{"cf-aig-metadata", "", "Cf-Aig-Metadata"}, {"cf-aig-byok-alias", "", "Cf-Aig-Byok-Alias"}, {"Cf-Aig-Collect-Log", "", ""},
		{"Helicone-Model-Override", "", ""}, {"Helicone_Fallbacks", "", "Helicone-Fallbacks"},
		{"Azureml_Model_Deployment", "", "Azureml_model_deployment"}, {"Content_Encoding", "", "Content_encoding"}, {"X_Amzn_Bedrock-Service-Tier", "", "X_amzn_bedrock-Service-Tier"},
		{"X_Request_Id", "", ""},
		{"", `"tags":["paid"]`, "tags"}, {"", `"metadata":{"tags":["paid"]}`, "metadata.tags"}, {"", `"metadata":{"tags":"mine"}`, ""},
		{"", `"router_settings_override":{"fallbacks":[]}`, "router_settings_override"}, {"", `"context_window_fallbacks":[{"cheap":["dear"]}]`, "context_window_fallbacks"},
		{"", `"API_base":"http://elsewhere"`, "api_base"}, {"", `"mock_response":"free"`, "mock_response"}, {"", `"prompt_id":"p"`, "prompt_id"},
		{"", `"tensorzero::variant_name":"dear"`, "tensorzero::variant_name"},
		{"", `"user_config":{"model_list":[]}`, "user_config"}, {"", `"User_Config":{}`, "user_config"}, {"", `"litellm_params":{"model":"dear"}`, "litellm_params"},
		{"", `"user_config":null`, ""}, {"", `"route":"fallback","transforms":["middle-out"],"provider":{"order":["x"]}`, ""},
	} {
		h := http.Header{}
		if tt.header != "" {
			h.Set(tt.header, "x")
		}
		for _, path := range []string{chatPath, messagesPath, respPath, geminiPath, "/v1/embeddings"} {
			body := strings.TrimSuffix(`{"model":"cheap",`+tt.body, ",") + "}"
			call, err := formats.Inspect(meter.Head{Method: http.MethodPost, Path: path, Header: h}, []byte(body))
			if got := refusedFor(call, err); got != tt.field {
				t.Errorf("%s %s %s: refused for %q, want %q", path, tt.header, tt.body, got, tt.field)
			}
		}
	}
}

// TestWhatStandsForModelsIsNamed: a preset, a deployment in a header and the like are models of the call, which need a price.
func TestWhatStandsForModelsIsNamed(t *testing.T) {
	for _, tt := range []struct {
		header, body string
		models       string // in their order; or the field for which the call is refused
	}{
		{"", `"model":"cheap","preset":"writer"`, "cheap @preset/writer"}, {"", `"model":"cheap@preset/writer"`, "cheap@preset/writer @preset/writer"},
		{"", `"model":"@preset/writer"`, "@preset/writer"}, {"", `"model":"cheap","extra_body":{"preset":"@preset/writer"}`, "cheap @preset/writer"},
		{"", `"model":"cheap","preset":null`, "cheap"},
		{"X-Ms-Model-Mesh-Model-Name", `"model":"cheap"`, "cheap header"}, {"Azureml-Model-Deployment", `"model":"cheap"`, "cheap header"},
		{"X-Amzn-SageMaker-Inference-Component", `"model":"cheap"`, "cheap header"}, {"X-Amzn-SageMaker-Target-Variant", `"model":"cheap"`, "cheap header"},
		{"Helicone-Model-Override", `"model":"cheap"`, "cheap"},
		{"", `"model":"cheap,dear"`, "model"}, {"", `"model":"cheap","fallbacks":["a,b"]`, "model"},
	} {
		h := http.Header{}
		if tt.header != "" {
			h.Set(tt.header, "header")
		}
		for _, path := range []string{chatPath, messagesPath, respPath} {
			call, err := formats.Inspect(meter.Head{Method: http.MethodPost, Path: path, Header: h}, []byte("{"+tt.body+"}"))
			got := refusedFor(call, err)
			if got == "" {
				got = strings.Join(append([]string{call.Model}, call.Models...), " ")
			}
			if got != tt.models {
				t.Errorf("%s %s %s: %q, want %q", path, tt.header, tt.body, got, tt.models)
			}
		}
	}
}

// TestTiersInHeaders: a header may ask for other prices, as a field does, and in any of its values.
func TestTiersInHeaders(t *testing.T) {
	for header, want := range map[string]string{
		"X-Amzn-Bedrock-Service-Tier: priority": "priority", "X-Amzn-Bedrock-Service-Tier: Flex": "flex", "X-Amzn-Bedrock-Service-Tier: default": "",
		"X-Amzn-Bedrock-Performanceconfig-Latency: optimized": "optimized", "X-Amzn-Bedrock-Performanceconfig-Latency: standard": "",
		"X-Vertex-Ai-Llm-Shared-Request-Type: priority": "priority",
	} {
		name, value, _ := strings.Cut(header, ": ")
		for _, values := range [][]string{{value}, {"default", value}, {value, "default"}} {
			call, err := formats.Inspect(meter.Head{Method: http.MethodPost, Path: "/model/anthropic.claude-3/invoke", Header: http.Header{name: values}},
				[]byte(`{"anthropic_version":"bedrock-2023-05-31","max_tokens":9,"messages":[]}`))
			if err != nil || call.ServiceTier != want && !(want == "" && meter.PlainTier(call.ServiceTier)) {
				t.Errorf("%s %q: %v, %+v", name, values, err, call)
			}
		}
	}
}
