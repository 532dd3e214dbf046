package wire

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/tallygate/tallygate/meter"
)

// TestALongPromptIsEstimatedFromAllOfIt: text that is cheap to begin with does not make what follows cheaper.
func TestALongPromptIsEstimatedFromAllOfIt(t *testing.T) {
	prompt := NewPrompt(0, 0, []string{"prompt"}, nil)
	dense := strings.Repeat("q7x!Z9?k", 64<<10) // 512 KiB
	count := func(text string) int64 {
		body, err := json.Marshal(map[string]string{"model": "gpt-4o", "prompt": text})
		if err != nil {
			t.Fatal(err)
		}
		return prompt.Tokens(&meter.Call{Model: "gpt-4o", Body: body})
	}
	alone := count(dense)
	if padded := count(strings.Repeat(" ", 256<<10) + dense); padded < alone*8/10 {
		t.Errorf("%d tokens behind 256 KiB of spaces, %d without them", padded, alone)
	}
	if short, once := count(dense[:1<<10]), count(dense[:2<<10]); once < short*19/10 || alone < once*256*8/10 {
		t.Errorf("1 KiB has %d tokens, 2 KiB %d, 512 KiB %d", short, once, alone)
	}
}
