package api

import "github.com/tallygate/tallygate/escrow"

// The objects of the API that the commands print too, so that scripts read the same names.
type (
	// Agent is an agent as the operator lists it.
	Agent = listedAgent
	// Payment is a payment, and the wallet that it was made for as it is after it.
	Payment = paymentOut
	// Charge is what one metered call cost.
	Charge = chargeOut
)

// AgentOf is an agent as the API shows it.
func AgentOf(a escrow.Agent) Agent {
	return Agent{AgentID: a.ID, Name: a.Name, Origin: a.Origin, CreatedAt: a.CreatedAt}
}

// PaymentOf is a payment as the API shows it.
func PaymentOf(p escrow.Payment) Payment {
	return Payment{
		Kind: p.Kind, FromAgentID: p.From, ToAgentID: p.To, Amount: p.Amount, Commission: p.Commission,
		Reference: p.Reference, Memo: p.Memo, CreatedAt: p.At, walletOut: walletAnswer(p.Wallet),
	}
}

// ChargeOf is a charge in that currency as the API shows it.
func ChargeOf(currency string, c escrow.Charge) Charge { return chargeAnswer(currency)(c) }
