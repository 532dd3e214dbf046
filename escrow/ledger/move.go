package ledger

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"time"
)

// change is a change that an operation made in memory to one account, and perhaps to one of its holds.
type change struct {
	place     *place
	hold      *Hold
	available Amount
	incoming  Amount
	held      Amount
	undo      func() // if set, it undoes the change, and the other fields are not used; see [Tx.OnUndo]
}

// make applies a change. It also remembers the change, to take it back if the operation is thrown away. The shard must be locked.
func (tx *Tx) make(c change) {
	c.apply()
	tx.changes = append(tx.changes, c)
}

func (c change) apply() {
	c.place.available += c.available
	c.place.incoming += c.incoming
	if c.hold != nil && !c.hold.released { // a released hold has given its money back already
		c.hold.grow(c.held)
	}
}

func (c change) takeBack() {
	if c.undo != nil {
		c.undo()
		return
	}
	c.place.shard.mu.Lock()
	defer c.place.shard.mu.Unlock()
	c.available, c.incoming, c.held = -c.available, -c.incoming, -c.held
	c.apply()
}

// rollback takes back the changes in memory after the first mark changes, the last one first.
func (tx *Tx) rollback(mark int) {
	for _, c := range slices.Backward(tx.changes[mark:]) {
		c.takeBack()
	}
	tx.changes = tx.changes[:mark]
}

// pin keeps an account's place in memory until the operation is committed or thrown away. own is what this process may spend of it, as the
// operation sees it. The shard must be locked.
func (tx *Tx) pin(s *shard, id AccountID, own Amount) (*place, error) {
	p, err := s.place(id, func() (Amount, error) { return own, nil })
	if err != nil {
		return nil, err
	}
	if p.pinnedBy == tx {
		return p, nil
	}
	if known := p.available + p.incoming; known != own {
		return nil, tx.ledger.wrong(tx.w, fmt.Errorf("of account %s, %s may be spent by its record, %s in memory", id, own, known))
	}
	p.pins++
	p.pinnedBy = tx
	tx.pinned = append(tx.pinned, p)
	return p, nil
}

// unpin unpins all accounts. If the operation was committed, holds may use the money that it brought in from now on.
func (tx *Tx) unpin(committed bool) {
	for _, p := range tx.pinned {
		p.shard.mu.Lock()
		if committed {
			p.available += p.incoming
			p.incoming = 0
		}
		if p.pinnedBy == tx {
			p.pinnedBy = nil
		}
		p.pins--
		p.tidy()
		p.shard.mu.Unlock()
	}
	tx.pinned = tx.pinned[:0]
}

// move makes one transfer: it applies the rules, writes the records, and updates what is available to holds.
func (tx *Tx) move(t Transfer, cover []*Hold) (Transfer, error) {
	if !validName(t.Reference) || !validName(t.Kind) || !t.Debit.valid() || !t.Credit.valid() {
		return t, &Refusal{Outcome: InvalidTransfer, Detail: fmt.Sprintf("account names, kind and reference must have at most %d bytes, and no zero byte", maxName)}
	}
	t.Seq, t.Time = tx.state.Seq+1, tx.now
	debit, err := tx.Account(t.Debit)
	if err != nil {
		return t, err
	}
	credit, err := tx.Account(t.Credit)
	if err != nil {
		return t, err
	}
	debitAfter, creditAfter, err := tx.pay(debit, credit, t, cover)
	if err != nil {
		return t, err
	}
	if !tx.ledger.shared { // what comes in is in no lease
		if err := tx.earn(t.Credit, credit, creditAfter.Available()-credit.Available()); err != nil {
			return t, err
		}
	}
	return t, tx.write(t, debitAfter, creditAfter)
}

// pay applies the rules and takes the amount from the debit account. It does both under the lock under which holds are made, so that no
// hold can take the same money.
func (tx *Tx) pay(debit, credit Account, t Transfer, cover []*Hold) (Account, Account, error) {
	all, own, others, err := tx.parts(t.Debit, debit)
	if err != nil {
		return debit, credit, err
	}
	s := tx.ledger.memory.shard(t.Debit)
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := tx.pin(s, t.Debit, own)
	if err != nil {
		return debit, credit, err
	}
	covered := Amount(0)
	for i, h := range cover {
		if h != nil && h.place == p && !slices.Contains(cover[:i], h) {
			covered += h.amount
		}
	}
	debitAfter, creditAfter, outcome := apply(debit, credit, others+p.held-covered, t)
	switch outcome {
	case OK:
	case InsufficientFunds:
		if others > 0 {
			tx.lackFunds(t.Debit)
		}
		return debit, credit, refuseFunds(t.Debit, t.Amount, debit.Available()-others-p.held+covered)
	default:
		return debit, credit, &Refusal{Outcome: outcome, Detail: fmt.Sprintf("%s of %s from %s to %s", t.Phase, t.Amount, t.Debit, t.Credit)}
	}
	spent := debit.Available() - debitAfter.Available()
	switch {
	case tx.ledger.shared:
		free := debit.Available() - own - others // in no lease
		if left := own - tx.spend(p, spent, free, cover); left != own {
			tx.putLease(t.Debit, all, left)
		}
	case spent < 0: // a pending amount is available again
		tx.make(change{place: p, incoming: -spent})
	default:
		tx.spend(p, spent, 0, cover)
	}
	return debitAfter, creditAfter, nil
}

// parts returns what this process and the others may spend of an account: what they have leased if the ledger is shared, otherwise all and
// nothing. If the account may go below zero, no process needs a lease of it.
func (tx *Tx) parts(id AccountID, account Account) (all leases, own, others Amount, err error) {
	if !tx.ledger.shared {
		return nil, account.Available(), 0, nil
	}
	if id.endless() {
		return nil, 0, 0, nil
	}
	if all, err = tx.leasesOf(id); err != nil {
		return nil, 0, 0, err
	}
	own, others = all.split(tx.session)
	if own > account.Available() || others > account.Available()-own {
		return nil, 0, 0, tx.ledger.wrong(tx.w, fmt.Errorf("of account %s, %s and %s are leased, but %s are available", id, own, others, account.Available()))
	}
	return all, own, others, nil
}

// spend takes an amount first from the covering holds, then from what is free outside of the place, then from what operations in flight
// brought in, then from what is available. The order matters: if the operation is thrown away later, no hold that was made meanwhile lacks
// money. The shard must be locked. It returns how much of the amount it took from the place.
func (tx *Tx) spend(p *place, amount, free Amount, cover []*Hold) (taken Amount) {
	for _, h := range cover {
		if h == nil || h.place != p || h.released || amount <= 0 {
			continue
		}
		used := min(h.amount, amount)
		amount -= used
		taken += used
		tx.make(change{place: p, hold: h, available: -used, held: -used})
	}
	if amount -= max(0, free); amount > 0 && !(p.shard.shared && p.id.endless()) {
		incoming := min(p.incoming, amount)
		tx.make(change{place: p, incoming: -incoming, available: incoming - amount})
		taken += amount
	}
	return taken
}

// earn adds an incoming amount to an account. It pins the account even if the amount is zero, since the account's record changes.
func (tx *Tx) earn(id AccountID, account Account, amount Amount) error {
	s := tx.ledger.memory.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := tx.pin(s, id, account.Available())
	if err == nil && amount != 0 {
		tx.make(change{place: p, incoming: amount})
	}
	return err
}

// write writes the records of one transfer.
func (tx *Tx) write(t Transfer, debit, credit Account) error {
	if debit.Available() < 0 && !t.Debit.endless() || credit.Available() < 0 && !t.Credit.endless() {
		return tx.ledger.wrong(tx.w, fmt.Errorf("transfer %d would leave %s at %s and %s at %s", t.Seq, t.Debit, debit.Available(), t.Credit, credit.Available()))
	}
	key, value := transferKey(t.Seq), encode(t.record())
	tx.put(key, value)
	tx.put(accountKey(t.Debit), encode(&debit))
	tx.put(accountKey(t.Credit), encode(&credit))
	if t.Phase == Posted || t.Phase == PostPending {
		tx.put(entryKey(t.Debit, t.Seq), encode(&entryRecord{debit.Balance()}))
		tx.put(entryKey(t.Credit, t.Seq), encode(&entryRecord{credit.Balance()}))
	}
	if t.Phase == Pending {
		tx.put(pendingKey(t.Reference, t.Seq), []byte{1})
	}
	tx.chain(t, key, value)
	if tx.ledger.shared {
		tx.last = sha256.Sum256(value)
	}
	return nil
}

// chain adds the transfer to the hash chain. With the first transfer of a day it writes the head of the last day before.
func (tx *Tx) chain(t Transfer, key, value []byte) {
	day := t.Time.Format(time.DateOnly)
	if tx.state.Day != "" && tx.state.Day != day {
		tx.put(headKey(tx.state.Day), encode(headRecord{Seq: tx.state.Seq, Head: tx.state.Head}))
	}
	tx.state.Seq, tx.state.Day = t.Seq, day
	tx.state.Head = link(tx.state.Head, key, value)
}

// link returns the next head of the hash chain: SHA-256 of the previous head, the transfer's key and its stored value.
func link(head [32]byte, key, value []byte) [32]byte {
	text := make([]byte, 0, 256)
	text = append(text, head[:]...)
	text = append(text, key...)
	text = append(text, value...)
	return sha256.Sum256(text)
}
