package ledger

import (
	"crypto/sha256"
	"fmt"
	"time"
)

// move applies one transfer: the rules, the records, and what holds may rely on.
func (b *Batch) move(t Transfer, cover []*Hold) (Transfer, error) {
	if !validName(t.Reference) || !validName(t.Kind) || !t.Debit.valid() || !t.Credit.valid() {
		return t, &Refusal{Outcome: InvalidTransfer, Detail: fmt.Sprintf("accounts, kind and reference hold no zero byte and at most %d bytes", maxName)}
	}
	t.Seq, t.Time = b.state.Seq+1, b.now
	debit, err := b.Account(t.Debit)
	if err != nil {
		return t, err
	}
	credit, err := b.Account(t.Credit)
	if err != nil {
		return t, err
	}
	from, err := b.touch(t.Debit, debit)
	if err != nil {
		return t, err
	}
	to, err := b.touch(t.Credit, credit)
	if err != nil {
		return t, err
	}
	debitAfter, creditAfter, err := b.authorise(from, debit, credit, t, cover)
	if err != nil {
		return t, err
	}
	b.earn(from, max(0, debitAfter.Available()-debit.Available()))
	b.earn(to, max(0, creditAfter.Available()-credit.Available()))
	return t, b.write(t, debitAfter, creditAfter)
}

// authorise applies the rules under the lock that holds are made under, and takes what the transfer takes, so that no hold can
// be made on it any more.
func (b *Batch) authorise(from *touch, debit, credit Account, t Transfer, cover []*Hold) (Account, Account, error) {
	p := from.place
	p.shard.mu.Lock()
	defer p.shard.mu.Unlock()
	covered := Amount(0)
	for i, h := range cover {
		if h != nil && h.place == p && !repeated(cover[:i], h) {
			covered += h.amount
		}
	}
	debitAfter, creditAfter, outcome := apply(debit, credit, p.held-covered, t)
	switch outcome {
	case OK:
	case InsufficientFunds:
		return debit, credit, refuseFunds(t.Debit, t.Amount, debit.Available()-p.held+covered)
	default:
		return debit, credit, &Refusal{Outcome: outcome, Detail: fmt.Sprintf("%s of %s from %s to %s", t.Phase, t.Amount, t.Debit, t.Credit)}
	}
	if spent := debit.Available() - debitAfter.Available(); spent > 0 {
		b.spend(from, spent)
		b.shrink(cover, p, spent)
	}
	return debitAfter, creditAfter, nil
}

func repeated(earlier []*Hold, h *Hold) bool {
	for _, e := range earlier {
		if e == h {
			return true
		}
	}
	return false
}

// touch pins an account in memory, before the batch changes it.
func (b *Batch) touch(id AccountID, account Account) (*touch, error) {
	if t, ok := b.touches[id]; ok {
		return t, nil
	}
	s := b.ledger.memory.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.place(id, func() (Account, error) { return account, nil })
	if err != nil {
		return nil, err
	}
	if p.available != account.Available() {
		return nil, b.ledger.broke(fmt.Errorf("account %s has %s available in its record, %s in memory", id, account.Available(), p.available))
	}
	p.pins++
	t := &touch{place: p}
	b.touches[id] = t
	return t, nil
}

// spend takes from the account: first what this batch itself put there. The shard is locked.
func (b *Batch) spend(t *touch, amount Amount) {
	own := min(t.credit, amount)
	t.credit -= own
	t.place.available -= amount - own
	b.undo = append(b.undo, func() {
		t.place.shard.mu.Lock()
		defer t.place.shard.mu.Unlock()
		t.credit += own
		t.place.available += amount - own
	})
}

// shrink takes an amount from the holds that cover it, as far as they go. The shard is locked.
func (b *Batch) shrink(cover []*Hold, p *place, amount Amount) {
	for _, h := range cover {
		if h == nil || h.place != p || h.released || amount == 0 {
			continue
		}
		used := min(h.amount, amount)
		amount -= used
		h.grow(-used)
		b.undo = append(b.undo, func() {
			p.shard.mu.Lock()
			defer p.shard.mu.Unlock()
			if !h.released {
				h.grow(used)
			}
		})
	}
}

func (b *Batch) earn(t *touch, amount Amount) {
	t.credit += amount
	b.undo = append(b.undo, func() { t.credit -= amount })
}

// write puts the records of one transfer.
func (b *Batch) write(t Transfer, debit, credit Account) error {
	if debit.Available() < 0 && t.Debit != World || credit.Available() < 0 && t.Credit != World {
		return b.ledger.broke(fmt.Errorf("transfer %d would leave %s at %s and %s at %s", t.Seq, t.Debit, debit.Available(), t.Credit, credit.Available()))
	}
	key, value := transferKey(t.Seq), encode(t.record())
	b.put(key, value)
	b.put(accountKey(t.Debit), encode(debit))
	b.put(accountKey(t.Credit), encode(credit))
	if t.Phase == Posted || t.Phase == PostPending {
		b.put(entryKey(t.Debit, t.Seq), encode(entryRecord{debit.Balance()}))
		b.put(entryKey(t.Credit, t.Seq), encode(entryRecord{credit.Balance()}))
	}
	if t.Phase == Pending {
		b.put(pendingKey(t.Reference, t.Seq), []byte{1})
	}
	b.chain(t, key, value)
	return nil
}

// chain takes the transfer into the hash chain, and keeps the head of each day that has transfers.
func (b *Batch) chain(t Transfer, key, value []byte) {
	day := t.Time.Format(time.DateOnly)
	if b.state.Day != "" && b.state.Day != day {
		b.put(headKey(b.state.Day), encode(headRecord{Seq: b.state.Seq, Head: b.state.Head}))
	}
	b.state.Seq, b.state.Day = t.Seq, day
	b.state.Head = link(b.state.Head, key, value)
}

// link is one step of the hash chain: SHA-256 over the head before it, the transfer's key and its stored value.
func link(head [32]byte, key, value []byte) [32]byte {
	text := make([]byte, 0, 256)
	text = append(text, head[:]...)
	text = append(text, key...)
	text = append(text, value...)
	return sha256.Sum256(text)
}
