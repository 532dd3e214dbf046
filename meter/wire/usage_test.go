package wire_test

import (
	"testing"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/wire"
)

// FuzzReadUsage: whatever a usage states, no class is negative, and none is more than all that is stated.
func FuzzReadUsage(f *testing.F) {
	f.Add(`{"prompt_tokens":300,"completion_tokens":20,"total_tokens":9320,"cache_read_input_tokens":9000}`)
	f.Add(`{"input_tokens":4,"output_tokens":3,"cache_creation":{"ephemeral_1h_input_tokens":7,"ephemeral_5m_input_tokens":5}}`)
	f.Add(`{"prompt_tokens":2168,"completion_tokens":100,"prompt_tokens_details":{"cached_tokens":2161,"cache_write_tokens":2161,"audio_tokens":1}}`)
	f.Add(`{"inputTokens":-1,"outputTokens":1e99,"totalTokens":"7","reasoning_tokens":[1],"citation_tokens":{},"connector_tokens":5}`)
	f.Fuzz(func(t *testing.T, usage string) {
		s := wire.ReadUsage(gjson.Parse(usage).Get)
		if s.Prompt < 0 || s.Completion < 0 || s.Cached < 0 || s.CacheWrite < 0 || s.CacheWrite1h > s.CacheWrite || s.Reasoning < 0 {
			t.Fatalf("%+v", s)
		}
		for class, q := range s.Units() {
			if q < 0 || q > meter.MaxQuantity || q > meter.Whole(s.Prompt+s.Completion) {
				t.Fatalf("%s %s of %+v", class, q, s)
			}
		}
	})
}
