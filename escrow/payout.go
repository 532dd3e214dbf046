package escrow

import (
	"fmt"
	"strconv"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// PayoutStatus says how far a payout is.
type PayoutStatus string

// The statuses of a payout.
const (
	PayoutAsked   PayoutStatus = "requested" // the money is set aside, and the operator has not decided
	PayoutSending PayoutStatus = "sending"   // a service outside was told to send the money, and it is not known yet whether it has
	PayoutBooked  PayoutStatus = "paid"
	PayoutDenied  PayoutStatus = "refused" // the money is in the wallet again
)

// Payout is money that an agent wants to have outside of the ledger. It is set aside when the agent asks: a pending transfer from its wallet
// to the account world, which ends when the operator books or refuses the payout.
type Payout struct {
	ID        string        `cbor:"1,keyasint"`
	Agent     string        `cbor:"2,keyasint"`
	Amount    ledger.Amount `cbor:"3,keyasint"`
	To        string        `cbor:"4,keyasint"` // where the money should go, such as a bank account, in the agent's words
	Memo      string        `cbor:"5,keyasint,omitempty"`
	Status    PayoutStatus  `cbor:"6,keyasint"`
	Reference string        `cbor:"7,keyasint,omitempty"` // the payment outside, once it is paid
	Reason    string        `cbor:"8,keyasint,omitempty"` // why it was refused
	Rail      string        `cbor:"9,keyasint,omitempty"` // the service that sends it
	CreatedAt time.Time     `cbor:"10,keyasint"`
	DecidedAt time.Time     `cbor:"11,keyasint,omitzero"`
	Pending   uint64        `cbor:"12,keyasint"`           // the pending transfer
	Deposit   string        `cbor:"13,keyasint,omitempty"` // of a refund: the deposit that goes back, a payment of Rail
	Payment   string        `cbor:"14,keyasint,omitempty"` // of a refund: the id of that payment

	Repeated bool `cbor:"-"` // it was booked before with the same reference; nothing has moved now
}

// IsRefund reports whether the payout gives a deposit back to who has paid it, the way it came.
func (p Payout) IsRefund() bool { return p.Deposit != "" }

// IsOpen reports whether the money is set aside.
func (p Payout) IsOpen() bool { return p.Status == PayoutAsked || p.Status == PayoutSending }

// PayoutOrder describes a payout that an agent asks for.
type PayoutOrder struct {
	Agent    string // the operator names it
	Amount   ledger.Amount
	To, Memo string
}

// maxOpenPayouts is how many payouts of an agent may wait for the operator.
const maxOpenPayouts = 10

func payoutKey(id string) []byte { return payoutTable.key("id", id) }

func payoutOpenKey(agent, id string) []byte { return payoutTable.key("open", agent, id) }

// payoutSendingKey is in the list of refunds that a rail was told to make, and of which the outcome is not known yet.
func payoutSendingKey(id string) []byte { return payoutTable.key("back", id) }

// RequestPayout sets money aside that an agent wants to have outside. Money from a faucet is not paid out. Refused: insufficient_funds,
// invalid_status for an agent that owes money or has too many payouts open, forbidden for a key that is bound to some payments.
func (t *Tx) RequestPayout(by Actor, o PayoutOrder) (Payout, error) {
	agent, err := t.actsFor(by, "agent_id", o.Agent)
	if err != nil {
		return Payout{}, err
	}
	if err := t.mayBePaidOut(by, agent, o); err != nil {
		return Payout{}, err
	}
	return t.openPayout(by, Payout{Agent: agent, Amount: o.Amount, To: o.To, Memo: o.Memo, Status: PayoutAsked})
}

// openPayout sets the money of a payout aside, and keeps the payout.
func (t *Tx) openPayout(by Actor, p Payout) (Payout, error) {
	p.ID, p.CreatedAt = t.process.ids.next("pay_", t.Now()), t.Now()
	pending, err := t.ledger.Pend(ledger.Transfer{
		Debit: ledger.Wallet(p.Agent), Credit: ledger.World, Amount: p.Amount, Kind: kindWithdrawal, Reference: p.ID, Memo: p.Memo,
	})
	if err != nil {
		return Payout{}, funds(err, t.Currency(), accountName(ledger.World))
	}
	p.Pending = pending.Seq
	if err := t.audit(by, "payout.request", p.Agent, fmt.Sprintf("%s, %s", p.ID, p.Amount)); err != nil {
		return Payout{}, err
	}
	t.ledger.Put(payoutTable.key("agent", p.Agent, p.ID), []byte{})
	t.ledger.Put(payoutOpenKey(p.Agent, p.ID), []byte{})
	if p.Status == PayoutSending {
		t.ledger.Put(payoutSendingKey(p.ID), []byte{})
	}
	if err := t.put(payoutKey(p.ID), p); err != nil {
		return Payout{}, err
	}
	return p, t.tellAll(Event{Type: PayoutRequested, At: t.Now(), Payout: &p}, p.Agent)
}

// mayBePaidOut checks all that a payout needs, except for the money.
func (t *Tx) mayBePaidOut(by Actor, agent string, o PayoutOrder) error {
	if err := t.unbound(by, "can't ask for payouts"); err != nil {
		return err
	}
	if err := checkAmount("amount", o.Amount); err != nil {
		return err
	}
	if o.To == "" {
		return invalid("to", "to is missing: it says where the money should go, such as a bank account")
	}
	for field, text := range map[string]string{"to": o.To, "memo": o.Memo} {
		if err := checkText(field, text); err != nil {
			return err
		}
	}
	owed, err := t.debt(agent)
	if err != nil {
		return err
	}
	if owed > 0 {
		return refuse(InvalidStatus, map[string]string{"debt": owed.String()}, "%s %s is owed, and is paid before anything is paid out", owed, t.Currency())
	}
	open, err := t.countUpTo(payoutTable.under("open", agent), maxOpenPayouts)
	if err == nil && open == maxOpenPayouts {
		err = refuse(InvalidStatus, map[string]string{"limit": strconv.Itoa(maxOpenPayouts)}, "%d payouts wait for the operator, and no more are taken", maxOpenPayouts)
	}
	if err != nil {
		return err
	}
	return t.checkOwn(agent, o.Amount)
}

// checkOwn refuses an amount for which the wallet would have to use money of a faucet.
func (t *Tx) checkOwn(agent string, amount ledger.Amount) error {
	play, err := t.stained(ledger.Wallet(agent))
	if err != nil || play == 0 {
		return err
	}
	w, err := t.Wallet(agent)
	if err != nil {
		return err
	}
	if own := max(w.Available-play, 0); own < amount {
		return refuse(InsufficientFunds, map[string]string{"required": amount.String(), "available": own.String(), "currency": t.Currency(), "payee": accountName(ledger.World)},
			"%s of what is available came from a faucet, and is not paid out; %s can be", play, own)
	}
	return nil
}

// BookPayout books that the operator has paid a payout outside. reference names that payment; as with [Tx.Withdraw], it is booked once, for
// ever. Refused: invalid_status if the payout was refused, or paid with another reference; already_exists if the reference was booked before.
func (t *Tx) BookPayout(by Actor, id, reference string) (Payout, error) {
	if err := by.isOperator("booking a payout"); err != nil {
		return Payout{}, err
	}
	p, err := t.payout(id)
	if err != nil {
		return Payout{}, err
	}
	if reference == "" {
		return Payout{}, invalid("reference", "reference is missing: it names the payment outside")
	}
	if err := (PaymentOrder{Amount: p.Amount, Reference: reference}).check(); err != nil {
		return Payout{}, err
	}
	if p.Status == PayoutBooked && p.Reference == reference {
		p.Repeated = true
		return p, nil
	}
	if !p.IsOpen() {
		return Payout{}, decidedBefore(p)
	}
	return t.bookPayout(by, p, reference)
}

// bookPayout books an open payout as paid by a payment outside.
func (t *Tx) bookPayout(by Actor, p Payout, reference string) (Payout, error) {
	key := bookingTable.key(kindWithdrawal, reference)
	var first booking
	if found, err := load(t.ledger, key, &first); err != nil {
		return Payout{}, err
	} else if found {
		return Payout{}, refuse(AlreadyExists, map[string]string{"reference": reference}, "a withdrawal with reference %.80q was booked on %s", reference, first.At.Format(time.RFC3339))
	}
	memo := p.Memo
	if p.Rail != "" {
		memo = p.Rail + " " + reference
	}
	if _, err := t.ledger.Resolve(p.Pending, p.Amount, "", memo); err != nil {
		return Payout{}, err
	}
	w, err := t.Wallet(p.Agent)
	if err != nil {
		return Payout{}, err
	}
	if err := t.put(key, booking{Agent: p.Agent, Amount: p.Amount, Memo: p.Memo, At: t.Now(), Balance: w.Balance, Held: w.Held, Pending: w.Pending}); err != nil {
		return Payout{}, err
	}
	p.Status, p.Reference = PayoutBooked, reference
	return p, t.endPayout(by, &p, PayoutPaid, "payout.book", reference)
}

// RefusePayout gives the money of a payout back to the wallet. Refused: invalid_status if the payout was decided before, or is being sent.
func (t *Tx) RefusePayout(by Actor, id, reason string) (Payout, error) {
	if err := by.isOperator("refusing a payout"); err != nil {
		return Payout{}, err
	}
	if err := checkText("reason", reason); err != nil {
		return Payout{}, err
	}
	p, err := t.payout(id)
	if err != nil {
		return Payout{}, err
	}
	if p.Status != PayoutAsked {
		return Payout{}, decidedBefore(p)
	}
	return t.refusePayout(by, p, reason)
}

// refusePayout gives the money of an open payout back to the wallet, and what it would have refunded to its deposit.
func (t *Tx) refusePayout(by Actor, p Payout, reason string) (Payout, error) {
	if _, err := t.ledger.Resolve(p.Pending, 0, "", reason); err != nil {
		return Payout{}, err
	}
	if p.IsRefund() {
		if err := t.addGone(p.Rail, p.Payment, -p.Amount); err != nil {
			return Payout{}, err
		}
	}
	p.Status, p.Reason = PayoutDenied, reason
	if err := t.endPayout(by, &p, PayoutRefused, "payout.refuse", reason); err != nil {
		return Payout{}, err
	}
	return p, t.collect(p.Agent)
}

func decidedBefore(p Payout) error {
	return refuse(InvalidStatus, map[string]string{"status": string(p.Status)}, "payout %s is %s", p.ID, p.Status)
}

// endPayout keeps a payout that the operator has decided, and tells its agent.
func (t *Tx) endPayout(by Actor, p *Payout, what EventType, act, detail string) error {
	p.DecidedAt = t.Now()
	if err := t.audit(by, act, p.ID, detail); err != nil {
		return err
	}
	t.ledger.Delete(payoutOpenKey(p.Agent, p.ID))
	t.ledger.Delete(payoutSendingKey(p.ID))
	if err := t.put(payoutKey(p.ID), *p); err != nil {
		return err
	}
	return t.tellAll(Event{Type: what, At: t.Now(), Payout: p}, p.Agent)
}

// SendPayout writes down that a rail's service is told to send a payout, before it is told. From then on the payout can't be refused, until
// the service has said that it sent nothing. A payout that is being sent by that rail is returned again. A refund is sent by the rail that
// has taken the payment.
func (t *Tx) SendPayout(by Actor, id, rail string) (Payout, error) {
	if err := by.isOperator("sending a payout"); err != nil {
		return Payout{}, err
	}
	p, err := t.payout(id)
	if err != nil {
		return Payout{}, err
	}
	if p.Status == PayoutSending && p.Rail == rail {
		return p, nil
	}
	if p.IsRefund() && p.Rail != rail {
		return Payout{}, refuse(InvalidStatus, map[string]string{"rail": p.Rail}, "payout %s refunds a payment of the rail %s", p.ID, p.Rail)
	}
	if p.Status != PayoutAsked {
		return Payout{}, decidedBefore(p)
	}
	if p.IsRefund() {
		t.ledger.Put(payoutSendingKey(p.ID), []byte{})
	}
	p.Status, p.Rail = PayoutSending, rail
	if err := t.audit(by, "payout.send", id, rail); err != nil {
		return Payout{}, err
	}
	return p, t.put(payoutKey(id), p)
}

// UnsendPayout notes that the service has refused to send a payout, so that the operator decides again.
func (t *Tx) UnsendPayout(id string) error {
	p, err := t.payout(id)
	if err != nil || p.Status != PayoutSending {
		return err
	}
	p.Status, p.Rail = PayoutAsked, ""
	return t.put(payoutKey(id), p)
}

func (t *Tx) payout(id string) (Payout, error) { return payoutByID(t.ledger, id) }

func payoutByID(r ledger.Reader, id string) (p Payout, err error) {
	if len(id) <= maxID {
		var found bool
		if found, err = load(r, payoutKey(id), &p); err != nil || found {
			return p, err
		}
	}
	return p, refuse(NotFound, nil, "no payout %.80q", id)
}

// Payout returns a payout. Others than its agent and the operator get not_found.
func (b *Book) Payout(by Actor, id string) (p Payout, err error) {
	err = b.view(func(r ledger.Reader) error {
		if p, err = payoutByID(r, id); err == nil && !by.Operator && p.Agent != by.Agent {
			err = refuse(NotFound, nil, "no payout %.80q", id)
		}
		return err
	})
	return p, err
}

// Payouts lists payouts, newest first. If agent is empty, they are those of all agents. A status of "" means any.
func (b *Book) Payouts(agent string, status PayoutStatus, p Page) (payouts []Payout, next string, err error) {
	all := list[Payout]{table: payoutTable, parts: []string{"id"}, item: func(r ledger.Reader, id string, _ []byte) (Payout, bool, error) {
		p, err := payoutByID(r, id)
		return p, status == "" || p.Status == status, err
	}}
	if agent != "" {
		all.parts = []string{"agent", agent}
	}
	err = b.view(func(r ledger.Reader) error {
		payouts, next, err = all.page(r, p)
		return err
	})
	return payouts, next, err
}
