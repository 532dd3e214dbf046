package escrow

import (
	"slices"
	"strconv"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// An answer that was paid for may be kept with the idempotency key of its call, so that who lost it on the way can have it again.

const (
	maxAnswers    = 1 << 30  // bytes of all answers that are kept
	maxAnswersOne = 64 << 20 // of one owner's
)

// KeptAnswer returns the answer that was kept of a call of an agent, under its idempotency key; found is false where there is none.
func (b *Book) KeptAnswer(agent, key string) (answer []byte, found bool, err error) {
	id := CallOrder{By: Actor{Agent: agent}, IdempotencyKey: key}.onceID()
	err = b.view(func(r ledger.Reader) error {
		kept, err := r.Get(answerTable.key(id.Owner, id.Key))
		answer = slices.Clone(kept)
		return err
	})
	return answer, answer != nil, err
}

// keepAnswer keeps an answer beside its idempotency key, while there is room for it.
func (t *Tx) keepAnswer(id OnceID, answer []byte) error {
	size := int64(len(answer))
	if size == 0 {
		return nil
	}
	for owner, most := range map[string]int64{"": maxAnswers, id.Owner: maxAnswersOne} {
		kept, err := t.answerBytes(owner)
		if err != nil || kept+size > most {
			return err
		}
	}
	t.ledger.Put(answerTable.key(id.Owner, id.Key), answer)
	t.ledger.Put(id.forgotten(forgetAt(t.Now())), []byte(id.crowd()+"\x00"+strconv.FormatInt(size, 10)))
	return t.countAnswer(id.Owner, size)
}

// forgetAnswer removes an answer of so many bytes; id is its owner and key, as they stand in keys.
func (t *Tx) forgetAnswer(id, owner, bytes string) error {
	size, err := strconv.ParseInt(bytes, 10, 64)
	if err != nil {
		return err
	}
	t.ledger.Delete(answerTable.key(id))
	return t.countAnswer(owner, -size)
}

func (t *Tx) answerBytes(owner string) (kept int64, err error) {
	_, err = load(t.ledger, answerBytes.key(owner), &kept)
	return kept, err
}

func (t *Tx) countAnswer(owner string, by int64) error {
	for _, of := range []string{"", owner} {
		kept, err := t.answerBytes(of)
		if err != nil {
			return err
		}
		if kept += by; kept <= 0 {
			t.ledger.Delete(answerBytes.key(of))
		} else if err := t.put(answerBytes.key(of), kept); err != nil {
			return err
		}
	}
	return nil
}
