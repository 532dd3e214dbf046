package escrow

import (
	"slices"
	"strconv"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// The answer to a paid call may be stored with the call's idempotency key. If the answer gets lost on its way, the caller can get it again.

const (
	maxAnswers    = 1 << 30  // bytes of all answers that are kept
	maxAnswersOne = 64 << 20 // of one owner's
)

// KeptAnswer returns the stored answer to a call of an agent, by the idempotency key of the call. If there is none, found is false.
func (b *Book) KeptAnswer(agent, key string) (answer []byte, found bool, err error) {
	id := CallOrder{By: Actor{Agent: agent}, IdempotencyKey: key}.onceID()
	err = b.view(func(r ledger.Reader) error {
		kept, err := r.Get(answerTable.key(id.Owner, id.Key))
		answer = slices.Clone(kept)
		return err
	})
	return answer, answer != nil, err
}

// keepAnswer stores an answer with its idempotency key, if there is room for it.
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

// forgetAnswer removes an answer. id is its owner and key, in the form that record keys have; bytes is its size.
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
