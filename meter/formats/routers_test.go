package formats_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/formats"
)

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
