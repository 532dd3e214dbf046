package caddymodule

import (
	"context"
	"strconv"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/meter"
)

// describeSpan says on the span of a request, which the directive tracing makes, what its call was and what it used and cost. For language
// models it has the names of OpenTelemetry's conventions for generative AI, where tokens of a cache and of reasoning are a part of the input
// and of the output.
// https://github.com/open-telemetry/semantic-conventions-genai/blob/main/docs/gen-ai/gen-ai-spans.md
func describeSpan(ctx context.Context, of gateway.Report) {
	span := trace.SpanFromContext(ctx)
	if !span.IsRecording() {
		return
	}
	span.SetAttributes(
		attribute.String("tallygate.request", of.Request),
		attribute.String("tallygate.payer", of.Payer),
		attribute.String("tallygate.payee", of.Payee),
		attribute.String("tallygate.route", of.Route),
		attribute.String("tallygate.charge", of.Charge),
		attribute.String("tallygate.units", of.Units),
	)
	if of.Model == "" {
		return
	}
	asked := of.Asked
	if asked == "" {
		asked = of.Model
	}
	span.SetAttributes(attribute.String("gen_ai.request.model", asked), attribute.String("gen_ai.response.model", of.Model))
	for name, classes := range tokenAttributes {
		if n, any := total(of.Counts, classes); any {
			span.SetAttributes(attribute.Int64(name, n))
		}
	}
}

// tokenAttributes are the classes that each attribute of a span counts together.
var tokenAttributes = map[string][]meter.Class{
	"gen_ai.usage.input_tokens":                {meter.Input, meter.Cached, meter.CacheWrite, meter.CacheWrite1h, meter.AudioInput, meter.ImageInput},
	"gen_ai.usage.cache_read.input_tokens":     {meter.Cached},
	"gen_ai.usage.cache_creation.input_tokens": {meter.CacheWrite, meter.CacheWrite1h},
	"gen_ai.usage.output_tokens":               {meter.Output, meter.Reasoning, meter.AudioOutput, meter.ImageOutput},
	"gen_ai.usage.reasoning.output_tokens":     {meter.Reasoning},
}

// total adds up counts of tokens, and reports whether there are any of these classes.
func total(counts map[string]string, classes []meter.Class) (sum int64, any bool) {
	for _, class := range classes {
		text, counted := counts[string(class)]
		if !counted {
			continue
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			continue // tokens are whole numbers
		}
		sum, any = sum+n, true
	}
	return sum, any
}
