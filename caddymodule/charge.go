package caddymodule

import (
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

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
	if s := c.meter.Subscription; s != nil {
		s.writeTerms(c, h)
	}
}

// judgement tells what the answer was found worth: "score=0.93" or "held".
func (c *call) judgement() string {
	switch {
	case c.quality == nil:
		return ""
	case c.quality.Hold:
		return "held"
	case c.quality.Verdict.Dispute:
		return "disputed; score=" + c.quality.Score
	case c.quality.Score == "":
		return "unscored"
	default:
		return "score=" + c.quality.Score
	}
}

// mayState reports whether a header of the charge is one of this call's.
func (c *call) mayState(header string) bool {
	switch header {
	case headerEscrow:
		return c.auth.Escrow() != ""
	case headerSubscription:
		return c.meter.Subscription != nil
	case headerQuality:
		return c.meter.Quality != nil
	default:
		return true
	}
}

// unitsUsed are the charge's units; where it has none, what would have been counted stands there as 0.
func (c *call) unitsUsed() string {
	if units := unitsOf(c.charge); units != "" {
		return units
	}
	if charged := c.rates.Charged(); len(charged) > 0 {
		return string(charged[0]) + "=0"
	}
	return ""
}

// writeCharge states what was charged.
func (c *call) writeCharge(h http.Header) {
	h.Set(headerCharge, c.charge.Amount.String())
	h.Set(headerUnits, c.unitsUsed())
	h.Set(headerBalance, c.charge.Balance.String())
	if c.charge.EscrowID != "" {
		h.Set(headerEscrow, c.charge.EscrowID)
	}
	if s := c.meter.Subscription; s != nil {
		s.writeTerms(c, h)
	}
	if judgement := c.judgement(); judgement != "" {
		h.Set(headerQuality, judgement)
	}
}
