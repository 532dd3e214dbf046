package formats_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

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
		{"/v1/projects/p/locations/l/publishers/mistralai/models/dear:rawPredict", "", `{"model":"cheap","messages":[{"role":"user"}]}`, "dear", "cheap", ""},
		{"/v1/projects/p/locations/l/publishers/mistralai/models/Dear@1:streamRawPredict", "", `{"messages":[{"role":"user"}]}`, "Dear@1", "", ""},
		{"/v1/projects/p/locations/l/endpoints/dear:rawPredict", "", `{"model":"cheap","messages":[{"role":"user"}]}`, "dear", "cheap", ""},
		{"/models/org/dear/v1/chat/completions", "", `{"model":"tgi"}`, "org/dear", "tgi", ""},
		{"/v1/chat", "", `{"model":"cheap","message":"x"}`, "cheap", "", ""},
		{"/v1/chat", "", `{"model":"cheap","message":"x","messages":[{"role":"user"}]}`, "", "", "messages"},
		{geminiPath, "alt=sse&%24alt=json%3Benum-encoding%3Dint", `{}`, "g", "", ""},
		{geminiPath, "alt=proto", `{}`, "", "", "alt"},
		{geminiPath, "%24Alt=proto", `{}`, "", "", "$Alt"},
		{geminiPath, "alt=media", `{}`, "", "", "alt"},
		{geminiPath, "%24callback=f", `{}`, "", "", "$callback"},
		{geminiPath, "%24httpHeaders=Accept%3Aapplication%2Fx-protobuf", `{}`, "", "", "$httpHeaders"},
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
		"a name beyond reason":      {kind, field(strings.Repeat("a.", 200)+"a", "x") + end, "", "body"},
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
		{`{"jsonrpc":"2.0","id":1,"method":"Tasks/Result","params":{"taskId":"t"}}`, "", "method"},
		{`{"jsonrpc":"2.0","id":1,"method":"/tasks%2Fget","params":{"taskId":"t"}}`, "", "method"},
		{`{"id":1,"method":"tasks/result","params":{"taskId":"t"}}`, "", "method"},
		{`{"jsonrpc":"2.0","id":1,"method":"tasks/list","model":"m"}`, "", "method"},
		{`{"jsonrpc":"2.0","id":1,"method":"tasks/get",/**/"params":{"taskId":"t"}}`, "", "body"},
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
