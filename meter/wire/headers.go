package wire

import (
	"net/http"
	"slices"
	"strings"
)

// tierHeaders are headers that ask for other prices. Vertex AI:
// https://cloud.google.com/vertex-ai/generative-ai/docs/priority-paygo, Bedrock:
// https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html
var tierHeaders = []string{"X-Vertex-Ai-Llm-Shared-Request-Type", "X-Amzn-Bedrock-Service-Tier", "X-Amzn-Bedrock-Performanceconfig-Latency"}

// pricedHeaders are all request headers that are read to find out what is asked, besides those of routers. A header that is not among them has
// no influence on the price of a request.
var pricedHeaders = set(strings.Join(slices.Concat(modelHeaders, tierHeaders, []string{
	"Content-Type", "Content-Encoding", "Upgrade", // how the request is read
	"Accept", "X-Goog-Fieldmask", // in which form the answer comes
	"X-Dashscope-Async", "Prefer", // when the answer comes
}), " "))

// isPriced reports whether the price of a request may depend on a header, by its canonical name.
func isPriced(name string) bool { return pricedHeaders[name] || isRouterHeader(name) }

// foldHeader is the name of a header as servers fold it that make no difference between hyphens and underscores, such as those of CGI.
func foldHeader(name string) string {
	if strings.Contains(name, "_") {
		name = strings.ReplaceAll(name, "_", "-")
	}
	return http.CanonicalHeaderKey(name)
}

// PricedHeaders returns those of a request's headers on which its price may depend, as one text. Two requests that differ in other headers
// alone have the same text.
func PricedHeaders(h http.Header) string {
	var names []string
	for name := range h {
		if isPriced(foldHeader(name)) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var b strings.Builder
	for _, name := range names {
		for _, value := range h[name] {
			b.WriteString(name)
			b.WriteByte(':')
			b.WriteString(value)
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// IsPricedHeader reports whether the price of a request may depend on a header.
func IsPricedHeader(name string) bool { return isPriced(foldHeader(name)) }

// IsRouterHeader reports whether a header configures a router behind the meter.
func IsRouterHeader(name string) bool { return isRouterHeader(foldHeader(name)) }
