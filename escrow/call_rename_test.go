package escrow_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
)

// TestRenamedCall: what was set aside on disk for a call pays a part of its result, which is charged under another id: credit first, then money. The
// rest is free again, and the whole result is charged under its own id later.
func TestRenamedCall(t *testing.T) {
	for _, from := range []escrow.Funding{escrow.FromWallet, escrow.FromEscrow} {
		for part, credit := range map[string]string{"0": "0", "0.2": "0.2", "0.3": "0.3", "0.7": "0.3", "1": "0.3"} {
			t.Run(fmt.Sprint(from, " ", part), func(t *testing.T) {
				s := newShop(t, defaultRules())
				s.agents("3", "alice")
				s.agents("0", "shop")
				s.issue("shop", "alice", "0.3", time.Time{})
				if from == escrow.FromEscrow {
					_, err := do(s, func(tx *escrow.Tx) (escrow.Escrow, error) {
						return tx.CreateEscrow(by("alice"), escrow.EscrowOrder{To: "shop", Amount: amount("3")})
					})
					must(t, err)
				}
				authorise := func(request string) *escrow.Authorisation {
					o := s.withCredit("1", "1")
					o.Request, o.From = request, from
					a, err := s.Authorise(context.Background(), o)
					must(t, err)
					return a
				}
				charged := func(a *escrow.Authorisation, request, sum, credit string) {
					t.Helper()
					charge, err := a.Settle(context.Background(), escrow.Settlement{Amount: amount(sum)})
					must(t, err)
					if charge.RequestID != request || charge.Amount != amount(sum) || charge.Credit != amount(credit) || charge.Suspect {
						t.Errorf("charged %s of %s, credit %s, suspect %v", charge.Amount, charge.RequestID, charge.Credit, charge.Suspect)
					}
				}
				whole, other := s.NewRequestID(), s.NewRequestID()
				a := authorise(whole)
				a.Draw(amount("1"), false)
				must(t, a.Await())
				if !a.Rename(other) {
					t.Fatal("it has another id")
				}
				charged(a, other, part, credit)
				s.sound()
				charged(authorise(whole), whole, "1", (amount("0.3") - amount(credit)).String())
				s.sound()
				left, held := s.balance("shop"), amount(part)+amount("1")-amount("0.3")
				if left != held {
					t.Errorf("the shop has %s, not %s", left, held)
				}
			})
		}
	}
}

// TestRenamedCallEnds: what was set aside on disk for a call is free again if the call ends without a charge after it got another id. What was
// posted stays under the id that it was posted under.
func TestRenamedCallEnds(t *testing.T) {
	s := newShop(t, defaultRules())
	s.agents("3", "alice")
	s.agents("0", "shop")
	a, err := s.Authorise(context.Background(), s.withCredit("1", "1"))
	must(t, err)
	a.Draw(amount("1"), false)
	must(t, a.Await())
	if !a.Rename(s.NewRequestID()) {
		t.Fatal("it has another id")
	}
	a.Cancel()
	must(t, s.run(func(*escrow.Tx) error { return nil })) // after what Cancel does
	all, err := s.Authorise(context.Background(), s.withCredit("3", "3"))
	must(t, err)
	all.Cancel()
	s.sound()

	exact, err := s.Authorise(context.Background(), s.withCredit("1", "1"))
	must(t, err)
	exact.Draw(amount("0.5"), true)
	must(t, exact.Await())
	if exact.Rename(s.NewRequestID()) {
		t.Error("half of it is posted, and it gets another id")
	}
	exact.Cancel()
	s.sound()
}
