//go:build unix

// Package pgtest starts a private PostgreSQL server for tests, from the binaries on this machine. The server lives in a temporary folder
// and listens on a Unix socket there. PostgreSQL refuses to run as root, so root runs it as the user nobody.
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Server is a running server. It is stopped when the test ends that started it.
type Server struct {
	dir      string
	binaries string
	settings []string
	schemas  atomic.Int64

	mu      sync.Mutex
	process *exec.Cmd
	ended   chan struct{}
}

// Start starts a server. Without PostgreSQL's binaries the test is skipped; if the environment says CI=true, it fails instead. Settings are
// of the form "name=value".
func Start(t testing.TB, settings ...string) *Server {
	t.Helper()
	binaries, err := find()
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%v; with CI=true, this test must not be skipped", err)
		}
		t.Skipf("NOT TESTED: %v", err)
	}
	s := &Server{binaries: binaries, settings: settings}
	if s.dir, err = os.MkdirTemp("", "pgtest"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Stop(syscall.SIGQUIT)
		if err := os.RemoveAll(s.dir); err != nil {
			t.Error(err)
		}
	})
	if who := runAs(); who != nil {
		if err := os.Chown(s.dir, int(who.Uid), int(who.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	out, err := s.command("initdb", "-D", s.data(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions").CombinedOutput()
	if err != nil {
		t.Fatalf("initdb: %v: %s", err, out)
	}
	s.Run(t)
	return s
}

// find returns the folder of the newest server on this machine.
func find() (string, error) {
	if path, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(path), nil
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(found) == 0 {
		return "", errors.New("this machine has no PostgreSQL server (Debian: apt-get install postgresql)")
	}
	version := func(path string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		return n
	}
	return slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) }), nil
}

// runAs returns whom the server runs as, or nil if that is the current user.
func runAs() *syscall.Credential {
	if os.Geteuid() != 0 {
		return nil
	}
	who := &syscall.Credential{Uid: 65534, Gid: 65534}
	if nobody, err := user.Lookup("nobody"); err == nil {
		uid, _ := strconv.ParseUint(nobody.Uid, 10, 32)
		gid, _ := strconv.ParseUint(nobody.Gid, 10, 32)
		who.Uid, who.Gid = uint32(uid), uint32(gid)
	}
	return who
}

func (s *Server) command(name string, args ...string) *exec.Cmd {
	c := exec.Command(filepath.Join(s.binaries, name), args...)
	c.Dir, c.SysProcAttr = s.dir, attributes(runAs())
	return c
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// Run starts the server again after Stop, and waits until it answers.
func (s *Server) Run(t testing.TB) {
	t.Helper()
	args := []string{"-D", s.data(), "-k", s.dir, "-h", "", "-c", "max_connections=200"}
	for _, setting := range s.settings {
		args = append(args, "-c", setting)
	}
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	c := s.command("postgres", args...)
	c.Stdout, c.Stderr = log, log
	started := make(chan error)
	ended := make(chan struct{})
	go run(c, started, ended)
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.process, s.ended = c, ended
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, s.dsn())
		if err == nil {
			_ = conn.Close(ctx)
			return
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("the server does not answer: %v", err)
		case <-ended:
			text, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			t.Fatalf("the server has ended: %s", text)
		}
	}
}

// Stop ends the server: SIGTERM waits for its clients, SIGINT ends their sessions, SIGQUIT is a crash.
func (s *Server) Stop(how syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return
	}
	_ = s.process.Process.Signal(how)
	<-s.ended
	s.process = nil
}

func (s *Server) dsn() string {
	return fmt.Sprintf("postgres:///postgres?host=%s&user=postgres", s.dir)
}

// New makes an empty schema, and returns the DSN of connections that work in it.
func (s *Server) New(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("test%d", s.schemas.Add(1))
	s.Exec(t, "create schema "+name)
	return s.dsn() + "&search_path=" + name
}

// Exec executes an SQL statement as the superuser.
func (s *Server) Exec(t testing.TB, sql string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.dsn())
	if err == nil {
		_, err = conn.Exec(ctx, sql)
		_ = conn.Close(ctx)
	}
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}
