package caddymodule_test

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	hostileStreams = 500
	// boundOfMemory is what docs/security.md states for so many hostile streams at once, in MB of the process.
	boundOfMemory = 600
)

// rss is the resident memory of the process in MB: now, and the most it ever was.
func (p *process) rss() (now, most int) {
	p.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.t.Skipf("SKIPPED: the memory of a process is read from /proc: %v", err)
	}
	field := func(name string) int {
		_, rest, _ := strings.Cut(string(status), name+":")
		kb, _ := strconv.Atoi(strings.Fields(rest)[0])
		return kb / 1024
	}
	return field("VmRSS"), field("VmHWM")
}

// torrent is an upstream that sends a lot and then stalls, until it is let go.
type torrent struct {
	stalled atomic.Int64
	release chan struct{}
}

// pieces are what a torrent repeats, by the kind in the query.
var pieces = map[string]struct {
	kind, begin, piece string
	bytes              int
}{
	"a line without an end":   {"text/event-stream", "data: ", strings.Repeat("x", 64<<10), 256 << 10},
	"an event without an end": {"text/event-stream", "", "data: " + strings.Repeat("x", 64<<10) + "\n", 256 << 10},
	"events":                  {"text/event-stream", "", strings.Repeat(`data: {"choices":[{"delta":{"content":"hello there"}}]}`+"\n\n", 500), 128 << 10},
	"comments":                {"text/event-stream", "", strings.Repeat(": hello\n", 5000), 256 << 10},
	"what follows the end":    {"text/event-stream", "data: [DONE]\n\n", ": " + strings.Repeat("x", 64<<10) + "\n", 512 << 10},
	"a huge answer":           {"application/json", `{"choices":[{"message":{"content":"`, strings.Repeat("word ", 10_000), 128 << 10},
	"a huge usage":            {"application/json", `{"usage":{"x":"`, strings.Repeat("word ", 10_000), 256 << 10},
	"ever deeper":             {"application/json", `{"choices":`, strings.Repeat("[", 64<<10), 256 << 10},
	"many values":             {"application/json", `{"choices":[`, strings.Repeat(`{"message":{"content":"x","tool_calls":[{"function":{"name":"f"}}]}},`, 500), 256 << 10},
	"lines":                   {"application/x-ndjson", "", strings.Repeat(`{"a":1}`+"\n", 5000), 128 << 10},
}

func (u *torrent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	p := pieces[r.URL.Query().Get("kind")]
	w.Header().Set("Content-Type", p.kind)
	_, _ = io.WriteString(w, p.begin)
	for sent := 0; sent < p.bytes; sent += len(p.piece) {
		if _, err := io.WriteString(w, p.piece); err != nil {
			break
		}
	}
	_ = http.NewResponseController(w).Flush()
	u.stalled.Add(1)
	select {
	case <-u.release:
	case <-r.Context().Done():
	}
}

// TestMemoryUnderHostileStreams has 500 streams at once send what is hard to hold back, and measures the server.
func TestMemoryUnderHostileStreams(t *testing.T) {
	for _, kind := range slices.Sorted(maps.Keys(pieces)) {
		t.Run(kind, func(t *testing.T) {
			up := &torrent{release: make(chan struct{})}
			p := newProcess(t, "1s", chatPrices, chatSite, up)
			p.start()
			idle, _ := p.rss()
			body := strings.Replace(chatStream, "test-1", "free", 1)
			if pieces[kind].kind == "application/json" {
				body = strings.Replace(chatBody, "test-1", "free", 1)
			}
			key := p.agent("alice", "1")
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			var clients sync.WaitGroup
			var failures sync.Map
			for range hostileStreams {
				r := p.request("POST", chatCompletions+"?kind="+url.QueryEscape(kind), key, body)
				clients.Go(func() {
					response, err := client.Do(r)
					if err != nil {
						t.Error(err)
						return
					}
					defer response.Body.Close()
					if _, err := io.Copy(io.Discard, response.Body); err != nil || response.StatusCode != 200 {
						failures.Store(response.Status, fmt.Sprint(err))
					}
				})
			}
			began := time.Now()
			for up.stalled.Load() < hostileStreams && time.Since(began) < 2*time.Minute {
				time.Sleep(20 * time.Millisecond)
			}
			now, most := p.rss()
			cpu, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
			t.Logf(kind+": %d streams stalled after %s: %d MB (idle %d MB, most %d MB) %s", up.stalled.Load(), time.Since(began), now, idle, most, strings.Fields(string(cpu))[13])
			close(up.release)
			clients.Wait()
			failures.Range(func(status, err any) bool { t.Error(kind, status, err); return true })
			for line := range strings.Lines(p.log.String()) {
				if strings.Contains(line, "error") {
					t.Log(line[:min(len(line), 600)])
					break
				}
			}
			if most > boundOfMemory {
				t.Errorf("%d MB", most)
			}
			p.wantNoPanic()
			p.stop(syscall.SIGTERM)
		})
	}
}
