package escrow_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/tallygate/tallygate/escrow"
)

// TestSuspectAndWithheldAreListed: the charges that cost too little are listed alone, also among very many others, and so are the last answers that
// were withheld.
func TestSuspectAndWithheldAreListed(t *testing.T) {
	t.Parallel()
	s := newShop(t, defaultRules())
	s.agents("10", "alice", "bob")
	s.agents("0", "shop")
	call := func(payer string, suspect bool) string {
		id := s.NewRequestID()
		a, err := s.Authorise(context.Background(), escrow.CallOrder{Request: id, By: by(payer), Payee: "shop", Least: amount("0.01")})
		must(t, err)
		_, err = a.Settle(context.Background(), escrow.Settlement{Amount: amount("0.01"), Suspect: suspect})
		must(t, err)
		return id
	}
	call("alice", false)
	first, second := call("alice", true), call("bob", true)
	call("bob", false)
	for _, test := range []struct {
		filter escrow.ChargeFilter
		want   []string
	}{
		{escrow.ChargeFilter{Suspect: true}, []string{second, first}},
		{escrow.ChargeFilter{Suspect: true, Payer: "alice"}, []string{first}},
		{escrow.ChargeFilter{Suspect: true, Agent: "shop"}, []string{second, first}},
		{escrow.ChargeFilter{Suspect: true, Agent: "bob"}, []string{second}},
	} {
		charges, _, err := s.Charges(test.filter, escrow.Page{})
		must(t, err)
		ids := []string{}
		for _, c := range charges {
			ids = append(ids, c.RequestID)
		}
		if fmt.Sprint(ids) != fmt.Sprint(test.want) {
			t.Errorf("%+v: %v, want %v", test.filter, ids, test.want)
		}
	}
	for range 501 {
		must(t, s.run(func(tx *escrow.Tx) error {
			return tx.Withheld(escrow.WithheldCall{Request: s.NewRequestID(), Payer: "alice", Payee: "shop", Reason: escrow.InsufficientFunds})
		}))
	}
	calls, next, err := s.WithheldCalls(escrow.Page{Limit: escrow.MaxPage})
	must(t, err)
	if len(calls) != 500 || next != "" || calls[0].Withheld.Request < calls[499].Withheld.Request || calls[0].Withheld.Payer != "alice" {
		t.Errorf("%d calls, the newest %+v", len(calls), calls[0].Withheld)
	}
}
