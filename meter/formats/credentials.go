package formats

import "strings"

// credentials end the paths at which a provider makes a key, or a token, by which its holder calls the provider itself, past the meter.
//
// OpenAI: https://platform.openai.com/docs/api-reference/realtime-sessions and https://platform.openai.com/docs/api-reference/chatkit/sessions,
// xAI: https://docs.x.ai/docs/guides/voice, Gemini: https://ai.google.dev/gemini-api/docs/ephemeral-tokens, Deepgram:
// https://developers.deepgram.com/reference/auth/tokens/grant, ElevenLabs: https://elevenlabs.io/docs/api-reference/tokens/create, OpenRouter:
// https://openrouter.ai/docs/features/provisioning-api-keys
var credentials = []string{"/realtime/client_secrets", "/realtime/sessions", "/realtime/transcription_sessions", "/chatkit/sessions", "/auth_tokens",
	"/auth_tokens:create", "/auth/grant", "/auth/keys", "/api-keys", "/api_keys", "/admin_api_keys", "/service_accounts"}

// makesCredentials reports whether a request may be answered with a key of the provider.
func makesCredentials(clean string) bool {
	if strings.Contains(clean, "/single-use-token/") {
		return true
	}
	for _, end := range credentials {
		if strings.HasSuffix(clean, end) {
			return true
		}
	}
	return false
}
