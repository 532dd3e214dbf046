package api_test

import (
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/ledgertest"
)

func TestHealthAndReady(t *testing.T) {
	var troubles []string
	g := newGate(t, rules(), api.Options{Version: "v1.2.3", Troubles: func() []string { return troubles }})
	alice := g.agent("alice", "25")
	g.agent("shop", "0")
	g.get("/health", "").want(200, "status", "ok", "version", "v1.2.3")
	g.get("/ready", "").want(200, "status", "ready")

	g.post("/escrow", alice, `{"to_agent_id":"shop","amount":5,"auto_release_hours":1}`).want(201)
	g.pass(time.Hour + 4*time.Minute)
	g.get("/ready", "").want(200)
	g.pass(2 * time.Minute)
	g.get("/ready", "").want(503, "code", "not_ready", "detail", "what is due, such as releases and renewals, is 6m0s late")
	_, err := g.book.RunDue(t.Context())
	must(t, err)
	g.get("/ready", "").want(200)

	troubles = []string{"the disk is nearly full"}
	g.get("/ready", "").want(503, "code", "not_ready", "detail", "the disk is nearly full")
	g.get("/health", "").want(200)
	troubles = nil

	must(t, g.book.Ledger().Close())
	g.get("/ready", "").want(503, "code", "not_ready", "detail", "the ledger can't be read")
	g.get("/health", "").want(200)
}

// TestReadyOnASharedLedger: a process that has heard nothing of the database for long can set no money aside, and is not ready until it has.
func TestReadyOnASharedLedger(t *testing.T) {
	var store ledgertest.Memory
	var passed time.Duration
	l, err := ledger.New(store.Open(), ledger.Options{Currency: "USDC", Untended: true, Lifetime: 10 * time.Second, Elapsed: func() time.Duration { return passed }})
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	b := escrow.New(l, rules())
	ready := func(want ...string) {
		t.Helper()
		if got := api.Troubles(b); !slices.Equal(got, want) {
			t.Errorf("after %s without a word of the database, the troubles are %q, not %q", passed, got, want)
		}
	}
	must(t, l.Tend(t.Context()))
	ready()
	passed = 9 * time.Second
	ready("the ledger accepts no money")
	must(t, l.Tend(t.Context()))
	ready()
}

// slowStore is a store whose Views wait, once there is a gate.
type slowStore struct {
	ledger.Store
	gate  chan struct{}
	views atomic.Int32
}

func (s *slowStore) View(fn func(ledger.Reader) error) error {
	if s.gate != nil {
		s.views.Add(1)
		<-s.gate
	}
	return s.Store.View(fn)
}

// TestReadyIsLookedUpOnce: whoever asks needs no key, so many who ask at the same time cost the ledger no more than one does.
func TestReadyIsLookedUpOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var memory ledgertest.Memory
		store := &slowStore{Store: memory.Open()}
		l, err := ledger.New(store, ledger.Options{Currency: "USDC", Untended: true})
		must(t, err)
		defer l.Close()
		must(t, l.Tend(t.Context()))
		b := escrow.New(l, rules())
		h := api.New(func() *escrow.Book { return b }, api.Options{})
		store.gate = make(chan struct{})
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequest("GET", "/api/v1/ready", nil))
				if w.Code != 200 {
					t.Errorf("%d %s", w.Code, w.Body)
				}
			})
		}
		synctest.Wait()
		if n := store.views.Load(); n != 1 {
			t.Errorf("50 who ask at the same time look into the ledger %d times", n)
		}
		close(store.gate)
		all.Wait()
	})
}

func TestHealthWhileTheServerStarts(t *testing.T) {
	h := api.New(func() *escrow.Book { return nil }, api.Options{})
	for path, want := range map[string]int{"/api/v1/health": 200, "/api/v1/ready": 503} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Code != want {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}
