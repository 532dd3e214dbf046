package api

import (
	"encoding/binary"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
)

type walletOut struct {
	AgentID   string        `json:"agent_id"`
	Balance   ledger.Amount `json:"balance" jsonschema:"the money in the wallet, without what is in escrows"`
	Held      ledger.Amount `json:"held" jsonschema:"the part of the balance that is set aside for running calls and for payouts"`
	Available ledger.Amount `json:"available" jsonschema:"what can be spent: balance minus held"`
	Pending   ledger.Amount `json:"pending" jsonschema:"what running calls have earned, which can't be spent yet"`
	Currency  string        `json:"currency"`
}

// ownWalletOut is a wallet as its own agent sees it, with the credit that the agent may use.
type ownWalletOut struct {
	walletOut
	Credit []creditBalanceOut `json:"credit" jsonschema:"what the agent may use of payees' calls without money; it is no part of the balance"`
	Debt   ledger.Amount      `json:"debt,omitzero" jsonschema:"what is owed, since a payment was taken back after its money was spent; deposits pay it first"`
}

type creditBalanceOut struct {
	Payee     string        `json:"payee"`
	Available ledger.Amount `json:"available"`
}

func walletAnswer(w escrow.Wallet) walletOut {
	return walletOut{AgentID: w.Agent, Balance: w.Balance, Held: w.Held, Available: w.Available, Pending: w.Pending, Currency: w.Currency}
}

// paymentOut is a payment, with the wallet after it of the agent for which it was made.
type paymentOut struct {
	Kind        string        `json:"kind"`
	FromAgentID string        `json:"from_agent_id"`
	ToAgentID   string        `json:"to_agent_id"`
	Amount      ledger.Amount `json:"amount"`
	Commission  ledger.Amount `json:"commission"`
	Reference   string        `json:"reference"`
	Memo        string        `json:"memo"`
	CreatedAt   time.Time     `json:"created_at"`
	walletOut

	repeated bool
}

// replayed reports whether the payment was booked by an earlier request with the same reference.
func (p paymentOut) replayed() bool { return p.repeated }

func paymentAnswer(p escrow.Payment, err error) (paymentOut, error) {
	return PaymentOf(p), err
}

type agentIn struct {
	AgentID string `json:"agent_id,omitempty" jsonschema:"which agent; only the operator gives it"`
}

type debitIn struct {
	AgentID   string        `json:"agent_id" jsonschema:"who pays"`
	ToAgentID string        `json:"to_agent_id,omitempty" jsonschema:"the agent that gets the money; only the operator gives it, otherwise it is the caller"`
	Amount    ledger.Amount `json:"amount"`
	Memo      string        `json:"memo,omitempty"`
}

type transferIn struct {
	FromAgentID string        `json:"from_agent_id,omitempty" jsonschema:"the payer; only the operator gives it"`
	ToAgentID   string        `json:"to_agent_id"`
	Amount      ledger.Amount `json:"amount"`
	Memo        string        `json:"memo,omitempty"`
}

type bookingIn struct {
	AgentID   string        `json:"agent_id"`
	Amount    ledger.Amount `json:"amount"`
	Reference string        `json:"reference,omitempty" jsonschema:"identifies the payment outside, such as a bank's transaction id; it is booked once, for ever"`
	Memo      string        `json:"memo,omitempty"`
}

func walletRoutes() []route {
	return []route{
		post("/faucet", "claimFaucet", "Claim play money, once", func(r *request, t *escrow.Tx, in *agentIn) (paymentOut, error) {
			return paymentAnswer(t.ClaimFaucet(r.by, in.AgentID))
		}).throttled(faucetClaims),
		get("/wallet", "getWallet", "The agent's wallet", getWallet),
		get("/wallet/entries", "listEntries", "The wallet's statement, newest first", listEntries),
		post("/wallet/transfer", "transfer", "Pay another agent", func(r *request, t *escrow.Tx, in *transferIn) (paymentOut, error) {
			return paymentAnswer(t.Transfer(r.by, escrow.PaymentOrder{From: in.FromAgentID, To: in.ToAgentID, Amount: in.Amount, Memo: in.Memo}))
		}),
		post("/wallet/debit", "debit", "Take money from a wallet, within the allowance that its agent has set", func(r *request, t *escrow.Tx, in *debitIn) (paymentOut, error) {
			return paymentAnswer(t.Debit(r.by, escrow.PaymentOrder{From: in.AgentID, To: in.ToAgentID, Amount: in.Amount, Memo: in.Memo}))
		}),
		post("/wallet/deposit", "deposit", "Book money in", func(r *request, t *escrow.Tx, in *bookingIn) (paymentOut, error) {
			return paymentAnswer(t.Deposit(r.by, escrow.PaymentOrder{To: in.AgentID, Amount: in.Amount, Reference: in.Reference, Memo: in.Memo}))
		}).operators(),
		post("/wallet/withdraw", "withdraw", "Book money out; the agent `commission` is the operator's earnings", func(r *request, t *escrow.Tx, in *bookingIn) (paymentOut, error) {
			return paymentAnswer(t.Withdraw(r.by, escrow.PaymentOrder{From: in.AgentID, Amount: in.Amount, Reference: in.Reference, Memo: in.Memo}))
		}).operators(),
		get("/wallet/allowances", "listAllowances", "What payees may debit", listAllowances),
		get("/wallet/allowances/{payee}", "getAllowance", "What a payee may debit", getAllowance),
		put("/wallet/allowances/{payee}", "setAllowance", "Let a payee debit up to an amount from now on", func(r *request, t *escrow.Tx, in *allowanceIn) (allowanceOut, error) {
			a, err := t.SetAllowance(r.by, in.AgentID, in.Payee, in.Amount)
			return allowanceAnswer(a), err
		}),
		del("/wallet/allowances/{payee}", "deleteAllowance", "Delete an allowance", func(r *request, t *escrow.Tx, in *allowancePath) error {
			return t.DeleteAllowance(r.by, in.AgentID, in.Payee)
		}),
	}
}

func getWallet(r *request, in *ofAgent) (ownWalletOut, error) {
	agent, err := r.book.ReadsFor(r.by, in.AgentID)
	if err != nil {
		return ownWalletOut{}, err
	}
	w, err := r.book.Wallet(r.Context(), agent)
	if err != nil {
		return ownWalletOut{}, err
	}
	credit, err := r.book.CreditOf(agent)
	if err != nil {
		return ownWalletOut{}, err
	}
	debt, err := r.book.Debt(agent)
	return ownWalletOut{walletAnswer(w), each(credit, func(c escrow.CreditBalance) creditBalanceOut { return creditBalanceOut(c) }), debt}, err
}

type entryOut struct {
	EntryID      string        `json:"entry_id"`
	Kind         string        `json:"kind"`
	Amount       ledger.Amount `json:"amount" jsonschema:"negative if the wallet paid"`
	BalanceAfter ledger.Amount `json:"balance_after"`
	Counterparty string        `json:"counterparty" jsonschema:"an agent, an escrow's id, world or commission"`
	Reference    string        `json:"reference"`
	Memo         string        `json:"memo"`
	CreatedAt    time.Time     `json:"created_at"`
}

type entriesOut struct {
	Entries    []entryOut `json:"entries"`
	NextCursor *string    `json:"next_cursor"`
}

func listEntries(r *request, in *listOfAgent) (entriesOut, error) {
	agent, err := r.book.ReadsFor(r.by, in.AgentID)
	if err != nil {
		return entriesOut{}, err
	}
	from := uint64(0)
	if len(in.Cursor) == 8 {
		from = binary.BigEndian.Uint64([]byte(in.Cursor))
	}
	entries, last, err := r.book.Entries(r.Context(), agent, from, in.Limit)
	if err != nil {
		return entriesOut{}, err
	}
	out := entriesOut{Entries: each(entries, EntryOf)}
	if last != 0 {
		out.NextCursor = next(r, string(binary.BigEndian.AppendUint64(nil, last)))
	}
	return out, nil
}

type allowancePath struct {
	Payee   string `path:"payee"`
	AgentID string `query:"agent_id"`
}

type allowanceIn struct {
	Payee   string        `path:"payee"`
	AgentID string        `json:"agent_id,omitempty" jsonschema:"the payer; only the operator gives it"`
	Amount  ledger.Amount `json:"amount"`
}

type allowanceOut struct {
	Payer     string        `json:"payer"`
	Payee     string        `json:"payee"`
	Amount    ledger.Amount `json:"amount"`
	Remaining ledger.Amount `json:"remaining"`
	UpdatedAt time.Time     `json:"updated_at"`
}

func allowanceAnswer(a escrow.Allowance) allowanceOut {
	return allowanceOut{Payer: a.Payer, Payee: a.Payee, Amount: a.Amount, Remaining: a.Left, UpdatedAt: a.UpdatedAt}
}

func getAllowance(r *request, in *allowancePath) (allowanceOut, error) {
	agent, err := r.book.ReadsFor(r.by, in.AgentID)
	if err != nil {
		return allowanceOut{}, err
	}
	a, err := r.book.Allowance(agent, in.Payee)
	return allowanceAnswer(a), err
}

type allowancesOut struct {
	Allowances []allowanceOut `json:"allowances"`
	NextCursor *string        `json:"next_cursor"`
}

func listAllowances(r *request, in *listOfAgent) (allowancesOut, error) {
	agent, err := r.book.ReadsFor(r.by, in.AgentID)
	if err != nil {
		return allowancesOut{}, err
	}
	allowances, place, err := r.book.Allowances(agent, in.page())
	return allowancesOut{Allowances: each(allowances, allowanceAnswer), NextCursor: next(r, place)}, err
}
