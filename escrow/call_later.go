package escrow

import (
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// LaterAnswer is an answer that the provider does not give at once. The agent that asked for it fetches it later, and is charged then. The
// record is written together with the charge of the first call, before the caller gets the answer's name. So the gateway knows who must
// pay.
type LaterAnswer struct {
	Payer       string    `cbor:"1,keyasint"`
	Payee       string    `cbor:"2,keyasint"`
	Name        string    `cbor:"3,keyasint"` // its kind, a colon, and the provider's name for it
	Request     string    `cbor:"4,keyasint"` // the call that asked for it
	API         string    `cbor:"5,keyasint,omitempty"`
	Model       string    `cbor:"6,keyasint,omitempty"`
	Models      []string  `cbor:"7,keyasint,omitempty"` // other models that may answer
	ServiceTier string    `cbor:"8,keyasint,omitempty"`
	InputTokens int64     `cbor:"9,keyasint,omitempty"`
	InputOpen   bool      `cbor:"10,keyasint,omitempty"` // the input may have more than InputTokens
	MaxOutput   int64     `cbor:"11,keyasint,omitempty"` // tokens; 0: no limit
	Choices     int64     `cbor:"12,keyasint,omitempty"`
	At          time.Time `cbor:"13,keyasint"`           // when it was asked for
	ContainerGB int64     `cbor:"14,keyasint,omitempty"` // of a container in which the provider runs code; 0: as 1
	Thinks      bool      `cbor:"15,keyasint,omitempty"` // reasoning was asked for
	Prompt      int64     `cbor:"16,keyasint,omitempty"` // tokens of the input, as estimated from the request
}

// LaterAnswer returns an answer that a payee will give later, by its name. found is false if nobody has asked for it.
func (b *Book) LaterAnswer(payee, name string) (a LaterAnswer, found bool, err error) {
	err = b.view(func(r ledger.Reader) error {
		found, err = load(r, laterTable.key(payee, name), &a)
		return err
	})
	return a, found, err
}

// PaidResult reports whether a payer was charged for a result of a payee, by its name in [Settlement].Results.
func (b *Book) PaidResult(payee, payer, name string) (paid bool, err error) {
	err = b.view(func(r ledger.Reader) error {
		value, err := r.Get(paidResultTable.key(payee, payer, name))
		paid = value != nil
		return err
	})
	return paid, err
}

// keepPaid records the results that are charged with a call.
func (t *Tx) keepPaid(c Charge, results []string) {
	for _, name := range results {
		t.ledger.Put(paidResultTable.key(c.Payee, c.Payer, name), []byte{1})
	}
}

// keepLater records who asked for an answer. If the name is recorded already, the first record stays: providers do not use a name twice.
func (t *Tx) keepLater(c Charge, a LaterAnswer) error {
	a.Payer, a.Payee, a.Request = c.Payer, c.Payee, c.RequestID
	if a.At.IsZero() {
		a.At = t.Now()
	}
	key := laterTable.key(a.Payee, a.Name)
	if there, err := t.ledger.Get(key); err != nil || there != nil {
		return err
	}
	return t.put(key, a)
}
