package wire

import (
	"slices"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/meter"
)

// A provider may itself be a router: a program that sends requests on to other providers. Headers and fields configure it, so that another
// model may answer than the one that is named. What names a model is priced; what configures a router in other ways is refused.

// modelHeaders are headers by which some providers are told another model, or what stands for one.
//
// SageMaker: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_InvokeEndpoint.html, Azure ML:
// https://learn.microsoft.com/en-us/azure/machine-learning/how-to-deploy-online-endpoints, Azure AI:
// https://learn.microsoft.com/en-us/azure/ai-studio/reference/reference-model-inference-api
var modelHeaders = []string{"X-Amzn-Sagemaker-Target-Model", "X-Amzn-Sagemaker-Target-Variant", "X-Amzn-Sagemaker-Inference-Component",
	"X-Amzn-Sagemaker-Target-Container-Hostname", "Azureml-Model-Deployment", "X-Ms-Model-Mesh-Model-Name"}

// routerHeaders configure a router. Helicone-Model-Override is not among them: it changes only Helicone's statistics.
//
// Helicone: https://docs.helicone.ai/helicone-headers/header-directory and worker/src/lib/models/HeliconeHeaders.ts in Helicone/helicone;
// LiteLLM: https://docs.litellm.ai/docs/proxy/request_headers, https://docs.litellm.ai/docs/proxy/tag_routing, and
// litellm/proxy/openai_files_endpoints/common_utils.py in BerriAI/litellm, where a header names a model.
var routerHeaders = set("Helicone-Fallbacks Helicone-Target-Url Helicone-Target-Provider Helicone-Openai-Api-Base X-Litellm-Model X-Litellm-Tags")

// routerPrefixes begin the headers of routers in which each header is refused that is not among tracingHeaders: their names are too many, and
// some choose whose stored key is used, or which stored answer is given.
//
// Portkey: https://portkey.ai/docs/api-reference/inference-api/headers and src/globals.ts in Portkey-AI/gateway; Cloudflare:
// https://developers.cloudflare.com/ai-gateway/glossary and https://developers.cloudflare.com/ai-gateway/features/dynamic-routing (whose
// conditions read cf-aig-metadata).
var routerPrefixes = []string{"X-Portkey-", "Cf-Aig-"}

var tracingHeaders = set("X-Portkey-Trace-Id X-Portkey-Span-Id X-Portkey-Parent-Span-Id X-Portkey-Span-Name X-Portkey-Metadata X-Portkey-Debug " +
	"X-Portkey-Request-Timeout Cf-Aig-Collect-Log Cf-Aig-Event-Id Cf-Aig-Log-Id Cf-Aig-Skip-Cache")

// routerFields are the fields that configure a router.
//
// LiteLLM: https://docs.litellm.ai/docs/proxy/user_keys, https://docs.litellm.ai/docs/proxy/clientside_auth,
// https://docs.litellm.ai/docs/proxy/reliability and https://docs.litellm.ai/docs/proxy/tag_routing; prompt_id:
// https://docs.litellm.ai/docs/proxy/prompt_management, and Helicone's https://docs.helicone.ai/features/advanced-usage/prompts; TensorZero:
// https://www.tensorzero.com/docs/gateway/api-reference/inference-openai-compatible
const routerFields = "user_config model_list litellm_params router_settings_override context_window_fallbacks content_policy_fallbacks " +
	"specific_deployment custom_llm_provider litellm_credential_name api_base base_url mock_response tags prompt_id " +
	"tensorzero::variant_name tensorzero::extra_body tensorzero::internal_dynamic_variant_config"

var routingFields = strings.Fields(routerFields)

// isRouterHeader reports whether a header, by its canonical name, configures a router.
func isRouterHeader(name string) bool {
	if routerHeaders[name] {
		return true
	}
	return slices.ContainsFunc(routerPrefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) }) && !tracingHeaders[name]
}

// refuseRouting refuses a request that configures a router, because a model may then answer that the request does not name.
func (r *Request) refuseRouting() {
	const reason = "it configures what is behind this server, where another model may answer: leave it out"
	for name, values := range r.Header {
		if folded := foldHeader(name); isRouterHeader(folded) && len(values) > 0 {
			r.Refuse(folded, reason+" (a provider sets it behind the meter, by header_up)")
		} else if folded != name && isPriced(folded) {
			r.Refuse(name, "some servers read it as "+folded+": write it so")
		}
	}
	const tags = reason + " (the tags of a charge are in the header Tallygate-Tag)"
	for _, field := range routingFields {
		switch {
		case !r.set(field):
		case field == "tags": // OpenAI's own API takes none
			r.Refuse(field, tags)
		default:
			r.Refuse(field, reason)
		}
	}
	for _, field := range []string{"metadata", "litellm_metadata"} {
		r.Get(field).ForEach(func(key, value gjson.Result) bool {
			if key.Str == "tags" && value.IsArray() { // OpenAI's metadata has texts alone
				r.Refuse(field+".tags", tags)
			}
			return true
		})
	}
}

// presetPrefix begins the name of a preset: a model, or several, with other settings, that are configured at the provider.
// https://openrouter.ai/docs/guides/features/presets
const presetPrefix = "@preset/"

// namePreset notes a preset as a model, since it stands for one. It may be a field of its own, or follow a model's name.
func (r *Request) namePreset(c *meter.Call) {
	for _, field := range []string{"preset", "extra_body.preset"} {
		if r.Get(field).Type != gjson.String {
			continue
		}
		if name := r.Name(field); name != "" {
			r.Also(c, field, presetPrefix+strings.TrimPrefix(name, presetPrefix))
		}
	}
	if i := strings.Index(c.Model, presetPrefix); i > 0 {
		r.Also(c, "model", c.Model[i:])
	}
}

// nameOne refuses a name that is a list. LiteLLM asks all models of it, Helicone one after the other:
// https://docs.litellm.ai/docs/proxy/user_keys, https://docs.helicone.ai/gateway/provider-routing
func (r *Request) nameOne(c *meter.Call) {
	for _, model := range append([]string{c.Model}, c.Models...) {
		if strings.Contains(model, ",") {
			r.Refuse("model", "it names several models, separated by commas: name one")
		}
	}
}
