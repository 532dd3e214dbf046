package gateway

import (
	"context"
	"maps"
	"net/http"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// Rail is a way to pay at the metered route itself, for callers without credit or without an account. What comes in by a rail is booked
// into the wallet of the agent that has paid, and the call is charged from there as any other.
type Rail interface {
	// Name tells the rail from others: with a payment's id it makes the payment unique in the books.
	Name() string
	// Challenge tells a caller that was refused how it can pay: in the header of the refusal, and in members of its problem object.
	Challenge(need Need, h http.Header) (members map[string]string)
	// Redeem takes a payment off the request, and makes sure that the money is there. found is false where the request has none of this
	// rail's. An error that is a [*escrow.Refusal] is what the caller is told. The same payment may come again: it is booked once.
	Redeem(r *http.Request) (paid Paid, found bool, err error)
	// Settled tells in the header of a charged answer what its payment came to.
	Settled(charge escrow.Charge, h http.Header)
}

// Need is what a refused call is short of.
type Need struct {
	Route    string
	Payee    string
	Required ledger.Amount // the least that the call needs; 0 where that is not known
	Currency string
}

// Paid is a payment that came in by a rail.
type Paid struct {
	ID     string // unique on its rail for ever
	Agent  string // that has paid; it is made where it does not exist
	Amount ledger.Amount
}

// short are the outcomes that more money, or any money at all, would mend.
var short = map[ledger.Outcome]bool{
	escrow.Unauthorized: true, escrow.InsufficientFunds: true, escrow.EscrowRequired: true, escrow.SubscriptionRequired: true,
}

// challenge offers the rails to a caller that was refused for want of money.
func (a *arrival) challenge(h http.Header, refusal *ledger.Refusal) *ledger.Refusal {
	rails := a.gateway.options.Rails
	if len(rails) == 0 || !short[refusal.Outcome] {
		return refusal
	}
	need := Need{Route: a.route.Name, Payee: a.route.Payee, Currency: a.gateway.book.Currency()}
	need.Required, _ = ledger.ParseAmount(refusal.Fields["required"])
	offered := &ledger.Refusal{Outcome: refusal.Outcome, Detail: refusal.Detail, Fields: make(map[string]string)}
	for _, rail := range rails {
		maps.Copy(offered.Fields, rail.Challenge(need, h))
	}
	maps.Copy(offered.Fields, refusal.Fields)
	return offered
}

// redeem books the payment that the request carries, if it carries one, and makes its payer the call's.
func (a *arrival) redeem() (paid bool, refusal *ledger.Refusal) {
	for _, rail := range a.gateway.options.Rails {
		payment, found, err := rail.Redeem(a.request)
		if err != nil {
			return false, asRefusal(err)
		}
		if !found {
			continue
		}
		funding := escrow.RailPayment{Rail: rail.Name(), ID: payment.ID, Agent: payment.Agent, Amount: payment.Amount}
		// A payment that was made is booked although its caller may be leaving.
		_, err = escrow.Do(context.WithoutCancel(a.request.Context()), a.gateway.book, func(tx *escrow.Tx) (escrow.RailPayment, error) {
			booked, _, err := tx.Fund(funding)
			return booked, err
		})
		if err != nil {
			return false, asRefusal(err)
		}
		a.payer = escrow.Actor{Agent: payment.Agent}
		return true, nil
	}
	return false, nil
}

// confirm has the rails tell in the header of a charged answer what it came to.
func (a *admitted) confirm(h http.Header, charge escrow.Charge) {
	for _, rail := range a.gateway.options.Rails {
		rail.Settled(charge, h)
	}
}
