package escrow

import (
	"crypto/rand"
	"fmt"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Coupon is a code that agents can redeem, each once, for credit at the payee that issued the coupon.
type Coupon struct {
	ID       string        `cbor:"1,keyasint"`
	Payee    string        `cbor:"2,keyasint"`
	Code     string        `cbor:"3,keyasint"`           // generated; any agent that has it may redeem it
	Amount   ledger.Amount `cbor:"4,keyasint"`           // of each credit
	Uses     int64         `cbor:"5,keyasint"`           // how many agents may redeem it
	Redeemed int64         `cbor:"6,keyasint,omitempty"` // how many have redeemed it

	RedeemBy  time.Time     `cbor:"7,keyasint,omitzero"`  // zero: at any time
	Valid     time.Duration `cbor:"8,keyasint,omitempty"` // how long the credit is valid; 0: without end
	Memo      string        `cbor:"9,keyasint,omitempty"`
	CreatedAt time.Time     `cbor:"10,keyasint"`
	RevokedAt time.Time     `cbor:"11,keyasint,omitzero"`
}

// CouponOrder asks for a coupon.
type CouponOrder struct {
	Payee    string // an agent issues only in its own name; the operator names the payee
	Amount   ledger.Amount
	Uses     int64
	RedeemBy time.Time
	Valid    time.Duration
	Memo     string
}

const (
	maxCouponUses  = 1_000_000
	maxCouponValid = 100 * 366 * 24 * time.Hour
)

// IssueCoupon makes a coupon. The payee may do this, and the operator in the payee's name. All credit of the coupon together is at most its
// amount times its uses.
func (t *Tx) IssueCoupon(by Actor, o CouponOrder) (Coupon, error) {
	payee, err := t.issues(by, o.Payee)
	if err != nil {
		return Coupon{}, err
	}
	if err := checkAmount("amount", o.Amount); err != nil {
		return Coupon{}, err
	}
	if o.Uses < 1 || o.Uses > maxCouponUses {
		return Coupon{}, invalid("uses", "uses %d: from 1 to %d", o.Uses, maxCouponUses)
	}
	if !o.RedeemBy.IsZero() && !o.RedeemBy.After(t.Now()) {
		return Coupon{}, invalid("redeem_by", "redeem_by %s is in the past", o.RedeemBy.Format(time.RFC3339))
	}
	if o.Valid < 0 || o.Valid > maxCouponValid {
		return Coupon{}, invalid("valid_hours", "valid_hours: at most %d", maxCouponValid/time.Hour)
	}
	if err := checkText("memo", o.Memo); err != nil {
		return Coupon{}, err
	}
	c := Coupon{
		ID: t.process.ids.next("cpn_", t.Now()), Payee: payee, Code: "tc_" + rand.Text(), Amount: o.Amount, Uses: o.Uses,
		RedeemBy: o.RedeemBy, Valid: o.Valid, Memo: o.Memo, CreatedAt: t.Now(),
	}
	if err := t.audit(by, "coupon.issue", c.ID, fmt.Sprintf("%s at %s, %d times", c.Amount, payee, c.Uses)); err != nil {
		return Coupon{}, err
	}
	t.ledger.Put(couponByPayee.key(payee, c.ID), []byte{})
	if err := t.put(couponByCode.key(c.Code), c.ID); err != nil {
		return Coupon{}, err
	}
	return c, t.put(couponTable.key(c.ID), c)
}

// RevokeCoupon ends a coupon: it can't be redeemed any more. Credit that was given for it stays valid.
func (t *Tx) RevokeCoupon(by Actor, id string) (Coupon, error) {
	if err := by.mayMove(); err != nil {
		return Coupon{}, err
	}
	c, found, err := couponByID(t.ledger, id)
	if err != nil {
		return Coupon{}, err
	}
	if !found || !by.Operator && by.Agent != c.Payee {
		return Coupon{}, noCoupon("id", id)
	}
	if _, err := t.issues(by, c.Payee); err != nil {
		return Coupon{}, err
	}
	if !c.RevokedAt.IsZero() {
		return Coupon{}, refuse(InvalidStatus, nil, "the coupon was revoked on %s", c.RevokedAt.Format(time.RFC3339))
	}
	if err := t.audit(by, "coupon.revoke", c.ID, ""); err != nil {
		return Coupon{}, err
	}
	c.RevokedAt = t.Now()
	return c, t.put(couponTable.key(c.ID), c)
}

// RedeemCoupon gives an agent the credit of a coupon, once. Refused: not_found for an unknown code, already_exists for the second time,
// invalid_status if the coupon is revoked, over, or used up.
func (t *Tx) RedeemCoupon(by Actor, agent, code string) (Credit, error) {
	agent, err := t.actsFor(by, "agent_id", agent)
	if err != nil {
		return Credit{}, err
	}
	c, found, err := t.couponOf(code)
	if err != nil {
		return Credit{}, err
	}
	if !found {
		return Credit{}, noCoupon("code", code)
	}
	if err := t.checkPair(agent, "code", c.Payee); err != nil {
		return Credit{}, err
	}
	if err := by.mayPay(c.Payee); err != nil {
		return Credit{}, err
	}
	mark := redeemedTable.key(c.ID, agent)
	if redeemed, err := t.ledger.Get(mark); err != nil {
		return Credit{}, err
	} else if redeemed != nil {
		return Credit{}, refuse(AlreadyExists, map[string]string{"coupon_id": c.ID}, "%q has redeemed this coupon already: each agent may do so once", agent)
	}
	if err := c.redeemable(t.Now()); err != nil {
		return Credit{}, err
	}
	c.Redeemed++
	t.ledger.Put(mark, []byte{1})
	if err := t.put(couponTable.key(c.ID), c); err != nil {
		return Credit{}, err
	}
	credit := Credit{Payee: c.Payee, Agent: agent, Amount: c.Amount, CouponID: c.ID, Memo: c.Memo}
	if c.Valid > 0 {
		credit.ExpiresAt = t.Now().Add(c.Valid)
	}
	if err := t.issue(&credit); err != nil {
		return Credit{}, err
	}
	return credit, t.audit(by, "coupon.redeem", c.ID, "for "+agent)
}

func (c Coupon) redeemable(now time.Time) error {
	switch {
	case !c.RevokedAt.IsZero():
		return refuse(InvalidStatus, nil, "the coupon was revoked")
	case !c.RedeemBy.IsZero() && !c.RedeemBy.After(now):
		return refuse(InvalidStatus, nil, "the coupon could be redeemed until %s", c.RedeemBy.Format(time.RFC3339))
	case c.Redeemed >= c.Uses:
		return refuse(InvalidStatus, nil, "the coupon has no uses left")
	default:
		return nil
	}
}

func (t *Tx) couponOf(code string) (c Coupon, found bool, err error) {
	if len(code) > maxID {
		return c, false, nil
	}
	var id string
	if found, err = load(t.ledger, couponByCode.key(code), &id); err != nil || !found {
		return c, false, err
	}
	return couponByID(t.ledger, id)
}

func couponByID(r ledger.Reader, id string) (c Coupon, found bool, err error) {
	if len(id) > maxID {
		return c, false, nil
	}
	found, err = load(r, couponTable.key(id), &c)
	return c, found, err
}

// noCoupon says that there is no such coupon. It does not repeat the code, which may be a valid code with a typo.
func noCoupon(field, what string) error {
	if field == "code" {
		return refuse(NotFound, map[string]string{"field": field}, "no coupon has this code")
	}
	return refuse(NotFound, nil, "no coupon %.80q", what)
}

// Coupons lists the coupons that an agent has issued, newest first.
func (b *Book) Coupons(agent string, p Page) (coupons []Coupon, next string, err error) {
	l := list[Coupon]{table: couponByPayee, parts: []string{agent}, item: func(r ledger.Reader, id string, _ []byte) (Coupon, bool, error) {
		return couponByID(r, id)
	}}
	err = b.view(func(r ledger.Reader) error {
		coupons, next, err = l.page(r, p)
		return err
	})
	return coupons, next, err
}
