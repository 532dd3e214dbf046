package caddymodule_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/anthropics/anthropic-sdk-go"
	anthropicoption "github.com/anthropics/anthropic-sdk-go/option"
	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"google.golang.org/genai"
)

// recording is a line of the recordings' index.json, as far as these tests read it.
type recording struct {
	File        string            `json:"file"`
	API         string            `json:"api"`
	Stream      bool              `json:"stream"`
	Status      int               `json:"status"`
	ContentType string            `json:"content_type"`
	Headers     map[string]string `json:"headers"`
	Model       string            `json:"model"`
	Usage       *statedUsage      `json:"usage"`
	// Iterations is the sum of Anthropic's usage.iterations, if it differs from the top level. The sum is what is billed.
	Iterations *statedUsage `json:"usage_iterations_sum"`
}

type statedUsage struct {
	Input        *int64 `json:"input"`
	Cached       *int64 `json:"cached"`
	CacheWrite   *int64 `json:"cache_write"`
	Output       *int64 `json:"output"`
	Unattributed *int64 `json:"unattributed"`
}

func value(n *int64) int64 {
	if n == nil {
		return 0
	}
	return *n
}

// billed is the usage that the provider bills, class by class. A total that exceeds its parts has hidden output in it.
func (r recording) billed() (input, cached, cacheWrite, output int64) {
	u := r.Usage
	if r.Iterations != nil {
		u = r.Iterations
	}
	input, cached, cacheWrite = value(u.Input), value(u.Cached), value(u.CacheWrite)
	return input, cached, cacheWrite, value(u.Output) + value(r.Usage.Unattributed)
}

// price returns that usage times the tariff of these tests, exactly.
func (r recording) price() string {
	input, cached, cacheWrite, output := r.billed()
	sum := new(big.Rat)
	for _, part := range []struct {
		tokens int64
		price  string
	}{{input, "3"}, {cached, "0.30"}, {cacheWrite, "3.75"}, {output, "15"}} {
		price, _ := new(big.Rat).SetString(part.price)
		sum.Add(sum, price.Mul(price, big.NewRat(part.tokens, 1_000_000)))
	}
	text := sum.FloatString(12)
	return strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
}

func readRecordings(t *testing.T, api string) []recording {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(recordings(t), "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var all, some []recording
	if err := json.Unmarshal(raw, &all); err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		if r.API == api && r.Status == 200 {
			some = append(some, r)
		}
	}
	if len(some) == 0 {
		t.Fatalf("no recordings of %s", api)
	}
	return some
}

// replay is an upstream that answers with one recording after another.
type replay struct {
	dir string
	mu  sync.Mutex
	now recording
}

func (u *replay) set(r recording) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.now = r
}

func (u *replay) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	u.mu.Lock()
	now := u.now
	u.mu.Unlock()
	body, err := os.ReadFile(filepath.Join(u.dir, now.File))
	if err != nil {
		http.Error(w, err.Error(), 500)
		return
	}
	kind := now.ContentType
	if kind == "" {
		kind = "application/json"
		if now.Stream {
			kind = "text/event-stream"
		}
	}
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(now.Status)
	for len(body) > 0 {
		n := min(1000, len(body))
		_, _ = w.Write(body[:n])
		body = body[n:]
		if now.Stream {
			w.(http.Flusher).Flush()
		}
	}
}

const recordedPrices = `
		tariff recorded {
			model * {
				input 3 per 1M tokens
				cached 0.30 per 1M tokens
				cache_write 3.75 per 1M tokens
				output 15 per 1M tokens
			}
		}`

const recordedSite = `handle /v1/* {
		meter {
			payee llm
			tariff recorded
		}
		reverse_proxy UPSTREAM
	}`

// openRecorded runs a shop whose provider replays the recordings of an API, and returns a rich agent's key.
func openRecorded(t *testing.T, api string) (*shop, *replay, string, []recording) {
	t.Helper()
	list := readRecordings(t, api)
	up := &replay{dir: recordings(t)}
	s := openShop(t, recordedPrices, recordedSite, up)
	return s, up, s.agent("alice", "1000"), list
}

// wantCharged checks that the newest charge is the recording's stated usage times the tariff.
func wantCharged(t *testing.T, s *shop, key string, r recording) {
	t.Helper()
	charge := s.charges(key)[0]
	want(t, "amount", charge["amount"].(string), r.price())
	want(t, "source", charge["source"].(string), "stated")
	want(t, "cut", charge["cut"].(string), "none")
}

func TestOpenAIClientOverAllRecordings(t *testing.T) {
	t.Parallel()
	s, up, key, list := openRecorded(t, "chat.completions")
	client := openai.NewClient(option.WithBaseURL(s.url+"/v1"), option.WithAPIKey(key), option.WithMaxRetries(0))
	for _, r := range list {
		t.Run(strings.ReplaceAll(r.File, "/", "_"), func(t *testing.T) {
			up.set(r)
			before := len(s.charges(key))
			asked := openai.ChatCompletionNewParams{Model: r.Model, Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("hello")}}
			if r.Stream {
				stream := client.Chat.Completions.NewStreaming(context.Background(), asked)
				for stream.Next() {
					if chunk := stream.Current(); len(chunk.Choices) == 0 && chunk.Usage.TotalTokens > 0 {
						t.Error("the client sees a usage chunk that it did not ask for")
					}
				}
				if err := stream.Err(); err != nil && !hasErrorEvent(t, up.dir, r) {
					t.Fatal(err)
				}
				_ = stream.Close()
			} else if _, err := client.Chat.Completions.New(context.Background(), asked); err != nil {
				t.Fatal(err)
			}
			// A client that reads an error event hangs up before the end.
			eventually(t, "one charge more", func() bool { return len(s.charges(key)) == before+1 })
			if r.Usage != nil && r.Usage.Output != nil {
				wantCharged(t, s, key, r)
			}
		})
	}
}

// hasErrorEvent reports whether a recorded stream contains an error, which the client must report.
func hasErrorEvent(t *testing.T, dir string, r recording) bool {
	t.Helper()
	body, err := os.ReadFile(filepath.Join(dir, r.File))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(body), `"error":`)
}

func TestAnthropicClientOverAllRecordings(t *testing.T) {
	t.Parallel()
	s, up, key, list := openRecorded(t, "messages")
	client := anthropic.NewClient(anthropicoption.WithBaseURL(s.url), anthropicoption.WithAPIKey(key), anthropicoption.WithMaxRetries(0))
	for _, r := range list {
		t.Run(strings.ReplaceAll(r.File, "/", "_"), func(t *testing.T) {
			up.set(r)
			before := len(s.charges(key))
			asked := anthropic.MessageNewParams{
				Model: anthropic.Model(r.Model), MaxTokens: 1000,
				Messages: []anthropic.MessageParam{anthropic.NewUserMessage(anthropic.NewTextBlock("hello"))},
			}
			if r.Stream {
				stream := client.Messages.NewStreaming(context.Background(), asked)
				var last string
				for stream.Next() {
					last = stream.Current().Type
				}
				if err := stream.Err(); err != nil {
					t.Fatal(err)
				}
				want(t, "last event", last, "message_stop")
				_ = stream.Close()
			} else if _, err := client.Messages.New(context.Background(), asked); err != nil {
				t.Fatal(err)
			}
			if n := len(s.charges(key)) - before; n != 1 {
				t.Fatalf("%d charges", n)
			}
			wantCharged(t, s, key, r)
		})
	}
}

func TestClientsSeeRefusalsAsErrorsOfTheirOwnKind(t *testing.T) {
	t.Parallel()
	s := openShop(t, chatPrices, chatSite, &chat{})
	client := openai.NewClient(option.WithBaseURL(s.url+"/v1"), option.WithAPIKey(s.agent("poor", "0")), option.WithMaxRetries(0))
	_, err := client.Chat.Completions.New(context.Background(), openai.ChatCompletionNewParams{
		Model: "test-1", Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("hello")},
	})
	var refused *openai.Error
	if !errors.As(err, &refused) || refused.StatusCode != 402 || refused.Code != "insufficient_funds" || refused.Message == "" {
		t.Errorf("openai: %v", err)
	}
}

func TestClientThatAskedForUsageSeesIt(t *testing.T) {
	t.Parallel()
	s := openShop(t, chatPrices, chatSite, &chat{})
	client := openai.NewClient(option.WithBaseURL(s.url+"/v1"), option.WithAPIKey(s.agent("alice", "1")), option.WithMaxRetries(0))
	stream := client.Chat.Completions.NewStreaming(context.Background(), openai.ChatCompletionNewParams{
		Model: "test-1", Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("hello")},
		StreamOptions: openai.ChatCompletionStreamOptionsParam{IncludeUsage: openai.Bool(true)},
	})
	var total int64
	for stream.Next() {
		total += stream.Current().Usage.TotalTokens
	}
	if err := stream.Err(); err != nil || total != 1200 {
		t.Errorf("usage of %d tokens, %v", total, err)
	}
}

// TestGoogleClientSeesTheWholeStream: the last chunk, with the finish reason and the usage, reaches Google's client, as without Tallygate. The
// client reads Tallygate's errors as Google's own.
func TestGoogleClientSeesTheWholeStream(t *testing.T) {
	t.Parallel()
	google := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for _, more := range []string{"", "", `,"finishReason":"STOP"`} {
			_, _ = fmt.Fprintf(w, "data: {\"candidates\":[{\"content\":{\"role\":\"model\",\"parts\":[{\"text\":\"hello \"}]}%s}],\"modelVersion\":\"test-1\",\"usageMetadata\":{\"promptTokenCount\":1000,\"candidatesTokenCount\":200}}\r\n\r\n", more)
			w.(http.Flusher).Flush()
		}
	})
	s := openShop(t, chatPrices, strings.Replace(chatSite, "/v1/*", "/v1beta/*", 1), google)
	direct := httptest.NewServer(google)
	defer direct.Close()
	ask := func(url, key string) (chunks string, err error) {
		client, err := genai.NewClient(t.Context(), &genai.ClientConfig{APIKey: key, Backend: genai.BackendGeminiAPI, HTTPOptions: genai.HTTPOptions{BaseURL: url}})
		if err != nil {
			t.Fatal(err)
		}
		for chunk, err := range client.Models.GenerateContentStream(t.Context(), "test-1", genai.Text("hi"), nil) {
			if err != nil {
				return chunks, err
			}
			chunk.SDKHTTPResponse = nil // it contains the time
			line, err := json.Marshal(chunk)
			if err != nil {
				t.Fatal(err)
			}
			chunks += string(line) + "\n"
		}
		return chunks, nil
	}
	wanted, err := ask(direct.URL, "key")
	if err != nil || !strings.Contains(wanted, "STOP") {
		t.Fatalf("without us: %s, %v", wanted, err)
	}
	key := s.agent("alice", "1")
	got, err := ask(s.url, key)
	if got != wanted || err != nil {
		t.Errorf("got %s, %v; want %s", got, err, wanted)
	}
	want(t, "charge", s.charges(key)[0]["amount"].(string), "0.006")

	_, err = ask(s.url, s.agent("poor", "0"))
	var refused genai.APIError
	if !errors.As(err, &refused) || refused.Code != 402 || refused.Status != "FAILED_PRECONDITION" || !strings.HasPrefix(refused.Message, "Not enough money: ") {
		t.Errorf("%v", err)
	}
}
