package escrow

import (
	"context"
	"strings"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/canon"
)

// ChargeStatus is the status of a charge.
type ChargeStatus string

// The statuses of a charge.
const (
	Charged        ChargeStatus = "charged"
	PartlyRefunded ChargeStatus = "partly_refunded"
	WhollyRefunded ChargeStatus = "refunded"
	HeldCharge     ChargeStatus = "held"     // its quality is not decided; the price is locked in the escrow that it names
	DisputedCharge ChargeStatus = "disputed" // the same, and the operator decides; or its payer disputes what was charged
	Shadowed       ChargeStatus = "shadow"   // counted, not charged
)

// ChargeStatuses are all statuses of a charge.
var ChargeStatuses = []ChargeStatus{Charged, PartlyRefunded, WhollyRefunded, HeldCharge, DisputedCharge, Shadowed}

// Charge is what one metered call, or one piece of reported work, cost, and why.
type Charge struct {
	RequestID      string            `cbor:"1,keyasint"`
	Payer          string            `cbor:"2,keyasint"`
	Payee          string            `cbor:"3,keyasint"`
	Key            string            `cbor:"4,keyasint,omitempty"` // id of the payer's key
	Route          string            `cbor:"5,keyasint,omitempty"`
	Pattern        string            `cbor:"6,keyasint,omitempty"`
	API            string            `cbor:"7,keyasint,omitempty"`
	Model          string            `cbor:"8,keyasint,omitempty"`
	Units          map[string]string `cbor:"9,keyasint,omitempty"`
	UnitPrices     map[string]string `cbor:"10,keyasint,omitempty"`
	Amount         ledger.Amount     `cbor:"11,keyasint,omitempty"`
	Commission     ledger.Amount     `cbor:"12,keyasint,omitempty"` // out of Amount
	Refunded       ledger.Amount     `cbor:"13,keyasint,omitempty"` // part of Amount, including commission
	CommissionBack ledger.Amount     `cbor:"14,keyasint,omitempty"` // part of Refunded
	Source         string            `cbor:"15,keyasint,omitempty"` // "stated", "estimated", or "reported": by the payee, of work outside of the gateway
	Cut            string            `cbor:"16,keyasint,omitempty"` // "none", "client", "upstream", "funds", or "crash": recovered after the gateway died in the middle
	Status         ChargeStatus      `cbor:"17,keyasint"`
	EscrowID       string            `cbor:"18,keyasint,omitempty"` // empty if the wallet paid
	Suspect        bool              `cbor:"19,keyasint,omitempty"`
	HTTPStatus     int               `cbor:"20,keyasint,omitempty"`
	Duration       time.Duration     `cbor:"21,keyasint,omitempty"`
	Tags           map[string]string `cbor:"22,keyasint,omitempty"`
	CreatedAt      time.Time         `cbor:"23,keyasint,omitzero"`
	RefundReason   string            `cbor:"24,keyasint,omitempty"`
	FirstTransfer  uint64            `cbor:"26,keyasint,omitempty"` // all transfers that pay the charge lie between these two
	LastTransfer   uint64            `cbor:"27,keyasint,omitempty"`
	Plan           string            `cbor:"28,keyasint,omitempty"`
	SubscriptionID string            `cbor:"29,keyasint,omitempty"`
	QuotaUsed      int64             `cbor:"30,keyasint,omitempty"` // millionths of the plan's unit that the quota paid
	QuotaLeft      int64             `cbor:"31,keyasint,omitempty"` // after it
	Price          ledger.Amount     `cbor:"32,keyasint,omitempty"` // what it would have cost, if that is not Amount: with quality, and in shadow mode
	Score          string            `cbor:"33,keyasint,omitempty"` // of its quality
	HeldIn         string            `cbor:"34,keyasint,omitempty"` // the escrow that holds, or held, its price until its quality is decided
	Decided        ledger.Amount     `cbor:"35,keyasint,omitempty"` // part of Amount that was released from HeldIn
	AskedModel     string            `cbor:"38,keyasint,omitempty"` // the model that was asked for, if another one answered, which is then in Model
	Cost           string            `cbor:"36,keyasint,omitempty"` // the cost that the provider stated, if that was charged instead of UnitPrices
	Markup         string            `cbor:"37,keyasint,omitempty"` // the markup on Cost, such as "20%"
	Credit         ledger.Amount     `cbor:"39,keyasint,omitempty"` // part of Amount that credit paid; no money moved for it
	CreditBack     ledger.Amount     `cbor:"40,keyasint,omitempty"` // part of Refunded that was given back as credit
	Credits        []CreditPart      `cbor:"41,keyasint,omitempty"` // the parts of Credit, in the order in which they were used
	Owed           ledger.Amount     `cbor:"42,keyasint,omitempty"` // what is missing of its price, see [Debt]
	Dispute        *ChargeDispute    `cbor:"43,keyasint,omitempty"` // the payer's; nil if there was none
	Reference      string            `cbor:"44,keyasint,omitempty"` // the payee's own id of reported work
	Balance        ledger.Amount     `cbor:"25,keyasint,omitempty"` // after it: what is available in the wallet, or what remains in the escrow
}

// Stored implements [canon.Record].
func (c *Charge) Stored(f *canon.Form) {
	canon.Text(f, 1|canon.Always, &c.RequestID)
	canon.Text(f, 2|canon.Always, &c.Payer)
	canon.Text(f, 3|canon.Always, &c.Payee)
	canon.Text(f, 4, &c.Key)
	canon.Text(f, 5, &c.Route)
	canon.Text(f, 6, &c.Pattern)
	canon.Text(f, 7, &c.API)
	canon.Text(f, 8, &c.Model)
	canon.Map(f, 9, &c.Units)
	canon.Map(f, 10, &c.UnitPrices)
	canon.Int(f, 11, &c.Amount)
	canon.Int(f, 12, &c.Commission)
	canon.Int(f, 13, &c.Refunded)
	canon.Int(f, 14, &c.CommissionBack)
	canon.Text(f, 15, &c.Source)
	canon.Text(f, 16, &c.Cut)
	canon.Text(f, 17|canon.Always, &c.Status)
	canon.Text(f, 18, &c.EscrowID)
	canon.Bool(f, 19, &c.Suspect)
	canon.Int(f, 20, &c.HTTPStatus)
	canon.Int(f, 21, &c.Duration)
	canon.Map(f, 22, &c.Tags)
	canon.Time(f, 23, &c.CreatedAt)
	canon.Text(f, 24, &c.RefundReason)
	canon.Int(f, 25, &c.Balance)
	canon.Uint(f, 26, &c.FirstTransfer)
	canon.Uint(f, 27, &c.LastTransfer)
	canon.Text(f, 28, &c.Plan)
	canon.Text(f, 29, &c.SubscriptionID)
	canon.Int(f, 30, &c.QuotaUsed)
	canon.Int(f, 31, &c.QuotaLeft)
	canon.Int(f, 32, &c.Price)
	canon.Text(f, 33, &c.Score)
	canon.Text(f, 34, &c.HeldIn)
	canon.Int(f, 35, &c.Decided)
	canon.Text(f, 36, &c.Cost)
	canon.Text(f, 37, &c.Markup)
	canon.Text(f, 38, &c.AskedModel)
	canon.Int(f, 39, &c.Credit)
	canon.Int(f, 40, &c.CreditBack)
	canon.Rare(f, 41, len(c.Credits) == 0)
	canon.Int(f, 42, &c.Owed)
	canon.Rare(f, 43, c.Dispute == nil)
	canon.Text(f, 44, &c.Reference)
}

func (t *Tx) charge(id string) (Charge, bool, error) { return chargeByID(t.ledger, id) }

func chargeByID(r ledger.Reader, id string) (c Charge, found bool, err error) {
	if len(id) > maxID {
		return Charge{}, false, nil
	}
	key := chargeTable.key(id)
	value, err := r.Get(key)
	if err != nil || value == nil { // as for each new call, which needs no memory for a charge then
		return Charge{}, false, err
	}
	stored := new(Charge)
	err = decode(key, value, stored)
	return *stored, true, err
}

// SharedTag is the beginning of the names of tags that the payer shares with the payee. Other tags are shown only to the payer.
const SharedTag = "shared."

// TagsFor returns the tags that an agent may see: the payer all, the payee only shared ones.
func (c Charge) TagsFor(agent string) map[string]string {
	if agent == c.Payer {
		return c.Tags
	}
	shared := make(map[string]string)
	for name, value := range c.Tags {
		if strings.HasPrefix(name, SharedTag) {
			shared[name] = value
		}
	}
	return shared
}

// visible reports whether by may know of the charge.
func (c Charge) visible(by Actor) bool {
	return by.Operator || by.Agent != "" && (by.Agent == c.Payer || by.Agent == c.Payee)
}

func noCharge(id string) error { return refuse(NotFound, nil, "no charge %.80q", id) }

// Charge returns the charge of a request, if the caller is one of its parties or the operator. If the time to decide its quality is over, that is
// done first.
func (b *Book) Charge(ctx context.Context, by Actor, id string) (Charge, error) {
	c, err := b.storedCharge(by, id)
	if err != nil || c.HeldIn == "" {
		return c, err
	}
	e, err := b.storedEscrow(c.HeldIn)
	if err != nil || e == nil || !e.over(b.Now()) {
		return c, err
	}
	if _, err := b.currentEscrow(ctx, c.HeldIn); err != nil {
		return Charge{}, err
	}
	return b.storedCharge(by, id)
}

func (b *Book) storedCharge(by Actor, id string) (c Charge, err error) {
	err = b.view(func(r ledger.Reader) error {
		var found bool
		if c, found, err = chargeByID(r, id); err == nil && (!found || !c.visible(by)) {
			err = noCharge(id)
		}
		return err
	})
	if err != nil {
		return Charge{}, err
	}
	return c, nil
}

// ChargeFilter selects charges. A zero field selects all.
type ChargeFilter struct {
	Agent    string // whose charges, as payer or payee; empty: all agents', which is the operator's to see
	Payer    string
	Payee    string
	Route    string
	Status   ChargeStatus
	Suspect  bool      // only those that cost less than they should
	From, To time.Time // From <= CreatedAt < To
}

// suspectCharges is whose list in chargeByAgent has the suspect charges of all agents. No agent can have this id.
const suspectCharges = "!suspect"

func (f ChargeFilter) wants(c Charge) bool {
	return (f.Payer == "" || f.Payer == c.Payer) && (f.Payee == "" || f.Payee == c.Payee) &&
		(f.Route == "" || f.Route == c.Route) && (f.Status == "" || f.Status == c.Status) && (!f.Suspect || c.Suspect)
}

func (f ChargeFilter) list() list[Charge] {
	of := f.Agent
	if of == "" && f.Suspect {
		of = suspectCharges
	}
	if of == "" {
		return list[Charge]{table: chargeTable, item: func(_ ledger.Reader, id string, value []byte) (c Charge, wanted bool, err error) {
			err = decode(chargeTable.key(id), value, &c)
			return c, f.wants(c) && !c.CreatedAt.Before(f.From) && (f.To.IsZero() || c.CreatedAt.Before(f.To)), err
		}}
	}
	l := list[Charge]{table: chargeByAgent, parts: []string{of}}
	if !f.From.IsZero() {
		l.from = timeKey(f.From)
	}
	if !f.To.IsZero() {
		l.to = timeKey(f.To)
	}
	l.item = func(r ledger.Reader, last string, _ []byte) (Charge, bool, error) {
		c, found, err := chargeByID(r, last[8:])
		return c, found && f.wants(c), err
	}
	return l
}

// Charges lists charges, newest first.
func (b *Book) Charges(f ChargeFilter, p Page) (charges []Charge, next string, err error) {
	err = b.view(func(r ledger.Reader) error {
		charges, next, err = f.list().page(r, p)
		return err
	})
	return charges, next, err
}

// RefundCharge refunds a charge: amount, or all that was not refunded yet if amount is zero. What credit paid comes back as credit, in
// proportion. The rest goes to the payer's wallet, including the operator's commission. The payee and the operator may do this.
func (t *Tx) RefundCharge(by Actor, id string, amount ledger.Amount, reason string) (Charge, error) {
	c, err := t.chargeOf(by, id)
	if err != nil {
		return Charge{}, err
	}
	if !by.Operator && by.Agent != c.Payee {
		return Charge{}, refuse(Forbidden, nil, "only the payee refunds a charge")
	}
	if err := checkText("reason", reason); err != nil {
		return Charge{}, err
	}
	left := c.Amount - c.Refunded
	if left == 0 || c.Status != Charged && c.Status != PartlyRefunded && !c.disputed() {
		return Charge{}, refuse(InvalidStatus, nil, "the charge is %s, with %s left: nothing to refund", c.Status, left)
	}
	if amount < 0 {
		return Charge{}, checkAmount("amount", amount)
	}
	if amount == 0 {
		amount = left
	}
	if amount > left {
		return Charge{}, refuse(ExceedsRemaining, map[string]string{"field": "amount", "remaining": left.String()},
			"%s is more than the %s of the charge that are left", amount, left)
	}
	if err := t.audit(by, "charge.refund", id, amount.String()); err != nil {
		return Charge{}, err
	}
	_, money, err := c.refunded(amount)
	if err != nil {
		return Charge{}, err
	}
	if err := t.spend(by, spending{agent: c.Payee, payee: c.Payer, amount: money}); err != nil {
		return Charge{}, err
	}
	return t.payBack(c, amount, reason)
}

// payBack moves a refund. Credit goes back to the credits from which it came. Of the money, the commission first goes back to the payee,
// and then the whole sum goes from the payee to the payer.
func (t *Tx) payBack(c Charge, amount ledger.Amount, reason string) (Charge, error) {
	credit, money, err := c.refunded(amount)
	if err != nil {
		return Charge{}, err
	}
	if err := t.returnCredit(&c, credit); err != nil {
		return Charge{}, err
	}
	c.Refunded += amount
	back, err := c.Commission.MulDiv(uint64(c.Refunded), uint64(c.Amount))
	if err != nil {
		return Charge{}, err
	}
	if fee := back - c.CommissionBack; fee > 0 {
		_, err := t.move(ledger.Transfer{
			Debit: ledger.Commission, Credit: ledger.Wallet(c.Payee), Amount: fee, Kind: kindCommission, Reference: c.RequestID, Memo: "refunded",
		})
		if err != nil {
			return Charge{}, err
		}
	}
	if money > 0 {
		_, err := t.move(ledger.Transfer{
			Debit: ledger.Wallet(c.Payee), Credit: ledger.Wallet(c.Payer), Amount: money, Kind: kindChargeRefund, Reference: c.RequestID, Memo: reason,
		})
		if err != nil {
			return Charge{}, err
		}
	}
	c.CommissionBack, c.RefundReason, c.Status = back, reason, PartlyRefunded
	if c.Refunded == c.Amount {
		c.Status = WhollyRefunded
	}
	c = c.stillDisputed(t.Now())
	return c, t.saveCharge(c)
}
