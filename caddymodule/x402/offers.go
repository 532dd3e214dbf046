package x402

import "github.com/tallygate/tallygate/gateway"

// Offers implements [gateway.Offerer]. The members besides those of x-payment-info are those of a payment's requirements.
func (r *Rail) Offers() []map[string]any {
	need := r.requirementsFor(2, r.topUp.String())
	return []map[string]any{{
		"method": "x402", "intent": "charge", "amount": need.Amount, "currency": need.Asset, "description": description,
		"scheme": need.Scheme, "network": need.Network, "asset": need.Asset, "payTo": need.PayTo, "maxTimeoutSeconds": need.MaxWait, "extra": need.Extra,
	}}
}

var _ gateway.Offerer = (*Rail)(nil)
