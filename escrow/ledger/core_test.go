package ledger

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestApply runs the rules on two accounts, a and b: "phase from to amount [held N] -> outcome | a: debits+pending credits+pending | b: ...".
func TestApply(t *testing.T) {
	const max = math.MaxInt64
	a, b := Wallet("a"), Wallet("b")
	rich := Account{CreditsPosted: 10}
	for _, c := range []struct {
		name          string
		debit, credit Account
		held          Amount
		transfer      Transfer
		want          string
	}{
		{"post", rich, Account{}, 0, Transfer{Debit: a, Credit: b, Amount: 10}, " | 10+0 10+0 | 0+0 10+0"},
		{"post too much", rich, Account{}, 0, Transfer{Debit: a, Credit: b, Amount: 11}, "insufficient_funds | 0+0 10+0 | 0+0 0+0"},
		{"post with holds", rich, Account{}, 4, Transfer{Debit: a, Credit: b, Amount: 6}, " | 6+0 10+0 | 0+0 6+0"},
		{"post into holds", rich, Account{}, 5, Transfer{Debit: a, Credit: b, Amount: 6}, "insufficient_funds | 0+0 10+0 | 0+0 0+0"},
		{"post beside pending", Account{CreditsPosted: 10, DebitsPending: 5}, Account{}, 0, Transfer{Debit: a, Credit: b, Amount: 6}, "insufficient_funds | 0+5 10+0 | 0+0 0+0"},
		{"pending credit is no funds", Account{CreditsPending: 10}, Account{}, 0, Transfer{Debit: a, Credit: b, Amount: 1}, "insufficient_funds | 0+0 0+10 | 0+0 0+0"},
		{"pend", rich, Account{}, 0, Transfer{Debit: a, Credit: b, Amount: 10, Phase: Pending}, " | 0+10 10+0 | 0+0 0+10"},
		{"pend too much", rich, Account{}, 0, Transfer{Debit: a, Credit: b, Amount: 11, Phase: Pending}, "insufficient_funds | 0+0 10+0 | 0+0 0+0"},
		{"post pending", Account{CreditsPosted: 10, DebitsPending: 4}, Account{CreditsPending: 4}, 10, Transfer{Debit: a, Credit: b, Amount: 3, Phase: PostPending}, " | 3+1 10+0 | 0+0 3+1"},
		{"void pending", Account{CreditsPosted: 10, DebitsPending: 4}, Account{CreditsPending: 4}, 10, Transfer{Debit: a, Credit: b, Amount: 4, Phase: VoidPending}, " | 0+0 10+0 | 0+0 0+0"},
		{"post more than is pending", Account{CreditsPosted: 10, DebitsPending: 4}, Account{CreditsPending: 4}, 0, Transfer{Debit: a, Credit: b, Amount: 5, Phase: PostPending}, "exceeds_pending | 0+4 10+0 | 0+0 0+4"},
		{"void more than is pending", Account{CreditsPosted: 10, DebitsPending: 4}, Account{CreditsPending: 3}, 0, Transfer{Debit: a, Credit: b, Amount: 4, Phase: VoidPending}, "exceeds_pending | 0+4 10+0 | 0+0 0+3"},
		{"post pending into a full debit counter", Account{DebitsPosted: max, DebitsPending: 1}, Account{CreditsPending: 1}, 0, Transfer{Debit: World, Credit: b, Amount: 1, Phase: PostPending}, "overflow | 9223372036854775807+1 0+0 | 0+0 0+1"},
		{"post pending into a full credit counter", Account{CreditsPosted: 10, DebitsPending: 1}, Account{CreditsPosted: max, CreditsPending: 1}, 0, Transfer{Debit: a, Credit: b, Amount: 1, Phase: PostPending}, "overflow | 0+1 10+0 | 0+0 9223372036854775807+1"},
		{"void pending beside a full counter", Account{DebitsPosted: max, DebitsPending: 1}, Account{CreditsPending: 1}, 0, Transfer{Debit: World, Credit: b, Amount: 1, Phase: VoidPending}, " | 9223372036854775807+0 0+0 | 0+0 0+0"},
		{"the world", Account{}, Account{}, 0, Transfer{Debit: World, Credit: b, Amount: 1}, " | 1+0 0+0 | 0+0 1+0"},
		{"the world, pending", Account{}, Account{}, 0, Transfer{Debit: World, Credit: b, Amount: 1, Phase: Pending}, " | 0+1 0+0 | 0+0 0+1"},
		{"the world's counter is full", Account{DebitsPosted: max}, Account{}, 0, Transfer{Debit: World, Credit: b, Amount: 1}, "overflow | 9223372036854775807+0 0+0 | 0+0 0+0"},
		{"the credit counter is full", rich, Account{CreditsPosted: max - 1, DebitsPosted: 5}, 0, Transfer{Debit: a, Credit: b, Amount: 2}, "overflow | 0+0 10+0 | 5+0 9223372036854775806+0"},
		{"the credit counter would be full", rich, Account{CreditsPosted: max - 1, CreditsPending: 1}, 0, Transfer{Debit: a, Credit: b, Amount: 1, Phase: Pending}, "overflow | 0+0 10+0 | 0+0 9223372036854775806+1"},
		{"credit comes from its own source", Account{}, Account{}, 0, Transfer{Debit: Issuer("c"), Credit: Credit("x"), Amount: 1}, " | 1+0 0+0 | 0+0 1+0"},
		{"credit goes back there", rich, Account{}, 0, Transfer{Debit: Credit("x"), Credit: Issuer("c"), Amount: 10}, " | 10+0 10+0 | 0+0 10+0"},
		{"more credit than there is", rich, Account{}, 0, Transfer{Debit: Credit("x"), Credit: Issuer("c"), Amount: 11}, "insufficient_funds | 0+0 10+0 | 0+0 0+0"},
		{"credit into a wallet", rich, Account{}, 0, Transfer{Debit: Credit("x"), Credit: b, Amount: 1}, "invalid_transfer | 0+0 10+0 | 0+0 0+0"},
		{"credit out of a wallet", rich, Account{}, 0, Transfer{Debit: a, Credit: Credit("x"), Amount: 1}, "invalid_transfer | 0+0 10+0 | 0+0 0+0"},
		{"credit into other credit", rich, Account{}, 0, Transfer{Debit: Credit("x"), Credit: Credit("y"), Amount: 1}, "invalid_transfer | 0+0 10+0 | 0+0 0+0"},
		{"credit into an escrow", rich, Account{}, 0, Transfer{Debit: Credit("x"), Credit: Escrow("e"), Amount: 1, Phase: Pending}, "invalid_transfer | 0+0 10+0 | 0+0 0+0"},
		{"credit out of the world", rich, Account{}, 0, Transfer{Debit: Credit("x"), Credit: World, Amount: 1}, "invalid_transfer | 0+0 10+0 | 0+0 0+0"},
		{"the source of credit pays no wallet", Account{}, Account{}, 0, Transfer{Debit: Issuer("c"), Credit: b, Amount: 1}, "invalid_transfer | 0+0 0+0 | 0+0 0+0"},
		{"the source of credit and the world", Account{}, Account{}, 0, Transfer{Debit: World, Credit: Issuer("c"), Amount: 1}, "invalid_transfer | 0+0 0+0 | 0+0 0+0"},
		{"credit out of the commission", rich, Account{}, 0, Transfer{Debit: Credit("x"), Credit: Commission, Amount: 1}, "invalid_transfer | 0+0 10+0 | 0+0 0+0"},
		{"an issuer pays no issuer", Account{}, Account{}, 0, Transfer{Debit: Issuer("c"), Credit: Issuer("d"), Amount: 1}, "invalid_transfer | 0+0 0+0 | 0+0 0+0"},
		{"an issuer is paid no money", rich, Account{}, 0, Transfer{Debit: a, Credit: Issuer("c"), Amount: 1}, "invalid_transfer | 0+0 10+0 | 0+0 0+0"},
		{"nothing", rich, Account{}, 0, Transfer{Debit: a, Credit: b}, "invalid_transfer | 0+0 10+0 | 0+0 0+0"},
		{"less than nothing", rich, Account{}, 0, Transfer{Debit: a, Credit: b, Amount: -1}, "invalid_transfer | 0+0 10+0 | 0+0 0+0"},
		{"to itself", rich, rich, 0, Transfer{Debit: a, Credit: a, Amount: 1}, "invalid_transfer | 0+0 10+0 | 0+0 10+0"},
		{"from nobody", rich, Account{}, 0, Transfer{Credit: b, Amount: 1}, "invalid_transfer | 0+0 10+0 | 0+0 0+0"},
		{"a zero byte", rich, Account{}, 0, Transfer{Debit: "a\x00", Credit: b, Amount: 1}, "invalid_transfer | 0+0 10+0 | 0+0 0+0"},
		{"a long name", rich, Account{}, 0, Transfer{Debit: a, Credit: AccountID(strings.Repeat("b", 513)), Amount: 1}, "invalid_transfer | 0+0 10+0 | 0+0 0+0"},
		{"an unknown phase", rich, Account{}, 0, Transfer{Debit: a, Credit: b, Amount: 1, Phase: 9}, "invalid_transfer | 0+0 10+0 | 0+0 0+0"},
		{"holds below zero", rich, Account{}, -1, Transfer{Debit: a, Credit: b, Amount: 1}, "invalid_transfer | 0+0 10+0 | 0+0 0+0"},
		{"holds beyond reason", rich, Account{}, max, Transfer{Debit: a, Credit: b, Amount: 1}, "insufficient_funds | 0+0 10+0 | 0+0 0+0"},
	} {
		d, cr, outcome := apply(c.debit, c.credit, c.held, c.transfer)
		got := fmt.Sprintf("%s | %s | %s", outcome, counters(d), counters(cr))
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func counters(a Account) string {
	return fmt.Sprintf("%d+%d %d+%d", a.DebitsPosted, a.DebitsPending, a.CreditsPosted, a.CreditsPending)
}

// TestApplyKeepsMoney: no transfer creates or destroys money, whatever the numbers. The accounts are those that transfers can lead to: posted
// plus pending fits into a counter. TestApply covers the others.
func TestApplyKeepsMoney(t *testing.T) {
	amount := rapid.OneOf(rapid.Int64Min(0), rapid.Int64Range(0, 20))
	pending := func(t *rapid.T, name string, posted Amount) Amount {
		return Amount(rapid.Int64Range(0, min(20, math.MaxInt64-int64(posted))).Draw(t, name))
	}
	account := rapid.Custom(func(t *rapid.T) (a Account) {
		a.DebitsPosted, a.CreditsPosted = Amount(amount.Draw(t, "dp")), Amount(amount.Draw(t, "cp"))
		a.DebitsPending, a.CreditsPending = pending(t, "dn", a.DebitsPosted), pending(t, "cn", a.CreditsPosted)
		return a
	})
	rapid.Check(t, func(t *rapid.T) {
		d, c := account.Draw(t, "debit"), account.Draw(t, "credit")
		transfer := Transfer{Debit: Wallet("a"), Credit: Wallet("b"), Amount: Amount(amount.Draw(t, "amount")), Phase: Phase(rapid.IntRange(0, 4).Draw(t, "phase"))}
		held := Amount(amount.Draw(t, "held"))
		d2, c2, outcome := apply(d, c, held, transfer)
		if outcome != OK {
			if d2 != d || c2 != c {
				t.Fatalf("refused with %s, and changed", outcome)
			}
			return
		}
		if d2.DebitsPosted-d.DebitsPosted != c2.CreditsPosted-c.CreditsPosted || d2.DebitsPending-d.DebitsPending != c2.CreditsPending-c.CreditsPending ||
			d2.CreditsPosted != d.CreditsPosted || c2.DebitsPosted != c.DebitsPosted {
			t.Fatalf("%v and %v became %v and %v", d, c, d2, c2)
		}
		if min(d2.DebitsPosted, d2.DebitsPending, c2.CreditsPosted, c2.CreditsPending) < 0 {
			t.Fatalf("a counter is below zero: %v, %v", d2, c2)
		}
		if (transfer.Phase == Posted || transfer.Phase == Pending) && d2.Available() < held {
			t.Fatalf("%s of %s held is left", d2.Available(), held)
		}
	})
}
