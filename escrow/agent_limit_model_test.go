package escrow_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/ledgertest"
)

// TestLimitsHoldInAnyMix runs random acts by several keys of one agent, with limits that the agent and the operator have set. It measures
// in the books what was spent. For limits of all keys, that is what has left the wallet and the escrows of meters. For a limit of one key,
// it is what that key's acts have paid out or locked, minus what the key had locked before. In no window may that be more than the limit.
// The books are those of one process, or of two that take the steps in any order.
func TestLimitsHoldInAnyMix(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		dir, err := os.MkdirTemp("", "limits")
		must(r, err)
		s := &shop{t: r, clock: newClock(), path: filepath.Join(dir, "ledger.db"), way: ways[rapid.SampledFrom([]string{"once", "twice", "again"}).Draw(r, "operations run")]}
		rules := period(defaultRules())
		rules.MinEscrow = 1
		if rapid.IntRange(0, 2).Draw(r, "processes share the ledger") == 0 {
			s.memory, s.nodes = new(ledgertest.Memory), make([]*escrow.Book, 2)
		}
		s.open(rules)
		defer func() { s.close(); _ = s.Ledger().Close(); _ = os.RemoveAll(dir) }()
		s.agents("1000", "alice", "shop", "mallory")
		m := &mix{shop: s, r: r, passed: map[string][]string{}, subs: map[string]*mixSub{}, allowances: map[string]string{}}
		for range 3 {
			m.keys = append(m.keys, s.newKey("alice", escrow.KeyOrder{}))
		}
		m.limit(by("alice"), escrow.Limit{Key: m.keys[0].Key, Amount: amount("20"), Window: 24 * time.Hour})
		m.limit(operator,
			escrow.Limit{Key: m.keys[1].Key, Amount: amount("30"), Window: 10 * time.Hour},
			escrow.Limit{Key: m.keys[0].Key, Payee: "shop", Amount: amount("15"), Window: 30 * time.Hour},
			escrow.Limit{Amount: amount("100"), Window: 48 * time.Hour})
		r.Repeat(map[string]func(*rapid.T){
			"": func(r *rapid.T) {
				m.hold(r)
				m.turn(rapid.IntRange(0, 1).Draw(r, "the next process"))
			},
			"transfer": m.transfer, "lock": m.lockSome, "release": m.release, "part": m.part, "accept": m.accept, "ask": m.ask, "withdraw": m.withdraw,
			"give back": m.giveBack, "allow": m.allow, "debit": m.debit, "subscribe": m.subscribe, "resume": m.resume, "call": m.call, "begin": m.begin,
			"settle": m.settle, "score": m.score, "resolve": m.resolve, "wait": m.wait, "crash": m.crash,
		})
		s.sound()
	})
}

// mix is the books, and a record of who did what.
type mix struct {
	*shop
	r          *rapid.T
	keys       []escrow.Actor
	limits     []*mixLimit
	escrows    []string            // of alice's, by their ids
	passed     map[string][]string // escrow -> keys by which all of it has left already
	subs       map[string]*mixSub
	subIDs     []string
	allowances map[string]string // payee -> the key that set it
	calls      []*mixCall
	held       []string // charges whose quality is not decided
}

type mixLimit struct {
	escrow.Limit
	since time.Time
	spent ledger.Amount
}

type mixSub struct {
	payee, key string
	amount     ledger.Amount
	periods    int64
}

type mixCall struct {
	*escrow.Authorisation
	request string
	by      escrow.Actor
	payee   string
	pool    string // the escrow that was named
}

func (m *mix) limit(who escrow.Actor, limits ...escrow.Limit) {
	m.setLimits(who, "alice", limits...)
	for _, l := range limits {
		m.limits = append(m.limits, &mixLimit{Limit: l})
	}
}

// left counts what an act of a key has let go: out for limits of that key, gone for limits of all keys.
func (m *mix) left(key, payee string, out, gone ledger.Amount) {
	for _, l := range m.limits {
		amount := gone
		if l.Key != "" {
			if amount = out; l.Key != key {
				continue
			}
		}
		if amount <= 0 || l.Payee != "" && l.Payee != payee {
			continue
		}
		if now := m.Now(); now.Sub(l.since) >= l.Window {
			l.since, l.spent = now, 0
		}
		l.spent += amount
		if l.spent > l.Amount {
			m.r.Fatalf("%s left in a window of %s, and the limit of key %q to %q is %s", l.spent, l.Window, l.Key, l.Payee, l.Amount)
		}
	}
}

// stock is what alice can spend freely: her wallet, and what meters have locked for her.
func (m *mix) stock() ledger.Amount {
	sum := m.balance("alice")
	for _, id := range m.escrows {
		if e := m.look(id); e.Kind == escrow.KindMeter {
			sum += e.Remaining()
		}
	}
	return sum
}

func (m *mix) look(id string) escrow.Escrow {
	e, err := m.Escrow(context.Background(), operator, id)
	must(m.r, err)
	return e
}

// note records the escrows that an act has made, by a key or by a meter.
func (m *mix) note(key string) {
	all, _, err := m.Escrows(context.Background(), escrow.EscrowFilter{Agent: "alice", Role: "payer"}, escrow.Page{Limit: 500})
	must(m.r, err)
	for _, e := range all {
		if !slices.Contains(m.escrows, e.ID) {
			m.escrows = append(m.escrows, e.ID)
			m.passed[e.ID] = []string{key}
		}
	}
}

// act runs an act of a key that pays a payee, from an escrow or the wallet. It may be refused only because of a limit, a status or a lack
// of money.
func (m *mix) act(key, payee, from string, do func() error) bool {
	released := func() ledger.Amount {
		if from == "" {
			return 0
		}
		return m.look(from).Released
	}
	m.catchUp()
	stock, before := m.stock(), released()
	err := do()
	if err != nil {
		for _, expected := range []escrow.Outcome{escrow.LimitExceeded, escrow.InsufficientFunds, escrow.InvalidStatus, escrow.ExceedsRemaining, escrow.SubscriptionRequired} {
			if escrow.IsRefusal(err, expected) {
				return false
			}
		}
		m.r.Fatal(err)
	}
	m.note(key)
	gone, out := stock-m.stock(), ledger.Amount(0)
	switch {
	case from == "" || m.look(from).Kind == escrow.KindMeter:
		out = gone
	case !slices.Contains(m.passed[from], key):
		out = released() - before
	}
	m.left(key, payee, out, gone)
	return true
}

func (m *mix) key(r *rapid.T) escrow.Actor { return rapid.SampledFrom(m.keys).Draw(r, "key") }

func (m *mix) payee(r *rapid.T) string {
	return rapid.SampledFrom([]string{"shop", "mallory"}).Draw(r, "payee")
}

func little(r *rapid.T) ledger.Amount {
	return ledger.Amount(rapid.Int64Range(1, 12).Draw(r, "amount")) * ledger.Unit
}

func (m *mix) any(r *rapid.T) escrow.Escrow {
	if len(m.escrows) == 0 {
		r.Skip("no escrow")
	}
	return m.look(rapid.SampledFrom(m.escrows).Draw(r, "escrow"))
}

func (m *mix) onEscrow(by escrow.Actor, e escrow.Escrow, act func(*escrow.Tx) (escrow.Escrow, error)) bool {
	return m.act(by.Key, e.To, e.ID, func() error { return m.run(func(tx *escrow.Tx) error { _, err := act(tx); return err }) })
}

func (m *mix) transfer(r *rapid.T) {
	by, o := m.key(r), escrow.PaymentOrder{To: m.payee(r), Amount: little(r)}
	m.act(by.Key, o.To, "", func() error { return m.run(func(tx *escrow.Tx) error { _, err := tx.Transfer(by, o); return err }) })
}

func (m *mix) lockSome(r *rapid.T) {
	by, o := m.key(r), escrow.EscrowOrder{To: m.payee(r), Amount: little(r)}
	if hours := rapid.IntRange(0, 40).Draw(r, "hours"); hours > 0 {
		o.AutoRelease, o.OnExpiry = time.Duration(hours)*time.Hour, rapid.SampledFrom([]escrow.Way{escrow.ToPayee, escrow.ToPayer}).Draw(r, "way")
	}
	if rapid.Bool().Draw(r, "milestones") {
		o.Amount = max(o.Amount, 2)
		o.Milestones = []escrow.Milestone{{Name: "a", Amount: o.Amount / 2}, {Name: "b", Amount: o.Amount - o.Amount/2}}
	}
	m.act(by.Key, o.To, "", func() error { return m.run(func(tx *escrow.Tx) error { _, err := tx.CreateEscrow(by, o); return err }) })
}

func (m *mix) release(r *rapid.T) {
	by, e := m.key(r), m.any(r)
	m.onEscrow(by, e, func(tx *escrow.Tx) (escrow.Escrow, error) { return tx.Release(by, e.ID, "") })
}

func (m *mix) part(r *rapid.T) {
	by, e, some := m.key(r), m.any(r), little(r)
	if len(e.Milestones) > 0 {
		r.Skip("it is paid by milestones")
	}
	m.onEscrow(by, e, func(tx *escrow.Tx) (escrow.Escrow, error) { return tx.ReleasePartial(by, e.ID, some, "") })
}

func (m *mix) accept(r *rapid.T) {
	by, e := m.key(r), m.any(r)
	if len(e.Milestones) == 0 {
		r.Skip("no milestones")
	}
	name := rapid.SampledFrom([]string{"a", "b"}).Draw(r, "milestone")
	m.onEscrow(by, e, func(tx *escrow.Tx) (escrow.Escrow, error) { return tx.AcceptMilestone(by, e.ID, name, "") })
}

func (m *mix) ask(r *rapid.T) {
	by, e := m.key(r), m.any(r)
	m.onEscrow(by, e, func(tx *escrow.Tx) (escrow.Escrow, error) { return tx.Refund(by, e.ID, 0, "") })
}

// withdraw withdraws a refund request. If the escrow goes to the payee when it expires, that lets everything go that remains.
func (m *mix) withdraw(r *rapid.T) {
	by, e := m.key(r), m.any(r)
	before := m.look(e.ID)
	if !m.onEscrow(by, e, func(tx *escrow.Tx) (escrow.Escrow, error) { return tx.WithdrawRefund(by, e.ID) }) {
		return
	}
	after := m.look(e.ID)
	if e.AutoReleaseAt.IsZero() || e.OnExpiry != escrow.ToPayee || slices.Contains(m.passed[e.ID], by.Key) {
		return
	}
	m.passed[e.ID] = append(m.passed[e.ID], by.Key)
	m.left(by.Key, e.To, before.Remaining()-(after.Released-before.Released), 0) // what its time has released at once is counted already
}

func (m *mix) giveBack(r *rapid.T) {
	e := m.any(r)
	m.onEscrow(escrow.Actor{Agent: e.To}, e, func(tx *escrow.Tx) (escrow.Escrow, error) {
		return tx.Refund(escrow.Actor{Agent: e.To}, e.ID, 0, "")
	})
}

func (m *mix) allow(r *rapid.T) {
	by, payee, some := m.key(r), m.payee(r), little(r)
	if m.act(by.Key, payee, "", func() error {
		return m.run(func(tx *escrow.Tx) error { _, err := tx.SetAllowance(by, "alice", payee, some); return err })
	}) {
		m.allowances[payee] = by.Key
	}
}

func (m *mix) debit(r *rapid.T) {
	payee, some := m.payee(r), little(r)
	if m.allowances[payee] == "" {
		r.Skip("no allowance")
	}
	m.act(m.allowances[payee], payee, "", func() error {
		return m.run(func(tx *escrow.Tx) error {
			_, err := tx.Debit(escrow.Actor{Agent: payee}, escrow.PaymentOrder{From: "alice", Amount: some})
			return err
		})
	})
}

func (m *mix) subscribe(r *rapid.T) {
	by, o := m.key(r), escrow.SubscriptionOrder{Payee: m.payee(r), Amount: little(r), Period: time.Duration(rapid.IntRange(1, 30).Draw(r, "hours")) * time.Hour}
	var id string
	if m.act(by.Key, o.Payee, "", func() error {
		sub, err := do(m.shop, func(tx *escrow.Tx) (escrow.Subscription, error) { return tx.Subscribe(by, o) })
		id = sub.ID
		return err
	}) {
		m.subs[id], m.subIDs = &mixSub{payee: o.Payee, key: by.Key, amount: o.Amount, periods: 1}, append(m.subIDs, id)
	}
}

func (m *mix) resume(r *rapid.T) {
	if len(m.subIDs) == 0 {
		r.Skip("no subscription")
	}
	by, id := m.key(r), rapid.SampledFrom(m.subIDs).Draw(r, "subscription")
	sub := m.subs[id]
	if m.act(by.Key, sub.payee, "", func() error {
		return m.run(func(tx *escrow.Tx) error { _, err := tx.ResumeSubscription(by, id); return err })
	}) {
		sub.key = by.Key
		sub.periods++
	}
}

// order is a call that is paid from the wallet, from a named escrow, or from one that a meter finds or opens.
func (m *mix) order(r *rapid.T) (o escrow.CallOrder) {
	o = escrow.CallOrder{Request: m.NewRequestID(), By: m.key(r), Payee: m.payee(r), Least: little(r), Most: little(r)}
	switch rapid.IntRange(0, 2).Draw(r, "from") {
	case 1:
		e := m.any(r)
		if e.Kind != escrow.KindAgreed && e.Kind != escrow.KindMeter {
			r.Skip("no meter draws from it")
		}
		o.From, o.Escrow, o.Payee = escrow.FromEscrow, e.ID, e.To
	case 2:
		o.From, o.Open, o.OpenFor = escrow.FromEscrow, amount("50"), 60*time.Hour
	}
	return o
}

func (m *mix) begin(r *rapid.T) {
	o := m.order(r)
	m.catchUp()
	a, err := m.Authorise(context.Background(), o)
	m.note(o.By.Key)
	if err == nil {
		m.calls = append(m.calls, &mixCall{Authorisation: a, request: o.Request, by: o.By, payee: o.Payee, pool: a.Escrow()})
	}
}

func (m *mix) settle(r *rapid.T) {
	if len(m.calls) == 0 {
		r.Skip("no call")
	}
	i, due := rapid.IntRange(0, len(m.calls)-1).Draw(r, "call"), little(r)
	m.end(m.calls[i], due, rapid.Bool().Draw(r, "held"))
	m.calls = slices.Delete(m.calls, i, i+1)
}

// end settles a call, with its quality decided or left open.
func (m *mix) end(c *mixCall, due ledger.Amount, hold bool) {
	var q *escrow.Quality
	if hold {
		q = &escrow.Quality{Hold: true, Decision: &escrow.Decision{ByPayer: true, Tiers: []escrow.Tier{{Verdict: escrow.Verdict{Share: 1_000_000}}}}}
	}
	m.catchUp()
	stock, was := m.stock(), ledger.Amount(0)
	if c.pool != "" {
		was = m.look(c.pool).Remaining()
	}
	charge, err := c.Settle(context.Background(), escrow.Settlement{Amount: due, Quality: q})
	must(m.r, err)
	m.note(c.by.Key)
	gone := min(due, stock-m.stock()) // what the call leaves in an escrow that is released goes on: it counted at the release
	out := gone
	if c.pool != "" && m.look(c.pool).Kind == escrow.KindAgreed {
		gone, out = 0, 0
		if !slices.Contains(m.passed[c.pool], c.by.Key) {
			out = min(due, was-m.look(c.pool).Remaining())
		}
	}
	m.left(c.by.Key, c.payee, out, gone)
	if charge.HeldIn != "" {
		m.held = append(m.held, charge.RequestID)
	}
}

func (m *mix) call(r *rapid.T) {
	before := len(m.calls)
	m.begin(r)
	if len(m.calls) > before {
		c := m.calls[before]
		m.calls = m.calls[:before]
		m.end(c, little(r), rapid.IntRange(0, 3).Draw(r, "held") == 0)
	}
}

func (m *mix) score(r *rapid.T) {
	if len(m.held) == 0 {
		r.Skip("nothing to score")
	}
	by, id := m.key(r), rapid.SampledFrom(m.held).Draw(r, "charge")
	c, err := m.Charge(context.Background(), operator, id)
	must(r, err)
	m.act(by.Key, c.Payee, c.HeldIn, func() error { return m.run(func(tx *escrow.Tx) error { _, err := tx.Score(by, id, "1"); return err }) })
}

// resolve is an act of the operator. It counts for no key, and no limit refuses it.
func (m *mix) resolve(r *rapid.T) {
	e := m.any(r)
	if e.Remaining() == 0 || e.Status != escrow.StatusOpen || e.Closing != "" || e.Kind == escrow.KindMeter {
		r.Skip("not to be disputed")
	}
	must(r, m.run(func(tx *escrow.Tx) error {
		if _, err := tx.Dispute(escrow.Actor{Agent: e.To}, e.ID, ""); err != nil {
			return err
		}
		_, err := tx.Resolve(operator, e.ID, escrow.Resolution{ToPayee: e.Remaining() - e.Held})
		return err
	}))
}

// wait lets time pass. Subscriptions renew, each for the key that began or resumed it last.
func (m *mix) wait(r *rapid.T) {
	for range rapid.IntRange(1, 30).Draw(r, "hours") {
		m.clock.advance(time.Hour)
		m.catchUp()
		for _, id := range m.subIDs {
			sub := m.subs[id]
			now, err := m.Subscription(context.Background(), operator, id)
			must(r, err)
			for ; sub.periods < now.Periods; sub.periods++ {
				m.left(sub.key, sub.payee, sub.amount, sub.amount)
			}
		}
		m.note("")
	}
	for _, id := range m.escrows { // of subscriptions: theirs who began the period
		e := m.look(id)
		if sub := m.subs[e.Subscription]; sub != nil && slices.Equal(m.passed[id], []string{""}) {
			m.passed[id] = []string{sub.key}
		}
	}
}

// crash ends the process: its calls are gone, except for what they have drawn.
func (m *mix) crash(r *rapid.T) {
	m.catchUp()
	for i, c := range m.calls {
		if i%2 == 0 {
			c.Draw(c.Total(), i%4 == 0)
			must(r, c.Await())
		}
	}
	m.shop.t = r
	m.reopen()
	for _, c := range m.calls {
		charge, err := m.Charge(context.Background(), operator, c.request)
		if err != nil {
			continue
		}
		agreed := c.pool != "" && m.look(c.pool).Kind == escrow.KindAgreed
		switch {
		case !agreed:
			m.left(c.by.Key, c.payee, charge.Amount, charge.Amount)
		case !slices.Contains(m.passed[c.pool], c.by.Key):
			m.left(c.by.Key, c.payee, charge.Amount, 0)
		}
	}
	m.calls = nil
}

// hold checks that the books count at least what was measured.
func (m *mix) hold(r *rapid.T) {
	m.r, m.shop.t = r, r
	limits, err := m.Limits("alice")
	must(r, err)
	for _, l := range limits {
		i := slices.IndexFunc(m.limits, func(own *mixLimit) bool {
			return own.Key == l.Key && own.Payee == l.Payee && own.Window == l.Window
		})
		if own := m.limits[i]; m.Now().Sub(own.since) < own.Window && l.Spent < own.spent {
			r.Fatalf("%s left, and the books count %s (%s)", own.spent, l.Spent, fmt.Sprint(l))
		}
	}
}

// TestParallelSpendingKeepsTheLimit: transfers and calls that run at the same time together stay within the limit.
func TestParallelSpendingKeepsTheLimit(t *testing.T) {
	s, thief := limited(t)
	var all sync.WaitGroup
	for i := range 60 {
		all.Go(func() {
			if i%2 == 0 {
				_ = s.run(func(tx *escrow.Tx) error {
					_, err := tx.Transfer(thief, escrow.PaymentOrder{To: "mallory", Amount: amount("0.2")})
					return err
				})
				return
			}
			_, _ = s.spend(escrow.CallOrder{By: thief, Payee: "mallory"}, amount("0.2"), nil)
		})
	}
	all.Wait()
	if got := s.balance("mallory") - amount("100"); got > amount("1") || got == 0 {
		t.Errorf("%s went out at once, the limit is 1", got)
	}
	s.sound()
}
