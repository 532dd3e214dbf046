package escrow_test

import (
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

// TestModel compares random histories with a simple model in memory after each step. The model knows the rules, but no records, lists, operations or
// holds.
func TestModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		dir, err := os.MkdirTemp("", "model")
		must(r, err)
		by := rapid.SampledFrom(slices.Sorted(maps.Keys(ways))).Draw(r, "operations run")
		s := &shop{t: r, clock: newClock(), path: filepath.Join(dir, "ledger.db"), way: ways[by]}
		rules := defaultRules()
		rules.MinEscrow = 1
		rules.Plans = modelPlans()
		rules.CommissionPPM = rapid.SampledFrom([]int64{0, 10_000, 333_333}).Draw(r, "commission")
		s.open(rules)
		defer func() { _ = s.Ledger().Close(); _ = os.RemoveAll(dir) }()
		m := &model{ppm: rules.CommissionPPM, now: s.clock.now, wallets: map[string]ledger.Amount{}, earned: map[string]ledger.Amount{}, allowances: map[[2]string]ledger.Amount{}, allowed: map[[2]string]*struct{ int }{}, references: map[[2]string]string{}, subs: map[[2]string]*modelSub{}}
		w := &world{shop: s, model: m, t: r}
		for _, name := range names {
			s.agents("1000", name)
			m.wallets[name] = amount("1000")
		}
		r.Repeat(map[string]func(*rapid.T){
			"":         func(*rapid.T) { w.compare() },
			"transfer": w.transfer, "debit": w.debit, "create": w.create, "release": w.release, "part": w.part, "refund": w.refund,
			"withdraw": w.withdraw, "dispute": w.dispute, "resolve": w.resolve, "call": w.call, "extend": w.extend, "draw": w.draw,
			"settle": w.settle, "cancel": w.cancel, "back": w.back, "wait": w.wait, "reopen": w.reopen,
			"hold": w.hold, "capture": w.capture, "void": w.void, "mistake": w.mistake, "allow": w.allow, "report": w.report,
			"contest": w.contest, "uncontest": w.uncontest, "decide": w.decideCharge,
			"subscribe": w.subscribe, "subcall": w.subcall, "cancelsub": w.cancelsub,
		})
		s.sound()
	})
}

var names = []string{"ann", "bob", "cyd"}

// model implements the rules in the simplest way.
type model struct {
	ppm        int64
	now        time.Time
	wallets    map[string]ledger.Amount
	commission ledger.Amount
	earned     map[string]ledger.Amount // by payee: all that commission was taken of
	escrows    []*modelEscrow
	calls      []*modelCall
	charges    []*modelCharge
	allowances map[[2]string]ledger.Amount  // by payer and payee: what is left
	allowed    map[[2]string]*struct{ int } // which setting of it
	references map[[2]string]string         // by payee and reference: what was captured or reported
	subs       map[[2]string]*modelSub      // by payer and payee: those that run
}

type modelEscrow struct {
	id                              string
	from, to                        string
	amount, released, refunded, fee ledger.Amount
	status, closing, way            string
	due, silence                    time.Time
	asked                           ledger.Amount
	served                          bool
	hold, period                    bool           // its kind, if it is not one that an agent has made
	allowed                         *struct{ int } // a hold by the payee: the setting of the allowance that it used
}

type modelCall struct {
	real         *escrow.Authorisation
	request      string
	payer, payee string
	escrow       *modelEscrow
	total        ledger.Amount
	posted, fee  ledger.Amount
	pending      ledger.Amount
}

type modelCharge struct {
	request           string
	payer, payee      string
	amount, fee       ledger.Amount
	refunded, feeBack ledger.Amount
	at                time.Time
	contested, open   bool // it was disputed, and the dispute is open
}

func (e *modelEscrow) remaining() ledger.Amount { return e.amount - e.released - e.refunded }

// held is what running calls hold of a source, and what they have drawn as pending.
func (m *model) held(payer string, e *modelEscrow) (sum ledger.Amount) {
	for _, c := range m.calls {
		if c.escrow == e && (e != nil || c.payer == payer) {
			sum += c.total - c.posted
		}
	}
	return sum
}

func (m *model) available(agent string) ledger.Amount { return m.wallets[agent] - m.held(agent, nil) }

func (m *model) free(e *modelEscrow) ledger.Amount { return e.remaining() - m.held("", e) }

// share is the operator's share of what a payee earns: all that it has earned, less what it has paid of it before.
func (m *model) share(payee string, by ledger.Amount) ledger.Amount {
	before := m.earned[payee] * ledger.Amount(m.ppm) / 1_000_000
	m.earned[payee] += by
	return m.earned[payee]*ledger.Amount(m.ppm)/1_000_000 - before
}

func (m *model) out(e *modelEscrow, way string, by ledger.Amount) {
	if way == "refund" {
		e.refunded += by
		m.wallets[e.from] += by
		if parties := [2]string{e.from, e.to}; e.allowed != nil && m.allowed[parties] == e.allowed {
			m.allowances[parties] += by
		}
		return
	}
	if by == 0 {
		return
	}
	e.released += by
	fee := m.share(e.to, by)
	e.fee += fee
	m.wallets[e.to] += by - fee
	m.commission += fee
}

func (m *model) finish(e *modelEscrow, way string) {
	m.out(e, way, m.free(e))
	e.status, e.asked = "open", 0
	if e.remaining() > 0 {
		e.closing = way
	}
	m.settled(e)
}

func (m *model) settled(e *modelEscrow) {
	if e.remaining() > 0 {
		return
	}
	e.closing, e.asked = "", 0
	switch {
	case e.refunded == 0:
		e.status = "released"
	case e.released == 0:
		e.status = "refunded"
	default:
		e.status = "settled"
	}
}

// tick does what is due.
func (m *model) tick() {
	for _, e := range m.escrows {
		for e.remaining() > 0 && e.closing == "" {
			if e.status == "open" && !e.due.IsZero() && !m.now.Before(e.due) {
				m.finish(e, e.way)
			} else if e.status == "refund_requested" && !m.now.Before(e.silence) {
				if e.served {
					e.status = "disputed"
				} else {
					m.giveBack(e, 0)
				}
			} else {
				break
			}
		}
	}
}

// giveBack refunds an amount: zero is what was asked for, or all.
func (m *model) giveBack(e *modelEscrow, by ledger.Amount) {
	if e.status == "refund_requested" && by == 0 && e.asked > 0 {
		by = min(e.asked, m.free(e))
	}
	if by == 0 || by == e.remaining() {
		m.finish(e, "refund")
		return
	}
	m.out(e, "refund", by)
	if e.status == "refund_requested" && (e.asked == 0 || by < e.asked) {
		e.asked = max(0, e.asked-by)
	} else {
		e.status, e.asked = "open", 0
	}
	m.settled(e)
}

// over ends a call: what it held is free, and goes on where its escrow is over.
func (m *model) over(c *modelCall) {
	m.calls = slices.DeleteFunc(m.calls, func(other *modelCall) bool { return other == c })
	if c.escrow != nil && c.escrow.closing != "" {
		m.finish(c.escrow, c.escrow.closing)
	}
}

// pay posts what a call has come to, and what the operator gets of it.
func (m *model) pay(c *modelCall, by ledger.Amount) {
	c.posted += by
	fee := m.share(c.payee, by)
	c.fee += fee
	m.wallets[c.payee] += by - fee
	m.commission += fee
	if c.escrow == nil {
		m.wallets[c.payer] -= by
		return
	}
	c.escrow.released += by
	c.escrow.fee += fee
	c.escrow.served = c.escrow.served || by > 0
	c.escrow.asked = min(c.escrow.asked, c.escrow.remaining())
	m.settled(c.escrow)
}
