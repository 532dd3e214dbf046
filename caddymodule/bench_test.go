package caddymodule_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const benchSite = `handle /bare/* {
		reverse_proxy UPSTREAM
	}
	handle /wallet/* {
		meter acme 0.000001 per call
		reverse_proxy UPSTREAM
	}
	handle /escrow/* {
		meter {
			payee llm
			tariff {
				model * {
					input 0.15 per 1M tokens
					output 0.60 per 1M tokens
				}
			}
			charge escrow {
				batch 1000 tokens
				open 1000.00 for 168h
			}
		}
		reverse_proxy UPSTREAM
	}`

// benchUpstream answers as a language model does, whole or in a stream of 100 events.
func benchUpstream(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	if !strings.Contains(string(body), `"stream":true`) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"id":"chatcmpl-1","object":"chat.completion","model":"gpt-4o-mini","choices":[{"index":0,"message":{"role":"assistant","content":"Forty-two, as far as we know."},"finish_reason":"stop"}],"usage":{"prompt_tokens":12,"completion_tokens":9,"total_tokens":21}}`)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	for i := range 100 {
		fmt.Fprintf(w, "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"model\":\"gpt-4o-mini\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"word%d \"}}]}\n\n", i)
		_ = http.NewResponseController(w).Flush()
	}
	_, _ = io.WriteString(w, "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"model\":\"gpt-4o-mini\",\"choices\":[],\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":200,\"total_tokens\":212}}\n\ndata: [DONE]\n\n")
}

// BenchmarkGateway compares Caddy without a meter with metered calls, in one run. Client, gateway and upstream share the machine. Each metered
// call is durable before its answer ends.
func BenchmarkGateway(b *testing.B) {
	s := &shop{t: b, level: "ERROR"}
	s.open("", benchSite, http.HandlerFunc(benchUpstream))
	key := s.agent("bench", "1000000")
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1024}}
	defer client.CloseIdleConnections()
	call := func(path, body string) error {
		response, err := client.Do(s.request("POST", path+"/v1/chat/completions", key, body))
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if _, err := io.Copy(io.Discard, response.Body); err != nil || response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %v", response.Status, err)
		}
		return nil
	}
	for _, kind := range []string{"whole", "stream"} {
		body := fmt.Sprintf(`{"model":"gpt-4o-mini","stream":%t,"max_tokens":300,"messages":[{"role":"user","content":"What is the answer?"}]}`, kind == "stream")
		for _, connections := range []int{1, 64, 256} {
			for _, route := range []string{"bare", "wallet", "escrow"} {
				b.Run(fmt.Sprintf("%s/connections=%d/%s", kind, connections, route), func(b *testing.B) {
					took := make([]time.Duration, b.N)
					var next atomic.Int64
					var all sync.WaitGroup
					for range connections {
						all.Go(func() {
							for i := next.Add(1) - 1; i < int64(b.N); i = next.Add(1) - 1 {
								begin := time.Now()
								if err := call("/"+route, body); err != nil {
									b.Error(err)
									return
								}
								took[i] = time.Since(begin)
							}
						})
					}
					all.Wait()
					b.StopTimer()
					slices.Sort(took)
					b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
					b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
					b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
				})
			}
		}
	}
}
