package ledger

// apply is every rule of money: it says what a transfer makes of its two accounts, or why it is refused, in which case the
// accounts come back as they were. heldByOthers is what is set aside in memory on the debit account by anything but the transfer's
// own holds. It does no IO and knows no clock.
func apply(debit, credit Account, heldByOthers Amount, t Transfer) (Account, Account, Outcome) {
	if t.Amount <= 0 || t.Debit == t.Credit || !t.Debit.valid() || !t.Credit.valid() || !t.Debit.meets(t.Credit) || heldByOthers < 0 {
		return debit, credit, InvalidTransfer
	}
	switch t.Phase {
	case Posted, Pending:
		return move(debit, credit, heldByOthers, t)
	case PostPending, VoidPending:
		return resolve(debit, credit, t)
	default:
		return debit, credit, InvalidTransfer
	}
}

// move posts an amount or sets it aside.
func move(debit, credit Account, heldByOthers Amount, t Transfer) (Account, Account, Outcome) {
	if !t.Debit.endless() && !covers(debit, heldByOthers, t.Amount) {
		return debit, credit, InsufficientFunds
	}
	if !fits(debit.DebitsPosted, debit.DebitsPending, t.Amount) || !fits(credit.CreditsPosted, credit.CreditsPending, t.Amount) {
		return debit, credit, Overflow
	}
	if t.Phase == Pending {
		debit.DebitsPending += t.Amount
		credit.CreditsPending += t.Amount
	} else {
		debit.DebitsPosted += t.Amount
		credit.CreditsPosted += t.Amount
	}
	return debit, credit, OK
}

// resolve posts or gives back what was set aside. It needs no funds and has room for them, since move saw to both. Accounts that no moves
// lead to are refused all the same: a counter never goes past its end.
func resolve(debit, credit Account, t Transfer) (Account, Account, Outcome) {
	if debit.DebitsPending < t.Amount || credit.CreditsPending < t.Amount {
		return debit, credit, ExceedsPending
	}
	if t.Phase == PostPending && (!fits(debit.DebitsPosted, 0, t.Amount) || !fits(credit.CreditsPosted, 0, t.Amount)) {
		return debit, credit, Overflow
	}
	debit.DebitsPending -= t.Amount
	credit.CreditsPending -= t.Amount
	if t.Phase == PostPending {
		debit.DebitsPosted += t.Amount
		credit.CreditsPosted += t.Amount
	}
	return debit, credit, OK
}

// covers reports whether amount can be paid from what the account has available once held is taken off.
func covers(a Account, held, amount Amount) bool {
	needed, err := held.Add(amount)
	return err == nil && a.Available() >= needed
}

// fits reports whether a side of an account has room for amount, so that all that is pending can still be posted.
func fits(posted, pending, amount Amount) bool {
	sum, err := posted.Add(pending)
	if err != nil {
		return false
	}
	_, err = sum.Add(amount)
	return err == nil
}
