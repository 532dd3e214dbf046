package gateway

import "net/http"

// promiseCharge states a known price before it is charged. Its money is held, and only a complete answer is charged.
func (a *admitted) promiseCharge(h http.Header) {
	price, _ := a.pay.known()
	auth := a.pay.authorisation()
	h.Set(headerCharge, price.String())
	h.Set(headerUnits, "call=1")
	h.Set(headerBalance, auth.Available().String())
	if credit, _ := auth.Credit(); credit > 0 {
		h.Set(headerCredit, min(credit, price).String())
	}
	keepUnstored(h)
	if id := auth.Escrow(); id != "" {
		h.Set(headerEscrow, id)
	}
	a.pay.mention(h, 0)
}

// writeCharge states what was charged.
func (a *admitted) writeCharge(h http.Header, end *settled) {
	charge := &end.charge
	h[headerCharge] = []string{end.amount}
	if charge.RequestID == "" { // there is no charge
		return
	}
	h[headerUnits] = []string{a.unitsUsed(end)}
	h[headerBalance] = []string{charge.Balance.String()}
	if charge.Credit > 0 {
		h[headerCredit] = []string{charge.Credit.String()}
	}
	if charge.EscrowID != "" {
		h[headerEscrow] = []string{charge.EscrowID}
	}
	a.pay.mention(h, charge.QuotaLeft)
	if verdict := end.verdict(); verdict != "" {
		h.Set(headerQuality, verdict)
	}
}

// mayState reports whether this call can have a header of the charge.
func (a *admitted) mayState(header string) bool {
	switch header {
	case headerCredit:
		_, uses := a.pay.authorisation().Credit()
		return uses
	case headerEscrow:
		return a.pay.authorisation().Escrow() != ""
	case headerSubscription:
		_, is := a.pay.authorisation().Subscription()
		return is
	case headerQuality:
		return a.route.Quality != nil
	default:
		return true
	}
}

// unitsUsed returns the units of a charge. If it has none, it returns the units that would have been counted, as 0.
func (a *admitted) unitsUsed(end *settled) string {
	if end.units != "" {
		return end.units
	}
	if charged := a.rates.Charged(); len(charged) > 0 {
		return string(charged[0]) + "=0"
	}
	return ""
}
