//go:build unix

package postgres_test

import (
	"context"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/postgres"
	"github.com/tallygate/tallygate/escrow/ledger/postgres/pgtest"
)

// counted is a connection that counts what is sent.
type counted struct {
	net.Conn
	sent *atomic.Int64
}

func (c counted) Write(p []byte) (int, error) {
	c.sent.Add(1)
	return c.Conn.Write(p)
}

// TestNoRoundTripBeforeACall: the call of an agent that has called before is let in without asking the database, whether its wallet or an escrow
// or a plan pays, and whether limits count it. The charge is one commit, of two round trips.
func TestNoRoundTripBeforeACall(t *testing.T) {
	var sent atomic.Int64
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		return counted{conn, &sent}, err
	}
	options := postgres.Options{Dial: dial, FoldPause: time.Hour, Logger: slog.New(slog.DiscardHandler)} // a fold would be counted too
	store, err := postgres.Open(pgtest.Shared(t).New(t), options)
	must(t, err)
	l, err := ledger.New(store, ledger.Options{Currency: "USDC", Untended: true})
	must(t, err)
	defer l.Close()
	month := 720 * time.Hour
	book := escrow.New(l, escrow.Rules{OpenRegistration: true, Plans: []escrow.Plan{
		{Payee: "acme", Name: "counted", Price: ledger.Unit, Period: month, Included: 1000 * escrow.Micro, Unit: "call"},
		{Payee: "acme", Name: "flat", Price: ledger.Unit, Period: month},
	}})
	ctx, operator := t.Context(), escrow.Actor{Operator: true}
	do := func(op func(tx *escrow.Tx) error) {
		t.Helper()
		_, err := escrow.Do(ctx, book, func(tx *escrow.Tx) (struct{}, error) { return struct{}{}, op(tx) })
		must(t, err)
	}
	var secret string
	for _, name := range []string{"ada", "acme"} {
		made, err := escrow.Do(ctx, book, func(tx *escrow.Tx) (secret string, err error) {
			_, _, secret, err = tx.CreateAgent(operator, escrow.AgentOrder{ID: name})
			return secret, err
		})
		must(t, err)
		if name == "ada" {
			secret = made
		}
	}
	do(func(tx *escrow.Tx) error {
		_, err := tx.Deposit(operator, escrow.PaymentOrder{To: "ada", Amount: 1000 * ledger.Unit})
		return err
	})
	do(func(tx *escrow.Tx) error {
		_, err := tx.Subscribe(escrow.Actor{Agent: "ada"}, escrow.SubscriptionOrder{Payee: "acme", Plan: "counted"})
		return err
	})
	do(func(tx *escrow.Tx) error {
		_, err := tx.Subscribe(escrow.Actor{Agent: "ada"}, escrow.SubscriptionOrder{Payee: "acme", Plan: "flat"})
		return err
	})
	limits := []escrow.Limit{{Amount: 500 * ledger.Unit, Window: 24 * time.Hour}, {Payee: "acme", Amount: 400 * ledger.Unit, Window: time.Hour}}
	for _, c := range []struct {
		name   string
		limits []escrow.Limit
		order  escrow.CallOrder
	}{
		{"wallet", nil, escrow.CallOrder{}},
		{"escrow", nil, escrow.CallOrder{From: escrow.FromEscrow, Open: 100 * ledger.Unit}},
		{"plan with a quota", nil, escrow.CallOrder{From: escrow.FromSubscription, Plan: "counted", Quota: escrow.Micro}},
		{"flat plan", nil, escrow.CallOrder{From: escrow.FromSubscription, Plan: "flat"}},
		{"wallet, under limits", limits, escrow.CallOrder{}},
		{"plan with a quota, under limits", limits, escrow.CallOrder{From: escrow.FromSubscription, Plan: "counted", Quota: escrow.Micro}},
	} {
		do(func(tx *escrow.Tx) error { _, err := tx.SetLimits(operator, "ada", c.limits); return err })
		for call := range 8 {
			before := sent.Load()
			who, err := book.Authenticate(secret)
			must(t, err)
			o := c.order
			o.Request, o.By, o.Payee = book.NewRequestID(), who, "acme"
			settled := escrow.Settlement{Quota: o.Quota}
			if o.From != escrow.FromSubscription {
				o.Least, o.Most, o.Credit, settled.Amount = ledger.Unit, 2*ledger.Unit, true, ledger.Unit
			}
			a, err := book.Authorise(ctx, o)
			must(t, err)
			admitted := sent.Load() - before
			_, err = a.Settle(ctx, settled)
			must(t, err)
			charged := sent.Load() - before - admitted
			if call >= 4 && (admitted > 0 || charged > 2) {
				t.Errorf("%s: call %d asked the database %d times before, and %d times for the charge", c.name, call, admitted, charged)
			}
		}
	}
}
