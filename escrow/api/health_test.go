package api_test

import (
	"net/http/httptest"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
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
