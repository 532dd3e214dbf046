package escrow_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/tallygate/tallygate/escrow"
)

// TestResources: what a settled call has made is its payer's, for one payee, and nobody takes it away or forgets it for the payer.
func TestResources(t *testing.T) {
	t.Parallel()
	s := newShop(t, defaultRules())
	s.agents("10", "alice", "bob", "shop")
	file := escrow.Resource{Payee: "shop", Kind: "files", ID: "f"}
	made := 0
	call := func(payer string, r ...escrow.Resource) {
		t.Helper()
		made++
		a, err := s.Authorise(context.Background(), escrow.CallOrder{Request: fmt.Sprint("req_", made), By: by(payer), Payee: "shop", Least: amount("0.01"), Most: amount("0.01")})
		must(t, err)
		_, err = a.Settle(context.Background(), escrow.Settlement{Amount: amount("0.01"), Made: r})
		must(t, err)
	}
	owned := func(by string, resources ...escrow.Resource) {
		t.Helper()
		owners, err := s.Noted(resources)
		must(t, err)
		for i, noted := range owners {
			if noted.Owner != by {
				t.Errorf("%+v is %q's, want %q", resources[i], noted.Owner, by)
			}
		}
	}
	owned("", file)
	call("alice", file, file)
	owned("alice", file)
	call("bob", file)
	must(t, s.run(func(tx *escrow.Tx) error { return tx.Own("bob", file) }))
	must(t, s.run(func(tx *escrow.Tx) error { return tx.Disown("bob", file) }))
	owned("alice", file)
	elsewhere, other := file, file
	elsewhere.Payee, other.Kind = "bob", "responses"
	owned("", elsewhere, other)

	must(t, s.run(func(tx *escrow.Tx) error { return tx.Disown("alice", file) }))
	owned("", file)
	call("bob", file)
	owned("bob", file)

	for _, wrong := range []escrow.Resource{{Payee: "shop", Kind: "files"}, {Kind: "files", ID: "x"}, {Payee: "shop", Kind: "files", ID: strings.Repeat("x", 257)}, {Payee: "shop", Kind: "files", ID: "a\x00b"}} {
		call("alice", wrong)
		owned("", wrong)
	}
	must(t, s.run(func(tx *escrow.Tx) error { return tx.Own("", other) }))
	owned("", other)
}

// TestWhatIsNotedOfResources: how long a resource is, and what is owed on it until a charge pays that.
func TestWhatIsNotedOfResources(t *testing.T) {
	t.Parallel()
	s := newShop(t, defaultRules())
	s.agents("1", "alice", "shop")
	talk := escrow.Resource{Payee: "shop", Kind: "conversations", ID: "c"}
	settle := func(request, most string, settlement escrow.Settlement) escrow.Charge {
		t.Helper()
		a, err := s.Authorise(context.Background(), escrow.CallOrder{Request: request, By: by("alice"), Payee: "shop", Most: amount(most)})
		must(t, err)
		c, err := a.Settle(context.Background(), settlement)
		must(t, err)
		return c
	}
	noted := func(what string, tokens int64, owed string) []escrow.Debt {
		t.Helper()
		all, err := s.Noted([]escrow.Resource{talk})
		must(t, err)
		var sum string
		for _, d := range all[0].Owed {
			sum += d.Request + " " + d.Payer + " " + d.Amount.String() + " "
		}
		if all[0].Tokens != tokens || sum != owed {
			t.Errorf("%s: %d tokens, owed %q, want %d, %q", what, all[0].Tokens, sum, tokens, owed)
		}
		return all[0].Owed
	}
	length := func(tokens int64, adds bool) []escrow.Context {
		return []escrow.Context{{Resource: talk, Tokens: tokens, Adds: adds}}
	}
	on := []escrow.Resource{talk}
	noted("new", 0, "")
	settle("r1", "0", escrow.Settlement{Source: "stated", Context: length(100, false)})
	noted("stated", 100, "")
	settle("r2", "0", escrow.Settlement{Source: "stated", Context: length(10, true)})
	noted("added to", 110, "")
	settle("r3", "0", escrow.Settlement{Source: "estimated", Context: length(50, false)})
	noted("estimated lower", 110, "")
	settle("r4", "0", escrow.Settlement{Source: "stated", Context: length(50, false)})
	noted("stated lower", 50, "")

	settle("r5", "0.1", escrow.Settlement{Amount: amount("0.1"), Source: "stated", OwedOn: on})
	noted("paid in full", 50, "")
	limited := settle("r6", "0.1", escrow.Settlement{Amount: amount("0.3"), Limit: amount("0.1"), Source: "stated", OwedOn: on})
	if limited.Amount != amount("0.1") || limited.Owed != amount("0.2") {
		t.Errorf("charged %s, owed %s", limited.Amount, limited.Owed)
	}
	settle("r7", "1", escrow.Settlement{Amount: amount("1.5"), Source: "stated", OwedOn: on})
	debts := noted("owed", 50, "r6 alice 0.2 r7 alice 0.7 ")
	must(t, s.run(func(tx *escrow.Tx) error {
		_, err := tx.Deposit(escrow.Actor{Operator: true}, escrow.PaymentOrder{To: "alice", Amount: amount("5")})
		return err
	}))
	settle(debts[0].ID(), "0.2", escrow.Settlement{Amount: debts[0].Amount})
	noted("one is paid", 50, "r7 alice 0.7 ")
	settle(debts[1].ID(), "0.7", escrow.Settlement{Amount: debts[1].Amount})
	noted("both are paid", 50, "")
	settle("r8", "0", escrow.Settlement{Amount: amount("9"), Source: "stated", OwedOn: on})
	noted("owed again", 50, "r8 alice 4.9 ")
}
