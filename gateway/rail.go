package gateway

import (
	"context"
	"maps"
	"net/http"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// Rail is a way to pay at the metered route itself, for callers without money in their wallet or without an account. A payment is booked
// into the wallet of the agent that paid, and the call is charged from that wallet like any other.
type Rail interface {
	// Name returns the rail's name. Together with a payment's id it identifies the payment in the books.
	Name() string
	// Challenge tells a caller that was refused how it can pay: in the header of the refusal, and in fields of its problem object.
	Challenge(need Need, h http.Header) (members map[string]string)
	// Redeem removes a payment from the request, and makes sure that the money is there. found is false if the request has no payment of this
	// rail. If the error is a [*escrow.Refusal], the caller gets that refusal. The same payment may come again; it is booked once.
	Redeem(r *http.Request) (paid Paid, found bool, err error)
	// Settled tells the caller, in the header of a charged answer, what became of its payment.
	Settled(charge escrow.Charge, h http.Header)
}

// Need is what a refused call needs.
type Need struct {
	Route    string
	Payee    string
	Required ledger.Amount // the least that the call needs; 0 if that is not known
	Currency string
}

// Paid is a payment that came in by a rail.
type Paid struct {
	ID     string // never used again on this rail
	Agent  string // the agent that paid; it is created if it does not exist
	Amount ledger.Amount
}

// short are the outcomes for which a payment would help.
var short = map[ledger.Outcome]bool{
	escrow.Unauthorized: true, escrow.InsufficientFunds: true, escrow.EscrowRequired: true, escrow.SubscriptionRequired: true,
}

// challenge offers the rails to a caller that was refused for lack of money.
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

// redeem books the payment in the request, if there is one, and makes its payer the payer of the call.
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
		// A payment that was made is booked even if its caller is leaving.
		_, err = escrow.Do(context.WithoutCancel(a.request.Context()), a.gateway.book, func(tx *escrow.Tx) (escrow.RailPayment, error) {
			booked, _, err := tx.Fund(funding)
			return booked, err
		})
		if err != nil {
			return false, asRefusal(err)
		}
		if a.payer, err = a.gateway.book.Standing(escrow.Actor{Agent: payment.Agent}); err != nil {
			return false, asRefusal(err)
		}
		return true, nil
	}
	return false, nil
}

// confirm makes the rails set headers of a charged answer.
func (a *admitted) confirm(h http.Header, charge escrow.Charge) {
	for _, rail := range a.gateway.options.Rails {
		rail.Settled(charge, h)
	}
}
