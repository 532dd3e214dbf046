package gateway_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/gateway"
)

const codedAnswer = `{"object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"w w w"}}],"usage":{"prompt_tokens":0,"completion_tokens":10,"total_tokens":10}}`

// compress compresses a text in a coding, with the largest window that the coding has.
func compress(t *testing.T, coding, text string) []byte {
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	switch coding {
	case "br":
		w = brotli.NewWriterOptions(&b, brotli.WriterOptions{Quality: 5, LGWin: 24})
	case "zstd":
		w, err = zstd.NewWriter(&b, zstd.WithWindowSize(8<<20))
	case "zstd with a window that is too large":
		w, err = zstd.NewWriter(&b, zstd.WithWindowSize(64<<20), zstd.WithSingleSegment(false))
	default:
		w = gzip.NewWriter(&b)
	}
	must(t, err)
	_, err = io.WriteString(w, text)
	must(t, err)
	must(t, w.Close())
	return b.Bytes()
}

// TestCompressedAnswers: an answer that the provider compresses is decoded to be counted. In shadow mode the client gets it as it came, in full
// or not; otherwise it gets it decoded.
func TestCompressedAnswers(t *testing.T) {
	t.Parallel()
	long := codedAnswer[:len(codedAnswer)-1] + `,"padding":"` + strings.Repeat("more and more ", 1<<19) + `"}` // longer than a window that is allowed
	for _, test := range []struct {
		name, coding, text string
		cut                int // bytes that are missing at its end
		counts             bool
	}{
		{"gzip", "gzip", codedAnswer, 0, true},
		{"br", "br", codedAnswer, 0, true},
		{"BR", "BR", codedAnswer, 0, true},
		{"zstd", "zstd", codedAnswer, 0, true},
		{"a long one in br", "br", long, 0, true},
		{"a long one in zstd", "zstd", long, 0, true},
		{"br, cut", "br", codedAnswer, 3, false},
		{"zstd, cut", "zstd", codedAnswer, 3, false},
		{"zstd with a window that is too large", "zstd with a window that is too large", long, 0, false},
		{"an unknown coding", "lzma", codedAnswer, 0, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			coded := compress(t, strings.ToLower(test.coding), test.text)
			coded = coded[:len(coded)-test.cut]
			provider := func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body) // in shadow mode the meter reads what the provider reads
				w.Header().Set("Content-Type", "application/json")
				coding, _, _ := strings.Cut(test.coding, " ")
				w.Header().Set("Content-Encoding", coding)
				for part := range slices.Chunk(coded, 1000) {
					_, _ = w.Write(part)
					_ = http.NewResponseController(w).Flush()
				}
			}
			for _, shadow := range []bool{true, false} {
				route := gateway.Route{Payee: "acme", Rates: rates(t, "0.01 per output_token"), Shadow: shadow, Logger: slog.New(slog.DiscardHandler)}
				s := openShopAt(t, time.Now, escrow.Rules{}, gateway.Options{}, route, nil)
				server := httptest.NewServer(gateway.New(s.book, gateway.Options{}).Handler(&route, http.HandlerFunc(provider)))
				req, err := http.NewRequestWithContext(t.Context(), "POST", server.URL+"/v1/chat/completions", strings.NewReader(`{"model":"m","messages":[],"max_tokens":20}`))
				must(t, err)
				req.Header.Set("Authorization", "Bearer "+s.key)
				req.Header.Set("Content-Type", "application/json")
				req.Header.Set("Accept-Encoding", "br, zstd, gzip") // so that the client does not decode it
				answer, err := http.DefaultClient.Do(req)
				must(t, err)
				body, err := io.ReadAll(answer.Body)
				must(t, answer.Body.Close())
				server.Close() // it waits for the end of the call
				if shadow && (err != nil || !bytes.Equal(body, coded)) {
					t.Errorf("in shadow mode the client gets %d bytes of %d: %v", len(body), len(coded), err)
				}
				if !shadow && test.counts && string(body) != test.text {
					t.Errorf("the client gets %d bytes of %d: %v", len(body), len(test.text), err)
				}
				counted := ""
				charges, _, err := s.book.Charges(escrow.ChargeFilter{}, escrow.Page{})
				must(t, err)
				for _, c := range charges {
					if c.Cut == "none" {
						counted = c.Units["output"]
					}
				}
				if (counted == "10") != test.counts {
					t.Errorf("shadow %v: counted %q, charges %v", shadow, counted, charges)
				}
			}
		})
	}
}
