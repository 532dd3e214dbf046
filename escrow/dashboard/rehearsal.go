package dashboard

import (
	"net/http"
	"time"

	"github.com/shopspring/decimal"
)

// A provider can't pay itself. So for its test call the provider gets a customer: an agent that exists for tests, whose key is in a sealed cookie
// like the one of a session. The provider sees what a customer sees: the refusal without money, and the paid answer. It lends the customer what
// the call needs, and gets back what is left.

const (
	customerCookie = "tallygate_customer"
	// lends is how often the customer gets more money for one call, since a call may find only then that it needs more.
	lends = 3
)

// rehearse makes the test call of a provider.
func (p *pages) rehearse(w http.ResponseWriter, r *http.Request) {
	v, t, ok := p.startTrial(w, r)
	if !ok {
		return
	}
	most, err := decimal.NewFromString(t.Most)
	if t.Key == "" && (err != nil || most.IsNegative()) {
		http.Error(w, "how much the customer may get at most is an amount", http.StatusUnprocessableEntity)
		return
	}
	customer, err := v.customer(w, t.Key)
	out := beginFrames(w)
	if err != nil {
		out.send(frame{Problem: v.problemOf(err)})
		return
	}
	own := t.Key != ""
	got := v.tryUnpaid(out, t, customer)
	for n := 0; n < lends && !own && got.refused() != nil; n++ {
		lent, problem := v.lend(out, got.refused(), customer, &most)
		if problem != nil {
			out.send(frame{Problem: problem})
		}
		if !lent {
			break
		}
		got = v.try(out, t, customer.key)
	}
	if own && got.status == http.StatusPaymentRequired {
		out.send(frame{Step: "The customer calls without that bound."})
		got = v.try(out, t, customer.key)
	}
	if got.charged() {
		out.send(frame{Charge: got.request})
	}
	if !own {
		v.takeBack(out, customer)
	}
}

// customer returns the customer of the provider's test calls: the one whose key was given, the one of this browser, or a new one.
func (v *visit) customer(w http.ResponseWriter, key string) (*visit, error) {
	c := &visit{pages: v.pages, r: v.r, key: key}
	if key != "" {
		var err error
		c.Me, err = c.call(http.MethodGet, "/agents/me", nil, nil)
		return c, err
	}
	secret, err := v.pages.o.Secret(v.r.Context())
	if err != nil {
		return nil, err
	}
	if cookie, err := v.r.Cookie(customerCookie); err == nil {
		if c.key, _, err = unseal(secret, cookie.Value, time.Now()); err == nil {
			if c.Me, err = c.call(http.MethodGet, "/agents/me", nil, nil); err == nil {
				return c, nil
			}
		}
	}
	c.key = ""
	if c.Me, err = c.call(http.MethodPost, "/agents", nil, object{"name": "test customer of " + orEmpty(v.Me["agent_id"])}); err != nil {
		return nil, err
	}
	c.key = orEmpty(c.Me["api_key"])
	sealed, err := seal(secret, c.key, time.Now().Add(sessionTime))
	if err == nil {
		v.pages.setNamedCookie(w, v.r, customerCookie, sealed)
	}
	return c, err
}

// tryUnpaid makes the call so that it is refused for want of money, which shows the 402 that every client gets.
func (v *visit) tryUnpaid(out *frames, t trial, customer *visit) *tried {
	wallet, err := customer.call(http.MethodGet, "/wallet", nil, nil)
	if err != nil || wallet["available"] == "0" {
		out.send(frame{Step: "A customer calls, and has no money."})
		return v.try(out, t, customer.key)
	}
	out.send(frame{Step: "The customer calls, and lets the call cost next to nothing (Tallygate-Max-Charge)."})
	return v.try(out, t, customer.key, "Tallygate-Max-Charge", "0.000000001")
}

// lend gives the customer what its call has found missing, out of what it may get at most.
func (v *visit) lend(out *frames, refusal object, customer *visit, most *decimal.Decimal) (lent bool, failed *problem) {
	if refusal["code"] == "limit_exceeded" { // only by the bound of tryUnpaid
		out.send(frame{Step: "The customer calls without that bound."})
		return true, nil
	}
	required, err := decimal.NewFromString(orEmpty(refusal["required"]))
	if err != nil || refusal["code"] != "insufficient_funds" {
		return false, nil // more money does not help
	}
	available, err := decimal.NewFromString(orEmpty(refusal["available"]))
	if err != nil {
		return false, nil
	}
	amount := required.Sub(available)
	if amount.GreaterThan(*most) {
		return false, &problem{Status: http.StatusPaymentRequired, Title: "The customer would need more.", Detail: "It needs " + amount.String() + ", and may get " + most.String() + "."}
	}
	body := object{"to_agent_id": customer.Me["agent_id"], "amount": amount.String(), "memo": "for a test call"}
	if _, err := v.call(http.MethodPost, "/wallet/transfer", nil, body); err != nil {
		return false, v.problemOf(err)
	}
	*most = most.Sub(amount)
	out.send(frame{Step: "You lend the customer " + amount.String() + ", and it calls again."})
	return true, nil
}

// takeBack returns to the provider what the customer has left: what the call has locked for the provider, and the wallet.
func (v *visit) takeBack(out *frames, customer *visit) {
	locked, err := customer.call(http.MethodGet, "/escrow", map[string][]string{"status": {"active"}, "limit": {"10"}}, nil)
	escrows, _ := locked["escrows"].([]any)
	for _, e := range escrows {
		id := orEmpty(e.(object)["escrow_id"])
		if e.(object)["to_agent_id"] == v.Me["agent_id"] {
			_, err = v.call(http.MethodPost, escapePath("/escrow/{id}/refund", map[string][]string{"id": {id}}), nil, object{"reason": "the test call is over"})
		}
	}
	wallet := object{}
	if err == nil {
		wallet, err = customer.call(http.MethodGet, "/wallet", nil, nil)
	}
	left := orEmpty(wallet["available"])
	if err == nil && left != "0" && left != "" {
		_, err = customer.call(http.MethodPost, "/wallet/transfer", nil, object{"to_agent_id": v.Me["agent_id"], "amount": left, "memo": "left of a test call"})
		if err == nil {
			out.send(frame{Step: "What the customer has left, " + left + ", goes back to you."})
		}
	}
	if err != nil {
		out.send(frame{Problem: v.problemOf(err)})
	}
}
