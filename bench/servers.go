package main

import (
	"bytes"
	"cmp"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"
)

const operatorKey = "the-operator-of-the-benchmarks"

// bench is what the cases run against.
type bench struct {
	options
	upstream, bare, metered *process
	keys                    map[*process][]string // of the payers
	http2                   *http.Client
}

// process is a running server.
type process struct {
	*exec.Cmd
	address string
	admin   string // the address of its admin endpoint
	meters  bool
	behind  string // of Portkey's gateway: the address of the upstream, which each request names
	payment string // of the server that is paid by x402: the payment of each request
	log     *os.File
}

// target sets the address of a request, and the headers that the server needs. Portkey's gateway has one path for all providers, and headers
// that say where a request goes: https://portkey.ai/docs/api-reference/inference-api/headers
func (p *process) target(request *fasthttp.Request, path string) {
	if p.behind == "" {
		request.SetRequestURI("http://" + p.address + path)
		if p.payment != "" {
			request.Header.Set("Payment-Signature", p.payment)
		}
		return
	}
	base := strings.TrimSuffix(path, "/chat/completions")
	request.SetRequestURI("http://" + p.address + chatPath)
	request.Header.Set("Authorization", "Bearer none")
	request.Header.Set("X-Portkey-Provider", "openai")
	request.Header.Set("X-Portkey-Custom-Host", "http://"+p.behind+base)
}

// build makes the binary of this repository.
func build(to string) (string, error) {
	c := exec.Command("go", "build", "-o", to, "github.com/tallygate/tallygate/cmd/tallygate")
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building cmd/tallygate: %w\n%s", err, out)
	}
	return to, nil
}

func open(o options) (b *bench, err error) {
	b = &bench{options: o, keys: make(map[*process][]string), http2: newHTTP2()}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	upstream := freeAddress()
	if b.upstream, err = b.start("upstream", upstream, false, self, "upstream", upstream); err != nil {
		return b, err
	}
	if b.bare, err = b.startCaddy("bare", o.bare, o.bareMeters, freeAddress()); err != nil {
		return b, err
	}
	switch {
	case o.portkey != "":
		b.metered, err = b.startPortkey(upstream)
	case o.x402 != "":
		b.metered, err = b.startX402(upstream)
	default:
		if o.agents > 0 {
			if err := keep(b.ledger("metered"), o.agents, o.charges); err != nil {
				return b, fmt.Errorf("filling the ledger: %w", err)
			}
		}
		b.metered, err = b.startCaddy("metered", o.metered, true, cmp.Or(o.admin, freeAddress()))
	}
	return b, err
}

// ledger is the file of a server's ledger.
func (b *bench) ledger(server string) string {
	if server == "metered" && b.options.ledger != "" {
		return b.options.ledger
	}
	return filepath.Join(b.folder, server, "ledger.db")
}

func (b *bench) startCaddy(name, binary string, meters bool, admin string) (*process, error) {
	folder := filepath.Join(b.folder, name)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	address := freeAddress()
	file := filepath.Join(folder, "Caddyfile")
	if err := os.WriteFile(file, []byte(caddyfile(folder, b.ledger(name), address, b.upstream.address, meters, admin)), 0o600); err != nil {
		return nil, err
	}
	p, err := b.start(name, address, meters, binary, "run", "--config", file)
	if err != nil {
		return p, err
	}
	p.admin = admin
	if !meters {
		return p, nil
	}
	return p, b.register(p)
}

// startPortkey starts the gateway of https://www.npmjs.com/package/@portkey-ai/gateway.
func (b *bench) startPortkey(upstream string) (*process, error) {
	address := freeAddress()
	_, port, _ := net.SplitHostPort(address)
	script := filepath.Join(b.portkey, "node_modules", "@portkey-ai", "gateway", "build", "start-server.js")
	p, err := b.start("portkey", address, false, "node", script, "--port="+port, "--headless")
	if p != nil {
		p.behind = upstream
	}
	return p, err
}

//go:embed x402.mjs
var x402 []byte

// startX402 starts the server of x402.mjs. The upstream is its facilitator too: it takes the same payment again and again.
func (b *bench) startX402(upstream string) (*process, error) {
	folder, err := filepath.Abs(b.x402)
	if err != nil {
		return nil, err
	}
	script := filepath.Join(b.folder, "x402.mjs")
	if err := os.WriteFile(script, x402, 0o600); err != nil {
		return nil, err
	}
	address := freeAddress()
	_, port, _ := net.SplitHostPort(address)
	p, err := b.start("x402", address, false, "env", "NODE_ENV=production", "node", script, folder, port, upstream, "http://"+upstream+"/x402")
	if err != nil {
		return p, err
	}
	response, err := http.Get("http://" + address + "/payment")
	if err != nil {
		return p, err
	}
	defer response.Body.Close()
	payment, err := io.ReadAll(response.Body)
	if p.payment = string(payment); response.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET /payment: %s: %s", response.Status, payment)
	}
	return p, err
}

// caddyfile returns the Caddyfile of a server: the same routes, with or without meters.
func caddyfile(folder, ledger, address, upstream string, meters bool, admin string) string {
	app, api := "", ""
	if meters {
		app, api = fmt.Sprintf("tallygate {\n\t\tledger bolt %s\n\t\toperator_key %s\n\t}", ledger, operatorKey), "tallygate"
	}
	var routes strings.Builder
	type route struct{ name, meter string }
	all := []route{
		{"wallet", "meter acme 0.000001 per call"},
		{"tools", "meter acme 0.000001 per call"},
		{"escrow", "meter {\n\t\t\tpayee acme\n\t\t\tprice 0.000001 per call\n\t\t\tcharge escrow {\n\t\t\t\topen 1000.00 for 168h\n\t\t\t}\n\t\t}"},
		{"tokens", "meter {\n\t\t\tpayee llm\n\t\t\ttariff {\n\t\t\t\tmodel * {\n\t\t\t\t\tinput 0.15 per 1M tokens\n\t\t\t\t\toutput 0.60 per 1M tokens\n\t\t\t\t}\n\t\t\t}\n\t\t}"},
	}
	for i := range payees {
		all = append(all, route{fmt.Sprintf("payee-%d", i), fmt.Sprintf("meter shop-%d 0.000001 per call", i)})
	}
	for _, r := range all {
		if !meters {
			r.meter = ""
		}
		fmt.Fprintf(&routes, "\thandle /%s/* {\n\t\t%s\n\t\treverse_proxy %s\n\t}\n", r.name, r.meter, upstream)
	}
	return fmt.Sprintf("{\n\tadmin %s\n\tauto_https off\n\tpersist_config off\n\tstorage file_system %s/data\n\tlog {\n\t\tlevel ERROR\n\t}\n\tservers {\n\t\tprotocols h1 h2c\n\t}\n\t%s\n}\nhttp://%s {\n\t%s\n%s}\n",
		admin, folder, app, address, api, routes.String())
}

func (b *bench) start(name, address string, meters bool, command string, arguments ...string) (*process, error) {
	p := &process{Cmd: exec.Command(command, arguments...), address: address, meters: meters}
	var err error
	if p.log, err = os.Create(filepath.Join(b.folder, name+".log")); err != nil {
		return nil, err
	}
	p.Stdout, p.Stderr = p.log, p.log
	if err := p.Start(); err != nil {
		return nil, err
	}
	for range 600 {
		if c, err := net.Dial("tcp", address); err == nil {
			return p, c.Close()
		}
		time.Sleep(100 * time.Millisecond)
	}
	said, _ := os.ReadFile(p.log.Name())
	return p, fmt.Errorf("%s does not answer at %s after a minute:\n%s", name, address, said)
}

func freeAddress() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// payers is the largest number of agents that call.
const payers = 1000

// register makes the payers and gives them money. A ledger that is kept has those of earlier runs, so each run has names of its own.
func (b *bench) register(p *process) error {
	run := time.Now().Unix()
	for i := range payers {
		name := fmt.Sprintf("payer-%d-%d", run, i)
		var made struct {
			Key string `json:"api_key"`
		}
		if err := p.post("/api/v1/agents", map[string]any{"agent_id": name}, &made); err != nil {
			return err
		}
		if err := p.post("/api/v1/wallet/deposit", map[string]any{"agent_id": name, "amount": "10000.00"}, nil); err != nil {
			return err
		}
		b.keys[p] = append(b.keys[p], made.Key)
	}
	return nil
}

func (p *process) post(path string, in, out any) error {
	raw, err := json.Marshal(in)
	if err != nil {
		return err
	}
	r, err := http.NewRequest(http.MethodPost, "http://"+p.address+path, bytes.NewReader(raw))
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+operatorKey)
	r.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("POST %s: %s: %s", path, response.Status, answer)
	}
	if out != nil {
		return json.Unmarshal(answer, out)
	}
	return nil
}

func (b *bench) close() (err error) {
	for _, p := range []*process{b.metered, b.bare, b.upstream} {
		if p == nil {
			continue
		}
		err = errors.Join(err, p.Process.Signal(syscall.SIGTERM))
		_ = p.Wait()
		err = errors.Join(err, p.log.Close())
	}
	return err
}

// cpu is the user and system time that the process has taken so far. Source: proc(5), fields 14 and 15 of stat, in ticks of 10 ms.
func (p *process) cpu() (time.Duration, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Process.Pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// rss is the process's resident memory in bytes. Source: proc(5), VmRSS of status, in kB.
func (p *process) rss() (int64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, line, _ := strings.Cut(string(raw), "VmRSS:")
	fields := strings.Fields(line)
	if len(fields) == 0 {
		return 0, errors.New("no VmRSS in /proc")
	}
	kb, err := strconv.ParseInt(fields[0], 10, 64)
	return kb << 10, err
}

// live is how much memory is in use, after a collection of garbage: of the heap and of stacks. Source: the end of a heap profile in text,
// https://pkg.go.dev/runtime/pprof. Each call of /debug/pprof/ with gc=1 collects first.
func (p *process) live() (int64, error) {
	response, err := http.Get("http://" + p.admin + "/debug/pprof/heap?gc=1&debug=1")
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, name := range []string{"\n# HeapAlloc = ", "\n# Stack = "} {
		_, text, _ := strings.Cut(string(raw), name)
		fields := strings.Fields(text)
		if len(fields) == 0 {
			return 0, fmt.Errorf("no %q in the heap profile", strings.TrimSpace(name))
		}
		n, err := strconv.ParseInt(fields[0], 10, 64)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}
