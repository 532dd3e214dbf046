package cashier

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// Refunder is a rail that can give a payment back the way it came. Its methods may be called from any goroutine.
type Refunder interface {
	// Name is the name of the rail in the books.
	Name() string
	// Refundable says whether a payment can go back: the smallest amount, of which others are multiples, and whether this is done as soon as an
	// agent asks. 0 means that it can't.
	Refundable(payment escrow.RailPayment) (unit ledger.Amount, atOnce bool)
	// Refund gives back what a payout says, once, however often it is called for it, and returns what the service says of that refund. The
	// error is a [Declined] if nothing was given back, and will not be; after any other error that is not known.
	Refund(ctx context.Context, ledgerID string, p escrow.Payout, payment escrow.RailPayment) (escrow.TakenBack, error)
}

// Refunds has rails give back what agents ask for. A refund is in the books, and its money set aside, before its rail hears of it. What became
// of it is asked until it is known; a service that sends messages may tell of it, too. It is booked once, by the id of the refund outside.
type Refunds struct {
	Rails  []Refunder
	Book   func() *escrow.Book // the open book; nil while there is none
	Logger *slog.Logger

	woken chan struct{}
	after string // where the next round goes on
}

// NewRefunds returns the refunds of rails.
func NewRefunds(rails []Refunder, book func() *escrow.Book, logger *slog.Logger) *Refunds {
	return &Refunds{Rails: rails, Book: book, Logger: logger, woken: make(chan struct{}, 1)}
}

// Can says how a payment can go back, as [Refunder.Refundable] does. A nil Refunds has no rails.
func (r *Refunds) Can(payment escrow.RailPayment) (unit ledger.Amount, atOnce bool) {
	if rail := r.rail(payment.Rail); rail != nil {
		return rail.Refundable(payment)
	}
	return 0, false
}

func (r *Refunds) rail(name string) Refunder {
	if r == nil {
		return nil
	}
	if i := slices.IndexFunc(r.Rails, func(rail Refunder) bool { return rail.Name() == name }); i >= 0 {
		return r.Rails[i]
	}
	return nil
}

// Wake has the next round begin now.
func (r *Refunds) Wake() {
	if r == nil {
		return
	}
	select {
	case r.woken <- struct{}{}:
	default: // it will begin already
	}
}

// Woken is what [Refunds.Wake] sends to.
func (r *Refunds) Woken() <-chan struct{} { return r.woken }

// Round asks for the refunds whose outcome is not known. It ends after some failures, since the service is most likely down, and the next round
// goes on behind them. It is called by one goroutine, again and again.
func (r *Refunds) Round(ctx context.Context) error {
	book := r.Book()
	if book == nil {
		return nil
	}
	for failures := 0; ; {
		refunds, next, err := book.SendingRefunds(r.after, 100)
		if err != nil {
			return err
		}
		for _, p := range refunds {
			r.after = p.ID
			err := r.giveBack(ctx, book, p)
			if err == nil {
				continue
			}
			r.Logger.Warn("it is not known whether a refund was made; it is asked again", "rail", p.Rail, "payout", p.ID, "agent", p.Agent, "amount", p.Amount.String(), "error", err)
			if failures++; failures == failuresOfRound || ctx.Err() != nil {
				return ctx.Err()
			}
		}
		if next == "" {
			r.after = ""
			return nil
		}
	}
}

// giveBack has a rail make a refund, and books what it says. Nil means that the outcome is booked.
func (r *Refunds) giveBack(ctx context.Context, book *escrow.Book, p escrow.Payout) error {
	rail := r.rail(p.Rail)
	if rail == nil {
		return errors.New("its rail is no longer configured")
	}
	payment, found, err := book.RailPayment(p.Rail, p.Payment)
	if err == nil && !found {
		err = errors.New("its payment is not in the books")
	}
	if err != nil {
		return err
	}
	own, err := ledgerID(ctx, book)
	if err != nil {
		return err
	}
	back, err := rail.Refund(ctx, own, p, payment)
	var declined *Declined
	if err != nil && !errors.As(err, &declined) {
		return err
	}
	_, err = escrow.Do(context.WithoutCancel(ctx), book, func(t *escrow.Tx) (struct{}, error) {
		if declined != nil {
			return struct{}{}, t.DeclineRefund(p.ID, rail.Name()+": "+declined.Why)
		}
		_, err := t.TakeBack(back)
		return struct{}{}, err
	})
	return err
}

// Send has a rail make a refund that waits for the operator, and books it. The answer is the payout as it is then: paid, or refused with what
// the rail says. If the outcome is not known, the refund is asked for again by itself. Only the operator may do this.
func (r *Refunds) Send(ctx context.Context, by escrow.Actor, p escrow.Payout) (escrow.Payout, error) {
	book, rail := r.Book(), r.rail(p.Rail)
	if rail == nil {
		return p, &escrow.Refusal{Outcome: escrow.InvalidStatus, Fields: map[string]string{"rail": p.Rail},
			Detail: fmt.Sprintf("the rail %s gives nothing back by itself: pay, and book the payout with the reference of your payment", p.Rail)}
	}
	sent, err := escrow.Do(ctx, book, func(t *escrow.Tx) (escrow.Payout, error) { return t.SendPayout(by, p.ID, p.Rail) })
	if err != nil {
		return sent, err
	}
	if err := r.giveBack(ctx, book, sent); err != nil {
		r.Logger.Warn("it is not known whether a refund was made; it is asked again", "rail", p.Rail, "payout", p.ID, "error", err)
		return sent, &escrow.Refusal{
			Outcome: Unavailable, Detail: p.Rail + " does not answer as expected; what became of the refund is asked until it is known",
			Fields: map[string]string{"paid": "unknown", "retry_after": "5"},
		}
	}
	return book.Payout(by, p.ID)
}
