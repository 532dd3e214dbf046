package escrow

import (
	"fmt"
	"strconv"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// An agent may have a deposit back that came in by a rail, as far as its money is not spent. That is a payout to who has paid: its money is set
// aside before the rail is told, so that it can't be spent meanwhile, and its outcome is found out even if the process dies. What the rail has
// given back is booked from what was set aside, once, by the id that the refund has outside ([Tx.TakeBack]).

// maxRefunds is how many refunds of a deposit may be asked for. Each costs its rail a request, and is kept.
const maxRefunds = 20

// Left is what can still go back of a payment.
func (p RailPayment) Left() ledger.Amount { return max(p.Amount-p.Gone, 0) }

func depositKey(agent, id string) []byte { return cardTable.key("deposit", agent, id) }

// RefundOrder describes a refund that an agent asks for.
type RefundOrder struct {
	Agent   string // the operator names it
	Deposit string
	Amount  ledger.Amount // 0: as much as can go back
	Memo    string
	// Can says whether the rail of a payment can give it back: the smallest amount that it can give back, of which others are multiples, and
	// whether it does so without the operator. 0 means that the operator has to pay. Nil: no rail can.
	Can func(payment RailPayment) (unit ledger.Amount, atOnce bool)
}

// RequestRefund sets money aside that goes back to who has paid a deposit. If the deposit's rail can give it back without the operator, the
// payout begins as it is being sent. Otherwise the operator decides, as with other payouts. Refused: not_found if the agent has no such deposit;
// insufficient_funds; invalid_status if less is left of the deposit, if too many refunds of it were asked for, and what [Tx.RequestPayout]
// refuses.
func (t *Tx) RequestRefund(by Actor, o RefundOrder) (Payout, error) {
	agent, err := t.actsFor(by, "agent_id", o.Agent)
	if err != nil {
		return Payout{}, err
	}
	payment, err := deposit(t.ledger, agent, o.Deposit)
	if err != nil {
		return Payout{}, err
	}
	if payment.Refunds >= maxRefunds {
		return Payout{}, refuse(InvalidStatus, map[string]string{"limit": strconv.Itoa(maxRefunds)}, "%d refunds of deposit %s were asked for, and no more are taken", maxRefunds, payment.Deposit)
	}
	amount, atOnce, err := t.refundable(payment, o)
	if err != nil {
		return Payout{}, err
	}
	to := PayoutOrder{Agent: agent, Amount: amount, To: fmt.Sprintf("the payer of %s payment %s", payment.Rail, payment.ID), Memo: o.Memo}
	if err := t.mayBePaidOut(by, agent, to); err != nil {
		return Payout{}, err
	}
	p := Payout{
		Agent: agent, Amount: amount, To: to.To, Memo: to.Memo, Status: PayoutAsked, Rail: payment.Rail, Deposit: payment.Deposit, Payment: payment.ID,
	}
	if atOnce {
		p.Status = PayoutSending
	}
	if p, err = t.openPayout(by, p); err != nil {
		return Payout{}, err
	}
	payment.Gone += amount
	payment.Refunds++
	return p, t.put(railTable.key(payment.Rail, payment.ID), payment)
}

// refundable returns how much goes back, and whether its rail does that without the operator.
func (t *Tx) refundable(payment RailPayment, o RefundOrder) (amount ledger.Amount, atOnce bool, err error) {
	if amount = o.Amount; amount == 0 {
		w, err := t.Wallet(payment.Agent)
		if err != nil {
			return 0, false, err
		}
		play, err := t.stained(ledger.Wallet(payment.Agent))
		if err != nil {
			return 0, false, err
		}
		amount = max(min(payment.Left(), w.Available-play), 0)
	}
	if o.Amount < 0 || amount > payment.Amount {
		return 0, false, invalid("amount", "amount %s: the deposit is of %s", o.Amount, payment.Amount)
	}
	if left := payment.Left(); amount > left || left == 0 {
		return 0, false, refuse(InvalidStatus, map[string]string{"left": left.String()}, "%s %s is left of deposit %s that can go back", left, t.Currency(), payment.Deposit)
	}
	if o.Can != nil {
		unit, now := o.Can(payment)
		if atOnce = now && unit > 0; unit > 0 {
			amount -= amount % unit
		}
		if o.Amount != 0 && amount != o.Amount {
			return 0, false, invalid("amount", "amount %s: the rail %s gives multiples of %s back", o.Amount, payment.Rail, unit)
		}
	}
	if amount == 0 {
		return 0, false, refuse(InsufficientFunds, map[string]string{"available": "0", "currency": t.Currency(), "payee": accountName(ledger.World)},
			"nothing is available that could go back: what is spent, held or came from a faucet can't")
	}
	return amount, atOnce, nil
}

// endRefund books what went back because it was asked for here, from what its payout has set aside. asked is false if it was not asked for
// here, so that it is still to be booked.
func (t *Tx) endRefund(b TakenBack) (asked bool, err error) {
	if b.Payout == "" {
		return false, nil
	}
	p, err := t.payout(b.Payout)
	if IsRefusal(err, NotFound) {
		return false, nil
	}
	if err != nil || p.Rail != b.Rail || p.Payment != b.Payment || p.Amount != b.Taken {
		return false, err
	}
	switch {
	case p.Status == PayoutBooked && p.Reference == b.ID: // the operator has booked it
		return true, nil
	case p.Status != PayoutSending:
		return false, nil
	case b.Net() == 0:
		_, err = t.refusePayout(Actor{}, p, "the refund failed")
	default:
		_, err = t.bookPayout(Actor{}, p, b.ID)
	}
	return true, err
}

// DeclineRefund notes that a rail has refused to make a refund, and made none: the money is in the wallet again.
func (t *Tx) DeclineRefund(id, why string) error {
	p, err := t.payout(id)
	if err != nil || p.Status != PayoutSending || !p.IsRefund() {
		return err
	}
	_, err = t.refusePayout(Actor{}, p, cut(why))
	return err
}

// addGone notes that more of a payment went back outside, or is set aside for that; or, below zero, less.
func (t *Tx) addGone(rail, id string, more ledger.Amount) error {
	var payment RailPayment
	key := railTable.key(rail, id)
	if found, err := load(t.ledger, key, &payment); err != nil || !found {
		return err
	}
	payment.Gone += more
	return t.put(key, payment)
}

// deposit returns one of an agent's deposits that came in by a rail.
func deposit(r ledger.Reader, agent, id string) (p RailPayment, err error) {
	if len(id) <= maxID {
		var at [2]string
		found, err := load(r, depositKey(agent, id), &at)
		if err == nil && found {
			_, err = load(r, railTable.key(at[0], at[1]), &p)
		}
		if err != nil || found {
			return p, err
		}
	}
	return p, refuse(NotFound, map[string]string{"deposit_id": id}, "no deposit %.80q of agent %s that came in by a rail", id, agent)
}

// Deposits lists an agent's deposits that came in by rails, newest first.
func (b *Book) Deposits(agent string, p Page) (deposits []RailPayment, next string, err error) {
	all := list[RailPayment]{table: cardTable, parts: []string{"deposit", agent}, item: func(r ledger.Reader, id string, _ []byte) (RailPayment, bool, error) {
		payment, err := deposit(r, agent, id)
		return payment, true, err
	}}
	err = b.view(func(r ledger.Reader) error {
		deposits, next, err = all.page(r, p)
		return err
	})
	return deposits, next, err
}

// SendingRefunds lists refunds that a rail was told to make and whose outcome is not known, in the order in which they were asked for, after
// one. next is the after of the next page, empty at the end.
func (b *Book) SendingRefunds(after string, limit int) (refunds []Payout, next string, err error) {
	err = b.view(func(r ledger.Reader) error {
		from := payoutTable.under("back")
		if after != "" {
			from.From = append(payoutSendingKey(after), 0)
		}
		return r.Scan(from, func(key, _ []byte) (bool, error) {
			if len(refunds) == limit {
				next = refunds[limit-1].ID
				return false, nil
			}
			p, err := payoutByID(r, payoutTable.lastPart(key, "back"))
			refunds = append(refunds, p)
			return true, err
		})
	})
	return refunds, next, err
}
