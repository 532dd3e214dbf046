package demo

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/tiktoken-go/tokenizer"
)

// llmAPI serves one made-up language model by OpenAI's chat completions, responses and embeddings, and by Anthropic's messages. It answers to
// every model name, and states its usage as those do, counted by the tokenizer o200k_base. If it is offered tools in OpenAI's forms, it calls
// the first one, and answers when it has the result.
func llmAPI(pace pace) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/models", listModels)
	mux.HandleFunc("POST /v1/chat/completions", func(w http.ResponseWriter, r *http.Request) { chatCompletions(w, r, pace) })
	mux.HandleFunc("POST /v1/responses", func(w http.ResponseWriter, r *http.Request) { createResponse(w, r, pace) })
	mux.HandleFunc("POST /v1/embeddings", embeddings)
	mux.HandleFunc("POST /v1/messages", func(w http.ResponseWriter, r *http.Request) { messages(w, r, pace) })
	mux.HandleFunc("POST /v1/messages/count_tokens", countTokens)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		openAIError(w, http.StatusNotFound, "", fmt.Sprintf("unknown request URL: %s %s", r.Method, r.URL.Path))
	})
	return mux
}

// brokenModel is the model that always fails, to show that a failed call costs nothing.
const brokenModel = "demo-broken"

const mostPrompt = 1 << 20 // bytes of a request's body

// readJSON reads the request's body. Its error is fit for the client.
func readJSON(w http.ResponseWriter, r *http.Request, into any) error {
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, mostPrompt)).Decode(into)
	if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
		return fmt.Errorf("the request is longer than %d bytes", mostPrompt)
	}
	if err != nil {
		return fmt.Errorf("the request is not valid JSON of this API: %w", err)
	}
	return nil
}

// content is the content of a message: a string, or a list of parts, of which only the text parts count.
type content string

func (c *content) UnmarshalJSON(data []byte) error {
	var text string
	if json.Unmarshal(data, &text) == nil { // null too
		*c = content(text)
		return nil
	}
	var parts []struct {
		Text string `json:"text"`
	}
	if err := json.Unmarshal(data, &parts); err != nil {
		return errors.New("content must be a string or a list of parts")
	}
	for _, part := range parts {
		text += part.Text
	}
	*c = content(text)
	return nil
}

type message struct {
	Role    string  `json:"role"`
	Name    string  `json:"name"`
	Content content `json:"content"`
}

var codec = sync.OnceValue(func() tokenizer.Codec {
	codec, err := tokenizer.Get(tokenizer.O200kBase)
	if err != nil {
		panic(err) // can't happen: the vocabulary is linked in
	}
	return codec
})

func countTokensOf(text string) int {
	n, err := codec().Count(text)
	if err != nil {
		return len(text)
	}
	return n
}

// promptTokens counts a conversation as OpenAI's cookbook does: 3 for each message, 1 more for a name, and 3 for the answer.
func promptTokens(conversation []message) int {
	n := 3
	for _, m := range conversation {
		n += 3 + countTokensOf(m.Role) + countTokensOf(string(m.Content))
		if m.Name != "" {
			n += 1 + countTokensOf(m.Name)
		}
	}
	return n
}

// reply is what the model says.
type reply struct {
	pieces []string // of whole characters; most are one token
	tokens int
	// cut says that the request's limit ended the answer, not the model.
	cut bool
	// call is the call of a tool, instead of a text.
	call *toolCall
}

func (a reply) text() string { return strings.Join(a.pieces, "") }

// mostQuoted is how much of the question the model repeats at most, in characters.
const mostQuoted = 200

// say returns the answer to the conversation's last message, with at most limit tokens; 0 means no limit.
func say(conversation []message, limit int) reply {
	asked := []rune(conversation[len(conversation)-1].Content)
	if len(asked) > mostQuoted {
		asked = append(asked[:mostQuoted], '…')
	}
	text := fmt.Sprintf("You said: %s. I am a demo model: I know nothing, but I count every token I say.", strings.TrimRight(string(asked), "."))
	_, tokens, err := codec().Encode(text)
	if err != nil {
		tokens = []string{text}
	}
	cut := limit > 0 && limit < len(tokens)
	if cut {
		tokens = tokens[:limit]
	}
	return reply{pieces: wholeCharacters(tokens), tokens: len(tokens), cut: cut}
}

// wholeCharacters joins tokens that contain parts of one character. If the answer is cut within a character, the character is dropped.
func wholeCharacters(tokens []string) []string {
	var pieces []string
	var open string
	for _, token := range tokens {
		open += token
		if utf8.ValidString(open) {
			pieces = append(pieces, open)
			open = ""
		}
	}
	return pieces
}

// newID makes an identifier as the two APIs do: a prefix and random letters.
func newID(prefix string) string { return prefix + "demo" + rand.Text()[:12] }
