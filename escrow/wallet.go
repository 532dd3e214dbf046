package escrow

import (
	"context"
	"fmt"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Wallet is an agent's money, without the money in escrows.
type Wallet struct {
	Agent     string
	Balance   ledger.Amount
	Held      ledger.Amount // set aside for running calls, and for payouts
	Available ledger.Amount // Balance minus Held
	Pending   ledger.Amount // credits of running calls, not spendable before they are settled
	Currency  string
}

// Wallet returns an agent's wallet. Things that are due show only after [Book.RunDue] has done them.
func (b *Book) Wallet(ctx context.Context, agent string) (Wallet, error) {
	acc, held, err := b.ledger.Balance(account(agent))
	return walletOf(agent, acc, held, b.Currency()), err
}

func walletOf(agent string, acc ledger.Account, held ledger.Amount, currency string) Wallet {
	held += acc.DebitsPending
	return Wallet{
		Agent: agent, Balance: acc.Balance(), Held: held, Available: acc.Balance() - held,
		Pending: acc.CreditsPending, Currency: currency,
	}
}

// Wallet returns an agent's wallet as this operation sees it.
func (t *Tx) Wallet(agent string) (Wallet, error) {
	acc, held, err := t.balance(account(agent))
	return walletOf(agent, acc, held, t.Currency()), err
}

// Payment is a payment from one agent to another.
type Payment struct {
	Kind       string
	From, To   string // agents, or "world"
	Amount     ledger.Amount
	Commission ledger.Amount // part of Amount
	Reference  string
	Memo       string
	At         time.Time
	Wallet     Wallet // the wallet of the agent in whose name the caller acted, after the payment
	Repeated   bool   // a deposit or withdrawal that was booked before by its reference; nothing has moved now
}

// PaymentOrder describes a payment. Which fields are used depends on the kind of payment.
type PaymentOrder struct {
	From, To        string
	Amount          ledger.Amount
	Reference, Memo string
}

// Transfer pays another agent from the caller's wallet. The operator names the wallet in From.
func (t *Tx) Transfer(by Actor, o PaymentOrder) (Payment, error) {
	from, err := t.actsFor(by, "from_agent_id", o.From)
	if err != nil {
		return Payment{}, err
	}
	if err := t.checkPair(from, "to_agent_id", o.To); err != nil {
		return Payment{}, err
	}
	if err := t.audit(by, "wallet.transfer", from, fmt.Sprintf("%s to %s", o.Amount, o.To)); err != nil {
		return Payment{}, err
	}
	if err := t.spend(by, spending{agent: from, payee: o.To, amount: o.Amount}); err != nil {
		return Payment{}, err
	}
	return t.pay(kindTransfer, ledger.Wallet(from), ledger.Wallet(o.To), o, from)
}

// Debit takes money from From's wallet for To. A payee may take as much as the allowance that From has given it; From itself and the
// operator need no allowance. The commission is subtracted from what To gets. If From does not exist, a payee gets the same refusal as
// without an allowance.
func (t *Tx) Debit(by Actor, o PaymentOrder) (Payment, error) {
	if err := by.mayMove(); err != nil {
		return Payment{}, err
	}
	viewer := by.Agent
	switch {
	case by.Operator:
		if _, err := t.agent("agent_id", o.From); err != nil {
			return Payment{}, err
		}
		viewer = o.From
	case o.From == "":
		return Payment{}, invalid("agent_id", "agent_id is missing")
	case o.To == "" || o.To == by.Agent:
		o.To = by.Agent
	case o.From != by.Agent:
		return Payment{}, refuse(Forbidden, nil, "to_agent_id %q is not the key's agent; only the operator debits for others", o.To)
	}
	if o.From != by.Agent && !by.Operator {
		return t.debitAllowed(o)
	}
	if err := t.checkPair(o.From, "to_agent_id", o.To); err != nil {
		return Payment{}, err
	}
	if err := t.audit(by, "wallet.debit", o.From, fmt.Sprintf("%s to %s", o.Amount, o.To)); err != nil {
		return Payment{}, err
	}
	if err := t.spend(by, spending{agent: o.From, payee: o.To, amount: o.Amount}); err != nil {
		return Payment{}, err
	}
	return t.pay(kindDebit, ledger.Wallet(o.From), ledger.Wallet(o.To), o, viewer)
}

// debitAllowed takes money by an allowance. Its refusals do not tell the payee the payer's balance or limits.
func (t *Tx) debitAllowed(o PaymentOrder) (Payment, error) {
	allowed, err := t.useAllowance(o)
	if err != nil {
		return Payment{}, err
	}
	var p Payment
	if err = t.spend(allowed.spender(), spending{agent: o.From, payee: o.To, amount: o.Amount}); err == nil {
		p, err = t.pay(kindDebit, ledger.Wallet(o.From), ledger.Wallet(o.To), o, o.To)
	}
	return p, t.cantPay(err, o.From, o.Amount)
}

// cantPay hides from a payee, who takes money of a payer, how much the payer has and which limits it has set.
func (t *Tx) cantPay(err error, payer string, amount ledger.Amount) error {
	switch ledger.OutcomeOf(err) {
	case InsufficientFunds, LimitExceeded:
		return refuse(InsufficientFunds, map[string]string{"payer": payer, "required": amount.String(), "currency": t.Currency()},
			"%q can't pay %s at the moment", payer, amount)
	default:
		return err
	}
}

// checkPair refuses two agents that can't be payer and payee of a payment.
func (t *Tx) checkPair(payer, field, payee string) error {
	if _, err := t.agent(field, payee); err != nil {
		return err
	}
	if payer == payee {
		return invalid(field, "%s %q: an agent can't pay itself", field, payee)
	}
	return nil
}

// pay posts a payment and returns it, with the wallet of viewer. Only debits pay commission.
func (t *Tx) pay(kind string, from, to ledger.AccountID, o PaymentOrder, viewer string) (Payment, error) {
	if err := o.check(); err != nil {
		return Payment{}, err
	}
	_, err := t.move(ledger.Transfer{Debit: from, Credit: to, Amount: o.Amount, Kind: kind, Reference: o.Reference, Memo: o.Memo})
	if err != nil {
		return Payment{}, err
	}
	p := Payment{
		Kind: kind, From: accountName(from), To: accountName(to), Amount: o.Amount,
		Reference: o.Reference, Memo: o.Memo, At: t.Now(),
	}
	if kind == kindDebit {
		if p.Commission, err = t.take(p.To, o.Amount, t.rules.CommissionPPM, o.Reference); err != nil {
			return Payment{}, err
		}
	}
	if kind == kindDeposit {
		if err := t.collect(p.To); err != nil {
			return Payment{}, err
		}
	}
	p.Wallet, err = t.Wallet(viewer)
	return p, err
}

const maxReference = 200 // bytes

// check refuses an order that can't be a payment.
func (o PaymentOrder) check() error {
	if err := checkAmount("amount", o.Amount); err != nil {
		return err
	}
	if err := checkText("memo", o.Memo); err != nil {
		return err
	}
	if len(o.Reference) > maxReference {
		return invalid("reference", "reference is %d bytes long; at most %d are kept", len(o.Reference), maxReference)
	}
	return checkText("reference", o.Reference)
}

// Entry is one line of a wallet's statement.
type Entry struct {
	Seq          uint64
	Kind         string
	Amount       ledger.Amount // below zero if the wallet paid
	BalanceAfter ledger.Amount
	Counterparty string // an agent, an escrow's id, "world", "commission"
	Reference    string
	Memo         string
	At           time.Time
}

// Entries lists the statement of a wallet, newest first. If before is not 0, only entries with lower numbers are listed. next is the before of the
// next page, 0 at the end.
func (b *Book) Entries(ctx context.Context, agent string, before uint64, limit int) (entries []Entry, next uint64, err error) {
	limit = Page{Limit: limit}.limit()
	lines, err := b.ledger.Entries(account(agent), before, limit+1)
	if err != nil {
		return nil, 0, err
	}
	if len(lines) > limit {
		lines = lines[:limit]
		next = lines[limit-1].Seq
	}
	for _, l := range lines {
		entries = append(entries, Entry{
			Seq: l.Seq, Kind: l.Kind, Amount: l.Amount, BalanceAfter: l.BalanceAfter, Counterparty: accountName(l.Counterparty),
			Reference: l.Reference, Memo: l.Memo, At: l.Time,
		})
	}
	return entries, next, nil
}

// balance returns an account as this operation sees it, and how much of it is held.
func (t *Tx) balance(id ledger.AccountID) (acc ledger.Account, held ledger.Amount, err error) {
	if acc, err = t.ledger.Account(id); err == nil {
		held, err = t.ledger.Held(id)
	}
	return acc, held, err
}
