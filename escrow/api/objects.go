package api

import "github.com/tallygate/tallygate/escrow"

// These objects of the API are also printed by commands, so that scripts find the same names in both.
type (
	// Agent is an agent in the operator's list.
	Agent = listedAgent
	// Payment is a payment, with the wallet after it of the agent for which it was made.
	Payment = paymentOut
	// Credit is what lets an agent make calls to one payee without money.
	Credit = creditOut
	// Charge is what one metered call cost.
	Charge = chargeOut
)

// AgentOf returns an agent as the API shows it.
func AgentOf(a escrow.Agent) Agent {
	return Agent{AgentID: a.ID, Name: a.Name, Origin: a.Origin, CreatedAt: a.CreatedAt}
}

// PaymentOf returns a payment as the API shows it.
func PaymentOf(p escrow.Payment) Payment {
	return Payment{
		Kind: p.Kind, FromAgentID: p.From, ToAgentID: p.To, Amount: p.Amount, Commission: p.Commission,
		Reference: p.Reference, Memo: p.Memo, CreatedAt: p.At, walletOut: walletAnswer(p.Wallet),
	}
}

// ChargeOf returns a charge as the API shows it. currency is the ledger's.
func ChargeOf(currency string, c escrow.Charge) Charge {
	return chargeAnswer(currency, escrow.Actor{Operator: true})(c)
}

// CreditOf returns a credit as the API shows it. currency is the ledger's.
func CreditOf(currency string, c escrow.Credit) Credit { return creditAnswer(currency)(c) }
