// Package commandtest runs the command tallygate in tests. The command is the test binary itself, started again, so it has the modules that the
// test has, and the race detector. Tests run, reload, stop and kill it as a process of its own.
//
// A test runs hundreds of commands, and with the race detector each of them takes most of a second to start. TALLYGATE_TEST_COMMAND names a binary
// of the command that was built without it. All commands but servers are run by that binary then: they do one thing after the other.
package commandtest

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
)

const (
	asCommand = "TALLYGATE_TEST_AS_COMMAND"
	built     = "TALLYGATE_TEST_COMMAND"
)

// Ran runs the command, and returns true, if this process was started by [Command]. TestMain calls it first, and returns then.
func Ran() bool {
	if os.Getenv(asCommand) == "" {
		return false
	}
	caddy.CustomBinaryName = "tallygate" // as the command calls itself in its help
	caddycmd.Main()
	return true
}

// Command returns the command with arguments, not started yet. Its working folder, and those for data and configuration, are one empty folder.
func Command(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	binary := os.Args[0]
	if other := os.Getenv(built); other != "" && args[0] != "run" {
		binary = other
	}
	cmd := exec.Command(binary, args...)
	cmd.Dir = t.TempDir()
	// A process with the race detector waits a second when it ends.
	cmd.Env = append(os.Environ(), asCommand+"=1", "HOME="+cmd.Dir, "XDG_DATA_HOME="+cmd.Dir, "XDG_CONFIG_HOME="+cmd.Dir,
		"GORACE=atexit_sleep_ms=50 "+os.Getenv("GORACE"))
	return cmd
}

// Server is a running `tallygate run`.
type Server struct {
	t       testing.TB
	process *os.Process
	printed *bytes.Buffer // complete when the server has ended
	ended   chan struct{}
}

// Serve starts `tallygate run`, and waits until a URL answers. At its end the test kills the server.
func Serve(t testing.TB, config, url string) Server {
	t.Helper()
	cmd := Command(t, "run", "--config", config)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := Server{t, cmd.Process, &log, make(chan struct{})}
	go func() {
		_ = cmd.Wait()
		close(s.ended)
	}()
	t.Cleanup(func() { s.End(os.Kill) })
	for {
		select {
		case <-s.ended:
			t.Fatalf("the server has ended\n%s", log.String())
		case <-time.After(20 * time.Millisecond):
		}
		if response, err := http.Get(url); err == nil {
			response.Body.Close()
			return s
		}
	}
}

// End sends a signal, and waits for the end.
func (s Server) End(signal os.Signal) {
	_ = s.process.Signal(signal)
	<-s.ended
	NoRace(s.t, s.printed.String())
}

// NoRace fails the test if the race detector reported something in what a server printed. The exit code of a server that was killed does not say so.
func NoRace(t testing.TB, printed string) {
	t.Helper()
	if at := strings.Index(printed, "WARNING: DATA RACE"); at >= 0 {
		t.Errorf("the server has a data race:\n%.8000s", printed[at:])
	}
}

// Provider is the provider behind servers that tests kill: it answers at once, and below /live it streams 35 events with a pause after each.
func Provider(pause time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/live") {
			_, _ = io.WriteString(w, "results")
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 35 {
			if _, err := fmt.Fprintf(w, "data: tick %d\n\n", i); err != nil {
				return
			}
			w.(http.Flusher).Flush()
			time.Sleep(pause) // the pace of a provider, not a wait for anything
		}
		_, _ = io.WriteString(w, "data: [DONE]\n\n")
	})
}
