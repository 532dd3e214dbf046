package caddymodule_test

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tallygate/tallygate/internal/commandtest"
)

func TestMain(m *testing.M) {
	if commandtest.Ran() {
		return
	}
	waitTogether()
	closed, err := openProcess()
	if err != nil {
		log.Fatal(err)
	}
	status := m.Run()
	if err := closed(); err != nil {
		log.Print(err)
		status = 1
	}
	os.Exit(status)
}

// waitTogether runs more tests at the same time than there are processors, since tests with a shop mostly wait. The flag -parallel overrides it.
func waitTogether() {
	flag.Parse()
	asked := false
	flag.Visit(func(f *flag.Flag) { asked = asked || f.Name == "test.parallel" })
	if !asked {
		_ = flag.Set("test.parallel", strconv.Itoa(4*runtime.GOMAXPROCS(0)))
	}
}

// process is a running `tallygate run`.
type process struct {
	*shop
	cmd    *exec.Cmd
	config string // the Caddyfile
	admin  string
	log    *syncBuffer
	exited chan error
}

// syncBuffer collects a process's output while a test reads it.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// run runs a command to its end. It returns the exit code and the output, and after a failure also the log.
func run(t testing.TB, args ...string) (int, string) {
	t.Helper()
	cmd := commandtest.Command(t, args...)
	var log bytes.Buffer
	cmd.Stderr = &log
	out, err := cmd.Output()
	if err == nil {
		return 0, string(out)
	}
	if exit, ok := err.(*exec.ExitError); ok {
		return exit.ExitCode(), string(out) + log.String()
	}
	t.Fatalf("tallygate %s: %v", strings.Join(args, " "), err)
	return 0, ""
}

// newProcess prepares a shop in a process of its own; start starts it.
func newProcess(t testing.TB, grace, options, site string, upstream http.Handler) *process {
	t.Helper()
	dir := t.TempDir()
	backend := httptest.NewServer(upstream)
	t.Cleanup(backend.Close)
	p := &process{
		shop:   &shop{t: t, db: filepath.Join(dir, "ledger.db"), port: commandtest.FreePort(t)},
		config: filepath.Join(dir, "Caddyfile"), admin: commandtest.FreeAddress(t),
	}
	p.url = "http://127.0.0.1:" + p.port
	p.write(grace, options, withUpstream(site, backend))
	return p
}

func (p *process) write(grace, options, site string) {
	p.t.Helper()
	text := p.caddyfile(options, site)
	text = strings.Replace(text, "admin off", "admin "+p.admin, 1)
	text = strings.Replace(text, "grace_period 10s", "grace_period "+grace, 1)
	if err := os.WriteFile(p.config, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

func (p *process) start() {
	p.t.Helper()
	p.log = new(syncBuffer)
	p.cmd = commandtest.Command(p.t, "run", "--config", p.config)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.exited = make(chan error, 1)
	go func(cmd *exec.Cmd, exited chan<- error) { exited <- cmd.Wait() }(p.cmd, p.exited)
	p.t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	eventually(p.t, "the server answers", func() bool {
		select {
		case err := <-p.exited:
			p.t.Fatalf("the server has ended: %v\n%s", err, p.log)
		default:
		}
		response, err := http.Get(p.url + "/api/v1/tariffs")
		if err == nil {
			response.Body.Close()
		}
		return err == nil
	})
}

// stop sends a signal and waits for the end.
func (p *process) stop(signal os.Signal) {
	p.t.Helper()
	_ = p.cmd.Process.Signal(signal)
	<-p.exited
	commandtest.NoRace(p.t, p.log.String())
}

// verify checks the books by the command.
func (p *process) verify() {
	p.t.Helper()
	if code, out := run(p.t, "ledger", "verify", "--config", p.config); code != 0 || !strings.Contains(out, "the books are good") {
		p.t.Errorf("ledger verify: exit %d\n%s", code, out)
	}
}

// ticker is an upstream whose streams send an event whenever a test says so.
type ticker struct {
	mu   sync.Mutex
	wait chan struct{} // closed for the next step
}

func newTicker() *ticker { return &ticker{wait: make(chan struct{})} }

// step makes every stream send its next event.
func (u *ticker) step() {
	u.mu.Lock()
	defer u.mu.Unlock()
	close(u.wait)
	u.wait = make(chan struct{})
}

func (u *ticker) next() chan struct{} {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.wait
}

// ServeHTTP sends one event at once, one at the next step, and ends at the step after that.
func (u *ticker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	first := u.next()
	w.Header().Set("Content-Type", "text/event-stream")
	_, _ = io.WriteString(w, "data: one\n\n")
	w.(http.Flusher).Flush()
	select {
	case <-first:
	case <-r.Context().Done():
		return
	}
	second := u.next()
	_, _ = io.WriteString(w, "data: two\n\n")
	w.(http.Flusher).Flush()
	select {
	case <-second:
	case <-r.Context().Done():
		return
	}
	_, _ = io.WriteString(w, "data: [DONE]\n\n")
}

// finish steps until n streams have ended, and returns how they ended. A stream waits for its second step only after the first one, so an
// additional step does no harm.
func (u *ticker) finish(ends <-chan answer, n int) []answer {
	var all []answer
	for len(all) < n {
		select {
		case end := <-ends:
			all = append(all, end)
		case <-time.After(10 * time.Millisecond):
			u.step()
		}
	}
	return all
}

const liveSite = `handle /live* {
		meter live %s per event
		reverse_proxy UPSTREAM
	}`

// listen opens n streams and reads the first event of each. The channel returns how each of them ends.
func (p *process) listen(key string, n int) <-chan answer {
	p.t.Helper()
	ends := make(chan answer, n)
	for range n {
		response, err := http.DefaultClient.Do(p.request("GET", "/live", key, ""))
		if err != nil {
			p.t.Fatal(err)
		}
		reader := bufio.NewReader(response.Body)
		line, err := reader.ReadString('\n')
		if err != nil || line != "data: one\n" {
			p.t.Fatalf("first event: %q %v", line, err)
		}
		go func() {
			defer response.Body.Close()
			rest, err := io.ReadAll(reader)
			ends <- answer{status: response.StatusCode, header: response.Header, trailer: response.Trailer, body: string(rest), err: err}
		}()
	}
	return ends
}

// stated returns the charge that the end of a stream states.
func stated(a answer) string {
	return a.trailer.Get("Tallygate-Charge") + " " + a.trailer.Get("Tallygate-Units")
}

func TestReloadInTheMiddleOfStreams(t *testing.T) {
	t.Parallel()
	const n = 100
	up := newTicker()
	p := newProcess(t, "10m", "", fmt.Sprintf(liveSite, "0.01"), up)
	p.start()
	key := p.agent("alice", "10")
	ends := p.listen(key, n)

	config, err := os.ReadFile(p.config)
	if err != nil {
		t.Fatal(err)
	}
	dearer := strings.Replace(string(config), "meter live 0.01", "meter live 0.02", 1)
	if err := os.WriteFile(p.config, []byte(dearer), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out := run(t, "validate", "--config", p.config); code != 0 {
		t.Errorf("validate while the server holds the ledger: exit %d\n%s", code, out)
	}
	if code, out := run(t, "reload", "--config", p.config); code != 0 {
		t.Fatalf("reload: exit %d\n%s", code, out)
	}
	later := p.listen(key, 1)
	for _, end := range up.finish(ends, n) {
		if end.err != nil || !strings.HasSuffix(end.body, "data: [DONE]\n\n") || stated(end) != "0.02 event=2" {
			t.Errorf("a stream that began before the reload ends with %q %v", end.body, end.err)
		}
	}
	if end := up.finish(later, 1)[0]; end.err != nil || stated(end) != "0.04 event=2" {
		t.Errorf("a stream that began after the reload ends with %q %v", end.body, end.err)
	}
	want(t, "wallet", p.balance(key), "7.96")
	p.verify()
	p.stop(syscall.SIGTERM)
	p.verify()
}

func TestStopWithinTheGracePeriodLosesNothing(t *testing.T) {
	t.Parallel()
	const n = 100
	up := newTicker()
	p := newProcess(t, "10m", "", fmt.Sprintf(liveSite, "0.01"), up)
	p.start()
	key := p.agent("alice", "10")
	ends := p.listen(key, n)
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	eventually(t, "the server takes no more requests", func() bool {
		_, err := http.Get(p.url + "/api/v1/tariffs")
		return err != nil
	})
	for _, end := range up.finish(ends, n) {
		if end.err != nil || stated(end) != "0.02 event=2" {
			t.Errorf("a stream ends with %q %v", end.body, end.err)
		}
	}
	p.stop(syscall.SIGTERM)
	p.verify()
	p.start()
	want(t, "wallet", p.balance(key), "8")
}

func TestStopAfterTheGracePeriodChargesWhatWasSent(t *testing.T) {
	t.Parallel()
	const n = 100
	up := newTicker()
	p := newProcess(t, "500ms", "", fmt.Sprintf(liveSite, "0.01"), up)
	p.start()
	key := p.agent("alice", "10")
	ends := p.listen(key, n)
	p.stop(syscall.SIGTERM)
	for range n {
		if end := <-ends; end.err == nil {
			t.Errorf("a stream that was cut looks complete: %q", end.body)
		}
	}
	p.verify()
	p.start()
	want(t, "wallet", p.balance(key), "9")
	charges := p.charges(key)
	if len(charges) != n {
		t.Fatalf("%d charges, want %d", len(charges), n)
	}
	for _, charge := range charges {
		want(t, "cut", charge["cut"].(string), "upstream")
		want(t, "amount", charge["amount"].(string), "0.01")
	}
	p.stop(syscall.SIGTERM)
}

func TestALedgerThatAnotherProcessHolds(t *testing.T) {
	t.Parallel()
	p := newProcess(t, "1s", "", perCallSite, text("results"))
	p.start()
	other := newProcess(t, "1s", "", perCallSite, text("results"))
	other.db = p.db
	other.write("1s", "", "handle /search* {\n\t\tmeter acme 0.001 per call\n\t\trespond hello\n\t}")
	out, err := commandtest.Command(t, "run", "--config", other.config).CombinedOutput()
	if err == nil || !strings.Contains(string(out), p.db) || !strings.Contains(string(out), "another process") {
		t.Errorf("the second server: %v\n%s", err, out)
	}
	if code, out := run(t, "ledger", "verify", p.db, "--address", p.admin); code != 0 {
		t.Errorf("verify of a file that a server holds, by its admin endpoint: exit %d\n%s", code, out)
	}
	p.stop(syscall.SIGTERM)
	if code, out := run(t, "ledger", "verify", p.db); code != 0 {
		t.Errorf("verify of a closed file: exit %d\n%s", code, out)
	}
	if code, _ := run(t, "ledger", "verify", filepath.Join(t.TempDir(), "none.db")); code != 2 {
		t.Errorf("verify of a file that isn't there: exit %d, want 2", code)
	}
}

func TestAgentsAndDepositsByCommand(t *testing.T) {
	t.Parallel()
	p := newProcess(t, "1s", "", perCallSite, text("results"))
	p.start()
	for i, state := range []string{"on a running server", "on a closed file"} {
		id := fmt.Sprint("agent-", i)
		code, key := run(t, "agents", "add", id, "--config", p.config)
		if code != 0 {
			t.Fatalf("agents add %s: exit %d\n%s", state, code, key)
		}
		for _, booking := range [][]string{{"deposit", id, "3", "--reference", "bank 7" + id}, {"withdraw", id, "0.50", "--reference", "bank 7" + id, "--memo", "by wire"}} {
			for _, answer := range []string{id + ", available ", "nothing was booked: reference \"bank 7" + id} {
				if code, out := run(t, append(booking, "--config", p.config)...); code != 0 || !strings.Contains(out, answer) {
					t.Fatalf("%v %s: exit %d, want %s in\n%s", booking, state, code, answer, out)
				}
			}
		}
		if code, out := run(t, "agents", "list", "--config", p.config); code != 0 || !strings.Contains(out, id) || !strings.Contains(out, "acme") {
			t.Errorf("agents list %s: exit %d\n%s", state, code, out)
		}
		if i == 0 {
			key = strings.TrimSpace(key)
			a := p.do("GET", "/search", key, "")
			want(t, "balance", a.header.Get("Tallygate-Balance"), "2.499")
			if code, out := run(t, "credit", "acme", id, "0.0015", "--config", p.config, "--expires", "2099-01-01", "--memo", "sorry"); code != 0 || !strings.Contains(out, id+" may use 0.0015 USDC at acme") {
				t.Errorf("credit: exit %d\n%s", code, out)
			}
			for _, header := range []string{"0.001 2.499", "0.0005 2.4985", " 2.4975"} {
				a := p.do("GET", "/search", key, "")
				want(t, "credit, balance", a.header.Get("Tallygate-Credit")+" "+a.header.Get("Tallygate-Balance"), header)
				if strings.HasPrefix(header, "0.0005") {
					code, out := run(t, "explain", a.header.Get("Tallygate-Request"), "--config", p.config)
					if code != 0 || !strings.Contains(out, "of it 0.0005 by credit, 0.0005 with money") || !strings.Contains(out, "-> issuer:acme") {
						t.Errorf("explain with credit: exit %d\n%s", code, out)
					}
				}
			}
			code, out := run(t, "explain", a.header.Get("Tallygate-Request"), "--config", p.config)
			if code != 0 || !strings.Contains(out, "0.001 per call") {
				t.Errorf("explain: exit %d\n%s", code, out)
			}
			p.stop(syscall.SIGTERM)
			checkCommandsOnFile(t, p.db, a.header.Get("Tallygate-Request"))
		}
	}
}

// checkCommandsOnFile names the ledger by its file, and reads the API's names in the JSON.
func checkCommandsOnFile(t *testing.T, db, request string) {
	t.Helper()
	for _, c := range []struct{ line, want string }{
		{"agents list --json", `"agent_id": "agent-0"`},
		{"agents list", "agent-0  2.4975"},
		{"wallet agent-0", "agent-0 has 2.4975 USDC: 2.4975 available, 0 held; 0 pending"},
		{"wallet agent-0 --json", `"kind": "withdrawal"`},
		{"wallet commission", "commission has 0 USDC"},
		{"charges --agent agent-0", request},
		{"charges --status disputed --json", "[]"},
		{"keys list agent-0", "valid"},
		{"agents key agent-0 --json", `"agent_id": "agent-0"`},
		{"agents add by-file", "tg_"},
		{"deposit agent-0 1 --json", `"available": "3.4975"`},
		{"credit acme agent-0 1 --json", `"remaining": "1"`},
		{"invoice " + time.Now().UTC().Format("2006-01") + " agent-0 acme", "paid with money"},
		{"ledger export --format cloudevents", `"credit":"0.0005"`},
		{"ledger export --format csv", ",credit:crd_"},
		{"explain " + request, "wallet:agent-0 -> wallet:acme"},
		{"explain --json " + request, `"request_id": "` + request + `"`},
		{"explain --json " + request, `"debit": "wallet:agent-0"`},
	} {
		if code, out := run(t, append(strings.Fields(c.line), db)...); code != 0 || !strings.Contains(out, c.want) {
			t.Errorf("%s: exit %d, want %s in\n%s", c.line, code, c.want, out)
		}
	}
}

// TestCommandsEscapeAndRefuse: what others have chosen changes neither the terminal nor a spreadsheet, and what does not exist is no success.
func TestCommandsEscapeAndRefuse(t *testing.T) {
	t.Parallel()
	p := newProcess(t, "1s", "", perCallSite, text("results"))
	p.start()
	key := p.agent("alice", "5")
	p.api("PUT", "/agents/me", key, map[string]any{"name": "al\x1b[2Jice"}, 200)
	p.api("POST", "/wallet/transfer", key, map[string]any{"to_agent_id": "acme", "amount": 1, "memo": "=cmd|' /C calc'!A0\x1b]0;x\a"}, 200)
	id, _ := p.api("POST", "/agents/me/keys", key, map[string]any{"name": "spare"}, 201)["key_id"].(string)
	for line, want := range map[string]string{
		"agents list": `al\x1b[2Jice`, "wallet alice": `=cmd|' /C calc'!A0\x1b]0;x\a`, "ledger export": "'=cmd|",
		"keys revoke alice " + id: "key " + id + " of alice is revoked",
	} {
		code, out := run(t, append(strings.Fields(line), "--config", p.config)...)
		if code != 0 || !strings.Contains(out, want) || line != "ledger export" && strings.Contains(out, "\x1b") {
			t.Errorf("%s: exit %d, want %q in\n%q", line, code, want, out)
		}
	}
	if code, out := run(t, "keys", "list", "alice", "--config", p.config); code != 0 || !strings.Contains(out, "revoked 20") {
		t.Errorf("keys list: exit %d\n%s", code, out)
	}
	for line, want := range map[string]string{"ledger verfy": "ledger has no command", "keys revok": "keys has no command", "agents lst": "expected one of"} {
		if code, out := run(t, strings.Fields(line)...); code != 2 || !strings.Contains(out, want) {
			t.Errorf("%s: exit %d, want 2 and %q in\n%s", line, code, want, out)
		}
	}
	p.stop(syscall.SIGTERM)
}

func TestAPayeeThatRegisteredItself(t *testing.T) {
	t.Parallel()
	p := newProcess(t, "1s", "", "handle /x {\n\t\tmeter acme 1 per call\n\t}", text("results"))
	p.start()
	p.agent("newcomer", "0")
	p.stop(syscall.SIGTERM)
	p.write("1s", "", "handle /x {\n\t\tmeter newcomer 1 per call\n\t}")
	if code, out := run(t, "run", "--config", p.config); code == 0 || !strings.Contains(out, "tallygate agents add --adopt newcomer") {
		t.Errorf("exit %d\n%s", code, out)
	}
	if code, out := run(t, "agents", "add", "--adopt", "newcomer", "--config", p.config); code != 0 {
		t.Errorf("the remedy: exit %d\n%s", code, out)
	}
	p.start()
	p.stop(syscall.SIGTERM)
}
