package escrow

import (
	"cmp"
	"strings"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// A provider keeps resources for its customer: files, responses, batches. To the provider all payers are one customer. So the books note
// which payer made which resource, in the operation that charges the call.

// Resource is something that the provider of a payee keeps.
type Resource struct {
	Payee string
	Kind  string // the provider's collection, such as "files"
	ID    string // the provider's id, at most [MaxResourceID] bytes
	// Asked is when it was asked for, or that from which it has come, such as the batch of a file of results. It is not a part of its name, and is
	// noted by [Tx.Own] alone. Zero: not known.
	Asked time.Time
}

// MaxResourceID is how many bytes the id of a resource may have.
const MaxResourceID = 256

// noted is what is noted of a resource.
type noted struct {
	Owner  string `cbor:"1,keyasint"` // the payer that made it; empty where nobody here did
	Tokens int64  `cbor:"2,keyasint,omitempty"`
	Owed   []Debt `cbor:"3,keyasint,omitempty"`
	// Asked is when it was asked for, see [Resource].
	Asked time.Time `cbor:"4,keyasint,omitzero"`
}

// Debt is what is missing of the price of an answer that did not go out, or was cut, because its payer had too little money, and that the
// provider keeps. Nobody may use the resources in which it is kept until the debt is paid: by a charge with the id that [Debt.ID] returns.
type Debt struct {
	Request string        `cbor:"1,keyasint"` // the call that was not paid in full
	Payer   string        `cbor:"2,keyasint"`
	Amount  ledger.Amount `cbor:"3,keyasint,omitempty"`
	Quota   int64         `cbor:"4,keyasint,omitempty"` // what is to be taken from a subscription's quota, in millionths of its unit
}

// ID is the request id of the charge that pays the debt.
func (d Debt) ID() string { return d.Request + owedSuffix }

const owedSuffix = "_owed"

// OwedFor returns the call whose debt a charge pays, by the charge's request id. is is false for any other charge.
func OwedFor(id string) (request string, is bool) { return strings.CutSuffix(id, owedSuffix) }

// Context is a resource that is a part of the input when a later call names it, and how long it is.
type Context struct {
	Resource
	Tokens int64
	Adds   bool // Tokens is what was added to it; otherwise it is all that it has
}

func (r Resource) key() []byte { return resourceTable.key(r.Payee, r.Kind, r.ID) }

// valid reports whether the resource can be noted.
func (r Resource) valid() bool {
	return r.Payee != "" && r.ID != "" && len(r.ID) <= MaxResourceID && strings.IndexByte(r.Kind+r.ID, 0) < 0
}

// Own notes that a payer has made resources. A resource that is noted already keeps its owner: an id that a provider tells again, or that one
// payer chooses after another, takes nothing away.
func (t *Tx) Own(payer string, made ...Resource) error {
	if payer == "" { // nobody known made the call
		return nil
	}
	for _, r := range made {
		if !r.valid() {
			continue
		}
		var n noted
		if _, err := load(t.ledger, r.key(), &n); err != nil {
			return err
		} else if n.Owner != "" {
			continue
		}
		n.Owner, n.Asked = payer, r.Asked
		if err := t.put(r.key(), n); err != nil {
			return err
		}
	}
	return nil
}

// Disown forgets a payer's resources, which the provider keeps no longer. Those of others stay as they are.
func (t *Tx) Disown(payer string, gone ...Resource) error {
	for _, r := range gone {
		if !r.valid() {
			continue
		}
		var n noted
		if found, err := load(t.ledger, r.key(), &n); err != nil {
			return err
		} else if found && n.Owner == payer {
			t.ledger.Delete(r.key())
		}
	}
	return nil
}

// noteTokens notes how long a resource is. estimated says that it may be longer.
func (t *Tx) noteTokens(c Context, estimated bool) error {
	return t.note(c.Resource, func(n *noted) {
		switch {
		case c.Adds:
			n.Tokens = min(n.Tokens, maxTokens) + min(c.Tokens, maxTokens)
		case estimated:
			n.Tokens = max(n.Tokens, c.Tokens)
		default:
			n.Tokens = c.Tokens
		}
	})
}

// maxTokens bounds the length of a resource, so that sums do not overflow.
const maxTokens = 1 << 40

// maxDebts is how many debts are noted of one resource. Further calls of an agent wait until it has paid.
const maxDebts = 1000

// owe notes a debt on the resources in which the provider keeps the answer. Debts that are paid are forgotten.
func (t *Tx) owe(d Debt, on []Resource) error {
	for _, r := range on {
		var failed error
		err := t.note(r, func(n *noted) {
			n.Owed, failed = unpaid(t.ledger, n.Owed)
			if len(n.Owed) < maxDebts {
				n.Owed = append(n.Owed, d)
			}
		})
		if err = cmp.Or(failed, err); err != nil {
			return err
		}
	}
	return nil
}

// note changes what is noted of a resource.
func (t *Tx) note(r Resource, change func(*noted)) error {
	if !r.valid() {
		return nil
	}
	var n noted
	if _, err := load(t.ledger, r.key(), &n); err != nil {
		return err
	}
	change(&n)
	return t.put(r.key(), n)
}

// unpaid returns those of some debts that no charge has paid.
func unpaid(r ledger.Reader, debts []Debt) (left []Debt, err error) {
	for _, d := range debts {
		paid, err := r.Get(chargeTable.key(d.ID()))
		if err != nil {
			return nil, err
		}
		if paid == nil {
			left = append(left, d)
		}
	}
	return left, nil
}

// Noted is what the books know of a resource.
type Noted struct {
	Owner  string    // the payer that made it; empty where nobody here did
	Tokens int64     // how long it is as a part of the input, as far as that is known
	Owed   []Debt    // what is not paid of the answers in it
	Asked  time.Time // when it was asked for, see [Resource]
}

// Noted returns what is noted of resources, each at its place.
func (b *Book) Noted(resources []Resource) ([]Noted, error) {
	all := make([]Noted, len(resources))
	err := b.view(func(reader ledger.Reader) error {
		for i, r := range resources {
			if !r.valid() {
				continue
			}
			var n noted
			if _, err := load(reader, r.key(), &n); err != nil {
				return err
			}
			owed, err := unpaid(reader, n.Owed)
			if err != nil {
				return err
			}
			all[i] = Noted{Owner: n.Owner, Tokens: n.Tokens, Owed: owed, Asked: n.Asked}
		}
		return nil
	})
	return all, err
}
