package escrow_test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// TestScripts runs the cases in testdata/*.txt. Each line is a step; a refused step ends with "-> outcome". After each case the books are checked,
// and checked again after they are reopened. Each case is also run with stores that run operations more than once.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	must(t, err)
	if len(files) == 0 {
		t.Fatal("no scripts in testdata")
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		must(t, err)
		for _, part := range strings.Split(string(text), "\n== ")[1:] {
			name, steps, _ := strings.Cut(part, "\n")
			shops := map[string]func(testing.TB) *shop{
				"shared":      func(t testing.TB) *shop { return newSharedShop(t, defaultRules(), 1) },
				"shared by 2": func(t testing.TB) *shop { return newSharedShop(t, defaultRules(), 2) },
			}
			for by, way := range ways {
				shops[by] = func(t testing.TB) *shop { return newShopBy(t, defaultRules(), way) }
			}
			if name == "only so many calls of an agent at once" {
				delete(shops, "shared by 2") // each has half of them
			}
			for by, fresh := range shops {
				t.Run(by+"/"+strings.TrimSuffix(filepath.Base(file), ".txt")+"/"+name, func(t *testing.T) {
					t.Parallel()
					run := &script{shop: fresh(t), escrows: map[string]string{}, calls: map[string]*escrow.Authorisation{}, requests: map[string]string{}, keys: map[string]string{}, subs: map[string]string{}}
					run.run(steps)
				})
			}
		}
	}
}

type script struct {
	*shop
	escrows  map[string]string // name in the script -> id
	calls    map[string]*escrow.Authorisation
	requests map[string]string
	keys     map[string]string // names of further keys -> id
	subs     map[string]string
}

func (s *script) run(steps string) {
	for i, line := range strings.Split(steps, "\n") {
		line, _, _ = strings.Cut(line, "#")
		step, want, _ := strings.Cut(line, "->")
		words := strings.Fields(step)
		if len(words) == 0 {
			continue
		}
		s.turn(i)
		err := s.step(words)
		got := string(ledger.OutcomeOf(err))
		if err != nil && got == "" {
			got = "failed"
		}
		if got != strings.TrimSpace(want) {
			s.t.Fatalf("line %d: %s\n\tgot %q (%v)", i+1, strings.TrimSpace(line), got, err)
		}
	}
	s.sound()
	before := s.wallets()
	for _, a := range s.calls {
		a.Cancel()
	}
	s.reopen()
	s.sound()
	if len(s.calls) == 0 && !maps.Equal(before, s.wallets()) {
		s.t.Fatalf("wallets were %v, after reopening they are %v", before, s.wallets())
	}
}

func (s *script) wallets() map[string]ledger.Amount {
	agents, _, err := s.Agents("", 1000)
	must(s.t, err)
	all := map[string]ledger.Amount{}
	for _, a := range agents {
		w, err := s.Wallet(context.Background(), a.ID)
		must(s.t, err)
		all[a.ID] = w.Balance
	}
	return all
}

func (s *script) step(w []string) error {
	named := map[string]string{} // name=value words
	for _, word := range w[1:] {
		if name, value, found := strings.Cut(word, "="); found {
			named[name] = value
		}
	}
	args := slices.DeleteFunc(slices.Clone(w[1:]), func(word string) bool { return strings.Contains(word, "=") })
	arg := func(i int) string {
		if i < len(args) {
			return args[i]
		}
		return ""
	}
	if known, err := s.worldStep(w[0], arg, named); known {
		return err
	}
	if known, err := s.walletStep(w[0], arg, named); known {
		return err
	}
	if known, err := s.escrowStep(w[0], arg, named); known {
		return err
	}
	if known, err := s.callStep(w[0], arg, named); known {
		return err
	}
	if known, err := s.termStep(w[0], arg, named); known {
		return err
	}
	if known, err := s.holdStep(w[0], arg, named); known {
		return err
	}
	s.t.Fatalf("unknown step %q", w)
	return nil
}

func (s *script) worldStep(verb string, arg func(int) string, named map[string]string) (bool, error) {
	switch verb {
	case "rules":
		r := s.Rules()
		for name, value := range named {
			switch name {
			case "commission":
				ppm, err := escrow.ParsePercent(value)
				must(s.t, err)
				r.CommissionPPM = ppm
			case "window":
				r.RefundWindow = s.duration(value)
			case "min":
				r.MinEscrow = amount(value)
			case "faucet":
				r.Faucet = amount(value)
			case "calls":
				r.MaxCalls, _ = strconv.Atoi(value)
			case "budget":
				r.FaucetBudget = amount(value)
			case "per":
				r.FaucetPeriod = s.duration(value)
			case "registration":
				r.OpenRegistration = value == "open"
			default:
				s.t.Fatalf("unknown rule %q", name)
			}
		}
		s.rule(r)
	case "wait":
		s.clock.advance(s.duration(arg(0)))
		s.catchUp()
	case "due":
		_, err := s.RunDue(context.Background())
		return true, err
	case "reopen":
		s.reopen()
	case "agent":
		s.agents(arg(1), arg(0))
	case "reserve":
		return true, s.Reserve(context.Background(), arg(0))
	case "wallet":
		w, err := s.Wallet(context.Background(), arg(0))
		must(s.t, err)
		s.compare(arg(0), named, map[string]string{
			"balance": w.Balance.String(), "available": w.Available.String(), "held": w.Held.String(), "pending": w.Pending.String(),
		})
	default:
		return false, nil
	}
	return true, nil
}

func (s *script) duration(text string) time.Duration {
	d, err := time.ParseDuration(text)
	must(s.t, err)
	return d
}

func (s *script) compare(subject string, want, got map[string]string) {
	s.t.Helper()
	for name, value := range want {
		have, known := got[name]
		if !known {
			s.t.Fatalf("%s: nothing is known as %q", subject, name)
		}
		if len(s.nodes) > 1 && within(name, have, value) {
			continue
		}
		if have != value {
			s.t.Fatalf("%s: %s is %s, want %s", subject, name, have, value)
		}
	}
}

// within compares what several processes say: what one has leased counts as held for the others, and events of the same moment have no order.
func within(name, have, want string) bool {
	switch name {
	case "held":
		return amount(have) >= amount(want)
	case "available":
		return amount(have) <= amount(want)
	case "all":
		a, b := strings.Split(have, ","), strings.Split(want, ",")
		slices.Sort(a)
		slices.Sort(b)
		return slices.Equal(a, b)
	default:
		return false
	}
}

// actor is an agent by its name, or by agent:key.
func (s *script) actor(name string) escrow.Actor {
	agent, key, _ := strings.Cut(name, ":")
	a := actor(agent)
	a.Key = s.keys[key]
	return a
}

func actor(name string) escrow.Actor {
	switch name {
	case "operator":
		return operator
	case "nobody":
		return escrow.Actor{}
	default:
		return by(name)
	}
}

func (s *script) walletStep(verb string, arg func(int) string, named map[string]string) (bool, error) {
	money := func(i int) ledger.Amount { return amount(arg(i)) }
	var op func(*escrow.Tx) error
	switch verb {
	case "register":
		op = func(t *escrow.Tx) error {
			_, _, _, err := t.CreateAgent(actor(arg(0)), escrow.AgentOrder{ID: arg(1)})
			return err
		}
	case "faucet":
		op = func(t *escrow.Tx) error { _, err := t.ClaimFaucet(by(arg(0)), ""); return err }
	case "deposit":
		op = func(t *escrow.Tx) error {
			_, err := t.Deposit(actor(arg(0)), escrow.PaymentOrder{To: arg(1), Amount: money(2)})
			return err
		}
	case "withdraw":
		op = func(t *escrow.Tx) error {
			_, err := t.Withdraw(actor(arg(0)), escrow.PaymentOrder{From: arg(1), Amount: money(2)})
			return err
		}
	case "transfer":
		op = func(t *escrow.Tx) error {
			_, err := t.Transfer(s.actor(arg(0)), escrow.PaymentOrder{From: named["from"], To: arg(1), Amount: money(2)})
			return err
		}
	case "debit":
		op = func(t *escrow.Tx) error {
			_, err := t.Debit(actor(arg(0)), escrow.PaymentOrder{From: arg(1), To: named["to"], Amount: money(2)})
			return err
		}
	case "allow":
		op = func(t *escrow.Tx) error { _, err := t.SetAllowance(by(arg(0)), "", arg(1), money(2)); return err }
	case "disallow":
		op = func(t *escrow.Tx) error { return t.DeleteAllowance(by(arg(0)), "", arg(1)) }
	case "entries":
		entries, _, err := s.Entries(context.Background(), arg(0), 0, 100)
		must(s.t, err)
		var lines []string
		for _, e := range entries {
			lines = append(lines, fmt.Sprintf("%s:%s:%s", e.Kind, e.Amount, e.Counterparty))
		}
		slices.Reverse(lines)
		s.compare(arg(0), named, map[string]string{"all": strings.Join(lines, ",")})
		return true, nil
	default:
		return false, nil
	}
	return true, s.Shop().run(op)
}

// Shop is the shop below the script.
func (s *script) Shop() *shop { return s.shop }

func (s *script) escrowStep(verb string, arg func(int) string, named map[string]string) (bool, error) {
	who, id := s.actor(arg(1)), s.escrows[arg(0)]
	money := func(i int) ledger.Amount {
		if arg(i) == "" {
			return 0
		}
		return amount(arg(i))
	}
	var op func(*escrow.Tx) (escrow.Escrow, error)
	switch verb {
	case "create":
		o := escrow.EscrowOrder{To: arg(2), Amount: money(3), Memo: named["memo"], OnExpiry: escrow.Way(named["expiry"]), From: named["from"]}
		if named["auto"] != "" {
			o.AutoRelease = s.duration(named["auto"])
		}
		if named["milestones"] != "" {
			for _, m := range strings.Split(named["milestones"], ",") {
				name, value, _ := strings.Cut(m, ":")
				o.Milestones = append(o.Milestones, escrow.Milestone{Name: name, Amount: amount(value)})
			}
		}
		op = func(t *escrow.Tx) (escrow.Escrow, error) {
			return t.CreateEscrow(who, o)
		}
	case "release":
		op = func(t *escrow.Tx) (escrow.Escrow, error) { return t.Release(who, id, "") }
	case "part":
		op = func(t *escrow.Tx) (escrow.Escrow, error) { return t.ReleasePartial(who, id, money(2), "") }
	case "accept":
		op = func(t *escrow.Tx) (escrow.Escrow, error) { return t.AcceptMilestone(who, id, arg(2), "") }
	case "deliver":
		op = func(t *escrow.Tx) (escrow.Escrow, error) { return t.DeliverMilestone(who, id, arg(2), "") }
	case "refund":
		op = func(t *escrow.Tx) (escrow.Escrow, error) { return t.Refund(who, id, money(2), "why not") }
	case "unrefund":
		op = func(t *escrow.Tx) (escrow.Escrow, error) { return t.WithdrawRefund(who, id) }
	case "dispute":
		op = func(t *escrow.Tx) (escrow.Escrow, error) { return t.Dispute(who, id, "bad work") }
	case "resolve":
		op = func(t *escrow.Tx) (escrow.Escrow, error) {
			return t.Resolve(who, id, escrow.Resolution{ToPayee: money(2), ToPayer: money(3)})
		}
	case "is":
		return true, s.isEscrow(arg(0), named)
	case "list":
		return true, s.listed(arg(0), arg(1), arg(2), named)
	default:
		return false, nil
	}
	e, err := do(s.shop, op)
	if verb == "create" {
		s.escrows[arg(0)] = e.ID
	}
	return true, err
}

func (s *script) isEscrow(name string, named map[string]string) error {
	e, err := s.Escrow(context.Background(), operator, s.escrows[name])
	if err != nil {
		return err
	}
	var milestones []string
	for _, m := range e.Milestones {
		milestones = append(milestones, string(m.Status))
	}
	s.compare(name, named, map[string]string{
		"status": string(e.Status), "released": e.Released.String(), "refunded": e.Refunded.String(), "remaining": e.Remaining().String(),
		"held": e.Held.String(), "commission": e.Commission.String(), "expiry": string(e.OnExpiry), "closing": string(e.Closing),
		"milestones": strings.Join(milestones, ","), "amount": e.Amount.String(), "memo": e.Memo,
	})
	return nil
}

func (s *script) listed(agent, status, role string, named map[string]string) error {
	if status == "-" {
		status = ""
	}
	escrows, _, err := s.Escrows(context.Background(), escrow.EscrowFilter{Agent: agent, Status: status, Role: role}, escrow.Page{})
	if err != nil {
		return err
	}
	var names []string
	for _, e := range escrows {
		for name, id := range s.escrows {
			if id == e.ID {
				names = append(names, name)
			}
		}
	}
	s.compare("list", named, map[string]string{"all": strings.Join(names, ",")})
	return nil
}

func (s *script) callStep(verb string, arg func(int) string, named map[string]string) (bool, error) {
	a := s.calls[arg(0)]
	switch verb {
	case "call":
		return true, s.authorise(arg, named)
	case "upto":
		s.compare(arg(0), named, map[string]string{"total": a.ExtendUpTo(amount(arg(1))).String()})
	case "draw":
		a.Draw(amount(arg(1)), arg(2) != "pending")
		s.settled() // it is queued before this
		return true, a.Err()
	case "settle":
		delete(s.calls, arg(0))
		settlement := escrow.Settlement{
			Amount: amount(arg(1)), Source: "stated", Cut: "none", Quota: micro(named["quota"]), Quality: s.quality(named),
		}
		settlement.Units, settlement.UnitPrices = pairs(named["used"]), pairs(named["priced"])
		if named["units"] != "" {
			settlement.Price = afterTen(micro(named["units"]), cmp.Or(named["each"], "month"))
		}
		_, err := a.Settle(context.Background(), settlement)
		return true, err
	case "cancel":
		delete(s.calls, arg(0))
		a.Cancel()
		s.settled()
	case "die": // the process dies with its calls
		clear(s.calls)
		s.reopen()
	case "held":
		s.compare(arg(0), named, map[string]string{"held": a.Held().String(), "total": a.Total().String()})
	case "charge":
		c, err := s.Charge(context.Background(), operator, s.requests[arg(0)])
		if err != nil {
			return true, err
		}
		name := ""
		if c.HeldIn != "" {
			s.escrows["held:"+arg(0)] = c.HeldIn
		}
		for n, id := range s.escrows {
			if id == c.EscrowID {
				name = n
			}
		}
		s.compare(arg(0), named, map[string]string{
			"amount": c.Amount.String(), "commission": c.Commission.String(), "cut": c.Cut, "source": c.Source, "status": string(c.Status),
			"suspect": fmt.Sprint(c.Suspect), "balance": c.Balance.String(), "escrow": name, "refunded": c.Refunded.String(),
			"used": fmt.Sprint(c.QuotaUsed / escrow.Micro), "left": fmt.Sprint(c.QuotaLeft / escrow.Micro), "plan": c.Plan,
			"price": c.Price.String(), "score": c.Score, "decided": c.Decided.String(),
		})
	case "back":
		return true, s.shop.run(func(t *escrow.Tx) error {
			money := ledger.Amount(0)
			if arg(2) != "" {
				money = amount(arg(2))
			}
			_, err := t.RefundCharge(actor(arg(1)), s.requests[arg(0)], money, "")
			return err
		})
	default:
		return false, nil
	}
	return true, nil
}

// settled waits until all that was queued is durable.
func (s *script) settled() {
	_, err := ledger.Do(context.Background(), s.Ledger(), func(*ledger.Tx) (struct{}, error) { return struct{}{}, nil })
	must(s.t, err)
}

func (s *script) authorise(arg func(int) string, named map[string]string) error {
	s.requests[arg(0)] = s.NewRequestID()
	o := escrow.CallOrder{Request: s.requests[arg(0)], By: s.actor(arg(1)), Payee: arg(2), Least: amount(arg(3))}
	if named["most"] != "" {
		o.Most = amount(named["most"])
	}
	if arg(4) == "escrow" {
		o.From = escrow.FromEscrow
	}
	if named["named"] != "" {
		o.Escrow = s.escrows[named["named"]]
	}
	if named["open"] != "" {
		o.Open = amount(named["open"])
	}
	if named["for"] != "" {
		o.OpenFor = s.duration(named["for"])
	}
	if named["once"] != "" {
		o.IdempotencyKey = named["once"]
		copy(o.Digest[:], "digest of "+named["body"])
	}
	o.Milestone, o.Shadow = named["milestone"], named["shadow"] != ""
	if named["plan"] != "" {
		o.From, o.Plan, o.Quota, o.Over = escrow.FromSubscription, named["plan"], micro(named["quota"]), centPerUnit
	}
	a, err := s.Authorise(context.Background(), o)
	if err != nil {
		return err
	}
	s.calls[arg(0)] = a
	if arg(5) != "" { // the name of the escrow that it came to
		s.escrows[arg(5)] = a.Escrow()
	}
	return nil
}

// afterTen prices units at 0.01 each, and at 0.001 after ten of them in a period.
func afterTen(units int64, each string) func(func(escrow.Counter) int64) escrow.Priced {
	counter := escrow.Counter{Name: "units", Each: each}
	return func(used func(escrow.Counter) int64) escrow.Priced {
		dear := max(0, min(units, 10*escrow.Micro-used(counter)))
		return escrow.Priced{
			Amount: ledger.Amount(dear*10 + (units - dear)), Units: map[string]string{"units": escrow.Units(units)},
			Uses: []escrow.Use{{Counter: counter, Units: units}},
		}
	}
}

// pairs reads a:1,b:2.
func pairs(text string) map[string]string {
	all := map[string]string{}
	for part := range strings.SplitSeq(text, ",") {
		if name, value, ok := strings.Cut(part, ":"); ok {
			all[name] = value
		}
	}
	return all
}
