package escrow

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// The outcome of an operation with an idempotency key is stored by the operation itself. So a repeated operation is not done twice, even after a
// crash. The keys of different owners are separate. Keys are forgotten after [KeptFor].

// KeptFor is how long an idempotency key is remembered.
const KeptFor = 24 * time.Hour

const (
	maxKept   = 100_000 // keys of one owner
	maxOnceID = 1000    // bytes of an owner and a key
	sweepSize = 500     // keys forgotten in one operation
)

// OnceID identifies an operation that is done only once: by its owner, and by the key that the owner chose.
type OnceID struct {
	Owner string // such as "agent:alice"
	Key   string
	Crowd string // owners with the same Crowd are counted together, because anybody could invent owners; empty: the owner is counted alone
}

// onceRecord is the stored outcome of an operation.
type onceRecord struct {
	Digest  []byte    `cbor:"1,keyasint"`
	Result  []byte    `cbor:"2,keyasint,omitempty"`
	Refusal *Refusal  `cbor:"3,keyasint,omitempty"`
	Request string    `cbor:"4,keyasint,omitempty"` // the id of the metered call, if it is one
	At      time.Time `cbor:"5,keyasint"`
}

// Answer is the outcome of an operation with an idempotency key.
type Answer[T any] struct {
	Result   T      // of the operation, if it was done just now
	Kept     []byte // the stored part of the result
	Replayed bool   // the operation was done before; Result is not set
}

// Once is [Do] with a stored outcome. op returns its result, and the part of it to store. That part, or op's refusal, is written in the
// same commit, and returned to later calls with the same id and digest. A call with the same id and another digest is refused with
// idempotency_conflict. Other errors are not stored.
func Once[T any](ctx context.Context, b *Book, id OnceID, digest []byte, op func(*Tx) (result T, kept []byte, err error)) (Answer[T], error) {
	type outcome struct {
		answer  Answer[T]
		refusal error // it is stored, so the operation itself must succeed
	}
	o, err := Do(ctx, b, func(t *Tx) (outcome, error) {
		kept, found, err := once(t.ledger, id)
		if err != nil {
			return outcome{}, err
		}
		if found {
			if !bytes.Equal(kept.Digest, digest) {
				return outcome{}, conflict(kept.Request, "")
			}
			return outcome{Answer[T]{Kept: kept.Result, Replayed: true}, kept.failure()}, nil
		}
		var answer Answer[T]
		err = t.ledger.Try(func() (err error) {
			answer.Result, answer.Kept, err = op(t)
			return err
		})
		kept = onceRecord{Digest: digest, Result: answer.Kept}
		if r, refused := err.(*Refusal); refused {
			kept.Result, kept.Refusal, answer = nil, r, Answer[T]{}
		} else if err != nil {
			return outcome{}, err
		}
		if err := roomFor(t.ledger, id); err != nil {
			return outcome{}, err
		}
		return outcome{answer, kept.failure()}, t.keep(id, kept)
	})
	if err != nil {
		return Answer[T]{}, err
	}
	return o.answer, o.refusal
}

func (r onceRecord) failure() error {
	if r.Refusal == nil {
		return nil
	}
	return r.Refusal
}

// conflict returns the refusal of a key that is in use, by another request or by the same one.
func conflict(request, retryAfter string) error {
	fields, detail := map[string]string{}, "the Idempotency-Key came before with another request"
	if request != "" {
		fields["request_id"], detail = request, "the call was made before, under this Idempotency-Key; its charge is "+request
	}
	if retryAfter != "" {
		fields["retry_after"], detail = retryAfter, "the call is being made at this moment, under this Idempotency-Key"
	}
	return refuse(IdempotencyConflict, fields, "%s", detail)
}

func once(r ledger.Reader, id OnceID) (kept onceRecord, found bool, err error) {
	if id.Owner == "" || id.Key == "" || len(id.Owner)+len(id.Key) > maxOnceID {
		return kept, false, invalid("Idempotency-Key", "Idempotency-Key: at most %d bytes", maxOnceID)
	}
	found, err = load(r, onceTable.key(id.Owner, id.Key), &kept)
	return kept, found, err
}

func (id OnceID) crowd() string {
	if id.Crowd != "" {
		return id.Crowd
	}
	return id.Owner
}

// keep writes the outcome of an operation, and the hour in which it will be forgotten.
func (t *Tx) keep(id OnceID, kept onceRecord) error {
	if err := t.countKept(id.crowd(), 1); err != nil {
		return err
	}
	kept.At = t.Now()
	hour := forgetAt(t.Now())
	if err := t.fallsDue("", hour, dueForget); err != nil {
		return err
	}
	t.ledger.Put(id.forgotten(hour), []byte(id.crowd()))
	return t.put(onceTable.key(id.Owner, id.Key), kept)
}

// forgetAt is when an outcome that is stored now will be forgotten.
func forgetAt(now time.Time) time.Time { return now.Add(KeptFor).Truncate(time.Hour).Add(time.Hour) }

// forgotten returns the key of the entry by which the idempotency key is forgotten at that hour.
func (id OnceID) forgotten(hour time.Time) []byte {
	return onceByHour.key(timeKey(hour)+id.Owner, id.Key)
}

// roomFor refuses an owner that has used too many keys. It is called when an operation begins, so the outcome of a call that has begun is
// always stored.
func roomFor(r ledger.Reader, id OnceID) error {
	var count int64
	if _, err := load(r, onceCount.key(id.crowd()), &count); err != nil || count < maxKept {
		return err
	}
	return refuse(RateLimited, map[string]string{"retry_after": "3600"}, "more than %d Idempotency-Keys in %s; leave it out, or come back later", maxKept, KeptFor)
}

func (t *Tx) countKept(crowd string, by int64) error {
	var count int64
	if _, err := load(t.ledger, onceCount.key(crowd), &count); err != nil {
		return err
	}
	if count += by; count <= 0 {
		t.ledger.Delete(onceCount.key(crowd))
		return nil
	}
	return t.put(onceCount.key(crowd), count)
}

// forget removes keys whose hour has come. more is true if some are left for the next operation.
func (t *Tx) forget() (more bool, err error) {
	type entry struct{ key, crowd string }
	var entries []entry
	all := onceByHour.under()
	all.To = onceByHour.key(timeKey(t.Now().Add(1)))
	err = t.ledger.Scan(all, func(key, crowd []byte) (bool, error) {
		entries = append(entries, entry{string(key), string(crowd)})
		return len(entries) < sweepSize, nil
	})
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		if err := t.forgetOne(e.key, e.crowd); err != nil {
			return false, err
		}
	}
	return len(entries) == sweepSize, nil
}

// forgetOne removes an idempotency key. entry is its entry in the list of that hour; it names the crowd in which the key is counted, and
// the size of the answer that was stored with it.
func (t *Tx) forgetOne(entry, what string) error {
	crowd, answer, _ := strings.Cut(what, "\x00")
	if err := t.countKept(crowd, -1); err != nil {
		return err
	}
	id := onceByHour.lastPart([]byte(entry))[8:]
	t.ledger.Delete([]byte(entry))
	t.ledger.Delete(onceTable.key(id))
	if answer == "" {
		return nil
	}
	return t.forgetAnswer(id, crowd, answer)
}

// claimCall claims what a call needs in order to run: a place among the agent's running calls, its idempotency key, and the work of its
// milestone.
func (b *Book) claimCall(ctx context.Context, o CallOrder) (Claim, error) {
	agent := o.By.Agent
	of := []Bound{{Of: Thing{Kind: RunningCalls, Owner: agent}, Most: int64(b.rules.MaxCalls)}}
	if o.Milestone != "" {
		of = append(of, Bound{Of: Thing{Kind: RunningWork, Owner: agent, Name: o.Escrow + "\x00" + o.Milestone}, Most: 1})
	}
	if o.IdempotencyKey != "" {
		digest := o.Digest
		of = append(of, Bound{Of: Thing{Kind: RunningKey, Owner: agent, Name: o.IdempotencyKey}, Note: digest[:], Left: o.unused})
	}
	c, err := b.process.claims.Take(ctx, 1, of...)
	full, isFull := errors.AsType[*NoRoom](err)
	if !isFull {
		return c, err
	}
	switch of[full.Bound].Of.Kind {
	case RunningWork:
		return nil, refuse(InvalidStatus, map[string]string{"retry_after": "1"}, "a call that does the work of milestone %q runs at this moment", o.Milestone)
	case RunningKey:
		if bytes.Equal(full.Note, o.Digest[:]) {
			return nil, conflict("", "1")
		}
		return nil, conflict("", "")
	default:
		return nil, refuse(RateLimited, map[string]string{"retry_after": "1"}, "%d calls of this agent run already; wait until some have ended", b.rules.MaxCalls)
	}
}

// unused returns how many calls may run with the idempotency key of the order: one, or none if a call was made with it before.
func (o CallOrder) unused(r ledger.Reader) (int64, error) {
	kept, found, err := once(r, o.onceID())
	switch {
	case err != nil:
		return 0, err
	case !found:
		return 1, roomFor(r, o.onceID())
	case bytes.Equal(kept.Digest, o.Digest[:]):
		return 0, conflict(kept.Request, "")
	default:
		return 0, conflict("", "")
	}
}

func (o CallOrder) onceID() OnceID {
	if o.IdempotencyKey == "" {
		return OnceID{}
	}
	return OnceID{Owner: "call:" + o.By.Agent, Key: o.IdempotencyKey}
}

// keepCall writes the idempotency key of a call beside its charge.
func (t *Tx) keepCall(d drawn) error {
	if d.OnceKey == "" {
		return nil
	}
	id := OnceID{Owner: "call:" + d.Charge.Payer, Key: d.OnceKey}
	if err := t.keep(id, onceRecord{Digest: d.Digest, Request: d.Charge.RequestID}); err != nil {
		return err
	}
	return t.keepAnswer(id, d.answer)
}
