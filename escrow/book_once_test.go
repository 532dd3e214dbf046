package escrow_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// TestOnce: the first outcome with a key, even a refusal, is returned to all later operations with the key, also in the next process. It is
// forgotten after a day.
func TestOnce(t *testing.T) {
	s := newShop(t, defaultRules())
	s.agents("10", "alice", "bob")
	once := func(owner, key, digest string, money string) (result string, replayed bool, err error) {
		answer, err := escrow.Once(context.Background(), s.Book, escrow.OnceID{Owner: owner, Key: key}, []byte(digest), func(tx *escrow.Tx) (ledger.Amount, []byte, error) {
			p, err := tx.Transfer(by("alice"), escrow.PaymentOrder{To: "bob", Amount: amount(money)})
			return p.Amount, fmt.Appendf(nil, "paid %s", p.Amount), err
		})
		if err == nil && !answer.Replayed && answer.Result != amount(money) {
			t.Errorf("the result is %s", answer.Result)
		}
		return string(answer.Kept), answer.Replayed, err
	}
	expect := func(key, digest, money, want string) {
		t.Helper()
		result, replayed, err := once("agent:alice", key, digest, money)
		if r, refused := err.(*escrow.Refusal); refused {
			result = string(r.Outcome)
		} else {
			must(t, err)
		}
		if got := fmt.Sprint(result, " ", replayed); got != want {
			t.Fatalf("%s %s %s: got %s, want %s", key, digest, money, got, want)
		}
	}
	expect("k", "x", "4", "paid 4 false")
	expect("k", "x", "4", "paid 4 true")
	expect("k", "y", "5", "idempotency_conflict false")
	expect("l", "x", "7", "insufficient_funds false")
	must(t, s.run(func(tx *escrow.Tx) error {
		_, err := tx.Deposit(operator, escrow.PaymentOrder{To: "alice", Amount: amount("10")})
		return err
	}))
	expect("l", "x", "7", "insufficient_funds true")
	s.reopen()
	expect("k", "x", "4", "paid 4 true")
	expect("l", "x", "7", "insufficient_funds true")
	if _, replayed, err := once("agent:bob", "k", "z", "1"); err != nil || replayed {
		t.Errorf("another owner's key: replayed %v, %v", replayed, err)
	}

	failure := errors.New("on purpose")
	_, err := escrow.Once(context.Background(), s.Book, escrow.OnceID{Owner: "agent:alice", Key: "m"}, nil, func(*escrow.Tx) (struct{}, []byte, error) { return struct{}{}, nil, failure })
	if !errors.Is(err, failure) {
		t.Errorf("an operation that fails: %v", err)
	}
	expect("m", "x", "1", "paid 1 false")

	s.clock.advance(escrow.KeptFor + 2*time.Hour)
	s.catchUp()
	expect("k", "y", "1", "paid 1 false")
	s.sound()
}
