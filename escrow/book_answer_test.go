package escrow_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
)

// TestKeptAnswers: an answer is stored and forgotten together with its idempotency key. How much is stored for an agent is limited.
func TestKeptAnswers(t *testing.T) {
	t.Parallel()
	s := newShop(t, defaultRules())
	s.agents("10", "alice", "bob", "shop")
	made := 0
	call := func(key string, answer []byte) {
		t.Helper()
		made++
		o := escrow.CallOrder{Request: fmt.Sprint("req_", made), By: by("alice"), Payee: "shop", Least: amount("0.01"), Most: amount("0.01"), IdempotencyKey: key}
		a, err := s.Authorise(context.Background(), o)
		must(t, err)
		_, err = a.Settle(context.Background(), escrow.Settlement{Amount: amount("0.01"), Answer: answer})
		must(t, err)
	}
	kept := func(agent, key string) []byte {
		t.Helper()
		answer, found, err := s.KeptAnswer(agent, key)
		must(t, err)
		if found != (answer != nil) {
			t.Errorf("found %v, %d bytes", found, len(answer))
		}
		return answer
	}
	call("k", []byte("sealed"))
	call("none", nil)
	call("", []byte("without a key"))
	if got := kept("alice", "k"); string(got) != "sealed" {
		t.Errorf("kept %q", got)
	}
	if kept("bob", "k") != nil || kept("alice", "none") != nil || kept("alice", "other") != nil {
		t.Error("something else was kept")
	}
	s.clock.advance(12 * time.Hour)
	s.catchUp()
	large := bytes.Repeat([]byte("x"), 8<<20)
	for i := range 9 { // of which the last has no room
		call(fmt.Sprint("large-", i), large)
	}
	if kept("alice", "large-6") == nil || kept("alice", "large-7") != nil || kept("alice", "large-8") != nil {
		t.Error("64 MiB is not the bound of what is kept of an agent")
	}
	s.clock.advance(14 * time.Hour) // the first are forgotten
	s.catchUp()
	must(t, s.run(func(*escrow.Tx) error { return nil }))
	if kept("alice", "k") != nil || kept("alice", "large-0") == nil {
		t.Error("after 26 hours the first answer is still there, or the later ones have gone")
	}
	s.clock.advance(12 * time.Hour)
	s.catchUp()
	must(t, s.run(func(*escrow.Tx) error { return nil }))
	if kept("alice", "large-0") != nil {
		t.Error("after 26 hours the large answers are still there")
	}
	call("again", large)
	if kept("alice", "again") == nil {
		t.Error("what was forgotten still takes room")
	}
	s.Abandon(escrow.AbandonedCall{Request: fmt.Sprint("req_", made), Payer: "alice", IdempotencyKey: "again"})
	if right, err := s.PutRight(context.Background()); right != 1 || err != nil {
		t.Errorf("%d calls were put right: %v", right, err)
	}
	if kept("alice", "again") != nil {
		t.Error("the answer of a call that was abandoned is kept, although the call may be made again")
	}
	for i := range 8 { // all of the room is there again
		call(fmt.Sprint("after-", i), large)
	}
	if kept("alice", "after-6") == nil {
		t.Error("the answer of a call that was abandoned still takes room")
	}
	s.sound()
}
