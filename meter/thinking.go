package meter

import "strings"

// ShowsSummaries reports whether a model, by its name, may show only a summary of its reasoning. All of its reasoning is charged, so counting
// what it shows is not enough. Every model of [ThinksUnseen] may do so, and Claude does from version 4 on
// (https://docs.anthropic.com/en/docs/build-with-claude/extended-thinking#summarized-thinking).
func ShowsSummaries(model string) bool {
	model = strings.ToLower(model)
	claude := strings.Contains(model, "claude") && !strings.Contains(model, "claude-3") && !strings.Contains(model, "claude-2")
	return claude || ThinksUnseen(model)
}

// ThinksUnseen reports whether a model, by its name, has hidden reasoning, which is charged as output: OpenAI's o1, o3, ... and gpt-5,
// Gemini from 2.5 on, and xAI's grok-3-mini and grok-4.
func ThinksUnseen(model string) bool {
	model = strings.ToLower(model)
	model = model[strings.LastIndexByte(model, '/')+1:]
	model = strings.TrimPrefix(model, "ft:")
	for _, prefix := range []string{"gpt-5", "gpt-6", "codex", "gemini-2.5", "gemini-3", "gemini-4", "grok-3-mini", "grok-4", "grok-5"} {
		if strings.HasPrefix(model, prefix) {
			return true
		}
	}
	return len(model) > 1 && model[0] == 'o' && '0' < model[1] && model[1] <= '9'
}
