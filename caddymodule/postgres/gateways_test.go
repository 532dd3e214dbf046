//go:build unix

package postgres_test

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/postgres"
	"github.com/tallygate/tallygate/escrow/ledger/postgres/pgtest"
	"github.com/tallygate/tallygate/internal/commandtest"
	"github.com/tallygate/tallygate/internal/rounds"
)

const (
	operatorKey = "the operator's own words"
	lifetime    = 3 * time.Second
)

// gateway is a gateway in a process of its own, with a connection to the database that the test can break.
type gateway struct {
	t       *testing.T
	dir     string
	base    string
	line    *line
	process *exec.Cmd
	log     *os.File
}

const gatewaySite = `{
	admin off
	persist_config off
	auto_https off
	grace_period 2s
	log {
		level WARN
	}
	tallygate {
		ledger postgres {env.TALLYGATE_DSN} {
			lifetime %s
			mode %s
		}
		operator_key {env.TALLYGATE_OPERATOR}
		registration open
		webhooks private
	}
}
http://%s {
	tallygate
	handle /search* {
		meter acme 0.01 per call
		reverse_proxy %s
	}
	handle /news* {
		meter {
			payee paper
			subscription basic 0.05 per 2s {
				included 8 calls
			}
		}
		reverse_proxy %s
	}
	handle /live* {
		meter {
			payee live
			price 0.001 per event
			charge escrow {
				batch 10 events
				open 5 for 168h
			}
		}
		reverse_proxy %s
	}
}
`

func startGateway(t *testing.T, server *pgtest.Server, dsn, upstream string, lifetime time.Duration) *gateway {
	t.Helper()
	return startGatewayOf(t, server, dsn, upstream, gatewaySite, lifetime)
}

// startGatewayOf starts a gateway with another Caddyfile, which has the same verbs as [gatewaySite].
func startGatewayOf(t *testing.T, server *pgtest.Server, dsn, upstream, site string, lifetime time.Duration) *gateway {
	t.Helper()
	g := &gateway{t: t, dir: t.TempDir(), line: newLine(t, server.Socket())}
	address := freeAddress(t)
	g.base = "http://" + address
	text := fmt.Appendf(nil, site, lifetime, gatewayMode(), address, upstream, upstream, upstream)
	must(t, os.WriteFile(filepath.Join(g.dir, "Caddyfile"), text, 0o600))
	var err error
	g.log, err = os.Create(filepath.Join(g.dir, "log"))
	must(t, err)
	g.dsn(dsn)
	g.start()
	t.Cleanup(func() { g.kill(); g.log.Close() })
	return g
}

// freeAddress returns an address that nothing listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer listener.Close()
	return listener.Addr().String()
}

// dsn makes the gateway reach the database by its own line.
func (g *gateway) dsn(dsn string) {
	before, after, _ := strings.Cut(dsn, "host=")
	_, rest, _ := strings.Cut(after, "&")
	must(g.t, os.WriteFile(filepath.Join(g.dir, "dsn"), []byte(before+"host="+g.line.dir+"&"+rest), 0o600))
}

func (g *gateway) start() {
	g.t.Helper()
	dsn, err := os.ReadFile(filepath.Join(g.dir, "dsn"))
	must(g.t, err)
	g.process = commandtest.Command(g.t, "run", "--config", filepath.Join(g.dir, "Caddyfile"))
	g.process.Env = append(g.process.Env, "TALLYGATE_DSN="+string(dsn), "TALLYGATE_OPERATOR="+operatorKey)
	g.process.Stdout, g.process.Stderr = g.log, g.log
	must(g.t, g.process.Start())
	g.await()
}

// await waits until the gateway serves calls that cost money.
func (g *gateway) await() {
	g.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; {
		response, err := http.Get(g.base + "/api/v1/ready")
		if err == nil {
			_, _ = io.Copy(io.Discard, response.Body)
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(g.log.Name())
			g.t.Fatalf("the gateway does not serve: %v\n%s", err, text)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (g *gateway) kill() {
	_ = g.process.Process.Signal(syscall.SIGKILL)
	_ = g.process.Wait()
}

func (g *gateway) request(ctx context.Context, method, path, key, body string) *http.Request {
	r, err := http.NewRequestWithContext(ctx, method, g.base+path, strings.NewReader(body))
	must(g.t, err)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+key)
	return r
}

// line is a socket through which one gateway reaches the database.
type line struct {
	dir, to string

	mu    sync.Mutex
	conns map[net.Conn]bool
	mute  bool // the answers of the database are lost
	delay time.Duration
}

func newLine(t *testing.T, to string) *line {
	dir, err := os.MkdirTemp("", "line") // the path of a socket must be short
	must(t, err)
	l := &line{dir: dir, to: to, conns: map[net.Conn]bool{}}
	listener, err := net.Listen("unix", filepath.Join(dir, ".s.PGSQL.5432"))
	must(t, err)
	t.Cleanup(func() { listener.Close(); l.cut(); os.RemoveAll(dir) })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go l.serve(conn)
		}
	}()
	return l
}

func (l *line) serve(here net.Conn) {
	there, err := net.Dial("unix", l.to)
	if err != nil {
		here.Close()
		return
	}
	l.mu.Lock()
	l.conns[here], l.conns[there] = true, true
	l.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { l.copy(there, here, false) })
	both.Go(func() { l.copy(here, there, true) })
	both.Wait()
	l.mu.Lock()
	delete(l.conns, here)
	delete(l.conns, there)
	l.mu.Unlock()
}

func (l *line) copy(to, from net.Conn, answers bool) {
	defer to.Close()
	defer from.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		l.mu.Lock()
		lost, delay := l.mute && answers, l.delay
		l.mu.Unlock()
		time.Sleep(delay)
		if lost || err != nil {
			return
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// cut breaks all connections.
func (l *line) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for conn := range l.conns {
		conn.Close()
	}
}

func (l *line) set(mute bool, delay time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mute, l.delay = mute, delay
}

// load are the clients of the gateways, and what they have seen.
type load struct {
	t        *testing.T
	gateways []*gateway
	keys     []string

	mu       sync.Mutex
	complete map[string]string // request id -> charge, of each response that a client saw to its end
	cut      map[string]int    // request id -> events, of each stream that was cut
	moved    int               // transfers that were acknowledged
	begun    map[string]bool   // subscriptions that were acknowledged
	periods  int64             // of all subscriptions, as counted by the last check
	statuses map[int]int
}

func (l *load) spin(ctx context.Context) {
	var all sync.WaitGroup
	for i, key := range l.keys {
		for _, work := range []func(context.Context, *gateway, string){l.call, l.call, l.stream, l.transfer, l.withKey, l.subscribe} {
			all.Go(func() {
				for n := i; ctx.Err() == nil; n++ {
					work(ctx, l.gateways[n%len(l.gateways)], key)
				}
			})
		}
	}
	all.Wait()
}

func (l *load) call(ctx context.Context, g *gateway, key string) {
	l.callWith(ctx, g, "/search", key, "")
}

// subscribe makes calls on a plan, each at the next gateway. Their quota is too small for all of them, and renews while they run. Before, it
// begins the subscription if there is none. Now and then it cancels it.
func (l *load) subscribe(ctx context.Context, g *gateway, key string) {
	var made struct {
		ID string `json:"subscription_id"`
	}
	if l.ask(ctx, g, "POST", "/api/v1/subscriptions", key, `{"payee":"paper","plan":"basic"}`, http.StatusCreated, &made) {
		l.mu.Lock()
		l.begun[made.ID] = true
		l.mu.Unlock()
	}
	for range 6 {
		for _, g := range l.gateways {
			l.callWith(ctx, g, "/news", key, "")
		}
	}
	if made.ID != "" && rand.IntN(2) == 0 {
		l.ask(ctx, g, "POST", "/api/v1/subscriptions/"+made.ID+"/cancel", key, "", http.StatusOK, nil)
	}
}

// ask makes a request of the API, and reports whether it was answered as expected.
func (l *load) ask(ctx context.Context, g *gateway, method, path, key, body string, status int, answer any) bool {
	r := g.request(ctx, method, path, key, body)
	r.Header.Set("Idempotency-Key", strconv.FormatUint(rand.Uint64(), 36))
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		pauseAfterRefusal(ctx)
		return false
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	l.note(response.StatusCode)
	if err != nil || response.StatusCode != status {
		pauseAfterRefusal(ctx)
		return false
	}
	return answer == nil || json.Unmarshal(text, answer) == nil
}

// withKey makes a call at one gateway, and again, with the same key, at all of them at once. At most one may be charged.
func (l *load) withKey(ctx context.Context, _ *gateway, key string) {
	once := strconv.FormatUint(rand.Uint64(), 36)
	var all sync.WaitGroup
	for _, g := range l.gateways {
		all.Go(func() { l.callWith(ctx, g, "/search", key, once) })
	}
	all.Wait()
}

func (l *load) callWith(ctx context.Context, g *gateway, path, key, once string) {
	r := g.request(ctx, "GET", path, key, "")
	if once != "" {
		r.Header.Set("Idempotency-Key", once)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		pauseAfterRefusal(ctx)
		return
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	l.note(response.StatusCode)
	if response.StatusCode >= 500 || response.StatusCode == http.StatusPaymentRequired {
		pauseAfterRefusal(ctx)
	}
	if err != nil || response.StatusCode != 200 || string(body) != "results" {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.complete[response.Header.Get("Tallygate-Request")] = response.Header.Get("Tallygate-Charge")
}

// pauseAfterRefusal is what a client does that was refused.
func pauseAfterRefusal(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(20 * time.Millisecond):
	}
}

func (l *load) note(status int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.statuses[status]++
}

func (l *load) stream(ctx context.Context, g *gateway, key string) {
	response, err := http.DefaultClient.Do(g.request(ctx, "GET", "/live", key, ""))
	if err != nil {
		pauseAfterRefusal(ctx)
		return
	}
	defer response.Body.Close()
	l.note(response.StatusCode)
	if response.StatusCode != 200 {
		pauseAfterRefusal(ctx)
		return
	}
	id := response.Header.Get("Tallygate-Request")
	events, done := 0, false
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		done = done || lines.Text() == "data: [DONE]"
		if strings.HasPrefix(lines.Text(), "data: tick") {
			events++
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if done && lines.Err() == nil {
		l.complete[id] = response.Trailer.Get("Tallygate-Charge")
	} else {
		l.cut[id] = events
	}
}

func (l *load) transfer(ctx context.Context, g *gateway, key string) {
	if l.ask(ctx, g, "POST", "/api/v1/wallet/transfer", key, `{"to_agent_id":"sink","amount":"0.01"}`, http.StatusOK, nil) {
		l.mu.Lock()
		l.moved++
		l.mu.Unlock()
	}
}

// upstream answers searches at once, and streams 35 events with small pauses.
func liveUpstream(w http.ResponseWriter, r *http.Request) {
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
		time.Sleep(5 * time.Millisecond) // the pace of a provider, not a wait for anything
	}
	_, _ = io.WriteString(w, "data: [DONE]\n\n")
}

// faults are what happens to the gateways and the database while they are under load. Each returns when it is over.
func faults(server *pgtest.Server, t *testing.T) map[string]func(*gateway) {
	return map[string]func(*gateway){
		"a gateway is killed":                           func(g *gateway) { g.kill(); g.start() },
		"a gateway is paused":                           func(g *gateway) { g.pause(lifetime / 4) },
		"a gateway is paused until its session is over": func(g *gateway) { g.pause(lifetime + lifetime/2) },
		"the database crashes":                          func(*gateway) { server.Stop(syscall.SIGQUIT); server.Run(t) },
		"the database is restarted":                     func(*gateway) { server.Stop(syscall.SIGINT); server.Run(t) },
		"its backends are terminated": func(*gateway) {
			server.Exec(t, "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and backend_type = 'client backend'")
		},
		"the connections of a gateway break": func(g *gateway) { g.line.cut() },
		"answers of the database are lost":   func(g *gateway) { g.line.set(true, 0); time.Sleep(lifetime / 10); g.line.set(false, 0) },
		"a gateway is cut off":               func(g *gateway) { g.line.set(true, 0); time.Sleep(lifetime + lifetime/2); g.line.set(false, 0) },
		"the network is slow": func(g *gateway) {
			g.line.set(false, 1250*time.Microsecond)
			time.Sleep(lifetime / 3)
			g.line.set(false, 0)
		},
	}
}

func (g *gateway) pause(d time.Duration) {
	_ = g.process.Process.Signal(syscall.SIGSTOP)
	time.Sleep(d)
	_ = g.process.Process.Signal(syscall.SIGCONT)
}

// gatewayRounds returns how many rounds of faults TestGateways has: TALLYGATE_GATEWAY_ROUNDS, by default a few.
func gatewayRounds(t *testing.T) int {
	text := os.Getenv("TALLYGATE_GATEWAY_ROUNDS")
	if text == "" {
		return rounds.Of(1, 10)
	}
	n, err := strconv.Atoi(text)
	must(t, err)
	return n
}

// gatewayMode returns the mode in which the gateways write: TALLYGATE_GATEWAY_MODE, by default the store's default.
func gatewayMode() string { return cmp.Or(os.Getenv("TALLYGATE_GATEWAY_MODE"), string(postgres.Log)) }

// TestGateways: three gateways serve agents from one database, while gateways are killed, paused and cut off, and the database crashes. In the end
// the books verify, each complete response has its charge, each acknowledged transfer is there, no stream has lost more than one batch, each
// period of a subscription was paid once and has served no more than its quota, and all money is free again.
func TestGateways(t *testing.T) {
	server := pgtest.Start(t, "fsync=off")
	dsn := server.New(t)
	upstream := httptest.NewServer(http.HandlerFunc(liveUpstream))
	defer upstream.Close()
	l := &load{t: t, complete: map[string]string{}, cut: map[string]int{}, begun: map[string]bool{}, statuses: map[int]int{}}
	for range 3 {
		l.gateways = append(l.gateways, startGateway(t, server, dsn, upstream.URL, lifetime))
	}
	for i := range 4 {
		l.keys = append(l.keys, l.agent(fmt.Sprintf("agent-%d", i), []string{"100000", "3"}[i%2])) // some run out of money
	}
	l.agent("sink", "0.01")
	happen := faults(server, t)
	var names []string
	for name := range happen {
		names = append(names, name)
	}
	calls, streams := 0, 0
	for round := range gatewayRounds(t) {
		ctx, stop := context.WithCancel(t.Context())
		spun := make(chan struct{})
		go func() { l.spin(ctx); close(spun) }()
		for range 3 {
			time.Sleep(time.Duration(100+rand.IntN(400)) * time.Millisecond) // the random moment
			name := names[rand.IntN(len(names))]
			t.Logf("round %d: %s", round, name)
			happen[name](l.gateways[rand.IntN(len(l.gateways))])
		}
		for _, g := range l.gateways {
			g.await()
		}
		time.Sleep(300 * time.Millisecond) // some calls after the last fault
		stop()
		<-spun
		http.DefaultClient.CloseIdleConnections()
		for _, g := range l.gateways {
			g.await()
		}
		c, s := l.check(dsn)
		calls, streams = calls+c, streams+s
	}
	t.Logf("%d complete responses each have their charge, %d streams were cut and lost at most a batch each, %d transfers and %d subscriptions acknowledged, %d periods, answers by status: %v",
		calls, streams, l.moved, len(l.begun), l.periods, l.statuses)
}

// agent makes an agent with money, and returns its key.
func (l *load) agent(name, amount string) string {
	l.t.Helper()
	s := shop{l.t, l.gateways[0].base}
	var made struct {
		Key string `json:"api_key"`
	}
	s.ask("POST", "/api/v1/agents", "", fmt.Sprintf(`{"agent_id":%q}`, name), http.StatusCreated, &made)
	s.ask("POST", "/api/v1/wallet/deposit", operatorKey, fmt.Sprintf(`{"agent_id":%q,"amount":%q,"reference":%q}`, name, amount, name), http.StatusOK, nil)
	return made.Key
}

// check opens the ledger beside the gateways, and checks what the clients have seen against the books.
func (l *load) check(dsn string) (calls, streams int) {
	l.t.Helper()
	store, err := postgres.Open(dsn, postgres.Options{Lifetime: lifetime, Logger: slog.New(slog.DiscardHandler)})
	must(l.t, err)
	books, err := ledger.New(store, ledger.Options{Logger: slog.New(slog.DiscardHandler)})
	must(l.t, err)
	defer books.Close()
	book := escrow.New(books, escrow.Rules{})
	operator := escrow.Actor{Operator: true}
	report, err := books.Check(context.Background(), nil)
	must(l.t, err)
	if len(report.Wrong) > 0 {
		l.t.Fatal(report.Wrong)
	}
	for id, amount := range l.complete {
		charge, err := book.Charge(context.Background(), operator, id)
		if err != nil || charge.Cut != "none" || amount != "" && charge.Amount.String() != amount {
			l.t.Errorf("the complete response %s of charge %s has the charge %s, cut by %q, %v", id, amount, charge.Amount, charge.Cut, err)
		}
	}
	for id, events := range l.cut {
		charge, _ := book.Charge(context.Background(), operator, id)
		if paid := int(charge.Amount / (ledger.Unit / 1000)); paid < events-10 {
			l.t.Errorf("stream %s sent %d events, but only %d are paid", id, events, paid)
		}
	}
	sink, err := book.Wallet(context.Background(), "sink")
	must(l.t, err)
	if sink.Balance < ledger.Amount(l.moved+1)*ledger.Unit/100 {
		l.t.Errorf("%d transfers of 0.01 were acknowledged, but the sink has %s", l.moved, sink.Balance)
	}
	l.checkSubscriptions(book)
	calls, streams = len(l.complete), len(l.cut)
	l.complete, l.cut = map[string]string{}, map[string]int{}
	l.allIsFree(book)
	return calls, streams
}

// checkSubscriptions counts what was paid for subscriptions, and what they have served.
func (l *load) checkSubscriptions(book *escrow.Book) {
	l.t.Helper()
	l.periods = 0
	known := map[string]bool{}
	for i := range l.keys {
		agent := fmt.Sprintf("agent-%d", i)
		subs, paid, used := l.soldTo(book, agent)
		going := 0
		for _, s := range subs {
			known[s.ID] = true
			l.periods += s.Periods
			if s.Status != escrow.SubEnded {
				going++
			}
			if paid[s.ID] != s.Periods {
				l.t.Errorf("subscription %s has had %d periods, and paid for %d", s.ID, s.Periods, paid[s.ID])
			}
			if used[s.ID] > s.Periods*s.Plan.Included {
				l.t.Errorf("subscription %s has served %d in %d periods of %d", s.ID, used[s.ID], s.Periods, s.Plan.Included)
			}
		}
		if going > 1 {
			l.t.Errorf("%s has %d subscriptions of one plan", agent, going)
		}
	}
	for id := range l.begun {
		if !known[id] {
			l.t.Errorf("subscription %s was acknowledged, and is lost", id)
		}
	}
}

// soldTo returns the subscriptions of an agent, with what was paid for them and used of them. They renew while they are read, so they are read
// until no period has begun meanwhile.
func (l *load) soldTo(book *escrow.Book, agent string) (subs []escrow.Subscription, paid, used map[string]int64) {
	periods := func() (sum int64) {
		subs = everything(l.t, func(p escrow.Page) ([]escrow.Subscription, string, error) {
			return book.Subscriptions(context.Background(), agent, "", p)
		})
		for _, s := range subs {
			sum += s.Periods
		}
		return sum
	}
	for before := periods(); ; {
		paid, used = l.periodsOf(book, agent), l.usedBy(book, agent)
		after := periods()
		if after == before {
			return subs, paid, used
		}
		before = after
	}
}

// periodsOf returns how many periods an agent has paid for, by subscription.
func (l *load) periodsOf(book *escrow.Book, agent string) map[string]int64 {
	paid := map[string]int64{}
	filter := escrow.EscrowFilter{Agent: agent, Role: "payer"}
	for _, e := range everything(l.t, func(p escrow.Page) ([]escrow.Escrow, string, error) {
		return book.Escrows(context.Background(), filter, p)
	}) {
		if e.Subscription != "" {
			paid[e.Subscription]++
		}
	}
	return paid
}

// usedBy returns what the charges of an agent say that was used of quotas, by subscription.
func (l *load) usedBy(book *escrow.Book, agent string) map[string]int64 {
	used := map[string]int64{}
	filter := escrow.ChargeFilter{Agent: agent, Payer: agent, Payee: "paper"}
	for _, c := range everything(l.t, func(p escrow.Page) ([]escrow.Charge, string, error) { return book.Charges(filter, p) }) {
		used[c.SubscriptionID] += c.QuotaUsed
	}
	return used
}

// everything reads all pages of a list.
func everything[T any](t *testing.T, read func(escrow.Page) ([]T, string, error)) (all []T) {
	t.Helper()
	for p := (escrow.Page{Limit: escrow.MaxPage}); ; {
		items, next, err := read(p)
		must(t, err)
		if all = append(all, items...); next == "" {
			return all
		}
		p.Before = next
	}
}

// allIsFree waits until no gateway has set anything aside, since no call runs, and sessions of dead gateways end.
func (l *load) allIsFree(book *escrow.Book) {
	l.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		var held []string
		for i := range l.keys {
			w, err := book.Wallet(context.Background(), fmt.Sprintf("agent-%d", i))
			must(l.t, err)
			if w.Held > 0 {
				held = append(held, fmt.Sprintf("%s of %s", w.Held, w.Agent))
			}
		}
		if len(held) == 0 {
			return
		}
		if time.Now().After(deadline) {
			l.t.Fatalf("a minute after the last call, %v are held", held)
		}
	}
}

// TestBackgroundWork: of several gateways on one database, one does what is due, whichever gets to it. Each message is sent once while nothing
// fails, also those of events at another gateway; each period of a subscription begins once. If a gateway dies, the others do what it has left.
func TestBackgroundWork(t *testing.T) {
	server := pgtest.Start(t, "fsync=off")
	dsn := server.New(t)
	upstream := httptest.NewServer(http.HandlerFunc(liveUpstream))
	defer upstream.Close()
	got := &messages{times: map[string]int{}, types: map[string]int{}}
	receiver := httptest.NewServer(got)
	defer receiver.Close()
	l := &load{t: t, statuses: map[int]int{}, begun: map[string]bool{}}
	for range 3 { // which nobody takes for dead because the machine is busy
		l.gateways = append(l.gateways, startGateway(t, server, dsn, upstream.URL, 4*lifetime))
	}
	key := l.agent("agent-0", "1000")
	l.keys = []string{key}
	at := func(i int) shop { return shop{t, l.gateways[i].base} }
	at(1).ask("POST", "/api/v1/webhooks", key, fmt.Sprintf(`{"url":%q}`, receiver.URL), http.StatusCreated, nil)
	at(0).ask("POST", "/api/v1/subscriptions", key, `{"payee":"paper","plan":"basic"}`, http.StatusCreated, nil)
	got.await(t, "subscription.renewed", 4)
	for i := range 6 {
		at(i%3).ask("POST", "/api/v1/escrow", key, `{"to_agent_id":"paper","amount":"1.00","auto_release_hours":0.0003}`, http.StatusCreated, nil)
	}
	got.await(t, "escrow.released", 6)
	got.once(t)
	for i := range 4 {
		at(0).ask("POST", "/api/v1/escrow", key, `{"to_agent_id":"paper","amount":"1.00","auto_release_hours":0.0003}`, http.StatusCreated, nil)
		if i == 3 {
			l.gateways[0].kill()
		}
	}
	got.await(t, "escrow.released", 10)
	store, err := postgres.Open(dsn, postgres.Options{ReadOnly: true})
	must(t, err)
	books, err := ledger.New(store, ledger.Options{})
	must(t, err)
	defer books.Close()
	l.checkSubscriptions(escrow.New(books, escrow.Rules{}))
}

// messages receives messages of webhooks.
type messages struct {
	mu    sync.Mutex
	times map[string]int // how often each message came
	types map[string]int // of messages that came for the first time
}

// ServeHTTP implements [http.Handler].
func (m *messages) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	var message struct{ Type string }
	_ = json.NewDecoder(r.Body).Decode(&message)
	id := r.Header.Get("Webhook-Id")
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.times[id]++; m.times[id] == 1 {
		m.types[message.Type]++
	}
}

// await waits until so many messages of a type have come.
func (m *messages) await(t *testing.T, kind string, n int) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		m.mu.Lock()
		have, all := m.types[kind], fmt.Sprint(m.types)
		m.mu.Unlock()
		if have >= n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after two minutes, %d of %d messages %s have come: %s", have, n, kind, all)
		}
	}
}

// once checks that no message has come twice.
func (m *messages) once(t *testing.T) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, n := range m.times {
		if n > 1 {
			t.Errorf("message %s came %d times", id, n)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
