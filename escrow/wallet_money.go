package escrow

import (
	"errors"
	"fmt"
	"math/bits"
	"strings"

	"github.com/shopspring/decimal"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// The kinds of transfers, as statements show them.
const (
	kindDeposit      = "deposit"       // the operator booked money in
	kindWithdrawal   = "withdrawal"    // the operator booked money out
	kindFaucet       = "faucet"        // play money of a faucet
	kindTransfer     = "transfer"      // one agent to another
	kindDebit        = "debit"         // a payee took money under an allowance
	kindEscrow       = "escrow"        // wallet to escrow
	kindRelease      = "release"       // escrow to payee
	kindRefund       = "refund"        // escrow back to payer
	kindCharge       = "charge"        // a metered call
	kindChargeRefund = "charge_refund" // a payee refunded a charge
	kindCommission   = "commission"    // the operator's share of a release, debit or charge
	kindCredit       = "credit"        // a payee issued credit
	kindCreditUse    = "credit_use"    // a metered call used credit
	kindCreditRefund = "credit_refund" // credit that came back when a payee refunded a charge
	kindTaken        = "taken_back"    // a deposit went back outside: a refund, or a chargeback
	kindReturned     = "returned"      // what was taken back came again
	kindDebt         = "debt"          // a deposit paid what its agent owed
	kindCreditEnd    = "credit_end"    // the unused part of a credit that expired or was revoked
)

const ppmWhole = 1_000_000

// ParsePercent reads a share such as "1%", "0.25%" or "1" (percent, too) as parts per million.
func ParsePercent(s string) (ppm int64, err error) {
	d, err := decimal.NewFromString(strings.TrimSuffix(strings.TrimSpace(s), "%"))
	if err != nil || len(s) > 20 || d.Exponent() > 2 || d.Exponent() < -20 {
		return 0, fmt.Errorf("percent %.40q is not a number; write it like 1%%", s)
	}
	d = d.Mul(decimal.New(ppmWhole/100, 0))
	if d.IsNegative() || d.GreaterThan(decimal.New(ppmWhole, 0)) {
		return 0, fmt.Errorf("percent %q is not between 0%% and 100%%", s)
	}
	if !d.IsInteger() {
		return 0, fmt.Errorf("percent %q has more than four decimal places", s)
	}
	return d.IntPart(), nil
}

// share returns ppm millionths of amount, in whole nanos, and the rest in millionths of a nano. Neither amount nor ppm may be negative, and
// ppm is at most a million. more is the rest that was carried over, in millionths of a nano, and is less than one nano.
func share(amount ledger.Amount, ppm, more int64) (part ledger.Amount, over int64) {
	hi, lo := bits.Mul64(uint64(amount), uint64(ppm))
	lo, carry := bits.Add64(lo, uint64(more), 0)
	quo, rem := bits.Div64(hi+carry, lo, ppmWhole)
	return ledger.Amount(quo), int64(rem)
}

// portion returns ppm millionths of a price, rounded up, so that a part of a price is never zero.
func portion(amount ledger.Amount, ppm int64) ledger.Amount {
	part, over := share(amount, ppm, 0)
	if over > 0 {
		part++
	}
	return part
}

// portionOf returns part/whole of an amount, rounded down. part is at most whole, and neither is negative.
func portionOf(amount ledger.Amount, part, whole int64) ledger.Amount {
	if whole <= 0 {
		return 0
	}
	hi, lo := bits.Mul64(uint64(amount), uint64(part))
	quo, _ := bits.Div64(hi, lo, uint64(whole)) // hi < whole, since part <= whole and amount < 2^63
	return ledger.Amount(quo)
}

// checkAmount refuses amounts that are not above zero.
func checkAmount(field string, amount ledger.Amount) error {
	if amount <= 0 {
		return invalid(field, "%s %s: it must be above zero", field, amount)
	}
	return nil
}

// moved is a transfer that was posted.
type moved struct {
	seq     uint64
	stained ledger.Amount // the part that is faucet money; see [Tx.stain]
}

// move posts a transfer and does what every move of money needs: it follows faucet money and watches low balances. The caller has checked
// the rules. If there is not enough money, the refusal is worded for the payer.
func (t *Tx) move(tr ledger.Transfer, cover ...*ledger.Hold) (moved, error) {
	before, err := t.ledger.Account(tr.Debit)
	if err != nil {
		return moved{}, err
	}
	posted, err := t.ledger.Post(tr, cover...)
	if err != nil {
		return moved{}, funds(err, t.Currency(), accountName(tr.Credit))
	}
	return t.hasMoved(posted, before.Balance())
}

// moveDrawn posts a part of the money that a draw has set aside, and gives the rest back.
func (t *Tx) moveDrawn(pending ledger.Transfer, part ledger.Amount, memo string) (moved, error) {
	before, err := t.ledger.Account(pending.Debit)
	if err != nil {
		return moved{}, err
	}
	posted, err := t.ledger.Resolve(pending.Seq, part, "", memo)
	if err != nil || part == 0 {
		return moved{}, err
	}
	return t.hasMoved(posted, before.Balance())
}

func (t *Tx) hasMoved(tr ledger.Transfer, before ledger.Amount) (m moved, err error) {
	m.seq = tr.Seq
	t.changed(ownersOf(tr.Debit, tr.Credit)...)
	if m.stained, err = t.stain(tr); err != nil {
		return m, err
	}
	return m, t.watch(tr.Debit, before)
}

// take posts the operator's commission: ppm millionths of the amount that the payee has just received. A rest of less than a nano is
// carried over to the payee's next commission, so that many small amounts pay the same commission as one large amount.
func (t *Tx) take(payee string, amount ledger.Amount, ppm int64, reference string) (fee ledger.Amount, err error) {
	if amount == 0 || ppm == 0 {
		return 0, nil
	}
	var over int64
	if _, err := load(t.ledger, commissionTable.key(payee), &over); err != nil {
		return 0, err
	}
	fee, left := share(amount, ppm, over)
	if left != over {
		if err := t.put(commissionTable.key(payee), left); err != nil {
			return 0, err
		}
	}
	if fee == 0 {
		return 0, nil
	}
	_, err = t.move(ledger.Transfer{
		Debit: ledger.Wallet(payee), Credit: ledger.Commission, Amount: fee, Kind: kindCommission, Reference: reference,
	})
	return fee, err
}

// funds adds to a refusal for lack of money the fields that tell the payer what is needed.
func funds(err error, currency, payee string) error {
	var r *Refusal
	if !errors.As(err, &r) || r.Outcome != ledger.InsufficientFunds {
		return err
	}
	required, available := r.Fields["required"], r.Fields["available"]
	return refuse(ledger.InsufficientFunds, map[string]string{
		"required": required, "available": available, "currency": currency, "payee": payee,
	}, "%s %s is needed and %s %s is available", required, currency, available, currency)
}

// accountName returns the name that a counterparty sees for an account: an agent, an escrow's id, "world" or "commission".
func accountName(id ledger.AccountID) string {
	if _, name, found := strings.Cut(string(id), ":"); found {
		return name
	}
	return string(id)
}

// account returns the account of an agent's id: its wallet, or for "commission" the operator's earnings.
func account(agent string) ledger.AccountID {
	if agent == string(ledger.Commission) {
		return ledger.Commission
	}
	return ledger.Wallet(agent)
}
