package escrow_test

import (
	"context"
	"fmt"
	"time"

	"pgregory.net/rapid"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// hold opens a hold: by its payer, or by its payee under an allowance.
func (w *world) hold(t *rapid.T) {
	from, to := pair(t)
	parties := [2]string{from, to}
	e := &modelEscrow{from: from, to: to, amount: some(t, "amount"), status: "open", way: "refund", hold: true}
	o := escrow.HoldOrder{Payee: to, Amount: e.amount, For: time.Duration(rapid.IntRange(1, 200).Draw(t, "hours")) * time.Hour}
	e.due = w.model.now.Add(o.For)
	who, want := from, ""
	if e.amount > w.model.available(from) {
		want = "insufficient_funds"
	}
	if rapid.Bool().Draw(t, "by payee") {
		who, o.Payer, e.allowed = to, from, w.model.allowed[parties]
		if e.allowed == nil {
			want = "forbidden"
		} else if w.model.allowances[parties] < e.amount {
			want = "limit_exceeded"
		}
	}
	made, err := do(w.shop, func(tx *escrow.Tx) (escrow.Escrow, error) { return tx.OpenHold(actor(who), o) })
	w.agrees(t, err, want)
	if want != "" {
		return
	}
	e.id = made.ID
	w.model.wallets[from] -= e.amount
	if e.allowed != nil {
		w.model.allowances[parties] -= e.amount
	}
	w.model.escrows = append(w.model.escrows, e)
}

// reference draws one of a few references, so that some are used again. It returns what the model expects, if the reference decides that.
func (w *world) reference(t *rapid.T, payee, content string) (reference, want string, again bool) {
	reference = rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f", "g", "h"}).Draw(t, "reference")
	switch was := w.model.references[[2]string{payee, reference}]; was {
	case "":
		return reference, "", false
	case content:
		return reference, "", true
	default:
		return reference, "already_exists", false
	}
}

func (w *world) capture(t *rapid.T) {
	e, by, final := w.pickOf(t, true), some(t, "amount"), rapid.IntRange(0, 3).Draw(t, "final") == 0
	content := fmt.Sprint(e.id, by, final)
	reference, want, again := w.reference(t, e.to, content)
	if want == "" && !again {
		if e.remaining() == 0 {
			want = "invalid_status"
		} else if by > e.remaining() {
			want = "exceeds_remaining"
		}
	}
	c, err := do(w.shop, func(tx *escrow.Tx) (escrow.Captured, error) {
		return tx.CaptureHold(actor(e.to), e.id, escrow.CaptureOrder{Amount: by, Reference: reference, Final: final})
	})
	w.agrees(t, err, want)
	if c.Repeated != again && err == nil {
		t.Fatalf("repeated is %v", c.Repeated)
	}
	if want != "" || again {
		return
	}
	w.model.references[[2]string{e.to, reference}] = content
	before := e.fee
	w.model.out(e, "release", by)
	w.charge(c.Charge, by, e.fee-before)
	e.served = true
	if final {
		w.model.out(e, "refund", e.remaining())
	}
	w.model.settled(e)
}

// charge notes a charge that was not a call.
func (w *world) charge(c escrow.Charge, amount, fee ledger.Amount) {
	w.model.charges = append(w.model.charges, &modelCharge{request: c.RequestID, payer: c.Payer, payee: c.Payee, amount: amount, fee: fee, at: w.model.now})
}

func (w *world) void(t *rapid.T) {
	e := w.pickOf(t, true)
	who, want := rapid.SampledFrom([]string{e.to, e.from, "operator"}).Draw(t, "who"), ""
	if who == e.from {
		want = "forbidden"
	}
	if e.remaining() == 0 {
		want = "invalid_status"
	}
	w.act(t, want, func(tx *escrow.Tx) (escrow.Escrow, error) { return tx.VoidHold(actor(who), e.id) }, func() { w.model.finish(e, "refund") })
}

// mistake takes a hold for another escrow, or another escrow for a hold.
func (w *world) mistake(t *rapid.T) {
	hold := rapid.Bool().Draw(t, "a hold")
	e := w.pickOf(t, hold)
	acts := []func(*escrow.Tx) (escrow.Escrow, error){
		func(tx *escrow.Tx) (escrow.Escrow, error) { return tx.VoidHold(operator, e.id) },
		func(tx *escrow.Tx) (escrow.Escrow, error) {
			c, err := tx.CaptureHold(actor(e.to), e.id, escrow.CaptureOrder{Amount: 1, Reference: "mistake"})
			return c.Hold, err
		},
	}
	if hold {
		acts = []func(*escrow.Tx) (escrow.Escrow, error){
			func(tx *escrow.Tx) (escrow.Escrow, error) { return tx.Release(actor(e.from), e.id, "") },
			func(tx *escrow.Tx) (escrow.Escrow, error) { return tx.ReleasePartial(actor(e.from), e.id, 1, "") },
			func(tx *escrow.Tx) (escrow.Escrow, error) { return tx.Refund(actor(e.from), e.id, 0, "") },
			func(tx *escrow.Tx) (escrow.Escrow, error) { return tx.Refund(actor(e.to), e.id, 0, "") },
			func(tx *escrow.Tx) (escrow.Escrow, error) { return tx.Dispute(actor(e.from), e.id, "") },
			func(tx *escrow.Tx) (escrow.Escrow, error) { return tx.Resolve(operator, e.id, escrow.Resolution{}) },
		}
	}
	w.act(t, "not_found", rapid.SampledFrom(acts).Draw(t, "act"), nil)
}

func (w *world) allow(t *rapid.T) {
	from, to := pair(t)
	by := some(t, "amount")
	must(t, w.run(func(tx *escrow.Tx) error { _, err := tx.SetAllowance(actor(from), "", to, by); return err }))
	w.model.allowances[[2]string{from, to}] = by
	w.model.allowed[[2]string{from, to}] = new(struct{ int })
}

// report reports work: under an allowance, or under a hold.
func (w *world) report(t *rapid.T) {
	from, to := pair(t)
	var e *modelEscrow
	if rapid.Bool().Draw(t, "by hold") {
		e = w.pickOf(t, true)
		from, to = e.from, e.to
	}
	parties, cost := [2]string{from, to}, some(t, "cost")
	o := escrow.ReportOrder{Payer: from, Route: "/jobs", Units: map[string]string{"job": cost.String()}}
	if e != nil {
		o.Hold = e.id
	}
	content := fmt.Sprint("report", from, o.Hold, cost)
	reference, want, again := w.reference(t, to, content)
	o.Reference = reference
	if want == "" && !again {
		want = w.model.mayReport(parties, e, cost)
	}
	r, err := do(w.shop, func(tx *escrow.Tx) (escrow.Reported, error) {
		return tx.Report(actor(to), o, func(o escrow.ReportOrder) (escrow.CallOrder, escrow.Settlement, error) {
			return escrow.CallOrder{By: by(from), Payee: to, Credit: true}, escrow.Settlement{Amount: cost}, nil
		})
	})
	w.agrees(t, err, want)
	if r.Repeated != again && err == nil {
		t.Fatalf("repeated is %v", r.Repeated)
	}
	if want != "" || again {
		return
	}
	w.model.references[[2]string{to, reference}] = content
	if e != nil {
		before := e.fee
		w.model.out(e, "release", cost)
		w.charge(r.Charge, cost, e.fee-before)
		w.model.settled(e)
		return
	}
	fee := w.model.share(to, cost)
	w.model.allowances[parties] -= cost
	w.model.wallets[from] -= cost
	w.model.wallets[to] += cost - fee
	w.model.commission += fee
	w.charge(r.Charge, cost, fee)
}

func (m *model) mayReport(parties [2]string, e *modelEscrow, cost ledger.Amount) string {
	switch {
	case e != nil && e.remaining() == 0:
		return "invalid_status"
	case e != nil && cost > e.remaining():
		return "exceeds_remaining"
	case e != nil:
		return ""
	case m.allowed[parties] == nil:
		return "forbidden"
	case m.allowances[parties] < cost:
		return "limit_exceeded"
	case cost > m.available(parties[0]):
		return "insufficient_funds"
	default:
		return ""
	}
}

// status is the status of a charge.
func (c *modelCharge) status() string {
	switch {
	case c.open:
		return "disputed"
	case c.refunded == 0:
		return "charged"
	case c.refunded < c.amount:
		return "partly_refunded"
	default:
		return "refunded"
	}
}

// mayPayBack returns the outcome of refunding a part of a charge.
func (m *model) mayPayBack(c *modelCharge, by ledger.Amount) string {
	if by > m.available(c.payee)+m.feeBack(c, by) {
		return "insufficient_funds"
	}
	return ""
}

func (m *model) feeBack(c *modelCharge, by ledger.Amount) ledger.Amount {
	back, err := c.fee.MulDiv(uint64(c.refunded+by), uint64(c.amount))
	if err != nil {
		panic(err)
	}
	return back - c.feeBack
}

func (m *model) payBack(c *modelCharge, by ledger.Amount) {
	back := m.feeBack(c, by)
	c.refunded += by
	c.feeBack += back
	m.commission -= back
	m.wallets[c.payee] -= by - back
	m.wallets[c.payer] += by
	if c.refunded == c.amount {
		c.open = false
	}
}

func (w *world) pickCharge(t *rapid.T) *modelCharge {
	if len(w.model.charges) == 0 {
		t.Skip("no charge")
	}
	return rapid.SampledFrom(w.model.charges).Draw(t, "charge")
}

// contest disputes a charge.
func (w *world) contest(t *rapid.T) {
	c := w.pickCharge(t)
	want := ""
	if c.contested || c.amount == 0 || c.refunded == c.amount || !w.model.now.Before(c.at.Add(72*time.Hour)) {
		want = "invalid_status"
	}
	who := rapid.SampledFrom([]string{c.payer, c.payee}).Draw(t, "who")
	if who == c.payee {
		want = "forbidden"
	}
	w.agrees(t, w.run(func(tx *escrow.Tx) error { _, err := tx.DisputeCharge(actor(who), c.request, ""); return err }), want)
	if want == "" {
		c.contested, c.open = true, true
	}
}

func (w *world) uncontest(t *rapid.T) {
	c := w.pickCharge(t)
	want := ""
	if !c.open {
		want = "invalid_status"
	}
	w.agrees(t, w.run(func(tx *escrow.Tx) error { _, err := tx.WithdrawDispute(actor(c.payer), c.request); return err }), want)
	if want == "" {
		c.open = false
	}
}

// decideCharge resolves the dispute of a charge.
func (w *world) decideCharge(t *rapid.T) {
	c := w.pickCharge(t)
	by := ledger.Amount(rapid.Int64Range(0, int64(c.amount-c.refunded)).Draw(t, "to payer"))
	want := ""
	switch {
	case !c.open:
		want = "invalid_status"
	case by > 0:
		want = w.model.mayPayBack(c, by)
	}
	w.agrees(t, w.run(func(tx *escrow.Tx) error { _, err := tx.ResolveCharge(operator, c.request, by, ""); return err }), want)
	if want != "" {
		return
	}
	if c.open = false; by > 0 {
		w.model.payBack(c, by)
	}
}

// modelSub is a subscription in its first period, which is longer than any history.
type modelSub struct {
	id     string
	price  *modelEscrow
	start  time.Time
	served bool
}

const modelPeriod = 2000 * 24 * time.Hour

// modelPlans are flat plans of all agents.
func modelPlans() (plans []escrow.Plan) {
	for _, name := range names {
		plans = append(plans, escrow.Plan{Payee: name, Name: "flat", Price: 100*ledger.Unit + 7, Period: modelPeriod})
	}
	return plans
}

func (w *world) subscribe(t *rapid.T) {
	from, to := pair(t)
	parties, want := [2]string{from, to}, ""
	e := &modelEscrow{from: from, to: to, amount: 100*ledger.Unit + 7, status: "open", way: "release", period: true, due: w.model.now.Add(modelPeriod)}
	if w.model.subs[parties] != nil {
		want = "already_exists"
	} else if e.amount > w.model.available(from) {
		want = "insufficient_funds"
	}
	s, err := do(w.shop, func(tx *escrow.Tx) (escrow.Subscription, error) {
		return tx.Subscribe(actor(from), escrow.SubscriptionOrder{Payee: to, Plan: "flat"})
	})
	w.agrees(t, err, want)
	if want == "" {
		e.id = s.EscrowID
		w.model.wallets[from] -= e.amount
		w.model.escrows = append(w.model.escrows, e)
		w.model.subs[parties] = &modelSub{id: s.ID, price: e, start: w.model.now}
	}
}

// serves reports whether the period's money still pays for calls.
func (s *modelSub) serves() bool {
	e := s.price
	if e.status == "refund_requested" || e.status == "disputed" {
		return false
	}
	return e.refunded < e.amount && (e.remaining() > 0 || e.released >= e.refunded)
}

// subcall makes a call that a subscription pays.
func (w *world) subcall(t *rapid.T) {
	from, to := pair(t)
	w.model.tick()
	s, want := w.model.subs[[2]string{from, to}], ""
	if s == nil || !s.serves() {
		want = "subscription_required"
	}
	c := &modelCall{request: w.NewRequestID(), payer: from, payee: to}
	real, err := w.Authorise(context.Background(), escrow.CallOrder{Request: c.request, By: actor(from), Payee: to, From: escrow.FromSubscription, Plan: "flat", Over: centPerUnit})
	w.agrees(t, err, want)
	if want != "" {
		return
	}
	_, err = real.Settle(context.Background(), escrow.Settlement{})
	must(t, err)
	if s.served = true; s.price.remaining() > 0 {
		s.price.served = true
	}
	w.charged(c)
}

// cancelsub cancels a subscription: by its payer, its payee or the operator.
func (w *world) cancelsub(t *rapid.T) {
	from, to := pair(t)
	parties := [2]string{from, to}
	w.catchUp()
	w.model.tick()
	s := w.model.subs[parties]
	if s == nil {
		t.Skip("no subscription")
	}
	who, want := rapid.SampledFrom([]string{from, to, "operator"}).Draw(t, "who"), ""
	e := s.price
	moves := e.status == "open" && e.closing == "" && e.remaining() > 0
	if moves && who == from && s.served {
		want = "forbidden"
	}
	w.agrees(t, w.run(func(tx *escrow.Tx) error { _, err := tx.CancelSubscription(actor(who), s.id); return err }), want)
	if want != "" {
		return
	}
	delete(w.model.subs, parties)
	if !moves {
		return
	}
	gone := w.model.now.Sub(s.start)
	used, err := e.amount.MulDiv(uint64(gone), uint64(modelPeriod))
	must(t, err)
	w.model.out(e, "refund", min(e.amount-used, e.remaining()))
	w.model.finish(e, "release")
}

// compareTerms compares allowances and subscriptions.
func (w *world) compareTerms(check func(what string, got, want any)) {
	for parties, left := range w.model.allowances {
		a, err := w.Allowance(parties[0], parties[1])
		must(w.t, err)
		check(fmt.Sprintf("allowance of %v", parties), a.Left, left)
	}
	for parties, s := range w.model.subs {
		real, err := w.Subscription(context.Background(), operator, s.id)
		must(w.t, err)
		check(fmt.Sprintf("subscription of %v", parties), real.Status, "active")
	}
}
