//go:build unix

package postgres_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/postgres"
	"github.com/tallygate/tallygate/escrow/ledger/postgres/pgtest"
	"github.com/tallygate/tallygate/internal/commandtest"
)

// TestBackgroundWork: of several gateways on one database, one does what is due, whichever gets to it. Each message is sent once while nothing
// fails, also those of events at another gateway; each period of a subscription begins once. If a gateway dies, the others do what it has left.
func TestBackgroundWork(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t, "fsync=off")
	dsn := server.New(t)
	upstream := httptest.NewServer(commandtest.Provider(5 * time.Millisecond))
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
