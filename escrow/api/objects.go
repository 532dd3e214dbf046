package api

import (
	"strconv"

	"github.com/tallygate/tallygate/escrow"
)

// These objects of the API are also printed by commands, so that scripts find the same names in both.
type (
	// Agent is an agent in the operator's list.
	Agent = listedAgent
	// Payment is a payment, with the wallet after it of the agent for which it was made.
	Payment = paymentOut
	// Credit is what lets an agent make calls to one payee without money.
	Credit = creditOut
	// Wallet is an agent's money.
	Wallet = walletOut
	// Entry is a line of a wallet's statement.
	Entry = entryOut
	// Key is a key without its secret.
	Key = keyOut
	// Charge is what one metered call cost.
	Charge = chargeOut
	// Hold is money of a payer that a payee captures in parts.
	Hold = holdOut
	// Payout is money that an agent wants to have outside of the ledger.
	Payout = payoutOut
	// ClosedAgent is an agent that was closed, with the payout of its money.
	ClosedAgent = closedOut
)

// AgentOf returns an agent as the API shows it.
func AgentOf(a escrow.Agent) Agent {
	return Agent{AgentID: a.ID, Name: a.Name, Origin: a.Origin, Status: a.Status(), Reason: a.Reason, CreatedAt: a.CreatedAt}
}

// PaymentOf returns a payment as the API shows it.
func PaymentOf(p escrow.Payment) Payment {
	return Payment{
		Kind: p.Kind, FromAgentID: p.From, ToAgentID: p.To, Amount: p.Amount, Commission: p.Commission,
		Reference: p.Reference, Memo: p.Memo, CreatedAt: p.At, walletOut: walletAnswer(p.Wallet), repeated: p.Repeated,
	}
}

// WalletOf returns a wallet as the API shows it.
func WalletOf(w escrow.Wallet) Wallet { return walletAnswer(w) }

// KeyOf returns a key as the API shows it.
func KeyOf(k escrow.Key) Key { return keyAnswer(k) }

// EntryOf returns a line of a statement as the API shows it.
func EntryOf(e escrow.Entry) Entry {
	return entryOut{
		EntryID: "ent_" + strconv.FormatUint(e.Seq, 10), Kind: e.Kind, Amount: e.Amount, BalanceAfter: e.BalanceAfter,
		Counterparty: e.Counterparty, Reference: e.Reference, Memo: e.Memo, CreatedAt: e.At,
	}
}

// ChargeOf returns a charge as the API shows it. currency is the ledger's.
func ChargeOf(currency string, c escrow.Charge) Charge {
	return chargeAnswer(currency, escrow.Actor{Operator: true})(c)
}

// CreditOf returns a credit as the API shows it. currency is the ledger's.
func CreditOf(currency string, c escrow.Credit) Credit { return creditAnswer(currency)(c) }

// HoldOf returns a hold as the API shows it. currency is the ledger's.
func HoldOf(currency string, e escrow.Escrow) Hold { return holdAnswer(currency)(e) }

// PayoutOf returns a payout as the API shows it. currency is the ledger's.
func PayoutOf(currency string, p escrow.Payout) Payout { return payoutAnswer(currency)(p) }

// ClosedAgentOf returns an agent as the API shows it after it was closed.
func ClosedAgentOf(c escrow.Closing) ClosedAgent {
	out := closedOut{listedAgent: AgentOf(c.Agent)}
	if c.Payout != nil {
		out.Payout = PaymentOf(*c.Payout)
	}
	return out
}
