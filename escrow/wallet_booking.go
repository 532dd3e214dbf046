package escrow

import (
	"fmt"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// booking is a deposit or withdrawal with a reference. It is kept for ever, so that money that came in once is booked once, however often
// and however late the request is repeated.
type booking struct {
	Agent  string        `cbor:"1,keyasint"`
	Amount ledger.Amount `cbor:"2,keyasint"`
	Memo   string        `cbor:"3,keyasint,omitempty"`
	At     time.Time     `cbor:"4,keyasint"`

	// The wallet after the booking, which the answer to a repetition shows as the first answer did.
	Balance ledger.Amount `cbor:"5,keyasint,omitempty"`
	Held    ledger.Amount `cbor:"6,keyasint,omitempty"`
	Pending ledger.Amount `cbor:"7,keyasint,omitempty"`
}

// Deposit books money in for an agent. Only the operator may do this. A reference is booked once, for ever: the same order again returns the
// first booking, with Repeated set, and moves nothing. Refused: already_exists if the reference was booked with other content.
func (t *Tx) Deposit(by Actor, o PaymentOrder) (Payment, error) {
	if err := by.isOperator("booking a deposit"); err != nil {
		return Payment{}, err
	}
	agent, err := t.agent("agent_id", o.To)
	if err != nil {
		return Payment{}, err
	}
	if agent.status() == agentClosed {
		return Payment{}, refuse(InvalidStatus, map[string]string{"agent_status": agentClosed}, "the agent %q is closed", o.To)
	}
	return t.book(by, kindDeposit, o.To, ledger.World, ledger.Wallet(o.To), o)
}

// Withdraw books money out for an agent, or from the earned commission. Only the operator may do this. References of withdrawals are booked
// once, as those of deposits are.
func (t *Tx) Withdraw(by Actor, o PaymentOrder) (Payment, error) {
	if err := by.isOperator("booking a withdrawal"); err != nil {
		return Payment{}, err
	}
	if o.From != string(ledger.Commission) {
		if _, err := t.agent("agent_id", o.From); err != nil {
			return Payment{}, err
		}
	}
	return t.book(by, kindWithdrawal, o.From, account(o.From), ledger.World, o)
}

// book posts a deposit or withdrawal, unless its reference was booked before.
func (t *Tx) book(by Actor, kind, agent string, from, to ledger.AccountID, o PaymentOrder) (Payment, error) {
	if err := o.check(); err != nil {
		return Payment{}, err
	}
	key := bookingTable.key(kind, o.Reference)
	if o.Reference != "" {
		var first booking
		if found, err := load(t.ledger, key, &first); err != nil {
			return Payment{}, err
		} else if found {
			return first.again(kind, agent, from, to, o, t.Currency())
		}
	}
	if err := t.audit(by, "wallet."+map[string]string{kindDeposit: "deposit", kindWithdrawal: "withdraw"}[kind], agent, fmt.Sprintf("%s, reference %q", o.Amount, o.Reference)); err != nil {
		return Payment{}, err
	}
	p, err := t.pay(kind, from, to, o, agent)
	if err != nil || o.Reference == "" {
		return p, err
	}
	return p, t.put(key, booking{
		Agent: agent, Amount: o.Amount, Memo: o.Memo, At: p.At, Balance: p.Wallet.Balance, Held: p.Wallet.Held, Pending: p.Wallet.Pending,
	})
}

// again returns the first booking of a reference for the same order, and refuses another order.
func (b booking) again(kind, agent string, from, to ledger.AccountID, o PaymentOrder, currency string) (Payment, error) {
	if b.Agent != agent || b.Amount != o.Amount || b.Memo != o.Memo {
		return Payment{}, refuse(AlreadyExists, map[string]string{
			"reference": o.Reference, "agent_id": b.Agent, "amount": b.Amount.String(), "memo": b.Memo, "created_at": b.At.Format(time.RFC3339Nano),
		}, "a %s with reference %.80q was booked on %s: %s for %q. If this is another one, give it another reference; if it is the same, repeat its agent, amount and memo",
			kind, o.Reference, b.At.Format(time.RFC3339), b.Amount, b.Agent)
	}
	return Payment{
		Kind: kind, From: accountName(from), To: accountName(to), Amount: b.Amount, Reference: o.Reference, Memo: b.Memo, At: b.At, Repeated: true,
		Wallet: Wallet{Agent: agent, Balance: b.Balance, Held: b.Held, Available: b.Balance - b.Held, Pending: b.Pending, Currency: currency},
	}, nil
}
