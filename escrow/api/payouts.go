package api

import (
	"context"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/cashier"
	"github.com/tallygate/tallygate/escrow/ledger"
)

type payoutIn struct {
	AgentID string        `json:"agent_id,omitempty" jsonschema:"who is paid; only the operator gives it"`
	Amount  ledger.Amount `json:"amount"`
	To      string        `json:"to" jsonschema:"where the money should go, such as a bank account, or the id of an account of Stripe Connect"`
	Memo    string        `json:"memo,omitempty"`
}

type payoutOut struct {
	PayoutID  string              `json:"payout_id"`
	AgentID   string              `json:"agent_id"`
	Amount    ledger.Amount       `json:"amount"`
	To        string              `json:"to"`
	Memo      string              `json:"memo"`
	Status    escrow.PayoutStatus `json:"status" jsonschema:"requested, sending, paid or refused; the money is set aside until it is one of the last two"`
	Reference string              `json:"reference,omitempty" jsonschema:"the payment outside"`
	Reason    string              `json:"reason,omitempty" jsonschema:"why it was refused"`
	Currency  string              `json:"currency"`
	CreatedAt time.Time           `json:"created_at"`
	DecidedAt *time.Time          `json:"decided_at"`
	DepositID string              `json:"deposit_id,omitempty" jsonschema:"of a refund: the deposit that goes back"`

	repeated bool
}

func (p payoutOut) replayed() bool { return p.repeated }

func payoutAnswer(currency string) func(escrow.Payout) payoutOut {
	return func(p escrow.Payout) payoutOut {
		out := payoutOut{
			PayoutID: p.ID, AgentID: p.Agent, Amount: p.Amount, To: p.To, Memo: p.Memo, Status: p.Status, Reference: p.Reference, Reason: p.Reason,
			Currency: currency, CreatedAt: p.CreatedAt, DepositID: p.Deposit, repeated: p.Repeated,
		}
		if !p.DecidedAt.IsZero() {
			out.DecidedAt = &p.DecidedAt
		}
		return out
	}
}

type bookPayoutIn struct {
	ID        string `path:"id"`
	Reference string `json:"reference" jsonschema:"identifies the payment outside, such as a bank's transaction id; it is booked once, for ever"`
}

type listPayoutsIn struct {
	listOfAgent
	Status string `query:"status"`
}

type payoutsOut struct {
	Payouts    []payoutOut `json:"payouts"`
	NextCursor *string     `json:"next_cursor"`
}

func payoutRoutes() []route {
	return []route{
		post("/payouts", "createPayout", "Ask for money to be paid out; it is set aside at once", func(r *request, t *escrow.Tx, in *payoutIn) (payoutOut, error) {
			p, err := t.RequestPayout(r.by, escrow.PayoutOrder{Agent: in.AgentID, Amount: in.Amount, To: in.To, Memo: in.Memo})
			return payoutAnswer(t.Currency())(p), err
		}).creates(),
		get("/payouts", "listPayouts", "Payouts, newest first; the operator gets those of all agents", listPayouts),
		get("/payouts/{id}", "getPayout", "A payout", func(r *request, in *byID) (payoutOut, error) {
			p, err := r.book.Payout(r.by, in.ID)
			return payoutAnswer(r.book.Currency())(p), err
		}),
		post("/payouts/{id}/book", "bookPayout", "Book a payout as paid", func(r *request, t *escrow.Tx, in *bookPayoutIn) (payoutOut, error) {
			p, err := t.BookPayout(r.by, in.ID, in.Reference)
			return payoutAnswer(t.Currency())(p), err
		}).operators(),
		post("/payouts/{id}/refuse", "refusePayout", "Refuse a payout; the money is in the wallet again", func(r *request, t *escrow.Tx, in *reasonedIn) (payoutOut, error) {
			p, err := t.RefusePayout(r.by, in.ID, in.Reason)
			return payoutAnswer(t.Currency())(p), err
		}).operators(),
		ask("/payouts/{id}/send", "sendPayout", "Have a payout sent by the cashier's service, and book it", func(r *request, in *byID) (payoutOut, error) {
			p, err := SendPayout(r.Context(), r.server.o.Cashier, r.server.o.Refunds, r.book, r.by, in.ID)
			return payoutAnswer(r.book.Currency())(p), err
		}).operators(),
	}
}

// SendPayout has a payout sent: a refund by the rail of its deposit, any other by the cashier, which may be nil as the refunds may.
func SendPayout(ctx context.Context, cards *cashier.Cashier, refunds *cashier.Refunds, book *escrow.Book, by escrow.Actor, id string) (escrow.Payout, error) {
	p, err := book.Payout(by, id)
	switch {
	case err != nil:
		return p, err
	case p.IsRefund() && refunds != nil:
		return refunds.Send(ctx, by, p)
	case cards == nil:
		return p, noCashier()
	}
	return cards.SendPayout(ctx, by, id)
}

func listPayouts(r *request, in *listPayoutsIn) (payoutsOut, error) {
	agent, err := r.book.ListsFor(r.by, in.AgentID)
	if err != nil {
		return payoutsOut{}, err
	}
	switch status := escrow.PayoutStatus(in.Status); status {
	case "", escrow.PayoutAsked, escrow.PayoutSending, escrow.PayoutBooked, escrow.PayoutDenied:
	default:
		return payoutsOut{}, invalid("status", "status %.40q: expected requested, sending, paid or refused", in.Status)
	}
	payouts, place, err := r.book.Payouts(agent, escrow.PayoutStatus(in.Status), in.page())
	return payoutsOut{Payouts: each(payouts, payoutAnswer(r.book.Currency())), NextCursor: next(r, place)}, err
}

// takenBackOut is a refund or dispute of a payment that was booked as a deposit.
type takenBackOut struct {
	AgentID   string        `json:"agent_id"`
	Rail      string        `json:"rail"`
	ID        string        `json:"id"`
	PaymentID string        `json:"payment_id"`
	Why       string        `json:"why"`
	Taken     ledger.Amount `json:"taken"`
	Returned  ledger.Amount `json:"returned"`
	Debt      ledger.Amount `json:"debt"`
	Currency  string        `json:"currency"`
}
