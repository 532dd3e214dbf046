package escrow

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/canon"
)

// Status is the status of an escrow.
type Status string

// The statuses of an escrow. The last three hold no money and never change.
const (
	StatusOpen            Status = "open"
	StatusRefundRequested Status = "refund_requested" // the payer has requested a refund; money that no running call holds is frozen
	StatusDisputed        Status = "disputed"         // frozen until the operator resolves it
	StatusReleased        Status = "released"         // all went to the payee
	StatusRefunded        Status = "refunded"         // all went back to the payer
	StatusSettled         Status = "settled"          // part went each way
)

// Closed reports whether an escrow with this status contains no money.
func (s Status) Closed() bool {
	return s == StatusReleased || s == StatusRefunded || s == StatusSettled
}

// Way is where the rest of an escrow goes.
type Way string

// The ways out of an escrow.
const (
	ToPayee Way = "release"
	ToPayer Way = "refund"
)

// EscrowKind is what an escrow is for.
type EscrowKind string

// The kinds of escrows.
const (
	KindAgreed     EscrowKind = "agreed"     // an agent has made it, for whatever it agreed on with the payee
	KindMilestones EscrowKind = "milestones" // it is paid out by milestones
	KindMeter      EscrowKind = "meter"      // a meter has opened it, to draw from
	KindPeriod     EscrowKind = "period"     // the price of a period of a subscription
	KindOverage    EscrowKind = "overage"    // what a subscription uses beyond its quota is drawn from it
	KindQuality    EscrowKind = "quality"    // the price of a call whose quality is not decided yet
	KindHold       EscrowKind = "hold"       // its payee captures it in parts, see [Tx.OpenHold]
)

// drawn reports whether any metered call to the payee may draw from an escrow of this kind.
func (k EscrowKind) drawn() bool { return k == KindAgreed || k == KindMeter }

// prefix is how ids of escrows of this kind begin.
func (k EscrowKind) prefix() string {
	if k == KindHold {
		return "hold_"
	}
	return "esc_"
}

// ofSubscription reports whether a subscription locks escrows of this kind.
func (k EscrowKind) ofSubscription() bool { return k == KindPeriod || k == KindOverage }

// kind returns the escrow's kind. In old records without a kind it follows from other fields.
func (e *Escrow) kind() EscrowKind {
	switch {
	case e.Kind != "":
		return e.Kind
	case e.Request != "":
		return KindQuality
	case e.Subscription != "" && e.ByMeter:
		return KindOverage
	case e.Subscription != "":
		return KindPeriod
	case len(e.Milestones) > 0:
		return KindMilestones
	case e.ByMeter:
		return KindMeter
	default:
		return KindAgreed
	}
}

// Escrow is money that a payer has locked for a payee. Always Amount = Released + Refunded + Remaining().
type Escrow struct {
	ID            string        `cbor:"1,keyasint"`
	Status        Status        `cbor:"2,keyasint"`
	From          string        `cbor:"3,keyasint"` // the payer
	To            string        `cbor:"4,keyasint"` // the payee
	Amount        ledger.Amount `cbor:"5,keyasint"`
	Released      ledger.Amount `cbor:"6,keyasint,omitempty"` // commission included
	Refunded      ledger.Amount `cbor:"7,keyasint,omitempty"`
	Commission    ledger.Amount `cbor:"8,keyasint,omitempty"` // out of Released
	CommissionPPM int64         `cbor:"9,keyasint,omitempty"` // fixed at creation
	Memo          string        `cbor:"10,keyasint,omitempty"`
	AutoRelease   time.Duration `cbor:"11,keyasint,omitempty"`
	AutoReleaseAt time.Time     `cbor:"12,keyasint,omitzero"` // zero: it stays until someone acts
	OnExpiry      Way           `cbor:"13,keyasint"`
	Milestones    []Milestone   `cbor:"14,keyasint,omitempty"`
	CreatedAt     time.Time     `cbor:"15,keyasint"`
	UpdatedAt     time.Time     `cbor:"16,keyasint"`
	ByMeter       bool          `cbor:"17,keyasint,omitempty"` // in records without a Kind: a meter opened it
	Served        bool          `cbor:"18,keyasint,omitempty"` // a meter has charged it
	Subscription  string        `cbor:"19,keyasint,omitempty"` // it locks a period of this subscription
	Closing       Way           `cbor:"20,keyasint,omitempty"` // it is over: what running calls still hold goes this way as they end

	RefundAsked   ledger.Amount `cbor:"21,keyasint,omitempty"` // by the payer's open request
	RefundReason  string        `cbor:"22,keyasint,omitempty"`
	RefundAt      time.Time     `cbor:"23,keyasint,omitzero"`  // when silence grants the request
	DisputedBy    string        `cbor:"24,keyasint,omitempty"` // an agent; or "meter" if nobody answered the refund request of an escrow whose calls were served
	DisputeReason string        `cbor:"25,keyasint,omitempty"`
	Resolution    string        `cbor:"26,keyasint,omitempty"` // the operator's note

	StainedReleased ledger.Amount `cbor:"27,keyasint,omitempty"` // faucet money, out of Released; see [Tx.stain]
	StainedRefunded ledger.Amount `cbor:"28,keyasint,omitempty"`
	Counted         bool          `cbor:"29,keyasint,omitempty"` // in its parties' facts: it is closed

	Request string     `cbor:"30,keyasint,omitempty"` // it holds the price of this call, whose quality is not decided yet
	Verdict Verdict    `cbor:"31,keyasint,omitzero"`  // Request: what the clock decides
	Kind    EscrowKind `cbor:"33,keyasint,omitempty"` // in records from before kinds were kept: empty, see [Escrow.kind]

	// CountedFor are the payer's keys whose limits have counted everything that remains: the key that locked the escrow, and keys that
	// withdrew a refund request although the escrow goes to the payee when it expires. Acts by other keys count against the limits of those
	// keys. Old records have no such list.
	CountedFor []string `cbor:"34,keyasint,omitempty"`

	Allowed string `cbor:"35,keyasint,omitempty"` // KindHold: its payee has opened it, under this setting of the payer's allowance

	Held ledger.Amount `cbor:"-"` // by running calls, out of Remaining; as of when it was read

	listed lists // the lists that it is in, as stored
}

// Stored implements [canon.Record].
func (e *Escrow) Stored(f *canon.Form) {
	canon.Text(f, 1|canon.Always, &e.ID)
	canon.Text(f, 2|canon.Always, &e.Status)
	canon.Text(f, 3|canon.Always, &e.From)
	canon.Text(f, 4|canon.Always, &e.To)
	canon.Int(f, 5|canon.Always, &e.Amount)
	canon.Int(f, 6, &e.Released)
	canon.Int(f, 7, &e.Refunded)
	canon.Int(f, 8, &e.Commission)
	canon.Int(f, 9, &e.CommissionPPM)
	canon.Text(f, 10, &e.Memo)
	canon.Int(f, 11, &e.AutoRelease)
	canon.Time(f, 12, &e.AutoReleaseAt)
	canon.Text(f, 13|canon.Always, &e.OnExpiry)
	canon.Rare(f, 14, len(e.Milestones) == 0)
	canon.Time(f, 15|canon.Always, &e.CreatedAt)
	canon.Time(f, 16|canon.Always, &e.UpdatedAt)
	canon.Bool(f, 17, &e.ByMeter)
	canon.Bool(f, 18, &e.Served)
	canon.Text(f, 19, &e.Subscription)
	canon.Text(f, 20, &e.Closing)
	canon.Int(f, 21, &e.RefundAsked)
	canon.Text(f, 22, &e.RefundReason)
	canon.Time(f, 23, &e.RefundAt)
	canon.Text(f, 24, &e.DisputedBy)
	canon.Text(f, 25, &e.DisputeReason)
	canon.Text(f, 26, &e.Resolution)
	canon.Int(f, 27, &e.StainedReleased)
	canon.Int(f, 28, &e.StainedRefunded)
	canon.Bool(f, 29, &e.Counted)
	canon.Text(f, 30, &e.Request)
	canon.Rare(f, 31, e.Verdict == Verdict{})
	canon.Text(f, 33, &e.Kind)
	canon.List(f, 34, &e.CountedFor)
	canon.Text(f, 35, &e.Allowed)
}

// Remaining returns what is still locked.
func (e Escrow) Remaining() ledger.Amount { return e.Amount - e.Released - e.Refunded }

// Account returns the account that contains the money.
func (e Escrow) Account() ledger.AccountID { return ledger.Escrow(e.ID) }

// Milestone is a part of an escrow that is released when its work is accepted.
type Milestone struct {
	Name        string          `cbor:"1,keyasint"`
	Amount      ledger.Amount   `cbor:"2,keyasint"`
	Status      MilestoneStatus `cbor:"3,keyasint"`
	Note        string          `cbor:"4,keyasint,omitempty"` // of the payee, at delivery
	DeliveredAt time.Time       `cbor:"5,keyasint,omitzero"`
	AcceptedAt  time.Time       `cbor:"6,keyasint,omitzero"`
}

// MilestoneStatus is the status of a milestone.
type MilestoneStatus string

// The statuses of a milestone.
const (
	MilestonePending   MilestoneStatus = "pending"
	MilestoneDelivered MilestoneStatus = "delivered" // the payee says it is done
	MilestoneAccepted  MilestoneStatus = "accepted"  // the payer has released it
)

// EscrowOrder describes a new escrow.
type EscrowOrder struct {
	From        string // the operator names it; others lock their own money
	To          string
	Amount      ledger.Amount
	Memo        string
	AutoRelease time.Duration // 0: never
	OnExpiry    Way           // empty: by the memo, see [expiryWay]
	Milestones  []Milestone   // names and amounts, which add up to Amount
}

const (
	maxAutoRelease = 100 * 365 * 24 * time.Hour
	maxMilestones  = 100
)

// CreateEscrow locks money of the payer for a payee.
func (t *Tx) CreateEscrow(by Actor, o EscrowOrder) (Escrow, error) {
	payer, err := t.actsFor(by, "from_agent_id", o.From)
	if err != nil {
		return Escrow{}, err
	}
	o.From = payer
	if err := t.checkPair(payer, "to_agent_id", o.To); err != nil {
		return Escrow{}, err
	}
	if err := checkAmount("amount", o.Amount); err != nil {
		return Escrow{}, err
	}
	if o.Amount < t.rules.MinEscrow {
		return Escrow{}, invalid("amount", "amount %s: an escrow is of at least %s %s here", o.Amount, t.rules.MinEscrow, t.Currency())
	}
	if err := checkText("memo", o.Memo); err != nil {
		return Escrow{}, err
	}
	if o.AutoRelease < 0 || o.AutoRelease > maxAutoRelease {
		return Escrow{}, invalid("auto_release_hours", "auto_release_hours: above zero and at most %d", maxAutoRelease/time.Hour)
	}
	if o.OnExpiry, err = expiryWay(o); err != nil {
		return Escrow{}, err
	}
	if err := checkMilestones(o); err != nil {
		return Escrow{}, err
	}
	if err := t.spend(by, spending{agent: payer, payee: o.To, amount: o.Amount}); err != nil {
		return Escrow{}, err
	}
	e := newEscrow(o)
	e.countedFor(by.Key)
	if err := t.lock(&e); err != nil {
		return Escrow{}, err
	}
	return e, t.audit(by, "escrow.create", e.ID, "")
}

func newEscrow(o EscrowOrder) Escrow {
	e := Escrow{
		Kind: KindAgreed, Status: StatusOpen, From: o.From, To: o.To, Amount: o.Amount, Memo: o.Memo,
		AutoRelease: o.AutoRelease, OnExpiry: o.OnExpiry,
	}
	for _, m := range o.Milestones {
		e.Kind = KindMilestones
		e.Milestones = append(e.Milestones, Milestone{Name: m.Name, Amount: m.Amount, Status: MilestonePending})
	}
	return e
}

// lock gives an escrow its id and dates, and moves its amount from the payer's wallet into it.
func (t *Tx) lock(e *Escrow, cover ...*ledger.Hold) error {
	e.ID = t.process.ids.next(e.Kind.prefix(), t.Now())
	e.CreatedAt = t.Now()
	e.CommissionPPM = t.rules.CommissionPPM
	if e.AutoRelease > 0 && e.AutoReleaseAt.IsZero() {
		e.AutoReleaseAt = t.Now().Add(e.AutoRelease)
	}
	_, err := t.move(ledger.Transfer{
		Debit: ledger.Wallet(e.From), Credit: e.Account(), Amount: e.Amount, Kind: kindEscrow, Reference: e.ID, Memo: e.Memo,
	}, cover...)
	if r := (*Refusal)(nil); errors.As(err, &r) && r.Outcome == InsufficientFunds {
		r.Fields["payee"] = e.To // the caller knows the payee; the escrow does not exist
	}
	if err != nil {
		return err
	}
	if err := t.announceExpiry(e); err != nil {
		return err
	}
	if err := t.saveEscrow(e); err != nil {
		return err
	}
	return t.escrowEvent(EscrowCreated, *e)
}

// expiryWay returns where the rest of an escrow goes when its time is up. If the order does not say, it goes back to the payer if the memo's first
// word names a pool ("overage_pool:500_units"), since a pool is unused credit, and to the payee otherwise.
func expiryWay(o EscrowOrder) (Way, error) {
	switch o.OnExpiry {
	case ToPayee, ToPayer:
		return o.OnExpiry, nil
	case "":
	default:
		return "", invalid("on_expiry", "on_expiry %.40q: release or refund", string(o.OnExpiry))
	}
	if words := strings.Fields(o.Memo); len(words) > 0 {
		if name, _, _ := strings.Cut(words[0], ":"); strings.HasSuffix(name, "_pool") {
			return ToPayer, nil
		}
	}
	return ToPayee, nil
}

func checkMilestones(o EscrowOrder) error {
	if len(o.Milestones) == 0 {
		return nil
	}
	if len(o.Milestones) > maxMilestones {
		return invalid("milestones", "milestones: %d are too many, at most %d", len(o.Milestones), maxMilestones)
	}
	sum, names := ledger.Amount(0), map[string]bool{}
	for i, m := range o.Milestones {
		field := fmt.Sprintf("milestones[%d]", i)
		if m.Name == "" || len(m.Name) > maxID || strings.ContainsAny(m.Name, "/\x00") || names[m.Name] {
			return invalid(field+".name", "%s.name %.80q: 1 to %d bytes without a slash, each name once", field, m.Name, maxID)
		}
		if err := checkAmount(field+".amount", m.Amount); err != nil {
			return err
		}
		names[m.Name] = true
		var err error
		if sum, err = sum.Add(m.Amount); err != nil {
			return invalid(field+".amount", "%v", err)
		}
	}
	if sum != o.Amount {
		return invalid("milestones", "milestones add up to %s, the amount is %s", sum, o.Amount)
	}
	return nil
}
