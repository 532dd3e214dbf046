package escrow_test

import (
	"context"
	"fmt"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// world is the books and their model side by side.
type world struct {
	*shop
	model *model
	t     *rapid.T
}

// agrees compares an outcome with the model's.
func (w *world) agrees(t *rapid.T, err error, want string) {
	got := string(ledger.OutcomeOf(err))
	if err != nil && got == "" {
		t.Fatal(err)
	}
	if got != want {
		t.Fatalf("the books say %q (%v), the model %q", got, err, want)
	}
}

func (w *world) compare() {
	ctx := context.Background()
	w.catchUp() // an act may leave something that is due at once, such as an escrow whose refund request was withdrawn after its time
	w.model.tick()
	check := func(what string, got, want any) {
		if fmt.Sprint(got) != fmt.Sprint(want) {
			w.t.Fatalf("%s: the books say %v, the model %v", what, got, want)
		}
	}
	for _, name := range names {
		wallet, err := w.Wallet(ctx, name)
		must(w.t, err)
		check("balance of "+name, wallet.Balance, w.model.wallets[name])
		check("available to "+name, wallet.Available, w.model.available(name))
	}
	wallet, err := w.Wallet(ctx, "commission")
	must(w.t, err)
	check("commission", wallet.Balance, w.model.commission)
	for _, m := range w.model.escrows {
		read := w.Escrow
		if m.hold {
			read = w.Hold
		}
		e, err := read(ctx, operator, m.id)
		must(w.t, err)
		// Of escrows that end at the same time, either may pay the nano that their commissions make together.
		if e.Commission == m.fee-1 || e.Commission == m.fee+1 {
			m.fee = e.Commission
		}
		check("escrow "+m.id, fmt.Sprint(e.Status, e.Released, e.Refunded, e.Held, e.Commission, e.Closing),
			fmt.Sprint(m.status, m.released, m.refunded, w.model.held("", m), m.fee, m.closing))
	}
	for _, name := range names {
		for _, holds := range []bool{false, true} {
			active, _, err := w.Escrows(ctx, escrow.EscrowFilter{Agent: name, Status: "active", Role: "payer", Holds: holds}, escrow.Page{Limit: 500})
			must(w.t, err)
			want := 0
			for _, e := range w.model.escrows {
				if e.from == name && e.remaining() > 0 && e.hold == holds {
					want++
				}
			}
			check("active escrows of "+name, len(active), want)
		}
	}
	w.compareTerms(check)
	for _, c := range w.model.charges {
		real, err := w.Charge(context.Background(), operator, c.request)
		must(w.t, err)
		check("charge "+c.request, fmt.Sprint(real.Status, real.Amount, real.Commission, real.Refunded, real.CommissionBack), fmt.Sprint(c.status(), c.amount, c.fee, c.refunded, c.feeBack))
	}
}

// some draws an amount: often a round one, sometimes one of a few nanos.
func some(t *rapid.T, label string) ledger.Amount {
	if rapid.IntRange(0, 3).Draw(t, label+" fine") == 0 {
		return ledger.Amount(rapid.Int64Range(1, 300_000_000_000).Draw(t, label))
	}
	return ledger.Amount(rapid.Int64Range(1, 300).Draw(t, label)) * ledger.Unit
}

func pair(t *rapid.T) (from, to string) {
	i := rapid.IntRange(0, len(names)-1).Draw(t, "from")
	return names[i], names[(i+rapid.IntRange(1, len(names)-1).Draw(t, "to"))%len(names)]
}

func (w *world) transfer(t *rapid.T) {
	from, to := pair(t)
	by := some(t, "amount")
	want := ""
	if by > w.model.available(from) {
		want = "insufficient_funds"
	} else {
		w.model.wallets[from] -= by
		w.model.wallets[to] += by
	}
	w.agrees(t, w.run(func(tx *escrow.Tx) error {
		_, err := tx.Transfer(actor(from), escrow.PaymentOrder{To: to, Amount: by})
		return err
	}), want)
}

func (w *world) debit(t *rapid.T) {
	from, to := pair(t)
	by := some(t, "amount")
	want := ""
	if by > w.model.available(from) {
		want = "insufficient_funds"
	} else {
		fee := w.model.share(to, by)
		w.model.wallets[from] -= by
		w.model.wallets[to] += by - fee
		w.model.commission += fee
	}
	w.agrees(t, w.run(func(tx *escrow.Tx) error {
		_, err := tx.Debit(operator, escrow.PaymentOrder{From: from, To: to, Amount: by})
		return err
	}), want)
}

func (w *world) create(t *rapid.T) {
	from, to := pair(t)
	e := &modelEscrow{from: from, to: to, amount: some(t, "amount"), status: "open", way: rapid.SampledFrom([]string{"release", "refund"}).Draw(t, "way")}
	o := escrow.EscrowOrder{To: to, Amount: e.amount, OnExpiry: escrow.Way(e.way)}
	if hours := rapid.IntRange(0, 200).Draw(t, "hours"); hours < 100 {
		o.AutoRelease = time.Duration(hours+1) * time.Hour
		e.due = w.model.now.Add(o.AutoRelease)
	}
	want := ""
	if e.amount > w.model.available(from) {
		want = "insufficient_funds"
	}
	made, err := do(w.shop, func(tx *escrow.Tx) (escrow.Escrow, error) { return tx.CreateEscrow(actor(from), o) })
	w.agrees(t, err, want)
	if want == "" {
		e.id = made.ID
		w.model.wallets[from] -= e.amount
		w.model.escrows = append(w.model.escrows, e)
	}
}

// pick draws an escrow that is no hold, most often one that contains money.
func (w *world) pick(t *rapid.T) *modelEscrow { return w.pickOf(t, false) }

func (w *world) pickOf(t *rapid.T, holds bool) *modelEscrow {
	w.model.tick()
	var all, active []*modelEscrow
	for _, e := range w.model.escrows {
		if e.hold != holds {
			continue
		}
		if all = append(all, e); e.remaining() > 0 {
			active = append(active, e)
		}
	}
	if len(active) > 0 && rapid.IntRange(0, 9).Draw(t, "closed") > 0 {
		return rapid.SampledFrom(active).Draw(t, "escrow")
	}
	if len(all) == 0 {
		t.Skip("no escrow")
	}
	return rapid.SampledFrom(all).Draw(t, "escrow")
}

func (e *modelEscrow) movable() bool {
	return e.closing == "" && (e.status == "open" || e.status == "refund_requested")
}

// act runs an act on an escrow, and the model's if it is not to be refused.
func (w *world) act(t *rapid.T, want string, real func(*escrow.Tx) (escrow.Escrow, error), plain func()) {
	w.agrees(t, w.run(func(tx *escrow.Tx) error { _, err := real(tx); return err }), want)
	if want == "" {
		plain()
	}
}

func (w *world) release(t *rapid.T) {
	e := w.pick(t)
	want := ""
	if !e.movable() {
		want = "invalid_status"
	}
	w.act(t, want, func(tx *escrow.Tx) (escrow.Escrow, error) { return tx.Release(actor(e.from), e.id, "") }, func() { w.model.finish(e, "release") })
}

func (w *world) part(t *rapid.T) {
	e, by := w.pick(t), some(t, "amount")
	want := ""
	if e.status == "released" {
		want = "exceeds_remaining" // nothing is left
	} else if !e.movable() {
		want = "invalid_status"
	} else if by > w.model.free(e) {
		want = "exceeds_remaining"
	}
	w.act(t, want, func(tx *escrow.Tx) (escrow.Escrow, error) { return tx.ReleasePartial(actor(e.from), e.id, by, "") }, func() {
		w.model.out(e, "release", by)
		e.asked = min(e.asked, e.remaining())
		w.model.settled(e)
	})
}

func (w *world) refund(t *rapid.T) {
	e, byPayer := w.pick(t), rapid.Bool().Draw(t, "by payer")
	by := ledger.Amount(0)
	if rapid.Bool().Draw(t, "part") {
		by = some(t, "amount")
	}
	who, want := e.to, ""
	if byPayer {
		who = e.from
	}
	if !e.movable() || byPayer && e.status != "open" {
		want = "invalid_status"
	}
	if e.movable() && by > w.model.free(e) {
		want = "exceeds_remaining"
	}
	w.act(t, want, func(tx *escrow.Tx) (escrow.Escrow, error) { return tx.Refund(actor(who), e.id, by, "") }, func() {
		if byPayer {
			e.status, e.asked, e.silence = "refund_requested", by, w.model.now.Add(72*time.Hour)
			return
		}
		w.model.giveBack(e, by)
	})
}

func (w *world) withdraw(t *rapid.T) {
	e := w.pick(t)
	want := ""
	if e.status != "refund_requested" {
		want = "invalid_status"
	}
	w.act(t, want, func(tx *escrow.Tx) (escrow.Escrow, error) { return tx.WithdrawRefund(actor(e.from), e.id) }, func() { e.status, e.asked = "open", 0 })
}

func (w *world) dispute(t *rapid.T) {
	e := w.pick(t)
	want := ""
	if !e.movable() {
		want = "invalid_status"
	}
	w.act(t, want, func(tx *escrow.Tx) (escrow.Escrow, error) { return tx.Dispute(actor(e.to), e.id, "") }, func() { e.status = "disputed" })
}

func (w *world) resolve(t *rapid.T) {
	e := w.pick(t)
	free := w.model.free(e)
	toPayee := ledger.Amount(rapid.Int64Range(0, int64(free)).Draw(t, "to payee"))
	want := ""
	if e.status != "disputed" && e.status != "refund_requested" {
		want = "invalid_status"
	}
	w.act(t, want, func(tx *escrow.Tx) (escrow.Escrow, error) {
		return tx.Resolve(operator, e.id, escrow.Resolution{ToPayee: toPayee, ToPayer: free - toPayee})
	}, func() {
		w.model.out(e, "release", toPayee)
		w.model.out(e, "refund", free-toPayee)
		e.status, e.asked = "open", 0
		if e.remaining() > 0 {
			e.closing = "refund"
			if free == toPayee {
				e.closing = "release"
			}
		}
		w.model.settled(e)
	})
}

func (w *world) call(t *rapid.T) {
	from, to := pair(t)
	c := &modelCall{request: w.NewRequestID(), payer: from, payee: to}
	o := escrow.CallOrder{Request: c.request, By: actor(from), Payee: to, Least: some(t, "least"), Most: some(t, "most")}
	want, free := "", w.model.available(from)
	if rapid.Bool().Draw(t, "from escrow") && slices.ContainsFunc(w.model.escrows, func(e *modelEscrow) bool { return !e.hold }) {
		e := w.pick(t)
		c.payer, c.payee, c.escrow = e.from, e.to, e
		o.By, o.Payee, o.From, o.Escrow = actor(e.from), e.to, escrow.FromEscrow, e.id
		free = w.model.free(e)
		if e.status != "open" || e.closing != "" {
			want = "invalid_status"
		}
		if e.period {
			want = "forbidden"
		}
	}
	if want == "" && o.Least > free {
		want = "insufficient_funds"
	}
	real, err := w.Authorise(context.Background(), o)
	w.agrees(t, err, want)
	if want == "" {
		c.real, c.total = real, max(o.Least, min(o.Most, free))
		w.model.calls = append(w.model.calls, c)
	}
}

func (w *world) running(t *rapid.T) *modelCall {
	w.model.tick()
	if len(w.model.calls) == 0 {
		t.Skip("no call")
	}
	return rapid.SampledFrom(w.model.calls).Draw(t, "call")
}

// room is how much more a call could authorise.
func (w *world) room(c *modelCall) ledger.Amount {
	if c.escrow == nil {
		return w.model.available(c.payer)
	}
	if c.escrow.status != "open" || c.escrow.closing != "" {
		return 0
	}
	return w.model.free(c.escrow)
}

func (w *world) extend(t *rapid.T) {
	c := w.running(t)
	total := c.total + some(t, "more")
	w.catchUp()
	c.total = min(total, c.total+w.room(c))
	if got := c.real.ExtendUpTo(total); got != c.total {
		t.Fatalf("extended to %s, the model says %s", got, c.total)
	}
}

func (w *world) draw(t *rapid.T) {
	c, exact := w.running(t), rapid.Bool().Draw(t, "exact")
	due := some(t, "due")
	w.catchUp()
	c.real.Draw(due, exact)
	must(t, c.real.Await())
	by := min(due, c.total) - c.posted - c.pending
	if by <= 0 {
		return
	}
	if exact {
		w.model.pay(c, by)
	} else {
		c.pending += by
	}
}

func (w *world) settle(t *rapid.T) {
	c, due := w.running(t), some(t, "due")
	if rapid.IntRange(0, 4).Draw(t, "free") == 0 {
		due = 0
	}
	w.catchUp()
	c.total = max(c.total, min(due, c.total+w.room(c)))
	charge, err := c.real.Settle(context.Background(), escrow.Settlement{Amount: due})
	must(t, err)
	w.model.pay(c, max(0, min(due, c.total)-c.posted))
	if charge.Suspect != (c.posted != due) {
		t.Fatalf("suspect is %v: %s of %s", charge.Suspect, c.posted, due)
	}
	w.charged(c)
}

func (w *world) charged(c *modelCall) {
	w.model.over(c)
	w.model.charges = append(w.model.charges, &modelCharge{request: c.request, payer: c.payer, payee: c.payee, amount: c.posted, fee: c.fee, at: w.model.now})
}

func (w *world) cancel(t *rapid.T) {
	c := w.running(t)
	w.catchUp()
	c.real.Cancel()
	c.real.Cancel()
	must(t, w.run(func(*escrow.Tx) error { return nil })) // it is queued before this
	if c.posted > 0 {
		w.charged(c)
	} else {
		w.model.over(c)
	}
}

func (w *world) back(t *rapid.T) {
	if len(w.model.charges) == 0 {
		t.Skip("no charge")
	}
	c := rapid.SampledFrom(w.model.charges).Draw(t, "charge")
	left := c.amount - c.refunded
	want, by := "", ledger.Amount(0)
	if left > 0 {
		by = ledger.Amount(rapid.Int64Range(1, int64(left)).Draw(t, "amount"))
		want = w.model.mayPayBack(c, by)
	} else {
		want = "invalid_status"
	}
	w.agrees(t, w.run(func(tx *escrow.Tx) error { _, err := tx.RefundCharge(actor(c.payee), c.request, by, ""); return err }), want)
	if want == "" {
		w.model.payBack(c, by)
	}
}

// wait moves the clock, sometimes back; the ledger's time never goes back.
func (w *world) wait(t *rapid.T) {
	hours := rapid.IntRange(-50, 80).Draw(t, "hours")
	w.clock.advance(time.Duration(hours) * time.Hour)
	w.model.now = w.Now()
	w.catchUp()
}

// reopen simulates that the process dies: calls are lost, except for what they have drawn.
func (w *world) reopen(t *rapid.T) {
	w.shop.t = t
	w.shop.reopen()
	w.model.now = w.Now() // that of the last operation that wrote something, where the clock has gone back since
	for len(w.model.calls) > 0 {
		c := w.model.calls[0]
		drawn := c.pending
		c.pending = 0
		w.model.pay(c, drawn)
		if c.posted > 0 {
			w.charged(c)
		} else {
			w.model.over(c)
		}
	}
}
