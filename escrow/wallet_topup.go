package escrow

import (
	"strings"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// AutoTopUp says that a wallet is filled from a saved payment method when it falls below an amount. The payment itself is made by the
// rail's service outside.
type AutoTopUp struct {
	Agent  string        `cbor:"1,keyasint"`
	Below  ledger.Amount `cbor:"2,keyasint"` // when less than this is available; 0: the agent has only saved its payment method
	Amount ledger.Amount `cbor:"3,keyasint"` // then so much is paid
	PerDay ledger.Amount `cbor:"4,keyasint"` // and no more than this on a day, in UTC

	Rail   string `cbor:"5,keyasint,omitempty"` // whose service has saved the payment method; empty: none is saved
	Method string `cbor:"6,keyasint,omitempty"` // the payment method, as the service knows it

	Day    string        `cbor:"7,keyasint,omitempty"` // on which Paid was paid, or is being paid
	Paid   ledger.Amount `cbor:"8,keyasint,omitempty"`
	Order  string        `cbor:"9,keyasint,omitempty"`  // the id of the payment that is being made; empty: none
	Since  time.Time     `cbor:"10,keyasint,omitzero"`  // when the order was made
	Asked  ledger.Amount `cbor:"11,keyasint,omitempty"` // the amount of the order
	Failed string        `cbor:"12,keyasint,omitempty"` // why the last one was not paid; then there is no other before the agent sets the top-up again
}

// IsOn reports whether the wallet is filled by itself.
func (a AutoTopUp) IsOn() bool { return a.Below > 0 && a.Method != "" && a.Failed == "" }

// TopUpOrder is what an agent sets of its automatic top-up.
type TopUpOrder struct {
	Agent                 string // the operator names it
	Below, Amount, PerDay ledger.Amount
}

func autoKey(agent string) []byte { return cardTable.key("auto", agent) }

func autoTopUp(r ledger.Reader, agent string) (a AutoTopUp, found bool, err error) {
	found, err = load(r, autoKey(agent), &a)
	return a, found, err
}

// SetAutoTopUp sets when a wallet is filled by itself. A payment method must have been saved by a payment before. Refused: invalid_status if
// there is none, invalid_request.
func (t *Tx) SetAutoTopUp(by Actor, o TopUpOrder) (AutoTopUp, error) {
	agent, err := t.actsFor(by, "agent_id", o.Agent)
	if err != nil {
		return AutoTopUp{}, err
	}
	if err := t.unbound(by, "can't spend the saved payment method"); err != nil {
		return AutoTopUp{}, err
	}
	for field, amount := range map[string]ledger.Amount{"below": o.Below, "amount": o.Amount, "per_day": o.PerDay} {
		if err := checkAmount(field, amount); err != nil {
			return AutoTopUp{}, err
		}
	}
	if o.PerDay < o.Amount {
		return AutoTopUp{}, invalid("per_day", "per_day %s is less than one top-up of %s", o.PerDay, o.Amount)
	}
	a, _, err := autoTopUp(t.ledger, agent)
	if err != nil {
		return a, err
	}
	if a.Method == "" {
		return a, refuse(InvalidStatus, nil, "no payment method is saved: pay once by a checkout that saves it, with \"save\": true")
	}
	if err := t.audit(by, "top_up.set", agent, o.Amount.String()+" below "+o.Below.String()); err != nil {
		return a, err
	}
	a.Below, a.Amount, a.PerDay, a.Failed = o.Below, o.Amount, o.PerDay, ""
	return a, t.put(autoKey(agent), a)
}

// DeleteAutoTopUp ends an automatic top-up, and forgets the saved payment method. A payment that is being made is still booked. Refused:
// not_found if there is none.
func (t *Tx) DeleteAutoTopUp(by Actor, agent string) error {
	agent, err := t.actsFor(by, "agent_id", agent)
	if err != nil {
		return err
	}
	a, found, err := autoTopUp(t.ledger, agent)
	if err != nil {
		return err
	}
	if !found {
		return noTopUp()
	}
	if err := t.audit(by, "top_up.delete", agent, ""); err != nil {
		return err
	}
	if a.Order != "" { // what is being paid stays known until its outcome is
		a.Below, a.Method = 0, ""
		return t.put(autoKey(agent), a)
	}
	t.ledger.Delete(autoKey(agent))
	return nil
}

func noTopUp() error { return refuse(NotFound, nil, "no automatic top-up is set") }

// AutoTopUp returns the automatic top-up of an agent. Refused: not_found if there is none.
func (b *Book) AutoTopUp(agent string) (a AutoTopUp, err error) {
	err = b.view(func(r ledger.Reader) error {
		var found bool
		if a, found, err = autoTopUp(r, agent); err == nil && !found {
			err = noTopUp()
		}
		return err
	})
	return a, err
}

// SaveMethod keeps the payment method with which an agent has paid on a rail, for automatic top-ups.
func (t *Tx) SaveMethod(agent, rail, method string) error {
	if len(method) > maxText {
		return invalid("method", "a payment method has at most %d bytes", maxText)
	}
	a, _, err := autoTopUp(t.ledger, agent)
	if err != nil || a.Rail == rail && a.Method == method {
		return err
	}
	a.Agent, a.Rail, a.Method = agent, rail, method
	return t.put(autoKey(agent), a)
}

// AutoTopUps lists automatic top-ups in the order of their agents, beginning after one. next is the after of the next page, empty at the end.
func (b *Book) AutoTopUps(after string, limit int) (all []AutoTopUp, next string, err error) {
	err = b.view(func(r ledger.Reader) error {
		from := cardTable.under("auto")
		if after != "" {
			from.From = append(autoKey(after), 0)
		}
		return r.Scan(from, func(key, value []byte) (bool, error) {
			if len(all) == limit {
				next = all[limit-1].Agent
				return false, nil
			}
			var a AutoTopUp
			if err := decode(key, value, &a); err != nil {
				return false, err
			}
			all = append(all, a)
			return true, nil
		})
	})
	return all, next, err
}

// BeginTopUp makes the order of an automatic top-up, if the wallet needs one and the day allows it. It is written down before the service
// outside is asked, so that its outcome is found out even if the process dies. An order that was made before is returned again. If nothing
// is to be paid, begun is false.
func (t *Tx) BeginTopUp(agent string) (a AutoTopUp, begun bool, err error) {
	a, found, err := autoTopUp(t.ledger, agent)
	if err != nil || !found || a.Order != "" {
		return a, a.Order != "", err
	}
	if !a.IsOn() {
		return a, false, nil
	}
	if err := t.checkStanding(agent); IsRefusal(err, Forbidden) {
		return a, false, nil // a suspended agent spends nothing
	} else if err != nil {
		return a, false, err
	}
	w, err := t.Wallet(agent)
	if err != nil || w.Available >= a.Below {
		return a, false, err
	}
	if day := t.Now().Format(time.DateOnly); a.Day != day {
		a.Day, a.Paid = day, 0
	}
	if a.Amount > a.PerDay-a.Paid {
		return a, false, nil
	}
	a.Paid += a.Amount
	a.Order, a.Since, a.Asked = t.process.ids.next("top_", t.Now()), t.Now(), a.Amount
	return a, true, t.put(autoKey(agent), a)
}

// EndTopUp ends an order. failed says why it was not paid; if it is empty, the payment was booked, by [Tx.Fund]. An agent whose top-up was
// not paid is told, and pays no other before it sets its top-up again.
func (t *Tx) EndTopUp(agent, order, failed string) error {
	a, found, err := autoTopUp(t.ledger, agent)
	if err != nil || !found || a.Order == "" || a.Order != order {
		return err
	}
	asked := a.Asked
	a.Order, a.Since, a.Asked = "", time.Time{}, 0
	if failed == "" {
		return t.forgetOrPut(a)
	}
	if a.Paid >= asked && a.Day == t.Now().Format(time.DateOnly) {
		a.Paid -= asked
	}
	a.Failed = cut(failed)
	if err := t.forgetOrPut(a); err != nil {
		return err
	}
	return t.tellAll(Event{Type: TopUpFailed, At: t.Now(), TopUp: &a}, agent)
}

// cut returns what is kept of a text that comes from outside.
func cut(text string) string { return strings.ToValidUTF8(text[:min(len(text), maxText)], "") }

// forgetOrPut keeps a top-up, unless it was deleted while it was being paid.
func (t *Tx) forgetOrPut(a AutoTopUp) error {
	if a.Method == "" {
		t.ledger.Delete(autoKey(a.Agent))
		return nil
	}
	return t.put(autoKey(a.Agent), a)
}
