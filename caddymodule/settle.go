package caddymodule

import (
	"context"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/meter"
)

// Who cut a response short, in the words of a charge's `cut`.
const (
	cutNone     = "none"
	cutClient   = "client"
	cutUpstream = "upstream"
	cutFunds    = "funds"
)

// walletDrawEvery is how often a stream that is paid from a wallet draws, where its batches take longer.
const walletDrawEvery = 5 * time.Second

// begin starts the counting of a response that is charged.
func (c *call) begin(status int, h http.Header) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status = status
	c.counter = c.asked.Counter(status, h)
	c.drawnAt = time.Now()
	c.covered = c.auth.Held()
}

// count takes the next bytes of the response and appends to dst those that may go to the client. What they cost is held
// and, batch by batch, drawn. exhausted says that the money has run out with these bytes, and no more may follow.
func (c *call) count(dst, p []byte) (out []byte, exhausted bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.aborted {
		return dst, false, errAborted
	}
	out = c.counter.Feed(dst, p)
	if c.fixed {
		c.sent = true
		return out, false, nil
	}
	if err := c.auth.Err(); err != nil {
		return dst, false, err
	}
	at, bound := c.counter.Progress()
	c.addSeconds(at)
	c.addSeconds(bound)
	exhausted = !c.cover(bound) && c.meter.OnExhausted == exhaustedStop
	c.draw(at)
	c.sent = true
	return out, exhausted, nil
}

// cover extends the hold to what the response may have cost so far, and a batch more. It reports false when the money is
// not there.
func (c *call) cover(bound meter.Units) bool {
	need, _ := c.rates.Most(meter.Usage{Units: bound})
	if ledger.Amount(need) <= c.covered {
		return true
	}
	target := ledger.Amount(need)
	if next := target + c.batchPrice(); next > target {
		target = next
	}
	if c.limit > 0 {
		target = min(target, c.limit)
	}
	if target > c.covered {
		c.covered = c.auth.ExtendUpTo(target)
	}
	if ledger.Amount(need) <= c.covered {
		return true
	}
	// The bound is a cheap one. Before the stream is ended, what it really used is counted.
	usage := c.counter.Usage(false)
	c.addSeconds(usage.Units)
	exact, _ := c.rates.Due(usage)
	return ledger.Amount(exact) < c.covered
}

// draw posts a partial payment when a batch is full, so that no more than one is lost if this process dies.
func (c *call) draw(at meter.Units) {
	batches := c.meter.batch.Of(at)
	overdue := !c.meter.fromEscrow() && time.Since(c.drawnAt) >= walletDrawEvery
	if batches <= c.drawn && !overdue {
		return
	}
	due, err := c.rates.Due(meter.Usage{Units: at})
	if err != nil {
		return
	}
	c.drawn, c.drawnAt = max(batches, c.drawn), time.Now()
	c.auth.Draw(min(ledger.Amount(due), c.covered), !c.rates.UsesTokens())
}

// addSeconds counts the time since the call began, where time is what is charged and the response doesn't state any.
func (c *call) addSeconds(units meter.Units) {
	if units != nil && units[meter.Second] == 0 && c.rates.Uses(meter.Second) {
		units.Add(meter.Second, meter.Quantity(time.Since(c.began).Microseconds()))
	}
}

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
	if cut != cutNone && !c.sent {
		c.auth.Cancel()
		return escrow.Charge{}, nil
	}
	usage := c.counter.Usage(cut == cutNone)
	if usage.Units == nil {
		usage.Units = make(meter.Units)
	}
	c.addSeconds(usage.Units)
	if cut == cutClient || cut == cutFunds {
		// The provider has answered; that the client does not hear it out is not its fault.
		usage.Units[meter.Call] = meter.Whole(1)
	}
	amount, err := c.rates.Due(usage)
	settlement := escrow.Settlement{
		Amount:     ledger.Amount(amount),
		Units:      make(map[string]string),
		UnitPrices: make(map[string]string),
		Model:      usage.Model,
		Source:     string(usage.Source),
		Cut:        cut,
		Suspect:    usage.Suspect || err != nil,
		HTTPStatus: c.status,
		Duration:   time.Since(c.began),
	}
	if c.limit > 0 && settlement.Amount > c.limit {
		settlement.Amount = c.limit
	}
	for class, quantity := range c.rates.Quantities(usage) {
		settlement.Units[string(class)] = quantity.String()
	}
	for class, price := range c.rates.UnitPrices(usage) {
		settlement.UnitPrices[string(class)] = price
	}
	c.charge, c.settleErr = c.auth.Settle(context.WithoutCancel(c.request.Context()), settlement)
	if c.settleErr != nil {
		c.logger.Error("charging", zap.String("request", c.id), zap.Error(c.settleErr))
	}
	return c.charge, c.settleErr
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

// report makes the charge known to the access log and to placeholders.
func (c *call) report() {
	c.mu.Lock()
	charge, charged := c.charge, c.settled && c.settleErr == nil && !c.yielded
	c.mu.Unlock()
	if !charged {
		return
	}
	if repl, ok := c.request.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Set("tallygate.request", c.id)
		repl.Set("tallygate.payer", c.payer.Agent)
		repl.Set("tallygate.payee", c.meter.Payee)
		repl.Set("tallygate.charge", charge.Amount.String())
		repl.Set("tallygate.units", unitsOf(charge))
	}
	if fields, ok := c.request.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
		fields.Set(zap.String("tallygate_request", c.id))
		fields.Set(zap.String("tallygate_payer", c.payer.Agent))
		fields.Set(zap.String("tallygate_payee", c.meter.Payee))
		fields.Set(zap.String("tallygate_charge", charge.Amount.String()))
		fields.Set(zap.String("tallygate_units", unitsOf(charge)))
	}
}

// promiseCharge states a fixed price before it is charged: its money is held, and only a complete response is charged.
func (c *call) promiseCharge(h http.Header) {
	h.Set(headerCharge, c.price.String())
	h.Set(headerUnits, "call=1")
	h.Set(headerBalance, c.auth.Available().String())
	if id := c.auth.Escrow(); id != "" {
		h.Set(headerEscrow, id)
	}
}

// writeCharge states what was charged.
func (c *call) writeCharge(h http.Header) {
	h.Set(headerCharge, c.charge.Amount.String())
	h.Set(headerUnits, unitsOf(c.charge))
	h.Set(headerBalance, c.charge.Balance.String())
	if c.charge.EscrowID != "" {
		h.Set(headerEscrow, c.charge.EscrowID)
	}
}
