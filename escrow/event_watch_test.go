package escrow_test

import (
	"testing"

	"github.com/tallygate/tallygate/escrow"
)

// hears reports whether the watch was told of a change since it was asked last.
func hears(w *escrow.Watch) bool {
	select {
	case <-w.Changed():
		return true
	default:
		return false
	}
}

// TestWatch: an agent hears of its own changes, and of nobody else's. Nobody waits for a watch that is not read, and it hears of the changes later.
func TestWatch(t *testing.T) {
	t.Parallel()
	s := newShop(t, defaultRules())
	s.agents("10", "alice", "bob", "carol")
	watch := func(agent, since string) *escrow.Watch {
		w, err := s.Watch(t.Context(), agent, since)
		must(t, err)
		t.Cleanup(w.End)
		return w
	}
	begun := s.Mark("carol")
	alice, carol, all := watch("alice", s.Mark("alice")), watch("carol", begun), watch(escrow.TheOperator, "")
	if hears(alice) || hears(carol) || !hears(all) {
		t.Error("a watch whose mark is the last begins without a change, and one without a mark begins with one")
	}
	pay := func() {
		_, err := do(s, func(tx *escrow.Tx) (escrow.Payment, error) {
			return tx.Transfer(escrow.Actor{Agent: "alice"}, escrow.PaymentOrder{To: "bob", Amount: amount("1")})
		})
		must(t, err)
	}
	pay()
	pay()
	if !hears(alice) || !hears(all) || hears(carol) || hears(alice) {
		t.Error("two payments of alice are one message to alice and to the operator, and none to carol")
	}
	if w := watch("bob", begun); !hears(w) {
		t.Error("a watch with an old mark begins with a change")
	}
	if _, err := do(s, func(tx *escrow.Tx) (escrow.Payment, error) {
		return tx.Transfer(escrow.Actor{Agent: "alice"}, escrow.PaymentOrder{To: "bob", Amount: amount("100")})
	}); !escrow.IsRefusal(err, escrow.InsufficientFunds) {
		t.Fatal(err)
	}
	if hears(alice) || hears(all) {
		t.Error("what is refused is no change")
	}
	alice.End()
	pay()
	if hears(alice) {
		t.Error("a watch that has ended hears of nothing")
	}
}

// TestWatchesAreBounded: one agent has only so many watches at once, which takes none from others.
func TestWatchesAreBounded(t *testing.T) {
	t.Parallel()
	s := newShop(t, defaultRules())
	var open []*escrow.Watch
	for {
		w, err := s.Watch(t.Context(), "alice", "")
		if escrow.IsRefusal(err, escrow.RateLimited) {
			break
		}
		must(t, err)
		if open = append(open, w); len(open) > 100 {
			t.Fatal("alice has a hundred watches")
		}
	}
	bob, err := s.Watch(t.Context(), "bob", "")
	must(t, err)
	bob.End()
	open[0].End()
	again, err := s.Watch(t.Context(), "alice", "")
	must(t, err)
	again.End()
}

// TestChangesThatWatchesHearOf: each kind of thing that pages show.
func TestChangesThatWatchesHearOf(t *testing.T) {
	t.Parallel()
	s := newShop(t, defaultRules())
	s.agents("10", "alice", "bob")
	w, err := s.Watch(t.Context(), "alice", s.Mark("alice"))
	must(t, err)
	t.Cleanup(w.End)
	alice := escrow.Actor{Agent: "alice"}
	for _, c := range []struct {
		what string
		op   func(tx *escrow.Tx) error
	}{
		{"an escrow", func(tx *escrow.Tx) error {
			_, err := tx.CreateEscrow(alice, escrow.EscrowOrder{To: "bob", Amount: amount("1")})
			return err
		}},
		{"a key", func(tx *escrow.Tx) error {
			_, _, err := tx.CreateKey(alice, "", escrow.KeyOrder{Name: "second"})
			return err
		}},
		{"the agent", func(tx *escrow.Tx) error {
			_, err := tx.Suspend(operator, "alice", "a test")
			return err
		}},
	} {
		must(t, s.run(c.op))
		if !hears(w) {
			t.Errorf("%s has changed, and nobody heard of it", c.what)
		}
	}
}
