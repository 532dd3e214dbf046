package caddymodule_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
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

	"github.com/tallygate/tallygate/internal/rounds"
)

const (
	hostileStreams = 500
	// boundOfMemory is the bound in docs/security.md for hostileStreams streams at the same time, in MB of the process.
	boundOfMemory = 768
	// Few rounds have fewer streams, and a bound in proportion, beside what an idle process has.
	fewStreams, boundOfFew = 100, 256
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

// torrent is an upstream that sends a lot and then stalls until it is released.
type torrent struct {
	stalled atomic.Int64
	release chan struct{}
}

// pieces are what a torrent repeats, by the kind in the query. Each kind sends more bytes than a counter keeps of it.
var pieces = map[string]struct {
	kind, begin, piece string
	bytes              int
}{
	"a line without an end":   {"text/event-stream", "data: ", strings.Repeat("x", 64<<10), 256 << 10},
	"an event without an end": {"text/event-stream", "", "data: " + strings.Repeat("x", 64<<10) + "\n", 256 << 10},
	"events":                  {"text/event-stream", "", strings.Repeat(`data: {"choices":[{"delta":{"content":"hello there"}}]}`+"\n\n", 500), 64 << 10},
	"comments":                {"text/event-stream", "", strings.Repeat(": hello\n", 5000), 256 << 10},
	"what follows the end":    {"text/event-stream", "data: [DONE]\n\n", ": " + strings.Repeat("x", 64<<10) + "\n", 512 << 10},
	"a huge answer":           {"application/json", `{"choices":[{"message":{"content":"`, strings.Repeat("word ", 10_000), 96 << 10},
	"a huge usage":            {"application/json", `{"usage":{"x":"`, strings.Repeat("word ", 10_000), 256 << 10},
	"ever deeper":             {"application/json", `{"choices":`, strings.Repeat("[", 64<<10), 256 << 10},
	"many values":             {"application/json", `{"choices":[`, strings.Repeat(`{"message":{"content":"x","tool_calls":[{"function":{"name":"f"}}]}},`, 500), 256 << 10},
	"lines":                   {"application/x-ndjson", "", strings.Repeat(`{"a":1}`+"\n", 5000), 64 << 10},
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

// raceDetector is true if this test binary runs with the race detector.
var raceDetector bool

// skipUnderRace skips a test that measures memory: the race detector takes several times as much. .ci/run runs it without.
func skipUnderRace(t *testing.T) {
	t.Helper()
	if raceDetector {
		t.Skip("SKIPPED: the race detector's own memory would be measured; run it without -race")
	}
}

// TestMemoryUnderHostileStreams measures the server while 500 streams at the same time send data that is hard to hold back, one kind after the
// other.
func TestMemoryUnderHostileStreams(t *testing.T) {
	skipUnderRace(t)
	streams, bound := rounds.Of(fewStreams, hostileStreams), rounds.Of(boundOfFew, boundOfMemory)
	up := &torrent{}
	p := newProcess(t, "1s", chatPrices, chatSite, up)
	p.start()
	idle, _ := p.rss()
	t.Logf("idle %d MB", idle)
	key := p.agent("alice", "1")
	for _, kind := range slices.Sorted(maps.Keys(pieces)) {
		t.Run(kind, func(t *testing.T) {
			up.stalled.Store(0)
			up.release = make(chan struct{})
			body := strings.Replace(chatStream, "test-1", "free", 1)
			if pieces[kind].kind == "application/json" {
				body = strings.Replace(chatBody, "test-1", "free", 1)
			}
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			var clients sync.WaitGroup
			var failed atomic.Int64
			for range streams {
				r := p.request("POST", chatCompletions+"?kind="+url.QueryEscape(kind), key, body)
				clients.Go(func() {
					response, err := client.Do(r)
					if err != nil {
						failed.Add(1)
						t.Error(err)
						return
					}
					defer response.Body.Close()
					if _, err := io.Copy(io.Discard, response.Body); err != nil || response.StatusCode != 200 {
						failed.Add(1)
						t.Error(response.Status, err)
					}
				})
			}
			eventually(t, "all streams stall", func() bool { return up.stalled.Load()+failed.Load() >= int64(streams) })
			now, most := p.rss()
			t.Logf("%d streams: %d MB, at most %d MB so far", up.stalled.Load(), now, most)
			if most > bound || up.stalled.Load() < int64(streams) {
				t.Errorf("%d streams took %d MB", up.stalled.Load(), most)
			}
			close(up.release)
			clients.Wait()
			eventually(t, "no call is left", func() bool { return p.api("GET", "/wallet", key, nil, 200)["held"] == "0" })
		})
	}
	p.wantNoPanic()
	p.stop(syscall.SIGTERM)
}

// TestMemoryOfHostileBodies measures the server while 500 clients at the same time send request bodies that are large or never end.
func TestMemoryOfHostileBodies(t *testing.T) {
	skipUnderRace(t)
	const agents, size = 10, 1 << 20
	large := `{"model":"free","stream":true,"messages":[{"role":"user","content":"` + strings.Repeat("word ", size/5) + `"}]}`
	for _, test := range []struct {
		name    string
		sent    int // bytes of the body that are sent
		refused bool
	}{{"large", len(large), true}, {"slow", 64 << 10, false}} {
		t.Run(test.name, func(t *testing.T) {
			up := &torrent{release: make(chan struct{})}
			p := newProcess(t, "1s", chatPrices, chatSite, up)
			p.start()
			var keys []string
			for i := range agents {
				keys = append(keys, p.agent(fmt.Sprintf("agent-%d", i), "1"))
			}
			var clients sync.WaitGroup
			var refused, sending atomic.Int64
			hold := make(chan struct{})
			for i := range hostileStreams {
				clients.Go(func() {
					conn, err := net.Dial("tcp", "127.0.0.1:"+p.port)
					if err != nil {
						t.Error(err)
						return
					}
					defer conn.Close()
					_, _ = fmt.Fprintf(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: application/json\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n", keys[i%agents], len(large))
					_, _ = io.WriteString(conn, large[:test.sent])
					sending.Add(1)
					if test.sent < len(large) {
						<-hold
						return
					}
					if r, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || r.StatusCode == 429 { // or it hung up on who goes on sending
						refused.Add(1)
						return
					}
					<-hold
				})
			}
			eventually(t, "all bodies are on their way", func() bool { return sending.Load() == hostileStreams })
			eventually(t, "all are kept or refused", func() bool {
				return test.sent < len(large) || up.stalled.Load()+refused.Load() == hostileStreams
			})
			now, most := p.rss()
			t.Logf("%d bodies kept, %d refused: %d MB, at most %d MB", up.stalled.Load(), refused.Load(), now, most)
			if most > boundOfMemory {
				t.Errorf("the server took %d MB", most)
			}
			if (refused.Load() > 0) != test.refused {
				t.Errorf("%d calls were refused", refused.Load())
			}
			close(hold)
			close(up.release)
			clients.Wait()
			eventually(t, "there is room again", func() bool {
				return p.do("POST", chatCompletions, keys[0], large).status == 200
			})
			p.wantNoPanic()
			p.stop(syscall.SIGTERM)
		})
	}
}

// TestBodiesThatAreTooLarge: a meter reads no more than max_body of a request body.
func TestBodiesThatAreTooLarge(t *testing.T) {
	t.Parallel()
	up := &witness{}
	s := openShop(t, chatPrices+"\n\t\tmax_bodies 200000", strings.Replace(chatSite, "tariff chat", "tariff chat\n\t\t\tmax_body 50000", 1)+"\n\t"+perCallSite, up)
	key := s.agent("alice", "1")
	body := func(size int) string {
		return `{"model":"test-1","messages":[{"role":"user","content":"` + strings.Repeat("x", size) + `"}]}`
	}
	for _, chunked := range []bool{false, true} {
		for _, test := range []struct {
			path         string
			size, status int
		}{{chatCompletions, 40_000, 200}, {chatCompletions, 60_000, 413}, {chatCompletions, 10 << 20, 413}, {"/search", 10 << 20, 200}} {
			r := s.request("POST", test.path, key, body(test.size))
			if chunked {
				r.ContentLength, r.Body = -1, io.NopCloser(strings.NewReader(body(test.size)))
			}
			a := send(t, r)
			if a.status != test.status && (a.err == nil || test.status != 413) { // a server may hang up on who goes on sending
				t.Errorf("%s, %d bytes, chunked %v: %d %s %v, want %d", test.path, test.size, chunked, a.status, a.body, a.err, test.status)
			}
			up.take()
		}
	}
	deep := `{"model":"test-1","messages":[{"role":"user","content":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + `}]}`
	wantProblem(t, s.do("POST", chatCompletions, key, deep), 422, "invalid_request")
	var keys strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&keys, `,"k%d":1`, i)
	}
	wantProblem(t, s.do("POST", chatCompletions, key, `{"model":"test-1","messages":[]`+keys.String()+"}"), 422, "invalid_request")
	var lines strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&lines, "X-%d: 1\r\n", i)
	}
	if answer := s.speak("GET /search HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nAuthorization: Bearer " + key + "\r\n" + lines.String() + "\r\n"); !strings.HasPrefix(answer, "HTTP/1.1 431") {
		t.Errorf("ten thousand headers: %.100s", answer)
	}
	if got := up.take(); len(got) > 0 {
		t.Errorf("%d of them reached the provider", len(got))
	}
}

// quoted returns a text as a JSON string.
func quoted(t *testing.T, text string) string {
	t.Helper()
	out, err := json.Marshal(text)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestTextThatIsHardToTokenise: text without spaces, or only of spaces, is counted as fast as other text.
func TestTextThatIsHardToTokenise(t *testing.T) {
	t.Parallel()
	up := &liar{}
	s := openShop(t, chatPrices, chatSite, up)
	key := s.agent("alice", "1000")
	for name, text := range map[string]string{
		"one letter": strings.Repeat("a", 1<<20), "spaces": strings.Repeat(" ", 1<<20), "digits": strings.Repeat("1234567890", 100_000), "marks": strings.Repeat("!?", 500_000),
		"wide": strings.Repeat("\u4f60\u597d", 170_000), "no text": strings.Repeat("\x01", 1<<18), "mixed": strings.Repeat("aB3_ ", 200_000), "emoji": strings.Repeat("\U0001F469\u200d", 140_000),
	} {
		t.Run(name, func(t *testing.T) {
			s.t = t
			up.answer = answers(200, `{"model":"test-1","choices":[{"message":{"content":`+quoted(t, text)+`}}]}`, "Content-Type", "application/json")
			began := time.Now()
			a := s.do("POST", chatCompletions, key, `{"model":"test-1","messages":[{"role":"user","content":"hi"}]}`)
			if a.err != nil || a.status != 200 {
				t.Fatalf("%d %.200s %v", a.status, a.body, a.err)
			}
			t.Logf("a megabyte in %s: %v", time.Since(began), s.charges(key)[0]["units"])
		})
	}
}
