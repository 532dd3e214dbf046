//go:build unix

package postgres_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

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
