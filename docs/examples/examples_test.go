// Package examples runs the programs of this folder against a server.
package examples

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tallygate/tallygate/internal/commandtest"
	"github.com/tallygate/tallygate/internal/rounds"
	_ "github.com/tallygate/tallygate/internal/steady"
)

const (
	weekHours   = "0.002" // 7.2 seconds
	operatorKey = "operator-key-of-the-examples"
	root        = "../.."
)

// programs are the patterns, by the name of the Python program. The Go program has the same name without the underscores. Both end with
// the same balances.
var programs = []struct {
	name     string
	hasWeek  bool
	balances string
}{
	{"pay_per_call", false, "reader 99.997, provider 0.003, poor reader 0"},
	{"pay_per_token", false, "writer 99.795532, model 0.204468"},
	{"subscription", true, "weekly 170, regular 0, brief 90, provider 40"},
	{"milestones", false, "client 80, author 20"},
	{"streaming", false, "listener 99.8886, provider 0.1114"},
	{"performance", false, "client 95.9, oracle 4.1"},
	{"hybrid", true, "idle 95, late 94.99, provider 30.02"},
	{"payroll", true, "employer 4, ada 40, ben 30, cyd 25, dan 1"},
}

func TestProgramsEndWithTheBalancesTheyShould(t *testing.T) {
	t.Parallel()
	bin := build(t)
	s := open(t, bin, "")
	s.runAll(all, true, func(t *testing.T, out string, err error, balances string) {
		if err != nil {
			t.Fatalf("%v\nthe server's log:\n%s", err, s.log)
		}
		lines := strings.Split(strings.TrimSpace(out), "\n")
		if last, want := lines[len(lines)-1], "balances, as they should be: "+balances; last != want {
			t.Errorf("the last line is\n%s\nexpected\n%s", last, want)
		}
	})
	s.close()
	s.verify()
}

// In a shop that takes a commission, no provider ends with the balance that it should have.
func TestProgramsFailWhereABalanceIsNotAsItShould(t *testing.T) {
	t.Parallel()
	bin := build(t)
	s := open(t, bin, "commission 10%")
	s.runAll(all, rounds.Full(), func(t *testing.T, out string, err error, _ string) {
		if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.ExitCode() != 1 {
			t.Errorf("the program ends with %v, expected status 1", err)
		}
		if !strings.Contains(out, "balance of ") || !strings.Contains(out, ", expected ") {
			t.Error("the program does not say which balance is not as expected")
		}
	})
	s.close()
	s.verify()
}

// When answers get lost on their way, the programs ask again but don't pay again.
func TestProgramsPayOnceWhereAnswersAreLost(t *testing.T) {
	t.Parallel()
	bin := build(t)
	s := open(t, bin, "")
	target, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	var lost sync.Map // the first answer to each key: the connection breaks off, or is answered by the proxy
	var count atomic.Int64
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.ModifyResponse = func(response *http.Response) error {
		request := response.Request
		if request.Method != http.MethodPost || request.Header.Get("Authorization") == "" {
			return nil
		}
		key := request.Header.Get("Idempotency-Key")
		if _, again := lost.LoadOrStore(key, true); again && key != "" {
			return nil
		}
		if count.Add(1)%2 == 0 {
			panic(http.ErrAbortHandler)
		}
		return errors.New("the answer is lost")
	}
	proxy.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }
	between := httptest.NewServer(proxy)
	t.Cleanup(between.Close)
	s.url = between.URL
	s.runAll(withoutWeek, rounds.Full(), func(t *testing.T, out string, err error, balances string) {
		if err != nil || !strings.HasSuffix(out, ": "+balances+"\n") {
			t.Errorf("%v, expected the balances %s", err, balances)
		}
	})
	s.close()
	s.verify()
}

// The snippets and classes of the page whose patterns these programs show run as they stand, with the functions of tallygate.py. The page is
// not in the repository.
func TestSnippetsOfThePageRunAsTheyStand(t *testing.T) {
	t.Parallel()
	page := cmp.Or(os.Getenv("TALLYGATE_SEED"), filepath.Join(root, "..", "shared", "design", "SEED.txt"))
	if _, err := os.Stat(page); err != nil {
		t.Skipf("SKIPPED, the page is not here (set TALLYGATE_SEED): %v", err)
	}
	page, err := filepath.Abs(page)
	if err != nil {
		t.Fatal(err)
	}
	python, err := exec.LookPath("python3")
	if err == nil {
		err = exec.Command(python, "-c", "import requests").Run()
	}
	if err != nil && os.Getenv("CI") != "" {
		t.Fatalf("CI must have python3 with requests, which the page uses: %v", err)
	} else if err != nil {
		t.Skipf("SKIPPED, there is no python3 with requests, which the page uses: %v", err)
	}
	s := open(t, build(t), "")
	r := s.start(new(run), python, filepath.Join("testdata", "page.py"), page)
	<-r.ended
	t.Logf("\n%s", r.out)
	if r.err != nil {
		t.Errorf("%v\nthe server's log:\n%s", r.err, s.log)
	}
	s.close()
	s.verify()
}

// run is a program that runs, in Python or Go.
type run struct {
	name, balances string
	skipped        string // why it does not run
	out            string
	err            error
	ended          chan struct{}
}

const (
	all         = false
	withoutWeek = true // those that have no week to wait for
)

// runAll runs the programs side by side, as some wait for the clock most of the time, and then tests each. If not in both languages, each
// program runs in one of them, another time in the other.
func (s *server) runAll(quick, both bool, test func(t *testing.T, out string, err error, balances string)) {
	python, noPython := exec.LookPath("python3")
	if noPython != nil && os.Getenv("CI") != "" {
		s.t.Fatal("there is no python3 in PATH, which CI must have: install Python 3.11 or later")
	}
	var runs []*run
	for _, p := range programs {
		var args []string
		if p.hasWeek && quick {
			continue
		} else if p.hasWeek {
			args = []string{"--hours", weekHours}
		}
		one := rand.IntN(2)
		if both || noPython != nil || one == 0 {
			inGo := &run{name: "go/" + p.name, balances: p.balances}
			runs = append(runs, s.start(inGo, filepath.Join(s.bin, strings.ReplaceAll(p.name, "_", "")), args...))
		}
		inPython := &run{name: "python/" + p.name, balances: p.balances}
		if noPython != nil {
			inPython.skipped = "NOT TESTED: there is no python3 in PATH"
			runs = append(runs, inPython)
		} else if both || one == 1 {
			runs = append(runs, s.start(inPython, python, append([]string{filepath.Join("python", p.name+".py")}, args...)...))
		}
	}
	for _, r := range runs {
		s.t.Run(r.name, func(t *testing.T) {
			if r.skipped != "" {
				t.Skip(r.skipped)
			}
			<-r.ended
			t.Logf("\n%s", r.out)
			test(t, r.out, r.err, r.balances)
		})
	}
}

// start starts a program; its end is told by r.ended.
func (s *server) start(r *run, program string, args ...string) *run {
	cmd := exec.CommandContext(s.t.Context(), program, args...)
	cmd.Env = append(os.Environ(), "TALLYGATE_URL="+s.url, "TALLYGATE_OPERATOR_KEY="+operatorKey, "PYTHONDONTWRITEBYTECODE=1", "PYTHONPATH=python")
	r.ended = make(chan struct{})
	go func() {
		defer close(r.ended)
		out, err := cmd.CombinedOutput()
		r.out, r.err = string(out), err
	}()
	return r
}

// build builds the server and the Go programs, once for all tests, and returns the folder that they are in.
func build(t *testing.T) string {
	t.Helper()
	readSources(t)
	bin, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

var built string // removed by TestMain

var buildOnce = sync.OnceValues(func() (string, error) {
	bin, err := os.MkdirTemp("", "tallygate-examples")
	if err != nil {
		return "", err
	}
	built = bin
	folders := []string{root + "/cmd/tallygate"}
	for _, p := range programs {
		folders = append(folders, "./go/"+strings.ReplaceAll(p.name, "_", ""))
	}
	errs := make([]error, len(folders))
	var building sync.WaitGroup
	for i, folder := range folders {
		building.Go(func() {
			// Unlike go build, go run links a program again only if it has changed. What it runs is a copy of the program.
			out, err := exec.Command("go", "run", "-exec", "cp", folder, filepath.Join(bin, filepath.Base(folder))).CombinedOutput()
			if err != nil {
				errs[i] = fmt.Errorf("building %s: %w\n%s", folder, err, out)
			}
		})
	}
	building.Wait()
	return bin, errors.Join(errs...)
})

func TestMain(m *testing.M) {
	code := m.Run()
	if built != "" {
		os.RemoveAll(built)
	}
	os.Exit(code)
}

// readSources looks at every source file of the server and the programs. That tells go test to run the test again when one of them has
// changed, and not to reuse the cached result.
func readSources(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && entry.Name() == ".git" {
			return filepath.SkipDir
		}
		if extension := filepath.Ext(path); extension == ".go" || extension == ".py" {
			_, err = os.Stat(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// server is a running `tallygate run`.
type server struct {
	t      *testing.T
	bin    string
	env    []string // of all its commands, besides that of the tests
	config string   // the Caddyfile
	url    string
	cmd    *exec.Cmd
	log    *lockedBuffer
	exited chan error
}

// lockedBuffer takes a process's output while a test reads it.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// open starts a shop like the demo shop, but without providers, and with further options.
func open(t *testing.T, bin, options string) *server {
	t.Helper()
	address := commandtest.FreeAddress(t)
	return serve(t, bin, address, fmt.Sprintf(`{
	admin off
	tallygate {
		ledger bolt ledger.db
		operator_key {env.TALLYGATE_OPERATOR_KEY}
		registration open
		faucet 100.00
		min_period 1s
		%s
	}
}

http://%s {
	tallygate
}
`, options, address))
}

// serve starts a server in a folder of its own, with a Caddyfile whose site is at the address.
func serve(t *testing.T, bin, address, caddyfile string, env ...string) *server {
	t.Helper()
	s := &server{
		t: t, bin: bin, env: env, config: filepath.Join(t.TempDir(), "Caddyfile"), url: "http://" + address,
		log: new(lockedBuffer), exited: make(chan error, 1),
	}
	if err := os.WriteFile(s.config, []byte(caddyfile), 0o600); err != nil {
		t.Fatal(err)
	}
	s.cmd = s.command(filepath.Join(bin, "tallygate"), "run", "--config", s.config)
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { s.exited <- s.cmd.Wait() }()
	t.Cleanup(func() { _ = s.cmd.Process.Kill() })
	s.awaitAnswer()
	return s
}

func (s *server) awaitAnswer() {
	s.t.Helper()
	for {
		response, err := http.Get(s.url + "/openapi.json")
		if err == nil {
			response.Body.Close()
			return
		}
		select {
		case err := <-s.exited:
			s.t.Fatalf("the server has ended: %v\n%s", err, s.log)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// command is a program that runs in the server's folder, with the server's environment.
func (s *server) command(program string, args ...string) *exec.Cmd {
	dir := filepath.Dir(s.config)
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TALLYGATE_OPERATOR_KEY="+operatorKey, "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	cmd.Env = append(cmd.Env, s.env...)
	return cmd
}

// close stops the server as its owner would.
func (s *server) close() {
	s.t.Helper()
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	if err := <-s.exited; err != nil {
		s.t.Errorf("the server ends with %v\n%s", err, s.log)
	}
}

// verify checks the ledger after the programs have run.
func (s *server) verify() {
	s.t.Helper()
	if out, err := s.command(filepath.Join(s.bin, "tallygate"), "ledger", "verify", "--config", s.config).CombinedOutput(); err != nil || !strings.Contains(string(out), "the books are good") {
		s.t.Errorf("ledger verify: %v\n%s", err, out)
	}
}
