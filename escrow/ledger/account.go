package ledger

import (
	"fmt"
	"strings"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger/canon"
)

// AccountID names an account by its kind and its owner, such as "wallet:alice" or "escrow:esc_01H...". It must not contain a zero byte.
type AccountID string

// The accounts that have no owner.
const (
	World      AccountID = "world"      // where deposits come from and withdrawals go; it may go below zero
	Commission AccountID = "commission" // the operator's earnings
)

// Wallet returns the account of an agent's own money.
func Wallet(agent string) AccountID { return AccountID("wallet:" + agent) }

// Escrow returns the account of one escrow.
func Escrow(id string) AccountID { return AccountID("escrow:" + id) }

// Credit returns the account of one credit. Its balance is what the agent may still use without money.
func Credit(id string) AccountID { return AccountID(creditPrefix + id) }

// Debt returns the account of what an agent owes: its balance is below zero by that. Money that was taken back outside after the agent had
// spent it comes from here, and what the agent pays of its debt goes here.
func Debt(agent string) AccountID { return AccountID(debtPrefix + agent) }

// Issuer returns the account from which a payee's credit comes, and to which it goes back. Its balance is below zero by the credit that is
// not used up.
func Issuer(payee string) AccountID { return AccountID(issuerPrefix + payee) }

const (
	creditPrefix = "credit:"
	issuerPrefix = "issuer:"
	debtPrefix   = "debt:"
)

// IsCredit reports whether the account contains credit, which is not money, or issues it.
func (id AccountID) IsCredit() bool {
	return strings.HasPrefix(string(id), creditPrefix) || id.isIssuer()
}

func (id AccountID) isIssuer() bool { return strings.HasPrefix(string(id), issuerPrefix) }

func (id AccountID) isDebt() bool { return strings.HasPrefix(string(id), debtPrefix) }

// endless reports whether the account may go below zero, because money or credit comes from it.
func (id AccountID) endless() bool { return id == World || id.isIssuer() || id.isDebt() }

// meets reports whether transfers may go between two accounts. Money may go between all accounts of money, and credit only between a credit
// and an issuer. So credit never becomes money, or another credit.
func (id AccountID) meets(other AccountID) bool {
	return id.IsCredit() == other.IsCredit() && (!id.IsCredit() || id.isIssuer() != other.isIssuer())
}

// maxName bounds account ids, references and kinds, in bytes.
const maxName = 512

func (id AccountID) valid() bool { return id != "" && validName(string(id)) }

func validName(name string) bool { return len(name) <= maxName && strings.IndexByte(name, 0) < 0 }

// Account holds the four counters of an account. The posted counters only grow. The pending counters shrink when a pending transfer
// is posted or voided.
type Account struct {
	DebitsPending  Amount `cbor:"1,keyasint,omitempty"`
	DebitsPosted   Amount `cbor:"2,keyasint,omitempty"`
	CreditsPending Amount `cbor:"3,keyasint,omitempty"`
	CreditsPosted  Amount `cbor:"4,keyasint,omitempty"`
}

// Stored implements [canon.Record].
func (a *Account) Stored(f *canon.Form) {
	canon.Int(f, 1, &a.DebitsPending)
	canon.Int(f, 2, &a.DebitsPosted)
	canon.Int(f, 3, &a.CreditsPending)
	canon.Int(f, 4, &a.CreditsPosted)
}

// Balance returns the money that the account owns: posted credits minus posted debits.
func (a Account) Balance() Amount { return a.CreditsPosted - a.DebitsPosted }

// Available returns what the account can still pay as far as its transfers tell: Balance minus pending debits. Holds, which exist only
// in memory, are not subtracted here.
func (a Account) Available() Amount { return a.Balance() - a.DebitsPending }

// String returns the four counters.
func (a Account) String() string {
	return fmt.Sprintf("debits %s (pending %s), credits %s (pending %s)", a.DebitsPosted, a.DebitsPending, a.CreditsPosted, a.CreditsPending)
}

// Phase says what a transfer does to its two accounts.
type Phase uint8

// The phases of a transfer.
const (
	Posted      Phase = iota // moves the amount
	Pending                  // sets the amount aside: the debit account can no longer spend it, and the credit account does not own it yet
	PostPending              // moves an amount that an earlier pending transfer set aside
	VoidPending              // gives back an amount that an earlier pending transfer set aside
)

// String returns the phase's name.
func (p Phase) String() string {
	switch p {
	case Posted:
		return "posted"
	case Pending:
		return "pending"
	case PostPending:
		return "post_pending"
	case VoidPending:
		return "void_pending"
	default:
		return "unknown"
	}
}

// Transfer moves money from one account to another. A written transfer never changes.
type Transfer struct {
	Seq           uint64    // the number of the transfer in the ledger: 1, 2, 3, ...; assigned by the ledger
	Debit, Credit AccountID // the account that pays, the account that is paid
	Amount        Amount    // above zero
	Kind          string    // "deposit", "charge", "release", "commission", "faucet", ...
	Reference     string    // the id of the thing that is paid for: "req_...", "esc_..."
	Memo          string
	Phase         Phase     // set by Tx.Post, Tx.Pend and Tx.Resolve
	Pending       uint64    // Seq of the pending transfer that a PostPending or VoidPending resolves
	Time          time.Time // UTC, assigned by the ledger
}

// Entry is one posted transfer, seen from one of its two accounts.
type Entry struct {
	Seq          uint64 // of the transfer
	Kind         string
	Amount       Amount // negative if the account paid
	BalanceAfter Amount
	Counterparty AccountID
	Reference    string
	Memo         string
	Time         time.Time
}
