package escrow_test

import (
	"context"
	"fmt"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/ledgertest"
)

// Two agents, a deposit, and a metered call that one agent pays to the other.
func Example() {
	l, err := ledger.New(ledgertest.NewStore(), ledger.Options{Currency: "USDC"}) // in memory; see the package bolt for a file
	if err != nil {
		panic(err)
	}
	defer l.Close()
	book := escrow.New(l, escrow.Rules{CommissionPPM: 10_000}) // 1%

	ctx, operator := context.Background(), escrow.Actor{Operator: true}
	alice, err := escrow.Do(ctx, book, func(t *escrow.Tx) (escrow.Wallet, error) {
		for _, id := range []string{"alice", "acme"} {
			if _, _, _, err := t.CreateAgent(operator, escrow.AgentOrder{ID: id}); err != nil {
				return escrow.Wallet{}, err
			}
		}
		deposit, err := t.Deposit(operator, escrow.PaymentOrder{To: "alice", Amount: 10 * ledger.Unit})
		return deposit.Wallet, err
	})
	fmt.Println("alice:", alice.Balance, err)

	order := escrow.CallOrder{Request: book.NewRequestID(), By: escrow.Actor{Agent: "alice"}, Payee: "acme", Least: 3 * ledger.Unit}
	call, err := book.Authorise(ctx, order) // what the call may cost is set aside before it goes to the provider
	if err != nil {
		panic(err)
	}
	charge, err := call.Settle(ctx, escrow.Settlement{Amount: 2 * ledger.Unit, Units: map[string]string{"call": "1"}})
	fmt.Println("charged:", charge.Amount, "of it commission:", charge.Commission, err)

	for _, agent := range []string{"alice", "acme"} {
		wallet, err := book.Wallet(ctx, agent)
		fmt.Println(agent, wallet.Balance, wallet.Currency, "held", wallet.Held, err)
	}
	report, err := book.Check(ctx, nil)
	fmt.Println("the books are good:", report.Good(), err)
	// Output:
	// alice: 10 <nil>
	// charged: 2 of it commission: 0.02 <nil>
	// alice 8 USDC held 0 <nil>
	// acme 1.98 USDC held 0 <nil>
	// the books are good: true <nil>
}

// An escrow with milestones: the payer locks the money and releases it part by part.
func ExampleTx_CreateEscrow() {
	l, err := ledger.New(ledgertest.NewStore(), ledger.Options{Currency: "USDC"})
	if err != nil {
		panic(err)
	}
	defer l.Close()
	book, ctx, operator := escrow.New(l, escrow.Rules{}), context.Background(), escrow.Actor{Operator: true}
	e, err := escrow.Do(ctx, book, func(t *escrow.Tx) (escrow.Escrow, error) {
		for _, id := range []string{"alice", "acme"} {
			if _, _, _, err := t.CreateAgent(operator, escrow.AgentOrder{ID: id}); err != nil {
				return escrow.Escrow{}, err
			}
		}
		if _, err := t.Deposit(operator, escrow.PaymentOrder{To: "alice", Amount: 10 * ledger.Unit}); err != nil {
			return escrow.Escrow{}, err
		}
		return t.CreateEscrow(escrow.Actor{Agent: "alice"}, escrow.EscrowOrder{
			To: "acme", Amount: 9 * ledger.Unit, Milestones: []escrow.Milestone{{Name: "draft", Amount: 3 * ledger.Unit}, {Name: "final", Amount: 6 * ledger.Unit}},
		})
	})
	fmt.Println(e.Status, e.Remaining(), err)
	e, err = escrow.Do(ctx, book, func(t *escrow.Tx) (escrow.Escrow, error) {
		return t.AcceptMilestone(escrow.Actor{Agent: "alice"}, e.ID, "draft", "")
	})
	fmt.Println(e.Status, e.Remaining(), err)
	// Output:
	// open 9 <nil>
	// open 6 <nil>
}
