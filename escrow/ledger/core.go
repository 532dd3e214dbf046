package ledger

// apply contains all rules about money. It returns the two accounts as they are after a transfer, or unchanged with the reason why the
// transfer is refused. heldByOthers is the amount that holds other than the transfer's own set aside on the debit account. apply does
// no IO and reads no clock.
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

// resolve posts or gives back a pending amount. When the amount was set aside, move checked the funds and the room in the counters, so
// neither can be missing now. Damaged accounts, in which they are missing, are refused: a counter never overflows.
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

// covers reports whether the account has amount available after held is subtracted.
func covers(a Account, held, amount Amount) bool {
	needed, err := held.Add(amount)
	return err == nil && a.Available() >= needed
}

// fits reports whether the counters of one side have room for amount, even when everything pending is posted.
func fits(posted, pending, amount Amount) bool {
	sum, err := posted.Add(pending)
	if err != nil {
		return false
	}
	_, err = sum.Add(amount)
	return err == nil
}
