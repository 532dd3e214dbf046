package caddymodule_test

import (
	"encoding/json"
	"strings"
	"syscall"
	"testing"

	"github.com/tidwall/gjson"
)

// TestSpansTellWhatACallUsed: with the directive tracing, the span of a metered call has its usage by OpenTelemetry's names, and its charge.
// A refused call's span has none of it.
func TestSpansTellWhatACallUsed(t *testing.T) {
	t.Setenv("OTEL_TRACES_EXPORTER", "console")
	answer, err := json.Marshal(map[string]any{
		"id": "1", "object": "chat.completion", "model": "test-1",
		"choices": []any{map[string]any{"index": 0, "finish_reason": "stop", "message": map[string]any{"role": "assistant", "content": "yes"}}},
		"usage": map[string]any{
			"prompt_tokens": 100, "completion_tokens": 30, "total_tokens": 130,
			"prompt_tokens_details":     map[string]any{"cached_tokens": 40},
			"completion_tokens_details": map[string]any{"reasoning_tokens": 10},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	p := newProcess(t, "1s", chatPrices, "tracing {\n\t\tspan metered\n\t}\n\t"+chatSite, answers(200, string(answer), "Content-Type", "application/json"))
	p.start()
	key := p.agent("alice", "10")
	called := p.do("POST", "/v1/chat/completions", key, chatOf("test-1"))
	if called.status != 200 {
		t.Fatalf("%d %s", called.status, called.body)
	}
	if refused := p.do("POST", "/v1/chat/completions", "", chatOf("test-1")); refused.status != 401 {
		t.Fatalf("%d %s", refused.status, refused.body)
	}
	p.stop(syscall.SIGTERM)

	var of []map[string]string // the attributes of the spans of metered calls
	for line := range strings.Lines(p.log.String()) {
		if gjson.Get(line, "Name").String() != "metered" {
			continue
		}
		attributes := make(map[string]string)
		for _, a := range gjson.Get(line, "Attributes").Array() {
			attributes[a.Get("Key").String()] = a.Get("Value.Value").String()
		}
		if attributes["tallygate.request"] != "" {
			of = append(of, attributes)
		}
	}
	if len(of) != 1 {
		t.Fatalf("%d spans tell of a call, want one:\n%s", len(of), p.log)
	}
	for name, value := range map[string]string{
		"tallygate.payer": "alice", "tallygate.payee": "llm", "tallygate.request": called.header.Get("Tallygate-Request"),
		"tallygate.charge": called.header.Get("Tallygate-Charge"), "gen_ai.request.model": "test-1", "gen_ai.response.model": "test-1",
		"gen_ai.usage.input_tokens": "100", "gen_ai.usage.cache_read.input_tokens": "40",
		"gen_ai.usage.output_tokens": "30", "gen_ai.usage.reasoning.output_tokens": "10",
	} {
		if of[0][name] != value {
			t.Errorf("%s is %q, want %q", name, of[0][name], value)
		}
	}
}
