//go:build unix

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
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Server is a running server.
type Server struct {
	dir      string
	binaries string
	settings []string
	schemas  atomic.Int64

	mu      sync.Mutex
	process *exec.Cmd
	ended   chan struct{}
}

// errMissing is returned if this machine has no server to run.
var errMissing = errors.New("this machine has no PostgreSQL server (Debian: apt-get install postgresql)")

// shared is the server that the tests of this process share.
var shared struct {
	once   sync.Once
	server *Server
	err    error
}

// Shared returns the server that the tests of this process share. The first call starts it, and [Main] closes it. A test may not stop it,
// and works in a schema of its own: see [Server.New]. Shared treats missing binaries as [Start] does.
func Shared(t testing.TB) *Server {
	t.Helper()
	server, err := OpenShared()
	usable(t, err)
	return server
}

// OpenShared is [Shared] outside of a test.
func OpenShared() (*Server, error) {
	shared.once.Do(func() { // a test may open a hundred ledgers
		shared.server, shared.err = Open("fsync=off", "max_connections=1000")
	})
	return shared.server, shared.err
}

// Main runs the tests of a package, closes the server that they shared, and returns the exit code. TestMain calls it if a test of its
// package uses [Shared].
func Main(m *testing.M) int {
	code := m.Run()
	if shared.server == nil {
		return code
	}
	if err := shared.server.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// usable skips the test if this machine has no server to run, and fails it for any other error.
func usable(t testing.TB, err error) {
	t.Helper()
	switch {
	case errors.Is(err, errMissing) && os.Getenv("CI") != "true":
		t.Skipf("NOT TESTED: %v", err)
	case err != nil:
		t.Fatal(err)
	}
}

// Start starts a server for a test that stops it, or that needs other settings than [Shared] has. The server is stopped when the test ends.
// Without PostgreSQL's binaries the test is skipped; if the environment says CI=true, it fails instead. Settings are of the form
// "name=value".
func Start(t testing.TB, settings ...string) *Server {
	t.Helper()
	s, err := Open(settings...)
	usable(t, err)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Open starts a server outside of a test. Its caller closes it.
func Open(settings ...string) (s *Server, err error) {
	s = &Server{settings: settings}
	if s.binaries, err = find(); err != nil {
		return nil, err
	}
	if s.dir, err = newDir(); err != nil {
		return nil, err
	}
	if err = s.begin(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close stops the server and removes its files.
func (s *Server) Close() error {
	s.Stop(syscall.SIGQUIT)
	return os.RemoveAll(s.dir)
}

func (s *Server) begin() error {
	out, err := s.command("initdb", "-D", s.data(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions").CombinedOutput()
	if err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	return s.run()
}

// Standby starts a server that replicates this one, as it is now. Synchronous makes each commit on this server wait for the standby from now
// on. The standby serves reads; [Server.Promote] makes it a server of its own.
func (s *Server) Standby(t testing.TB, synchronous bool) *Server {
	t.Helper()
	standby, err := s.standby()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := standby.Close(); err != nil {
			t.Error(err)
		}
	})
	if synchronous {
		s.Exec(t, "alter system set synchronous_standby_names = '*'")
		s.Exec(t, "select pg_reload_conf()")
	}
	want := "state = 'streaming'"
	if synchronous {
		want += " and sync_state = 'sync'"
	}
	s.Await(t, "select exists (select from pg_stat_replication where "+want+")")
	return standby
}

func (s *Server) standby() (*Server, error) {
	standby := &Server{settings: s.settings}
	var err error
	if standby.binaries, err = realBinaries(s.binaries); err != nil {
		return nil, err
	}
	if standby.dir, err = newDir(); err != nil {
		return nil, err
	}
	out, err := standby.command("pg_basebackup", "-h", s.dir, "-U", "postgres", "-D", standby.data(), "-R", "-c", "fast").CombinedOutput()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("pg_basebackup: %w: %s", err, out), standby.Close())
	}
	if err := standby.run(); err != nil {
		return nil, errors.Join(err, standby.Close())
	}
	return standby, nil
}

// Promote makes a standby a server of its own, as after a failover.
func (s *Server) Promote(t testing.TB) {
	t.Helper()
	s.Exec(t, "select pg_promote(true, 60)")
}

// Detach makes a standby receive nothing any more from its primary.
func (s *Server) Detach(t testing.TB) {
	t.Helper()
	s.Exec(t, "alter system set primary_conninfo = ''")
	s.Exec(t, "select pg_reload_conf()")
	s.Await(t, "select not exists (select from pg_stat_wal_receiver)")
}

// Await waits until a query returns true. Null is not true: a standby that has just connected tells no position yet.
func (s *Server) Await(t testing.TB, sql string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.dsn())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	for is := new(bool); is == nil || !*is; {
		if err := conn.QueryRow(ctx, sql).Scan(&is); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		time.Sleep(time.Millisecond)
	}
}

// Both returns a DSN for a schema of this server that also names its standby: a client finds the one of them that takes writes.
func (s *Server) Both(dsn string, standby *Server) string {
	return strings.Replace(dsn, "host="+s.dir, "host="+s.dir+","+standby.dir, 1) + "&target_session_attrs=read-write"
}

// realBinaries returns the folder that has all of the server's programs. The folder of the search path may have links to a few.
func realBinaries(folder string) (string, error) {
	path, err := filepath.EvalSymlinks(filepath.Join(folder, "initdb"))
	return filepath.Dir(path), err
}

// newDir makes a folder for a server: where TMPDIR says, or else in memory, or else on the disk.
func newDir() (string, error) {
	parent := os.Getenv("TMPDIR")
	if parent == "" {
		parent = inMemory()
	}
	dir, err := os.MkdirTemp(parent, "pgtest")
	if err != nil && parent != "" {
		dir, err = os.MkdirTemp("", "pgtest") // for one who may not write there
	}
	if who := runAs(); err == nil && who != nil {
		err = os.Chown(dir, int(who.Uid), int(who.Gid))
	}
	return dir, err
}

// find returns the folder of the newest server on this machine.
func find() (string, error) {
	if path, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(path), nil
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(found) == 0 {
		return "", errMissing
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
	if err := s.run(); err != nil {
		t.Fatal(err)
	}
}

func (s *Server) run() error {
	args := []string{"-D", s.data(), "-k", s.dir, "-h", "", "-c", "max_connections=200"}
	for _, setting := range s.settings {
		args = append(args, "-c", setting)
	}
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	c := s.command("postgres", args...)
	c.Stdout, c.Stderr = log, log
	started := make(chan error)
	ended := make(chan struct{})
	go run(c, started, ended)
	if err := <-started; err != nil {
		return err
	}
	s.mu.Lock()
	s.process, s.ended = c, ended
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, s.dsn())
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("the server does not answer: %w", err)
		case <-ended:
			text, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			return fmt.Errorf("the server has ended: %s", text)
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

// Freeze stops the processes that serve clients in the middle of what they do, until thaw is called. New clients are served.
func (s *Server) Freeze(t testing.TB) (thaw func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.dsn())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, "select pid from pg_stat_activity where pid <> pg_backend_pid() and backend_type = 'client backend'")
	if err != nil {
		t.Fatal(err)
	}
	backends, err := pgx.CollectRows(rows, pgx.RowTo[int32])
	if err != nil {
		t.Fatal(err)
	}
	signal := func(what syscall.Signal) {
		for _, pid := range backends {
			_ = syscall.Kill(int(pid), what) // one may have ended meanwhile
		}
	}
	signal(syscall.SIGSTOP)
	return func() { signal(syscall.SIGCONT) }
}

func (s *Server) dsn() string {
	return fmt.Sprintf("postgres:///postgres?host=%s&user=postgres", s.dir)
}

// New makes an empty schema, and returns the DSN of connections that work in it.
func (s *Server) New(t testing.TB) string {
	t.Helper()
	dsn, err := s.Schema()
	if err != nil {
		t.Fatal(err)
	}
	return dsn
}

// Schema is New outside of a test.
func (s *Server) Schema() (dsn string, err error) {
	name := fmt.Sprintf("test%d", s.schemas.Add(1))
	return s.dsn() + "&search_path=" + name, s.exec("create schema " + name)
}

// Exec executes an SQL statement as the superuser.
func (s *Server) Exec(t testing.TB, sql string) {
	t.Helper()
	if err := s.exec(sql); err != nil {
		t.Fatal(err)
	}
}

func (s *Server) exec(sql string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.dsn())
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	if _, err = conn.Exec(ctx, sql); err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	return nil
}

// Socket returns the path of the socket on which the server listens.
func (s *Server) Socket() string { return filepath.Join(s.dir, ".s.PGSQL.5432") }
