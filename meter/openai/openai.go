package openai

import (
	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/wire"
)

// Inspect recognises a request by the end of its path, wherever the API is mounted: /v1, /openai/deployments/NAME,
// /compatible-mode/v1, ... It returns nil for what is not OpenAI's.
func Inspect(r *wire.Request) (*meter.Call, error) {
	switch {
	case r.Post("/chat/completions"):
		return inspectChat(r, chatAPI, quietChat)
	case r.Post("/completions"):
		return inspectChat(r, completions, quietComplete)
	}
	return nil, nil
}
