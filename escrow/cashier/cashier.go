// Package cashier connects the books with a service outside, at which people pay by card, and by which payees are paid.
//
// A [Service] is such a service. It knows its own API, and no books: it makes pages on which people pay, reads the service's messages, and
// says what has happened there. A [Cashier] books that. What happens outside is told in totals and states that are final, by the ids of the
// service, so that a message that is lost, late, doubled or out of order changes nothing.
package cashier

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// Unavailable is the outcome of a request for which the service outside is needed and does not answer.
const Unavailable escrow.Outcome = "rail_unavailable"

// Service is a service outside that takes money by card and sends money to payees. Its methods may be called from any goroutine. An error
// that is a [escrow.Refusal], or a [Declined], is a decision of the service: nothing was paid. After any other error that is not known.
type Service interface {
	// Name is the name of the rail in the books, such as "stripe".
	Name() string
	// Every is the time between two looks at what waits for the service: wallets to be topped up, and what it was asked and did not answer.
	Every() time.Duration
	// Page makes a page on which a person pays an amount into a wallet.
	Page(ctx context.Context, o Order) (Page, error)
	// Read checks that a message comes from the service, and returns what the service says about the payments that it is about. Refused:
	// unauthorized if the message does not come from the service, invalid_request if it can't be read.
	Read(ctx context.Context, header http.Header, body []byte) (Facts, error)
	// Charge pays an order with the payment method that was saved. The same order is paid once, however often it is charged within
	// [chargeAgainFor]. Facts without a payment mean that the outcome is not known yet.
	Charge(ctx context.Context, ledgerID string, a escrow.AutoTopUp) (Facts, error)
	// Send sends a payout to where it should go, once, and returns the service's id of that.
	Send(ctx context.Context, p escrow.Payout) (reference string, err error)
}

// Order is a payment that a person is asked for.
type Order struct {
	Ledger string // the id of the ledger
	Agent  string
	Amount ledger.Amount
	Save   bool   // the payment method is saved, for automatic top-ups
	Key    string // names the order: the same key again is the same page; empty: none
}

// Page is a page of the service, on which a person pays.
type Page struct {
	ID        string
	URL       string
	ExpiresAt time.Time
}

// Payment is a payment that has been made.
type Payment struct {
	escrow.RailPayment
	Ledger string // the id of the ledger for which it was made
	Method string // the payment method, if it was saved
	Order  string // the order of an automatic top-up, if it was made for one
}

// Facts are what a service says about payments. What it took back belongs to one of the payments.
type Facts struct {
	Payments  []Payment
	TakenBack []escrow.TakenBack
	Unpaid    []Unpaid
}

// Unpaid is an order of an automatic top-up that is not paid, and will not be.
type Unpaid struct{ Ledger, Agent, Order, Why string }

// Declined is the error of a payment that the service has refused to make.
type Declined struct{ Why string }

// Error says why.
func (d *Declined) Error() string { return d.Why }

// Cashier books what happens at a service.
type Cashier struct {
	Service Service
	Book    func() *escrow.Book // the open book; nil while there is none
	Logger  *slog.Logger
}

// pages is how often an agent may have a page made.
var pages = escrow.Rate{Every: 30 * time.Second, Burst: 20}

// Checkout makes a page on which a person pays an amount into an agent's wallet. The operator names the agent.
func (c *Cashier) Checkout(ctx context.Context, by escrow.Actor, o Order) (Page, error) {
	book := c.Book()
	agent, err := book.PaysIn(by, o.Agent)
	if err != nil {
		return Page{}, err
	}
	o.Agent = agent
	if o.Amount <= 0 {
		return Page{}, &escrow.Refusal{Outcome: escrow.InvalidRequest, Detail: fmt.Sprintf("amount %s: it must be above zero", o.Amount), Fields: map[string]string{"field": "amount"}}
	}
	if wait := book.Claims().Pass(escrow.Thing{Kind: escrow.CheckoutPage, Owner: agent}, pages); wait > 0 && !by.Operator {
		return Page{}, &escrow.Refusal{
			Outcome: escrow.RateLimited, Detail: "too many pages were asked for",
			Fields: map[string]string{"retry_after": fmt.Sprint(int64((wait + time.Second - 1) / time.Second))},
		}
	}
	if o.Ledger, err = ledgerID(ctx, book); err != nil {
		return Page{}, err
	}
	page, err := c.Service.Page(ctx, o)
	return page, c.unavailable("making a page for a payment", "none", err)
}

// Notify books what a message of the service is about. If it fails, the service should send the message again.
func (c *Cashier) Notify(ctx context.Context, header http.Header, body []byte) error {
	facts, err := c.Service.Read(ctx, header, body)
	if err != nil {
		return c.unavailable("reading a message", "unknown", err)
	}
	return c.book(ctx, facts)
}

// unavailable makes a refusal of an error that is no decision of the service, and logs it.
func (c *Cashier) unavailable(what, paid string, err error) error {
	var refusal *escrow.Refusal
	if err == nil || errors.As(err, &refusal) {
		return err
	}
	c.Logger.Warn("the service for cards does not do what it is asked", "rail", c.Service.Name(), "doing", what, "error", err)
	return &escrow.Refusal{
		Outcome: Unavailable, Detail: c.Service.Name() + " does not answer as expected; try again",
		Fields: map[string]string{"paid": paid, "retry_after": "5"},
	}
}

// book books facts in one operation. Payments for other ledgers are left out: several gateways may use the same account of the service.
func (c *Cashier) book(ctx context.Context, facts Facts) error {
	if len(facts.Payments)+len(facts.Unpaid) == 0 {
		return nil
	}
	book := c.Book()
	own, err := ledgerID(ctx, book)
	if err != nil {
		return err
	}
	_, err = escrow.Do(ctx, book, func(t *escrow.Tx) (struct{}, error) {
		ours := map[string]bool{}
		for _, p := range facts.Payments {
			if p.Ledger != own {
				continue
			}
			ours[p.ID] = true
			if err := bookPayment(t, p); err != nil {
				return struct{}{}, err
			}
		}
		for _, b := range facts.TakenBack {
			if ours[b.Payment] {
				if _, err := t.TakeBack(b); err != nil {
					return struct{}{}, err
				}
			}
		}
		for _, u := range facts.Unpaid {
			if u.Ledger == own {
				if err := t.EndTopUp(u.Agent, u.Order, u.Why); err != nil {
					return struct{}{}, err
				}
			}
		}
		return struct{}{}, nil
	})
	if err != nil {
		c.Logger.Error("what happened at the service for cards could not be booked; it is tried again when the service sends its message again", "rail", c.Service.Name(), "error", err)
	}
	return err
}

func bookPayment(t *escrow.Tx, p Payment) error {
	_, first, err := t.Fund(p.RailPayment)
	if err != nil {
		return err
	}
	if first && p.Method != "" && p.Order == "" { // what is told again of an old payment must not bring back a method that was forgotten since
		if err := t.SaveMethod(p.Agent, p.Rail, p.Method); err != nil {
			return err
		}
	}
	if p.Order == "" {
		return nil
	}
	return t.EndTopUp(p.Agent, p.Order, "")
}

func ledgerID(ctx context.Context, book *escrow.Book) (string, error) {
	_, id, err := book.ReceiptKey(ctx)
	return id, err
}

const (
	// chargeAgainFor is how long an order is charged again if its outcome is not known. Services remember for at least a day which orders they
	// have seen.
	chargeAgainFor = 23 * time.Hour
	// failuresOfRound is after how many charges without an outcome a round of top-ups ends, since the service is most likely down.
	failuresOfRound = 3
)

// TopUps fills the wallets that have fallen below what their agents have set. It is called again and again.
func (c *Cashier) TopUps(ctx context.Context) error {
	book := c.Book()
	if book == nil {
		return nil
	}
	own, err := ledgerID(ctx, book)
	if err != nil {
		return err
	}
	failures := 0
	for after := ""; ; {
		all, next, err := book.AutoTopUps(after, 100)
		if err != nil {
			return err
		}
		for _, a := range all {
			done, err := c.topUp(ctx, book, own, a)
			if err != nil {
				return err
			}
			if !done {
				failures++
			}
			if failures == failuresOfRound {
				return nil
			}
		}
		if after = next; next == "" {
			return nil
		}
	}
}

// topUp fills one wallet, if it needs that. done is false if the service did not say what became of it.
func (c *Cashier) topUp(ctx context.Context, book *escrow.Book, own string, a escrow.AutoTopUp) (done bool, err error) {
	if a.Order == "" {
		w, err := book.Wallet(ctx, a.Agent)
		if err != nil || !a.IsOn() || w.Available >= a.Below {
			return true, err
		}
	}
	var begun bool
	a, err = escrow.Do(ctx, book, func(t *escrow.Tx) (order escrow.AutoTopUp, err error) {
		order, begun, err = t.BeginTopUp(a.Agent)
		return order, err
	})
	if err != nil || !begun {
		return true, err
	}
	if book.Now().Sub(a.Since) > chargeAgainFor {
		return true, c.giveUp(ctx, book, a, "it is not known whether the payment was made; if it was, it is booked when the service says so")
	}
	facts, err := c.Service.Charge(ctx, own, a)
	var declined *Declined
	var refusal *escrow.Refusal
	switch {
	case errors.As(err, &declined), errors.As(err, &refusal):
		return true, c.giveUp(ctx, book, a, err.Error())
	case err != nil:
		c.Logger.Warn("it is not known whether an automatic top-up was paid; it is asked again", "rail", c.Service.Name(), "agent", a.Agent, "order", a.Order, "error", err)
		return false, nil
	}
	return true, c.book(ctx, facts)
}

func (c *Cashier) giveUp(ctx context.Context, book *escrow.Book, a escrow.AutoTopUp, why string) error {
	_, err := escrow.Do(ctx, book, func(t *escrow.Tx) (struct{}, error) { return struct{}{}, t.EndTopUp(a.Agent, a.Order, why) })
	return err
}

// SendPayout has a payout sent by the service, and books it. If the outcome is not known, the payout stays as it is being sent; to find out,
// it is sent again, which the service does once. Only the operator may do this.
func (c *Cashier) SendPayout(ctx context.Context, by escrow.Actor, id string) (escrow.Payout, error) {
	book := c.Book()
	p, err := escrow.Do(ctx, book, func(t *escrow.Tx) (escrow.Payout, error) { return t.SendPayout(by, id, c.Service.Name()) })
	if err != nil {
		return p, err
	}
	reference, err := c.Service.Send(ctx, p)
	var declined *Declined
	var refusal *escrow.Refusal
	if errors.As(err, &declined) || errors.As(err, &refusal) {
		_, undo := escrow.Do(ctx, book, func(t *escrow.Tx) (struct{}, error) { return struct{}{}, t.UnsendPayout(id) })
		if declined != nil && undo == nil {
			err = &escrow.Refusal{Outcome: escrow.InvalidStatus, Detail: c.Service.Name() + " sends nothing: " + declined.Why}
		}
		return p, errors.Join(err, undo)
	}
	if err != nil {
		return p, c.unavailable("sending a payout", "unknown", err)
	}
	return escrow.Do(ctx, book, func(t *escrow.Tx) (escrow.Payout, error) { return t.BookPayout(by, id, reference) })
}
