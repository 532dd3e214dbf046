package caddymodule_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/tallygate/tallygate/caddymodule"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/bolt"
)

func init() { caddy.RegisterModule(faultyStore{}) }

// failing has the step at which each faulty store fails, by the store's file.
var failing sync.Map

// fail makes the shop's faulty store fail at a step. Without a step it stops failing.
func (s *shop) fail(step bolt.Step) { failing.Store(s.db, step) }

// faultyStore is a bolt store on a disk that fails when a test says so.
type faultyStore struct{ caddymodule.BoltStore }

func (faultyStore) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "tallygate.stores.faulty", New: func() caddy.Module { return new(faultyStore) }}
}

func (s *faultyStore) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return s.BoltStore.UnmarshalCaddyfile(d)
}

func (s *faultyStore) Open() (ledger.Store, error) {
	return bolt.Open(s.Path, bolt.Options{Fault: func(step bolt.Step) error {
		if at, _ := failing.Load(s.Path); at == step {
			return errors.New("injected: input/output error")
		}
		return nil
	}})
}

func TestADiskThatFails(t *testing.T) {
	t.Parallel()
	for _, step := range []bolt.Step{bolt.StepWrite, bolt.StepCommit, bolt.StepSync} {
		t.Run(string(step), func(t *testing.T) {
			next, arrived := make(chan struct{}), make(chan struct{}, 2)
			s := &shop{t: t, store: "faulty"}
			s.open("", perCallSite+"\n\thandle /live* {\n\t\tmeter live 0.01 per event\n\t\treverse_proxy UPSTREAM\n\t}\n\thandle /costly {\n\t\tmeter lab {\n\t\t\tprice 0.5 per call\n\t\t\tdurable_holds above 0.1\n\t\t}\n\t\treverse_proxy UPSTREAM\n\t}", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasPrefix(r.URL.Path, "/costly") {
					arrived <- struct{}{}
					<-next
					return
				}
				if !strings.HasPrefix(r.URL.Path, "/live") {
					_, _ = w.Write([]byte("results"))
					return
				}
				w.Header().Set("Content-Type", "text/event-stream")
				_, _ = w.Write([]byte("data: one\n\n"))
				w.(http.Flusher).Flush()
				<-next
				_, _ = w.Write([]byte("data: [DONE]\n\n"))
			}))
			key := s.agent("alice", "1")
			costly := make(chan answer)
			go func() { costly <- s.do("POST", "/costly", key, "{}", "Idempotency-Key", "again") }()
			<-arrived // now its hold is on disk
			ended := make(chan answer)
			go func() { ended <- send(t, s.request("GET", "/live", key, "")) }()
			eventually(t, "the stream has begun", func() bool { return s.api("GET", "/wallet", key, nil, 200)["held"] != "0.5" })

			s.fail(step)
			a := s.do("GET", "/search", key, "")
			wantProblem(t, a, 503, "ledger_unavailable")
			if !strings.Contains(a.body, `"charge":"unknown"`) && !strings.Contains(a.body, `"charge":"none"`) {
				t.Errorf("what became of the charge? %s", a.body)
			}
			if strings.Contains(a.body, "injected") {
				t.Errorf("the caller is told what went wrong inside: %s", a.body)
			}
			close(next)
			wantProblem(t, <-costly, 503, "ledger_unavailable")
			if end := <-ended; end.err == nil {
				t.Errorf("a stream that can't be charged looks complete: %q", end.body)
			}

			s.fail("")
			eventually(t, "money is taken again", func() bool { return s.do("GET", "/search", key, "").status == 200 })
			// Only the one search is paid whose answer went out completely.
			eventually(t, "what never went out is paid back", func() bool { return s.balance(key) == "0.999" })
			want(t, "payee's wallet", s.balanceOf("acme"), "0.001")
			want(t, "held", s.api("GET", "/wallet", key, nil, 200)["held"].(string), "0")
			want(t, "the costly call again, under its key", fmt.Sprint(s.do("POST", "/costly", key, "{}", "Idempotency-Key", "again").status), "200")
			want(t, "wallet after it", s.balance(key), "0.499")
		})
	}
}

// TestADiskThatFailsUnderADurableHold: a durable hold may be on disk although its commit failed. It is given back in any case.
func TestADiskThatFailsUnderADurableHold(t *testing.T) {
	t.Parallel()
	for _, step := range []bolt.Step{bolt.StepWrite, bolt.StepCommit, bolt.StepSync} {
		t.Run(string(step), func(t *testing.T) {
			s := &shop{t: t, store: "faulty"}
			s.open("", "handle {\n\t\tmeter lab {\n\t\t\tprice 0.5 per call\n\t\t\tdurable_holds above 0.1\n\t\t}\n\t\treverse_proxy UPSTREAM\n\t}", text("results"))
			key := s.agent("alice", "1")
			s.fail(step)
			wantProblem(t, s.do("POST", "/costly", key, "{}", "Idempotency-Key", "again"), 503, "ledger_unavailable")
			s.fail("")
			eventually(t, "the hold is given back", func() bool { return s.balance(key) == "1" })
			want(t, "held", s.api("GET", "/wallet", key, nil, 200)["held"].(string), "0")
			eventually(t, "the call can be made again", func() bool { return s.do("POST", "/costly", key, "{}", "Idempotency-Key", "again").status == 200 })
			want(t, "wallet after it", s.balance(key), "0.5")
			s.wantNothingHeld(t, key)
		})
	}
}
