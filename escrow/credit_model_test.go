package escrow_test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// TestCreditModel runs random histories of credit, a wallet, calls, draws, refunds, expiry, revocation and crashes, and compares them with
// a simple model.
func TestCreditModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		dir, err := os.MkdirTemp("", "credit")
		must(r, err)
		by := rapid.SampledFrom(slices.Sorted(maps.Keys(ways))).Draw(r, "operations run")
		s := &shop{t: r, clock: newClock(), path: filepath.Join(dir, "ledger.db"), way: ways[by]}
		rules := defaultRules()
		rules.CommissionPPM = rapid.SampledFrom([]int64{0, 10_000, 333_333}).Draw(r, "commission")
		s.open(rules)
		defer func() { _ = s.Ledger().Close(); _ = os.RemoveAll(dir) }()
		w := &creditWorld{shop: s, model: &model{ppm: rules.CommissionPPM, wallets: map[string]ledger.Amount{}, earned: map[string]ledger.Amount{}}}
		s.agents("200", "ann")
		w.model.wallets["ann"] = amount("200")
		s.agents("0", payees...)
		r.Repeat(map[string]func(*rapid.T){
			"": w.compare, "issue": w.issue, "revoke": w.revoke, "call": w.call, "extend": w.extend, "draw": w.draw, "settle": w.settle,
			"cancel": w.cancel, "refund": w.refund, "wait": w.wait, "reopen": w.reopen,
		})
		s.sound()
	})
}

var payees = []string{"bob", "cyd"}

type creditWorld struct {
	*shop
	model   *model // its wallets and commission
	credits []*modelCredit
	calls   []*creditCall
	charges []*creditCharge
}

type modelCredit struct {
	id, payee                 string
	amount, left, used, ended ledger.Amount
	expires                   time.Time
	status                    string
}

// spot is an amount of one credit, or of money if the credit is nil.
type spot struct {
	credit *modelCredit
	amount ledger.Amount
}

type creditCall struct {
	real           *escrow.Authorisation
	request, payee string
	held           []*spot // credit in its order, then money
	pending        []spot
	posted         ledger.Amount
	fee            ledger.Amount
	credit         []spot // posted
}

type creditCharge struct {
	request, payee                                     string
	amount, fee, refunded, feeBack, credit, creditBack ledger.Amount
	parts                                              []spot // of credit, less what came back
}

func (c *creditCall) sum() (sum ledger.Amount) {
	for _, h := range c.held {
		sum += h.amount
	}
	return sum
}

func (c *creditCall) waits() (sum ledger.Amount) {
	for _, p := range c.pending {
		sum += p.amount
	}
	return sum
}

// free is the part of a credit, or of ann's money, that no call holds or has set aside.
func (w *creditWorld) free(of *modelCredit) ledger.Amount {
	free := w.model.wallets["ann"]
	if of != nil {
		free = of.left
	}
	for _, c := range w.calls {
		for _, h := range c.held {
			if h.credit == of {
				free -= h.amount
			}
		}
		for _, p := range c.pending {
			if p.credit == of {
				free -= p.amount
			}
		}
	}
	return free
}

func (w *creditWorld) usable(c *modelCredit) bool {
	return c.status == "active" && (c.expires.IsZero() || c.expires.After(w.Now()))
}

// sweep takes back the free part of credit that has ended.
func (w *creditWorld) sweep() {
	for _, c := range w.credits {
		if c.status == "active" && !w.usable(c) {
			c.status = "expired"
		}
		if c.status != "active" {
			free := w.free(c)
			c.left -= free
			c.ended += free
		}
	}
}

func (w *creditWorld) compare(t *rapid.T) {
	check := func(what string, got, want any) {
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("%s: the books say %v, the model %v", what, got, want)
		}
	}
	for _, name := range append([]string{"ann"}, payees...) {
		wallet, err := w.Wallet(context.Background(), name)
		must(t, err)
		check("balance of "+name, wallet.Balance, w.model.wallets[name])
	}
	wallet, err := w.Wallet(context.Background(), "ann")
	must(t, err)
	check("available to ann", wallet.Available, w.free(nil))
	for _, payee := range payees {
		want := ledger.Amount(0)
		for _, c := range w.credits {
			if c.payee == payee && w.usable(c) {
				want += w.free(c)
			}
		}
		got, err := w.UsableCredit("ann", payee)
		must(t, err)
		check("usable credit at "+payee, got, want)
	}
	for _, c := range w.credits {
		real, err := w.Credit(operator, c.id)
		must(t, err)
		check("credit "+c.id, fmt.Sprint(real.Left, real.Used(), real.Ended, real.Status), fmt.Sprint(c.left, c.used, c.ended, c.status))
	}
	for _, c := range w.charges {
		real, err := w.Charge(context.Background(), operator, c.request)
		must(t, err)
		check("charge "+c.request, fmt.Sprint(real.Amount, real.Credit, real.Commission, real.Refunded, real.CreditBack, real.CommissionBack),
			fmt.Sprint(c.amount, c.credit, c.fee, c.refunded, c.creditBack, c.feeBack))
	}
	money := w.model.commission
	for _, balance := range w.model.wallets {
		money += balance
	}
	check("money", money, amount("200"))
}

func (w *creditWorld) issue(t *rapid.T) {
	c := &modelCredit{payee: rapid.SampledFrom(payees).Draw(t, "payee"), amount: some(t, "amount"), status: "active"}
	if rapid.Bool().Draw(t, "expires") {
		c.expires = w.Now().Add(time.Duration(rapid.IntRange(1, 100).Draw(t, "hours")) * time.Hour)
	}
	unused := 0
	for _, other := range w.credits {
		if other.payee == c.payee && other.status == "active" && other.left > 0 {
			unused++
		}
	}
	made, err := do(w.shop, func(tx *escrow.Tx) (escrow.Credit, error) {
		return tx.IssueCredit(by(c.payee), escrow.CreditOrder{Agent: "ann", Amount: c.amount, ExpiresAt: c.expires})
	})
	if unused >= 20 {
		refused(t, err, escrow.LimitExceeded)
		return
	}
	must(t, err)
	c.id, c.left = made.ID, c.amount
	w.credits = append(w.credits, c)
}

func (w *creditWorld) revoke(t *rapid.T) {
	if len(w.credits) == 0 {
		t.Skip("no credit")
	}
	c := rapid.SampledFrom(w.credits).Draw(t, "credit")
	err := w.run(func(tx *escrow.Tx) error { _, err := tx.RevokeCredit(by(c.payee), c.id); return err })
	if c.status != "active" {
		refused(t, err, escrow.InvalidStatus)
		return
	}
	must(t, err)
	c.status = "revoked"
	free := w.free(c)
	c.left -= free
	c.ended += free
}

// take holds a further amount for a call, or as much as there is: credit first.
func (w *creditWorld) take(c *creditCall, by ledger.Amount) (got ledger.Amount) {
	for _, h := range c.held {
		part := max(0, min(by-got, w.free(h.credit)))
		h.amount += part
		got += part
	}
	return got
}

func (w *creditWorld) call(t *rapid.T) {
	c := &creditCall{request: w.NewRequestID(), payee: rapid.SampledFrom(payees).Draw(t, "payee")}
	least, most := some(t, "least"), some(t, "most")
	var usable []*modelCredit
	for _, credit := range w.credits {
		if credit.payee == c.payee && w.usable(credit) && credit.left > 0 {
			usable = append(usable, credit)
		}
	}
	slices.SortStableFunc(usable, func(a, b *modelCredit) int {
		if a.expires.IsZero() || b.expires.IsZero() {
			return cmp.Or(cmp.Compare(b.expires.Unix(), a.expires.Unix()), cmp.Compare(a.id, b.id))
		}
		return cmp.Or(a.expires.Compare(b.expires), cmp.Compare(a.id, b.id))
	})
	for _, credit := range usable {
		c.held = append(c.held, &spot{credit: credit})
	}
	c.held = append(c.held, &spot{})
	real, err := w.Authorise(context.Background(), escrow.CallOrder{Request: c.request, By: by("ann"), Payee: c.payee, Least: least, Most: most, Credit: true})
	w.calls = append(w.calls, c)
	if w.take(c, least) < least {
		w.calls = w.calls[:len(w.calls)-1]
		refused(t, err, escrow.InsufficientFunds)
		return
	}
	must(t, err)
	w.take(c, most-least)
	c.real = real
	w.holds(t, c)
}

func (w *creditWorld) holds(t *rapid.T, c *creditCall) {
	if got := c.real.Held(); got != c.sum() {
		t.Fatalf("the call holds %s, the model says %s", got, c.sum())
	}
	if got, _ := c.real.Credit(); got != c.sum()-c.held[len(c.held)-1].amount {
		t.Fatalf("the call holds credit of %s, the model says %s", got, c.sum()-c.held[len(c.held)-1].amount)
	}
}

func (w *creditWorld) running(t *rapid.T) *creditCall {
	if len(w.calls) == 0 {
		t.Skip("no call")
	}
	return rapid.SampledFrom(w.calls).Draw(t, "call")
}

func (c *creditCall) total() ledger.Amount { return c.posted + c.waits() + c.sum() }

func (w *creditWorld) extend(t *rapid.T) {
	c, more := w.running(t), some(t, "more")
	want := c.total() + more
	whole := rapid.Bool().Draw(t, "whole")
	if !whole {
		c.real.ExtendUpTo(want)
		w.take(c, more)
		w.holds(t, c)
		return
	}
	before := make([]spot, len(c.held))
	for i, h := range c.held {
		before[i] = *h
	}
	err := c.real.Extend(want)
	if w.take(c, more) == more {
		must(t, err)
	} else {
		refused(t, err, escrow.InsufficientFunds)
		for i := range c.held {
			*c.held[i] = before[i]
		}
	}
	w.holds(t, c)
}

// parts takes an amount from what a call holds, credit first.
func (c *creditCall) parts(amount ledger.Amount) (parts []spot) {
	for _, h := range c.held {
		if n := min(amount, h.amount); n > 0 {
			h.amount -= n
			amount -= n
			parts = append(parts, spot{h.credit, n})
		}
	}
	return parts
}

func (w *creditWorld) post(c *creditCall, parts []spot) {
	for _, p := range parts {
		c.posted += p.amount
		if p.credit == nil {
			fee := w.model.share(c.payee, p.amount)
			w.model.wallets["ann"] -= p.amount
			w.model.wallets[c.payee] += p.amount - fee
			w.model.commission += fee
			c.fee += fee
			continue
		}
		p.credit.left -= p.amount
		p.credit.used += p.amount
		at := slices.IndexFunc(c.credit, func(s spot) bool { return s.credit == p.credit })
		if at < 0 {
			c.credit = append(c.credit, p)
		} else {
			c.credit[at].amount += p.amount
		}
	}
}

func (w *creditWorld) draw(t *rapid.T) {
	c, due, exact := w.running(t), some(t, "due"), rapid.Bool().Draw(t, "exact")
	c.real.Draw(due, exact)
	must(t, c.real.Await())
	parts := c.parts(min(due-c.posted-c.waits(), c.sum()))
	if exact {
		w.post(c, parts)
	} else {
		c.pending = append(c.pending, parts...)
	}
}

// resolve posts an amount of what is set aside, the oldest first, and gives the rest back. It returns what is still due.
func (w *creditWorld) resolve(c *creditCall, due ledger.Amount) ledger.Amount {
	pending := c.pending
	c.pending = nil
	for _, p := range pending {
		p.amount = min(due, p.amount)
		due -= p.amount
		if p.amount > 0 {
			w.post(c, []spot{p})
		}
	}
	return due
}

func (w *creditWorld) settle(t *rapid.T) {
	c, due := w.running(t), some(t, "due")
	if rapid.IntRange(0, 4).Draw(t, "free") == 0 {
		due = 0
	}
	w.take(c, due-c.total())
	charge, err := c.real.Settle(context.Background(), escrow.Settlement{Amount: due})
	must(t, err)
	rest := w.resolve(c, max(0, min(due, c.total())-c.posted))
	w.post(c, c.parts(rest))
	if charge.Suspect != (c.posted != due) {
		t.Fatalf("suspect is %v: %s of %s", charge.Suspect, c.posted, due)
	}
	w.charged(c)
}

func (w *creditWorld) charged(c *creditCall) {
	w.over(c)
	charge := &creditCharge{request: c.request, payee: c.payee, amount: c.posted, fee: c.fee, parts: c.credit}
	for _, p := range c.credit {
		charge.credit += p.amount
	}
	w.charges = append(w.charges, charge)
}

func (w *creditWorld) over(c *creditCall) {
	w.calls = slices.DeleteFunc(w.calls, func(other *creditCall) bool { return other == c })
}

func (w *creditWorld) cancel(t *rapid.T) {
	c := w.running(t)
	c.real.Cancel()
	must(t, w.run(func(*escrow.Tx) error { return nil })) // it is queued before this
	w.resolve(c, 0)
	if c.posted > 0 {
		w.charged(c)
	} else {
		w.over(c)
	}
}

func (w *creditWorld) refund(t *rapid.T) {
	if len(w.charges) == 0 {
		t.Skip("no charge")
	}
	c := rapid.SampledFrom(w.charges).Draw(t, "charge")
	back := func(r ledger.Amount) error {
		return w.run(func(tx *escrow.Tx) error { _, err := tx.RefundCharge(by(c.payee), c.request, r, ""); return err })
	}
	left := c.amount - c.refunded
	if left == 0 {
		refused(t, back(1), escrow.InvalidStatus)
		return
	}
	r := ledger.Amount(rapid.Int64Range(1, int64(left)).Draw(t, "amount"))
	part := func(of ledger.Amount) ledger.Amount {
		p, err := of.MulDiv(uint64(c.refunded+r), uint64(c.amount))
		must(t, err)
		return p
	}
	credit, fee := part(c.credit)-c.creditBack, part(c.fee)-c.feeBack
	money := r - credit
	err := back(r)
	if money > w.model.wallets[c.payee]+fee {
		refused(t, err, escrow.InsufficientFunds)
		return
	}
	must(t, err)
	c.refunded += r
	c.creditBack += credit
	c.feeBack += fee
	w.model.commission -= fee
	w.model.wallets[c.payee] += fee - money
	w.model.wallets["ann"] += money
	for i := len(c.parts) - 1; i >= 0; i-- {
		p := &c.parts[i]
		n := min(credit, p.amount)
		p.amount -= n
		credit -= n
		if w.usable(p.credit) {
			p.credit.left += n
			p.credit.used -= n
		}
	}
}

func (w *creditWorld) wait(t *rapid.T) {
	w.clock.advance(time.Duration(rapid.IntRange(1, 60).Draw(t, "hours")) * time.Hour)
	w.catchUp()
	w.sweep()
}

// reopen ends the process: its calls are gone, except for what they have drawn.
func (w *creditWorld) reopen(t *rapid.T) {
	w.shop.t = t
	w.shop.reopen()
	for len(w.calls) > 0 {
		c := w.calls[0]
		c.held = nil
		w.resolve(c, c.waits())
		if c.posted > 0 {
			w.charged(c)
		} else {
			w.over(c)
		}
	}
}
