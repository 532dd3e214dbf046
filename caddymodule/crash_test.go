package caddymodule_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tallygate/tallygate/internal/commandtest"
)

// crashRounds returns how often TestCrash kills the server: TALLYGATE_CRASH_ROUNDS, by default a few times.
func crashRounds(t *testing.T) int {
	t.Helper()
	text := os.Getenv("TALLYGATE_CRASH_ROUNDS")
	if text == "" {
		return 3
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("TALLYGATE_CRASH_ROUNDS: %v", err)
	}
	return n
}

const crashSite = `handle /search* {
		meter acme 0.001 per call
		reverse_proxy UPSTREAM
	}
	handle /live* {
		meter {
			payee live
			price 0.0002 per event
			charge escrow {
				batch 10 events
				open 50.00 for 168h
			}
		}
		reverse_proxy UPSTREAM
	}`

const crashBatch = 10

// crashLoad are the clients of a server that will be killed, and what they have seen.
type crashLoad struct {
	p    *process
	keys []string

	mu       sync.Mutex
	complete map[string]string // request id -> charge, of each response that a client saw to its end
	streams  map[string]int    // request id -> events, of each stream that was cut
	moved    int               // transfers that were acknowledged
}

// spin sends calls, streams and transfers until ctx ends, when the server has been killed.
func (l *crashLoad) spin(ctx context.Context) {
	var wg sync.WaitGroup
	for i, key := range l.keys {
		for _, work := range []func(context.Context, string, int){l.call, l.stream, l.transfer} {
			wg.Go(func() {
				for n := 0; ctx.Err() == nil; n++ {
					work(ctx, key, i*1_000_000+n)
				}
			})
		}
	}
	wg.Wait()
}

func (l *crashLoad) call(ctx context.Context, key string, _ int) {
	response, err := http.DefaultClient.Do(l.p.request("GET", "/search", key, "").WithContext(ctx))
	if err != nil {
		return
	}
	defer response.Body.Close()
	if body, err := io.ReadAll(response.Body); err != nil || response.StatusCode != 200 || string(body) != "results" {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.complete[response.Header.Get("Tallygate-Request")] = response.Header.Get("Tallygate-Charge")
}

func (l *crashLoad) stream(ctx context.Context, key string, _ int) {
	response, err := http.DefaultClient.Do(l.p.request("GET", "/live", key, "").WithContext(ctx))
	if err != nil {
		return
	}
	defer response.Body.Close()
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
	if done && lines.Err() == nil && response.StatusCode == 200 {
		l.complete[id] = response.Trailer.Get("Tallygate-Charge")
	} else if response.StatusCode == 200 {
		l.streams[id] = events
	}
}

// transfer moves 0.01 to the sink. After a crash it repeats the request with the same key until it is acknowledged.
func (l *crashLoad) transfer(ctx context.Context, key string, n int) {
	body := fmt.Sprintf(`{"to_agent_id":"sink","amount":"0.01","memo":"%d"}`, n)
	r := l.p.request("POST", "/api/v1/wallet/transfer", key, body, "Idempotency-Key", fmt.Sprintf("%s-%d-%d", key[len(key)-8:], n, time.Now().UnixNano()))
	response, err := http.DefaultClient.Do(r.WithContext(ctx))
	if err != nil {
		return
	}
	defer response.Body.Close()
	if _, err := io.ReadAll(response.Body); err == nil && response.StatusCode == 200 {
		l.mu.Lock()
		l.moved++
		l.mu.Unlock()
	}
}

// crashFile is how many crashes one ledger goes through. After each crash the whole file is verified twice.
const crashFile = 100

// TestCrash kills a real server under load at random moments. After each restart the books must verify, each response that a client saw complete
// must have its charge, each acknowledged transfer must be there, and no stream may have lost more than one batch.
func TestCrash(t *testing.T) {
	t.Parallel()
	var sum crashSum
	// On a busy machine a few rounds may contain too few calls to prove anything. Then there are more rounds.
	for left := crashRounds(t); left > 0 || sum.calls == 0 || sum.streams == 0 || sum.transfers == 0; left -= crashFile {
		crash(t, min(max(left, 1), crashFile), &sum)
		t.Logf("%d kills: %d complete responses each have their charge, %d streams were cut after %d events and lost at most a batch each, %d transfers acknowledged",
			sum.kills, sum.calls, sum.streams, sum.events, sum.transfers)
	}
}

// crashSum counts what was checked.
type crashSum struct{ kills, calls, streams, events, transfers int }

// crash lets one ledger go through some crashes.
func crash(t *testing.T, rounds int, sum *crashSum) {
	p := newProcess(t, "1s", "", crashSite, commandtest.Provider(time.Millisecond))
	p.start()
	l := &crashLoad{p: p, complete: make(map[string]string), streams: make(map[string]int)}
	for i := range 4 {
		l.keys = append(l.keys, p.agent(fmt.Sprintf("agent-%d", i), "1000000"))
	}
	p.agent("sink", "0")
	for range rounds {
		ctx, stop := context.WithCancel(context.Background())
		spun := make(chan struct{})
		go func() { l.spin(ctx); close(spun) }()
		time.Sleep(time.Duration(30+rand.IntN(300)) * time.Millisecond) // the random moment
		p.stop(syscall.SIGKILL)
		stop()
		<-spun
		if code, out := run(t, "ledger", "verify", p.db); code != 0 {
			t.Fatalf("after the crash: exit %d\n%s", code, out)
		}
		p.start()
		p.verify()
		for id, charge := range l.complete {
			got := p.chargeOf(id)
			if got == nil || charge != "" && got["amount"] != charge || got["cut"] != "none" {
				t.Errorf("the complete response %s of charge %s has the charge %v", id, charge, got)
			}
			sum.calls++
		}
		for id, events := range l.streams {
			l.checkStream(t, id, events)
			sum.streams++
			sum.events += events
		}
		if held := p.balanceOf("sink"); amountNano(t, held) < l.moved*10_000_000 {
			t.Errorf("%d transfers of 0.01 were acknowledged, but the sink has %s", l.moved, held)
		}
		l.complete, l.streams = make(map[string]string), make(map[string]int)
		sum.kills++
	}
	sum.transfers += l.moved
	p.stop(syscall.SIGTERM)
}

// chargeOf returns a charge as the operator sees it, or nil if there is none.
func (p *process) chargeOf(id string) map[string]any {
	p.t.Helper()
	a := p.do("GET", "/api/v1/charges/"+id, operatorKey, "")
	if a.status == 404 {
		return nil
	}
	var charge map[string]any
	if a.status != 200 || json.Unmarshal([]byte(a.body), &charge) != nil {
		p.t.Fatalf("charge %s: %d %s", id, a.status, a.body)
	}
	return charge
}

// checkStream checks that a stream that was cut by the crash has paid for all its events, except for those of at most one batch. More may have been
// sent to the client than it has read.
func (l *crashLoad) checkStream(t *testing.T, id string, events int) {
	t.Helper()
	charge := l.p.chargeOf(id)
	paid := 0
	if charge != nil {
		paid = amountNano(t, charge["amount"].(string)) / 200_000
	}
	// No event of a batch goes out before the release of the previous batch is on disk.
	if paid < events-crashBatch {
		t.Errorf("stream %s sent %d events, but only %d are paid: more than one batch is lost", id, events, paid)
	}
}

// amountNano reads a decimal as nanos.
func amountNano(t *testing.T, text string) int {
	t.Helper()
	whole, frac, _ := strings.Cut(text, ".")
	n, err := strconv.Atoi(whole + frac + strings.Repeat("0", 9-len(frac)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestDurableHold kills the server while the provider works on an expensive call, before the client has received anything.
func TestDurableHold(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{}, 2)
	p := newProcess(t, "1s", "", `handle /costly {
		meter lab {
			price 5 per call
			durable_holds above 1
		}
		reverse_proxy UPSTREAM
	}
	handle /cheap {
		meter lab 0.5 per call
		reverse_proxy UPSTREAM
	}`, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-r.Context().Done()
	}))
	p.start()
	key := p.agent("alice", "10")
	for _, path := range []string{"/costly", "/cheap"} {
		go func() {
			if response, err := http.DefaultClient.Do(p.request("GET", path, key, "")); err == nil {
				response.Body.Close()
			}
		}()
		<-arrived
	}
	p.stop(syscall.SIGKILL)
	p.start()
	p.verify()
	want(t, "wallet", p.balance(key), "5")
	charges := p.charges(key)
	if len(charges) != 1 {
		t.Fatalf("%d charges, want that of the costly call alone", len(charges))
	}
	want(t, "cut", charges[0]["cut"].(string), "crash")
	p.stop(syscall.SIGTERM)
}
