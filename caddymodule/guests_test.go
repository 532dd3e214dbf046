package caddymodule_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/gateway"
)

// Modules that another package could contain: an identity, a judge, a rail.

type headerIdentity struct {
	Header string `json:"header"`
}

func (headerIdentity) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "tallygate.identity.header", New: func() caddy.Module { return new(headerIdentity) }}
}

func (i *headerIdentity) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if !d.Args(&i.Header) {
		return d.ArgErr()
	}
	return nil
}

func (i *headerIdentity) Identify(r *http.Request, _ string) (escrow.Actor, error) {
	if who := r.Header.Get(i.Header); who != "" {
		return escrow.Actor{Agent: who}, nil
	}
	return escrow.Actor{}, &escrow.Refusal{Outcome: escrow.Unauthorized, Detail: "say who you are in " + i.Header}
}

type lengthJudge struct{}

func (lengthJudge) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "tallygate.quality.length", New: func() caddy.Module { return new(lengthJudge) }}
}

func (lengthJudge) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if d.NextArg() {
		return d.ArgErr()
	}
	return nil
}

func (lengthJudge) ReadsBody() bool                      { return true }
func (lengthJudge) Watch(gateway.Answer) gateway.Watcher { return new(lengthWatcher) }

type lengthWatcher int

func (w *lengthWatcher) Feed(p []byte) { *w += lengthWatcher(len(p)) }

func (w *lengthWatcher) Score(context.Context, func() (ledger.Amount, bool)) (gateway.Score, error) {
	return gateway.Score{Value: fmt.Sprint(int(*w))}, nil
}

type coins struct {
	Unit string `json:"unit"`
}

func (coins) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "tallygate.rails.coins", New: func() caddy.Module { return new(coins) }}
}

func (c *coins) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	for d.NextBlock(0) {
		if d.Val() != "unit" || !d.Args(&c.Unit) {
			return d.ArgErr()
		}
	}
	return nil
}

func (*coins) Name() string { return "coins" }

func (c *coins) Challenge(need gateway.Need, _ http.Header) map[string]any {
	return map[string]any{"coins": need.Required.String() + " " + c.Unit}
}

func (*coins) Take(r *http.Request) (gateway.Payable, bool, error) {
	id, found := r.Header.Get("X-Coin"), r.Header.Get("X-Coin") != ""
	r.Header.Del("X-Coin")
	return gateway.Payable{ID: id, Payer: strings.TrimRight(id, "0123456789"), Amount: 500_000_000, Ends: time.Now().Add(time.Hour)}, found, nil
}

func (c *coins) Offers() []map[string]any {
	return []map[string]any{{"method": "coins", "intent": "charge", "amount": "1", "currency": c.Unit}}
}

func (*coins) Verify(context.Context, gateway.Payable) error { return nil }

func (*coins) Settle(context.Context, gateway.Payable) (string, error) { return "", nil }

func (*coins) Receipt(p gateway.Payable, _ string, h http.Header) { h.Set("Coin-Taken", p.ID) }

func init() {
	for _, module := range []caddy.Module{headerIdentity{}, lengthJudge{}, coins{}} {
		caddy.RegisterModule(module)
	}
}

func TestGuestModules(t *testing.T) {
	t.Parallel()
	s := openShop(t, "rail coins {\n\t\t\tunit pieces\n\t\t}", `
	handle /named {
		meter acme {
			price 0.1 per call
			agent header X-Who
		}
		reverse_proxy UPSTREAM
	}
	handle /judged {
		meter acme {
			price 0.1 per call
			quality length {
				>= 100 100%
				else 50%
			}
		}
		reverse_proxy UPSTREAM
	}
	handle {
		meter acme 0.4 per call
		reverse_proxy UPSTREAM
	}`, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Coin") != "" {
			t.Error("the provider is shown the money")
		}
		_, _ = w.Write([]byte("results"))
	}))
	key := s.agent("alice", "1")

	a := s.do("GET", "/named", "", "", "X-Who", "alice")
	want(t, "named", fmt.Sprint(a.status, a.header.Get("Tallygate-Charge")), "2000.1")
	wantProblem(t, s.do("GET", "/named", key, ""), 401, "unauthorized")

	a = s.do("GET", "/judged", key, "")
	want(t, "judged", fmt.Sprint(a.status, a.header.Get("Tallygate-Charge"), a.header.Get("Tallygate-Quality")), "2000.05score=7")

	a = s.do("GET", "/", "", "")
	wantProblem(t, a, 402, "payment_required")
	if !strings.Contains(a.body, `"coins":"0 pieces"`) {
		t.Errorf("the refusal does not offer the rail: %s", a.body)
	}
	var credit string
	for n, left := range []string{"0.1", "0.2", "0.3"} {
		coin := fmt.Sprint("c", n)
		a = s.do("GET", "/", "", "", "X-Coin", coin)
		want(t, "paid by the rail", fmt.Sprint(a.status, a.header.Get("Tallygate-Balance"), a.header.Get("Coin-Taken")), "200"+left+coin)
		key := strings.TrimPrefix(a.header.Get("Authorization"), "Bearer ")
		if (key != "") != (n == 0) {
			t.Errorf("payment %d returns the key %q", n, key)
		}
		if key != "" {
			neverLog(key)
			credit = key
		}
	}
	wantProblem(t, s.do("GET", "/", "", "", "X-Coin", "c2"), 409, "idempotency_conflict")
	wantProblem(t, s.do("GET", "/?other", "", "", "X-Coin", "c2"), 402, "payment_refused")
	wantProblem(t, s.do("GET", "/", credit, ""), 402, "insufficient_funds")
	a = s.do("GET", "/", credit, "", "X-Coin", "c9")
	want(t, "a payment beside a key", fmt.Sprint(a.status, a.header.Get("Tallygate-Balance")), "2000.4")
	a = s.do("GET", "/", credit, "")
	want(t, "by the key that a payment has returned", fmt.Sprint(a.status, a.header.Get("Tallygate-Balance")), "2000")
}
