package gateway_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/pricing"
)

// pausing is a provider that stops in the middle of its answer: before an answer that comes whole, after the first bytes of a stream.
type pausing struct {
	http.ResponseWriter
	pause func()
}

func (w *pausing) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	if w.ResponseWriter.Header().Get("Content-Type") == "text/event-stream" {
		w.ResponseWriter.(http.Flusher).Flush()
		w.pause()
	}
	return n, err
}

func (w *pausing) Flush() { w.ResponseWriter.(http.Flusher).Flush() }

// event is something that somebody does while a call runs. It may be refused; then it has changed nothing.
type event struct {
	name string
	do   func(s *shop, tx *escrow.Tx) error
	of   string // the ways of paying in which it can be done; empty: all
}

const (
	wallets = "wallet quota quality" // in which the wallet has money while the call runs
	escrows = "escrow milestone quota"
)

func (e event) can(pays string) bool {
	return e.of == "" || slices.Contains(strings.Fields(e.of), pays)
}

var alice, acme = escrow.Actor{Agent: "alice"}, escrow.Actor{Agent: "acme"}

// theEscrow is the escrow that pays.
func theEscrow(s *shop) string {
	escrows, _, err := s.book.Escrows(context.Background(), escrow.EscrowFilter{Agent: "alice"}, escrow.Page{})
	must(s.t, err)
	if len(escrows) == 0 {
		return "esc_none"
	}
	return escrows[0].ID
}

// all is everything that alice can pay now.
func all(tx *escrow.Tx) escrow.PaymentOrder {
	w, err := tx.Wallet("alice")
	if err != nil {
		return escrow.PaymentOrder{}
	}
	return escrow.PaymentOrder{From: "alice", To: "bob", Amount: w.Available}
}

func escrowEvent(name string, do func(tx *escrow.Tx, id string) error) event {
	return event{name, func(s *shop, tx *escrow.Tx) error { return do(tx, theEscrow(s)) }, escrows}
}

// in restricts an event to some ways of paying.
func (e event) in(ways string) event {
	e.of = ways
	return e
}

var midCallEvents = []event{
	{"nothing", func(*shop, *escrow.Tx) error { return nil }, ""},
	{"a transfer of all", func(_ *shop, tx *escrow.Tx) error { _, err := tx.Transfer(alice, all(tx)); return err }, wallets},
	{"a withdrawal of all", func(_ *shop, tx *escrow.Tx) error { _, err := tx.Withdraw(operator, all(tx)); return err }, wallets},
	{"an escrow of all", func(_ *shop, tx *escrow.Tx) error {
		_, err := tx.CreateEscrow(alice, escrow.EscrowOrder{To: "bob", Amount: all(tx).Amount})
		return err
	}, wallets},
	{"a subscription of all", func(_ *shop, tx *escrow.Tx) error {
		_, err := tx.Subscribe(alice, escrow.SubscriptionOrder{Payee: "bob", Amount: all(tx).Amount, Period: time.Hour})
		return err
	}, wallets},
	{"a debit of all", func(_ *shop, tx *escrow.Tx) error {
		if _, err := tx.SetAllowance(alice, "alice", "bob", amount("1")); err != nil {
			return err
		}
		_, err := tx.Debit(escrow.Actor{Agent: "bob"}, all(tx))
		return err
	}, wallets},
	{"a limit of next to nothing", func(_ *shop, tx *escrow.Tx) error {
		_, err := tx.SetLimits(alice, "alice", []escrow.Limit{{Amount: 1, Window: time.Hour}})
		return err
	}, ""},
	{"an operator's limit of next to nothing", func(_ *shop, tx *escrow.Tx) error {
		_, err := tx.SetLimits(operator, "alice", []escrow.Limit{{Payee: "acme", Amount: 1, Window: time.Hour}})
		return err
	}, ""},
	{"the key revoked", func(s *shop, tx *escrow.Tx) error {
		keys, err := s.book.Keys("alice")
		if err != nil || len(keys) == 0 {
			return errors.Join(err, errors.New("no key"))
		}
		return tx.RevokeKey(operator, "alice", keys[0].ID)
	}, ""},
	{"the subscription ended", func(s *shop, tx *escrow.Tx) error {
		subs, _, err := s.book.Subscriptions(context.Background(), "alice", "", escrow.Page{})
		if err != nil || len(subs) == 0 {
			return errors.Join(err, errors.New("none"))
		}
		_, err = tx.EndSubscription(alice, subs[0].ID)
		return err
	}, "quota"},
	{"a webhook made and deleted", func(_ *shop, tx *escrow.Tx) error {
		hook, err := tx.CreateWebhook(alice, escrow.WebhookOrder{Agent: "alice", URL: "http://127.0.0.1:1/", Local: true})
		if err != nil {
			return err
		}
		return tx.DeleteWebhook(alice, "alice", hook.ID)
	}, ""},
	escrowEvent("a request of a refund", func(tx *escrow.Tx, id string) error {
		_, err := tx.Refund(alice, id, 0, "")
		return err
	}),
	escrowEvent("a refund by the payee", func(tx *escrow.Tx, id string) error {
		_, err := tx.Refund(acme, id, 0, "")
		return err
	}),
	escrowEvent("a dispute", func(tx *escrow.Tx, id string) error { _, err := tx.Dispute(alice, id, "no"); return err }),
	escrowEvent("a dispute that the operator decides for the payer", func(tx *escrow.Tx, id string) error {
		e, err := tx.Dispute(alice, id, "no")
		if err != nil {
			return err
		}
		_, err = tx.Resolve(operator, id, escrow.Resolution{ToPayer: e.Remaining() - e.Held})
		return err
	}),
	escrowEvent("a release", func(tx *escrow.Tx, id string) error { _, err := tx.Release(alice, id, ""); return err }),
	escrowEvent("a release of nearly all", func(tx *escrow.Tx, id string) error {
		_, err := tx.ReleasePartial(alice, id, amount("0.99"), "")
		return err
	}).in("escrow"),
	escrowEvent("the milestone accepted", func(tx *escrow.Tx, id string) error {
		_, err := tx.AcceptMilestone(alice, id, "m", "")
		return err
	}).in("milestone"),
	escrowEvent("the milestone delivered", func(tx *escrow.Tx, id string) error {
		_, err := tx.DeliverMilestone(acme, id, "m", "")
		return err
	}).in("milestone"),
}

// TestWhatIsDoneMidCall: whatever a payer does while its call runs, the answer is charged in full, or withheld, or cut. If the whole price
// was held before, the answer is charged in full in any case.
func TestWhatIsDoneMidCall(t *testing.T) {
	t.Parallel()
	happened := map[string]bool{}
	var mu sync.Mutex
	t.Run("all", func(t *testing.T) {
		for _, good := range sales() {
			for _, pays := range []string{"wallet", "escrow", "milestone", "quota", "quality"} {
				for _, event := range midCallEvents {
					if !event.can(pays) {
						continue
					}
					t.Run(good.name+"/"+map[bool]string{false: "whole", true: "streamed"}[good.streamed]+"/"+pays+"/"+event.name, func(t *testing.T) {
						t.Parallel()
						if paidMidCall(t, good, pays, event) {
							mu.Lock()
							defer mu.Unlock()
							happened[event.name+" in "+pays] = true
						}
					})
				}
			}
		}
	})
	for _, event := range midCallEvents {
		for _, pays := range []string{"wallet", "escrow", "milestone", "quota", "quality"} {
			if event.can(pays) && !happened[event.name+" in "+pays] {
				t.Errorf("%s was always refused in the way of %s", event.name, pays)
			}
		}
	}
}

func paidMidCall(t *testing.T, good sale, pays string, event event) (happened bool) {
	route := good.route(t)
	route.Batch = pricing.Measure{N: 1, Unit: "event"}
	purse := good.purse(t, &route, pays, "1")
	begun, goOn := make(chan struct{}), make(chan struct{})
	pause := sync.OnceFunc(func() { close(begun); <-goOn })
	s := openShop(t, escrow.Rules{Plans: purse.plans}, gateway.Options{}, route, func(w http.ResponseWriter, r *http.Request) {
		if !good.streamed {
			pause()
		}
		good.provider(&pausing{w, pause}, r)
	})
	must(t, s.do(func(tx *escrow.Tx) error {
		if _, _, _, err := tx.CreateAgent(escrow.Actor{}, escrow.AgentOrder{ID: "bob"}); err != nil {
			return err
		}
		return purse.fill(tx)
	}))
	var body string
	var complete bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, body, complete = good.ask(t, s, good.streamed, purse.headers...)
	}()
	<-begun
	happened = s.do(func(tx *escrow.Tx) error { return event.do(s, tx) }) == nil
	close(goOn)
	<-done
	charged, how := good.paid(s, pays)
	switch price := amount(good.price); {
	case complete && charged < price:
		t.Errorf("a complete answer of %s was had for %s: %s", price, charged, how)
	case charged > price:
		t.Errorf("%s was charged for what costs %s: %s", charged, price, how)
	case !complete && !good.streamed && heldInFull(good.sold):
		t.Errorf("all of it was held, and the answer is withheld: %s", body)
	case !complete && event.name == "nothing":
		t.Errorf("an honest call is refused: %s", body)
	}
	report, err := s.book.Check(t.Context(), nil)
	must(t, err)
	if len(report.Wrong)+len(report.Ledger.Wrong) > 0 {
		t.Errorf("books: %v %v", report.Wrong, report.Ledger.Wrong)
	}
	return happened
}

// heldInFull reports whether everything that an answer can cost is known and held before the answer.
func heldInFull(good sold) bool {
	switch good.name {
	case "byte", "count", "cost", "image", "second":
		return false
	}
	return true
}
