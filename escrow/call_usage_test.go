package escrow_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
)

func TestUsageAndStatement(t *testing.T) {
	s := newShop(t, defaultRules())
	s.agents("100", "alice")
	s.agents("0", "shop", "other")
	call := func(payee, model, price, team string) string {
		id := s.NewRequestID()
		a, err := s.Authorise(context.Background(), escrow.CallOrder{Request: id, By: by("alice"), Payee: payee, Least: amount(price), Model: model, Tags: map[string]string{"team": team}})
		must(t, err)
		_, err = a.Settle(context.Background(), escrow.Settlement{Amount: amount(price), Units: map[string]string{"input": "1.5", "output": "2"}})
		must(t, err)
		return id
	}
	call("shop", "small", "1", "x")
	first := call("shop", "large", "2", "y")
	must(t, s.run(func(tx *escrow.Tx) error { _, err := tx.RefundCharge(by("shop"), first, amount("0.5"), ""); return err }))
	s.clock.advance(8 * 24 * time.Hour) // into December
	call("other", "small", "4", "x")
	for _, test := range []struct{ agent, by, from, want string }{
		{"alice", "", "", "[{other 1 4 0 0 0 map[input:1.5 output:2]} {shop 2 3 0 0.5 0 map[input:3 output:4]}]"},
		{"alice", "model", "", "[{large 1 2 0 0.5 0 map[input:1.5 output:2]} {small 2 5 0 0 0 map[input:3 output:4]}]"},
		{"alice", "day", "", "[{2026-11-24 2 3 0 0.5 0 map[input:3 output:4]} {2026-12-02 1 4 0 0 0 map[input:1.5 output:2]}]"},
		{"alice", "tag:team", "2026-12-01", "[{x 1 4 0 0 0 map[input:1.5 output:2]}]"},
		{"shop", "payer", "", "[{alice 2 0 3 0.5 0 map[input:3 output:4]}]"},
		{"shop", "", "2026-12-01", "[]"},
	} {
		f := escrow.ChargeFilter{Agent: test.agent}
		if test.from != "" {
			f.From, _ = time.Parse(time.DateOnly, test.from)
		}
		rows, whole, err := s.Usage(context.Background(), f, test.by)
		must(t, err)
		if fmt.Sprint(rows) != test.want || !whole {
			t.Errorf("usage of %s by %q from %q: %v, want %s", test.agent, test.by, test.from, rows, test.want)
		}
	}
	if _, _, err := s.Usage(context.Background(), escrow.ChargeFilter{Agent: "alice"}, "colour"); !escrow.IsRefusal(err, escrow.InvalidRequest) {
		t.Errorf("grouped by colour: %v", err)
	}
	for month, want := range map[string]string{
		"2026-10": "0 0 []",
		"2026-11": "0 97.5 [{charge 2 0 3} {charge_refund 1 0.5 0} {deposit 1 100 0}]",
		"2026-12": "97.5 93.5 [{charge 1 0 4}]",
		"2027-01": "93.5 93.5 []",
	} {
		st, err := s.Statement(context.Background(), "alice", month)
		must(t, err)
		if got := fmt.Sprint(st.Opening, " ", st.Closing, " ", st.Lines); got != want {
			t.Errorf("statement of %s: %s, want %s", month, got, want)
		}
	}
	if _, err := s.Statement(context.Background(), "alice", "November"); !escrow.IsRefusal(err, escrow.InvalidRequest) {
		t.Errorf("a statement of November: %v", err)
	}
}
