package x402

import (
	"time"

	"github.com/tallygate/tallygate/gateway"
)

// Offers implements [gateway.Offerer]. The members besides those of x-payment-info are those of a payment's requirements.
func (r *Rail) Offers() []map[string]any {
	accepted := []requirements{r.requirementsFor(2, r.topUp.String())}
	if settles, known := r.supported.settler(time.Now()); known {
		accepted = append(accepted, r.requirementsUpTo(r.topUp.String(), settles))
	}
	offers := make([]map[string]any, 0, len(accepted))
	for _, need := range accepted {
		offers = append(offers, map[string]any{
			"method": "x402", "intent": "charge", "amount": need.Amount, "currency": need.Asset, "description": description,
			"scheme": need.Scheme, "network": need.Network, "asset": need.Asset, "payTo": need.PayTo, "maxTimeoutSeconds": need.MaxWait, "extra": need.Extra,
		})
	}
	return offers
}

var _ gateway.Offerer = (*Rail)(nil)
