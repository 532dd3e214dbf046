package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/pricing"
)

// bank is a rail, and the network behind it, which fails as it is told. A request brings "ID=AMOUNT". Of a payment whose id begins with u, the
// amount is the most that may be settled.
type bank struct {
	coins
	ends     time.Time
	remember bool                     // it tells again what it has settled; otherwise it refuses what was settled before
	fault    string                   // what it does next
	paid     map[string]ledger.Amount // what it has moved to the operator
	taken    map[string]bool          // what somebody else has used up, so that nothing came to the operator
}

// faults are what can happen to a payment: the network does not answer, refuses to verify or to settle it, settles it but its answer is
// lost, sends it but does not know what became of it, or somebody else was faster.
var faults = []string{"", "", "", "down", "not valid", "refuse", "lose", "late", "front-run"}

func (b *bank) Name() string { return "bank" }

func (b *bank) Take(r *http.Request) (gateway.Payable, bool, error) {
	p, found, err := b.coins.Take(r)
	p.Ends, p.Secret, p.UpTo = b.ends, []byte(p.ID), strings.HasPrefix(p.ID, "u")
	return p, found, err
}

func (b *bank) UpTo(p gateway.Payable, amount ledger.Amount) (gateway.Payable, error) {
	p.Amount = amount
	return p, nil
}

var _ gateway.UpToRail = (*bank)(nil)

func (b *bank) Verify(ctx context.Context, p gateway.Payable) error {
	switch {
	case b.fault == "slow to verify":
		<-ctx.Done()
		return ctx.Err()
	case b.fault == "down":
		return errors.New("no answer")
	case b.fault == "not valid", b.paid[p.ID] > 0, b.taken[p.ID]:
		return &escrow.Refusal{Outcome: "payment_refused", Detail: "it is not valid"}
	}
	return nil
}

func (b *bank) Settle(ctx context.Context, p gateway.Payable) (string, error) {
	used := &escrow.Refusal{Outcome: "payment_refused", Detail: "it was used"}
	switch {
	case b.fault == "down", b.fault == "late":
		return "", errors.New("no answer")
	case b.fault == "refuse":
		return "", used
	case b.paid[p.ID] > 0 && b.remember:
		return "0x" + p.ID, nil
	case b.paid[p.ID] > 0, b.taken[p.ID]:
		return "", used
	case b.fault == "front-run":
		b.taken[p.ID] = true
		return "", used
	}
	if b.fault == "slow" { // it settles when nobody waits for it any more
		<-ctx.Done()
	}
	b.paid[p.ID] = p.Amount
	if b.fault == "lose" || b.fault == "slow" {
		return "", errors.New("no answer")
	}
	return "0x" + p.ID, nil
}

// vault is a gateway that takes payments by a bank, over books that are opened again and again.
type vault struct {
	bank   *bank
	disk   disk
	ahead  atomic.Int64 // by which the clock goes ahead
	books  *ledger.Ledger
	book   *escrow.Book
	worker *gateway.Gateway
	serve  http.Handler
}

func (v *vault) now() time.Time { return v.bank.ends.Add(time.Duration(v.ahead.Load()) - 24*time.Hour) }

// fine is must, for tests of package rapid.
func fine(t rapid.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (v *vault) open(t rapid.TB) {
	quiet := slog.New(slog.DiscardHandler)
	store, err := v.disk.open()
	fine(t, err)
	v.books, err = ledger.New(store, ledger.Options{Currency: "USDC", Now: v.now, Logger: quiet})
	fine(t, err)
	v.book = escrow.New(v.books, escrow.Rules{Rails: []string{"bank"}})
	fine(t, v.book.Reserve(context.Background(), "acme"))
	price, err := pricing.ParsePrice([]string{"0.4", "per", "call"})
	fine(t, err)
	rates, err := pricing.NewRates([]pricing.Price{price})
	fine(t, err)
	v.worker = gateway.New(v.book, gateway.Options{Rails: []gateway.Rail{v.bank}})
	v.serve = v.worker.Handler(&gateway.Route{Payee: "acme", Logger: quiet, Rates: rates}, http.HandlerFunc(results))
}

// reopen is what happens when the process dies.
func (v *vault) reopen(t rapid.TB) {
	_ = v.books.Close()
	v.open(t)
	fine(t, v.book.RecoverPending(context.Background()))
}

func (v *vault) pay(t rapid.TB, payment string) int {
	r := httptest.NewRequestWithContext(context.Background(), http.MethodGet, "http://shop.example/search", nil)
	r.Header.Set("X-Coins", payment)
	w := httptest.NewRecorder()
	v.serve.ServeHTTP(w, r)
	return w.Code
}

// collect asks for all that is pending, after the time in which a request may wait for it.
func (v *vault) collect(t rapid.TB) error {
	v.ahead.Add(int64(3 * time.Minute))
	return v.worker.CollectPending(context.Background(), slog.New(slog.DiscardHandler))
}

// check compares what the network has moved with what is booked.
func (v *vault) check(t rapid.TB, payments []string) {
	var booked, moved ledger.Amount
	for _, payment := range payments {
		id, _, _ := strings.Cut(payment, "=")
		noted, found, err := v.book.RailPayment("bank", id)
		fine(t, err)
		switch paid := v.bank.paid[id]; {
		case id[0] == 'u' && paid != 0 && paid != amount("0.4"):
			t.Fatalf("payment %s was settled at %s; the price is 0.4", id, paid)
		case found && !noted.Pending && (paid != noted.Amount || v.bank.taken[id]):
			t.Fatalf("payment %s is booked, of %s; the network has moved %s", id, noted.Amount, paid)
		case paid > 0 && !found:
			t.Fatalf("payment %s was made, and the books know nothing of it", id)
		case paid > 0 && v.bank.remember && noted.Pending:
			t.Fatalf("payment %s was made, and is not booked", id)
		}
		if found && !noted.Pending {
			booked += noted.Amount
		}
		moved += v.bank.paid[id]
	}
	if v.bank.remember && booked != moved {
		t.Fatalf("booked %s, but the network has moved %s", booked, moved)
	}
	var held ledger.Amount
	for _, agent := range []string{"bank:bob", "acme"} {
		wallet, err := v.book.Wallet(context.Background(), agent)
		if escrow.IsRefusal(err, escrow.NotFound) {
			continue
		}
		fine(t, err)
		held += wallet.Balance
	}
	if held != booked {
		t.Fatalf("booked %s, but the wallets hold %s", booked, held)
	}
}

// TestWhatWasPaidIsBooked makes payments over a network that fails, and over books whose process dies and whose disk fails. What the network
// has moved is booked, once, or the books say that it is not known; and nothing else is booked. That holds for payments that are settled before
// the call, and for those that are settled at its price.
func TestWhatWasPaidIsBooked(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		v := &vault{disk: newDisk(), bank: &bank{
			ends: time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC), remember: rapid.Bool().Draw(t, "the network remembers"),
			paid: map[string]ledger.Amount{}, taken: map[string]bool{},
		}}
		v.open(t)
		defer func() { _ = v.books.Close() }()
		var payments []string
		t.Repeat(map[string]func(*rapid.T){
			"pay": func(t *rapid.T) {
				if len(payments) == 0 || rapid.Bool().Draw(t, "a new payment") {
					payments = append(payments, fmt.Sprintf("%s%d=%d", rapid.SampledFrom([]string{"p", "u"}).Draw(t, "kind"), len(payments), 1+len(payments)%3))
				}
				v.bank.fault = rapid.SampledFrom(faults).Draw(t, "fault")
				disk := rapid.SampledFrom([]string{"", "", "", "fails", "fails after writing"}).Draw(t, "disk")
				if disk != "" {
					v.disk.failNext(errors.New("disk on fire"), disk != "fails")
				}
				code := v.pay(t, rapid.SampledFrom(payments).Draw(t, "payment"))
				t.Logf("answered with %d", code)
				if disk != "" {
					v.disk.failNext(nil, false)
					v.reopen(t)
				}
			},
			"ask later": func(t *rapid.T) {
				v.bank.fault = rapid.SampledFrom(faults).Draw(t, "fault")
				fine(t, v.collect(t))
			},
			"die": func(t *rapid.T) { v.reopen(t) },
		})
		v.bank.fault = ""
		fine(t, v.collect(t))
		v.check(t, payments)
	})
}

// TestASlowRail: a rail that does not answer within the time limit is not waited for. Nothing is served; what it has settled all the same is
// booked later, once, and then the same request is served.
func TestASlowRail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // a database has a clock of its own
		v := &vault{disk: inMemory(), bank: &bank{
			ends: time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC), remember: true, paid: map[string]ledger.Amount{}, taken: map[string]bool{},
		}}
		v.open(t)
		defer func() { _ = v.books.Close() }()
		began := time.Now()
		v.bank.fault = "slow to verify"
		want(t, "not verified in time", v.pay(t, "p=1"), http.StatusServiceUnavailable)
		want(t, "waited", time.Since(began), 10*time.Second)
		_, found, err := v.book.RailPayment("bank", "p")
		fine(t, err)
		want(t, "written down", found, false)

		began = time.Now()
		v.bank.fault = "slow"
		want(t, "not settled in time", v.pay(t, "p=1"), http.StatusServiceUnavailable)
		want(t, "waited", time.Since(began), time.Minute)
		noted, _, err := v.book.RailPayment("bank", "p")
		fine(t, err)
		want(t, "pending", noted.Pending, true)
		v.bank.fault = ""
		fine(t, v.collect(t))
		v.check(t, []string{"p=1"})
		want(t, "the same request", v.pay(t, "p=1"), http.StatusOK)
		v.check(t, []string{"p=1"})
	})
}
