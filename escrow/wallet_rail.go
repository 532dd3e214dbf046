package escrow

import (
	"strings"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// RailPayment is money that comes in by a payment rail, which is a network outside the ledger. Before a rail is told to move the money, the
// payment is written down as pending. So no payment is forgotten if the process dies, or if the rail does not say what became of it.
type RailPayment struct {
	Rail   string        `cbor:"1,keyasint"` // its name, such as "x402"
	ID     string        `cbor:"2,keyasint"` // the id of the payment; it is never used again on its rail
	Agent  string        `cbor:"3,keyasint"`
	Amount ledger.Amount `cbor:"4,keyasint"`
	At     time.Time     `cbor:"5,keyasint"` // when it was booked, or when it was written down if it is pending

	Pending bool      `cbor:"6,keyasint,omitempty"`  // it is not known yet whether the money came
	Lost    bool      `cbor:"7,keyasint,omitempty"`  // it will not become known: the rail has been asked until the payment had ended
	Proof   []byte    `cbor:"8,keyasint,omitempty"`  // of a pending payment: what the rail needs to ask for it again
	Request []byte    `cbor:"9,keyasint,omitempty"`  // a digest of the request that brought it
	Outside string    `cbor:"10,keyasint,omitempty"` // the id that the network outside gave it, such as that of a transaction
	Ends    time.Time `cbor:"11,keyasint,omitzero"`  // after this the rail moves nothing
	Name    string    `cbor:"12,keyasint,omitempty"` // the payer's own name for what it pays; a payer pays for a name once

	Deposit string        `cbor:"13,keyasint,omitempty"` // once it is booked: the id under which its agent finds it
	Gone    ledger.Amount `cbor:"14,keyasint,omitempty"` // what of it went back outside, or is set aside for that
	Refunds int           `cbor:"15,keyasint,omitempty"` // how many refunds of it were asked for
}

// maxPaymentName is how many bytes a payer's name for a payment may have.
const maxPaymentName = 128

// maxProof is how many bytes a rail may keep of a pending payment.
const maxProof = 32 << 10

// RailAgent returns the id of the agent that stands for a payer of a rail. Nobody can register such an id.
func RailAgent(rail, payer string) string { return rail + ":" + payer }

// BeginFunding writes a payment down, before its rail is told to move the money. If it was written down or booked before, first is false,
// and the payment is returned as it is in the books. Refused: forbidden if the payer's agent was not made by a rail, or is suspended;
// idempotency_conflict if the payer has made another payment of the same name.
func (t *Tx) BeginFunding(p RailPayment) (noted RailPayment, first bool, err error) {
	if err := checkRailPayment(p); err != nil {
		return RailPayment{}, false, err
	}
	if found, err := load(t.ledger, railTable.key(p.Rail, p.ID), &noted); err != nil || found {
		return noted, false, err
	}
	if _, err := t.mayFund(p.Agent); err != nil {
		return RailPayment{}, false, err
	}
	if err := t.nameFunding(p); err != nil {
		return RailPayment{}, false, err
	}
	p.Pending, p.At = true, t.Now()
	t.ledger.Put(pendingPayment(p.Rail, p.ID), []byte{})
	return p, true, t.put(railTable.key(p.Rail, p.ID), p)
}

// WelcomePayer makes the agent that stands for a payer, if there is none, before a payment that is made after the call. It refuses what
// [Tx.BeginFunding] refuses.
func (t *Tx) WelcomePayer(p RailPayment) error {
	if err := checkRailPayment(p); err != nil {
		return err
	}
	exists, err := t.mayFund(p.Agent)
	if err == nil && !exists {
		_, err = t.addAgent(AgentOrder{ID: p.Agent}, ByRail)
	}
	return err
}

// mayFund refuses payments of an agent that was not made by a rail, or is suspended.
func (t *Tx) mayFund(id string) (exists bool, err error) {
	agent, exists, err := agentByID(t.ledger, id)
	switch {
	case err != nil:
		return false, err
	case exists && agent.Origin != ByRail:
		return false, refuse(Forbidden, map[string]string{"agent_id": id}, "agent %q was not made by a payment, so payments are not booked into its wallet; ask the operator", id)
	case exists && agent.status() != "":
		return false, barred(agent.status(), agent.Reason)
	}
	return exists, nil
}

// nameFunding notes that a payer has made the payment to which it gave a name.
func (t *Tx) nameFunding(p RailPayment) error {
	if p.Name == "" {
		return nil
	}
	if err := checkPaymentName(t.ledger, p); err != nil {
		return err
	}
	return t.put(railNameTable.key(p.Agent, p.Name), [2]string{p.Rail, p.ID})
}

// checkPaymentName refuses a payment whose payer has given its name to another one.
func checkPaymentName(r ledger.Reader, p RailPayment) error {
	var other [2]string
	found, err := load(r, railNameTable.key(p.Agent, p.Name), &other)
	if err != nil || !found || other == [2]string{p.Rail, p.ID} {
		return err
	}
	return refuse(IdempotencyConflict, map[string]string{"payment_identifier": p.Name, "payment": other[1]},
		"this payer has made another payment with the identifier %q: send that payment again, or choose another identifier; nothing was paid now", p.Name)
}

// CheckPaymentName refuses a payment whose payer has made another payment of the same name: idempotency_conflict.
func (b *Book) CheckPaymentName(p RailPayment) error {
	if p.Name == "" {
		return nil
	}
	return b.view(func(r ledger.Reader) error { return checkPaymentName(r, p) })
}

// pendingPayment is the key under which a pending payment is listed. No rail has an empty name.
func pendingPayment(rail, id string) []byte { return railTable.key("", rail, id) }

// DropFunding forgets a pending payment, because it is certain that no money came.
func (t *Tx) DropFunding(rail, id string) error {
	p, pending, err := t.pending(rail, id)
	if err == nil && pending {
		t.ledger.Delete(pendingPayment(rail, id))
		t.ledger.Delete(railTable.key(p.Rail, p.ID))
		if p.Name != "" {
			t.ledger.Delete(railNameTable.key(p.Agent, p.Name))
		}
	}
	return err
}

// LoseFunding gives up asking for a pending payment. It stays in the books as one of which nothing is known; the operator has to find out.
func (t *Tx) LoseFunding(rail, id string) error {
	p, pending, err := t.pending(rail, id)
	if err != nil || !pending {
		return err
	}
	p.Lost, p.Proof = true, nil
	t.ledger.Delete(pendingPayment(rail, id))
	return t.put(railTable.key(rail, id), p)
}

func (t *Tx) pending(rail, id string) (p RailPayment, pending bool, err error) {
	found, err := load(t.ledger, railTable.key(rail, id), &p)
	return p, found && p.Pending, err
}

// Fund books money that came in by a rail into an agent's wallet. A payment is booked once: for a repetition, first is false and no money
// moves. The agent is created if it does not exist. Refused: already_exists for the same id with another agent or amount, invalid_request.
func (t *Tx) Fund(f RailPayment) (booked RailPayment, first bool, err error) {
	if err := checkRailPayment(f); err != nil {
		return RailPayment{}, false, err
	}
	at := railTable.key(f.Rail, f.ID)
	found, err := load(t.ledger, at, &booked)
	if err != nil {
		return RailPayment{}, false, err
	}
	if found {
		if booked.Agent != f.Agent || booked.Amount != f.Amount {
			return RailPayment{}, false, refuse(AlreadyExists, map[string]string{"rail": f.Rail, "payment_id": f.ID},
				"payment %.80q was booked before, for another agent or of another amount", f.ID)
		}
		if !booked.Pending {
			return booked, false, nil
		}
		f.Request, f.Ends, f.Name = booked.Request, booked.Ends, booked.Name
		t.ledger.Delete(pendingPayment(f.Rail, f.ID))
	}
	_, exists, err := agentByID(t.ledger, f.Agent)
	if err == nil && !exists {
		_, err = t.addAgent(AgentOrder{ID: f.Agent}, ByRail)
	}
	if err != nil {
		return RailPayment{}, false, err
	}
	f.At, f.Pending, f.Lost, f.Proof = t.Now(), false, false, nil
	f.Deposit, f.Gone, f.Refunds = t.process.ids.next("dep_", t.Now()), 0, 0
	memo := strings.TrimSpace(f.Rail + " " + f.Outside)
	_, err = t.pay(kindDeposit, ledger.World, ledger.Wallet(f.Agent), PaymentOrder{Amount: f.Amount, Reference: f.ID, Memo: memo}, f.Agent)
	if err != nil {
		return RailPayment{}, false, err
	}
	if err := t.put(depositKey(f.Agent, f.Deposit), [2]string{f.Rail, f.ID}); err != nil {
		return RailPayment{}, false, err
	}
	return f, true, t.put(at, f)
}

// FirstKey makes the first key of an agent that was made by a payment. The key is not stored. It is empty if the agent had a key before.
func (t *Tx) FirstKey(agent string) (key string, err error) {
	if keys, err := t.countUpTo(keyByAgent.under(agent), 1); err != nil || keys > 0 {
		return "", err
	}
	_, key, err = t.addKey(agent, KeyOrder{})
	return key, err
}

// RailPayment returns a payment as it is in the books.
func (b *Book) RailPayment(rail, id string) (p RailPayment, found bool, err error) {
	err = b.view(func(r ledger.Reader) error {
		found, err = load(r, railTable.key(rail, id), &p)
		return err
	})
	return p, found, err
}

// PendingPayments lists payments of which it is not known yet whether the money came, up to limit of them.
func (b *Book) PendingPayments(limit int) (pending []RailPayment, err error) {
	err = b.view(func(r ledger.Reader) error {
		var ids [][2]string
		err := r.Scan(railTable.under(""), func(key, _ []byte) (bool, error) {
			rail, id, _ := strings.Cut(railTable.lastPart(key, ""), "\x00")
			ids = append(ids, [2]string{rail, id})
			return len(ids) < limit, nil
		})
		for _, id := range ids {
			var p RailPayment
			if found, err := load(r, railTable.key(id[0], id[1]), &p); err != nil {
				return err
			} else if found {
				pending = append(pending, p)
			}
		}
		return err
	})
	return pending, err
}

func checkRailPayment(f RailPayment) error {
	if f.Rail == "" || len(f.Rail) > maxID || f.ID == "" || len(f.ID) > maxReference {
		return invalid("payment_id", "a payment has a rail of 1 to %d bytes and an id of 1 to %d", maxID, maxReference)
	}
	if f.Amount <= 0 {
		return invalid("amount", "a payment is of more than zero")
	}
	if len(f.Name) > maxPaymentName {
		return invalid("payment_identifier", "a payment's identifier has at most %d bytes", maxPaymentName)
	}
	if len(f.Proof) > maxProof {
		return invalid("payment", "a payment has at most %d bytes", maxProof)
	}
	for field, text := range map[string]string{"rail": f.Rail, "payment_id": f.ID, "outside": f.Outside, "payment_identifier": f.Name} {
		if err := checkText(field, text); err != nil {
			return err
		}
	}
	return CheckAgentID("agent_id", f.Agent)
}
