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
// pays. The charge is one commit, of two round trips.
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
	book := escrow.New(l, escrow.Rules{OpenRegistration: true})
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
	for from, name := range map[escrow.Funding]string{escrow.FromWallet: "wallet", escrow.FromEscrow: "escrow"} {
		for call := range 6 {
			before := sent.Load()
			who, err := book.Authenticate(secret)
			must(t, err)
			a, err := book.Authorise(ctx, escrow.CallOrder{
				Request: book.NewRequestID(), By: who, Payee: "acme", Least: ledger.Unit, Most: 2 * ledger.Unit, Credit: true, From: from, Open: 100 * ledger.Unit,
			})
			must(t, err)
			admitted := sent.Load() - before
			_, err = a.Settle(ctx, escrow.Settlement{Amount: ledger.Unit})
			must(t, err)
			charged := sent.Load() - before - admitted
			if call >= 3 && (admitted > 0 || charged > 2) {
				t.Errorf("%s: call %d asked the database %d times before, and %d times for the charge", name, call, admitted, charged)
			}
		}
	}
}
