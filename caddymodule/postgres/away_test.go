//go:build unix

package postgres_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger/postgres/pgtest"
)

// TestStreamWhileTheDatabaseIsAway: a stream that runs when the database stops goes on to what it holds, and then ends without its last event.
// New calls get 503 meanwhile. When the database is back, the gateway serves again without a restart, and the stream has lost at most a batch.
func TestStreamWhileTheDatabaseIsAway(t *testing.T) {
	server := pgtest.Start(t, "fsync=off")
	dsn := server.New(t)
	more := make(chan int, 1) // events that the upstream is to send
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/live") {
			_, _ = io.WriteString(w, "results")
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		for n := range more {
			for i := range n {
				_, _ = fmt.Fprintf(w, "data: tick %d\n\n", i)
			}
			w.(http.Flusher).Flush()
		}
		_, _ = io.WriteString(w, "data: [DONE]\n\n")
	}))
	defer upstream.Close()
	end := sync.OnceFunc(func() { close(more) })
	defer end()
	g := startGateway(t, server, dsn, upstream.URL, lifetime)
	l := &load{t: t, gateways: []*gateway{g}, complete: map[string]string{}, cut: map[string]int{}, begun: map[string]bool{}, statuses: map[int]int{}}
	l.keys = []string{l.agent("agent-0", "100")}
	l.agent("sink", "0.01")

	more <- 1 // with which the answer begins
	response, err := http.DefaultClient.Do(g.request(t.Context(), "GET", "/live", l.keys[0], ""))
	must(t, err)
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	events, done := 0, false
	read := func() bool {
		more := lines.Scan()
		done = done || lines.Text() == "data: [DONE]"
		if more && strings.HasPrefix(lines.Text(), "data: tick") {
			events++
		}
		return more
	}
	for events < 1 && read() {
	}
	server.Stop(syscall.SIGINT)
	more <- 3
	for events < 4 && read() {
	}
	if events != 4 {
		t.Fatalf("without the database the stream ended after %d events: %v", events, lines.Err())
	}
	l.refused(g)
	more <- 200
	end()
	for read() {
	}
	if done || events >= 200 {
		t.Errorf("without the database the stream went on to %d events, to its end: %v", events, done)
	}
	server.Run(t)
	g.await()
	l.cut[response.Header.Get("Tallygate-Request")] = events
	l.check(dsn)
	shop{t, g.base}.ask("GET", "/search", l.keys[0], "", http.StatusOK, nil)
}

// refused waits until a gateway refuses a call because the database is away.
func (l *load) refused(g *gateway) {
	l.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		switch status, text := (shop{l.t, g.base}).send("GET", "/search", l.keys[0], ""); {
		case status == http.StatusServiceUnavailable:
			return
		case time.Now().After(deadline):
			l.t.Fatalf("without the database a call got %d %s", status, text)
		}
	}
}
