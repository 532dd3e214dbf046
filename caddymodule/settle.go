package caddymodule

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/meter"
)

// Who cut a response short, in the words of a charge's `cut`.
const (
	cutNone     = "none"
	cutClient   = "client"
	cutUpstream = "upstream"
	cutFunds    = "funds"
)

// settle charges the response once, durably. Whoever comes second gets the first one's result.
func (c *call) settle(cut string) (escrow.Charge, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.aborted {
		return escrow.Charge{}, errAborted
	}
	return c.settleLocked(cut)
}

func (c *call) settleLocked(cut string) (escrow.Charge, error) {
	if c.settled {
		return c.charge, c.settleErr
	}
	c.settled = true
	if cut != cutNone && !c.sent || cut == cutUpstream && c.asked.Once != "" {
		c.auth.Cancel()
		return escrow.Charge{}, nil
	}
	usage := c.counter.Usage(cut == cutNone)
	if cut == cutFunds && c.delivered != nil {
		usage = *c.delivered
	}
	if usage.Units == nil {
		usage.Units = make(meter.Units)
	}
	c.addSeconds(usage.Units)
	if cut == cutClient || cut == cutFunds {
		// The provider has answered; that the client does not hear it out is not its fault.
		usage.Units[meter.Calls] = meter.Whole(1)
	}
	bill, err := c.bill(usage, cut != cutNone)
	settlement := escrow.Settlement{
		Amount:     bill.amount,
		Units:      bill.units,
		UnitPrices: bill.prices,
		Cost:       bill.cost,
		Markup:     bill.markup,
		Model:      usage.Model,
		Source:     string(usage.Source),
		Cut:        cut,
		Suspect:    usage.Suspect || err != nil,
		HTTPStatus: c.status,
		Duration:   time.Since(c.began),
	}
	if c.limit > 0 && settlement.Amount > c.limit {
		settlement.Amount = c.limit
		settlement.Suspect = settlement.Suspect || bill.cost != ""
	}
	if cut == cutNone {
		settlement.Quality, settlement.Answer = c.quality, c.answer
	}
	if s := c.meter.Subscription; s != nil && s.counted() && !c.unpaid {
		settlement.Quota, settlement.Over = s.used(usage.Units), s.over
	}
	if cut != cutNone && c.asked.Once != "" {
		c.chargePart(settlement)
		return c.charge, c.settleErr
	}
	done := timeSettle()
	c.charge, c.settleErr = c.auth.Settle(context.WithoutCancel(c.request.Context()), settlement)
	done()
	if c.settleErr == nil {
		metrics.calls.WithLabelValues(c.meter.Payee, cut).Inc()
	}
	if c.settleErr != nil {
		c.books.unknown(c.abandoned())
	}
	if c.settleErr != nil {
		c.logger.Error("charging", zap.String("request", c.id), zap.Error(c.settleErr))
	}
	return c.charge, c.settleErr
}

// chargePart charges what was sent of a result that is charged once, when it is whole: under an id of its own, so that neither the part is
// free nor the whole is had for it.
func (c *call) chargePart(settlement escrow.Settlement) {
	ctx := context.WithoutCancel(c.request.Context())
	c.auth.Cancel()
	_, _ = escrow.Do(ctx, c.book, func(*escrow.Tx) (struct{}, error) { return struct{}{}, nil }) // behind which what was held is there again
	order := c.order
	order.Request, order.IdempotencyKey, order.Least, order.Most = c.book.NewRequestID(), "", 0, settlement.Amount
	auth, err := c.book.Authorise(ctx, order)
	if err != nil {
		c.logger.Error("charging a part of a result", zap.String("request", c.id), zap.Error(err))
		return
	}
	c.charge, c.settleErr = auth.Settle(ctx, settlement)
}

// cancel ends a call that costs nothing.
func (c *call) cancel() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.settled {
		c.settled = true
		if c.auth != nil {
			c.auth.Cancel()
		}
	}
}

// abandon charges what was sent and lets no further byte out: the process ends before the handler does.
func (c *call) abandon() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.aborted {
		return
	}
	c.aborted = true
	if c.counter == nil {
		if !c.settled && c.auth != nil {
			c.auth.Cancel()
		}
		c.settled = true
		return
	}
	_, _ = c.settleLocked(cutUpstream)
}

func (c *call) hasYielded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.yielded
}

// clientGone reports whether the client has left. With on_cancel finish the request's own context outlives it.
func (c *call) clientGone() bool { return c.client.Err() != nil }
