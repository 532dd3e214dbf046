package escrow

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Totals are sums of charges, by hour, day and month, which make reports of long times fast. They cost a call nothing: a worker adds charges
// to the totals after they were made. It goes through the lists of the payees, each of which is in the order in which the charges were made,
// and remembers how far it has come. So after a crash it goes on from there. A charge that changes later, by a refund or a decision on its
// quality, changes the totals in the same operation.

// usageView is a kind of total.
type usageView byte

const (
	viewHour  usageView = 'h' // by route, model and plan
	viewDay   usageView = 'd' // by payer, payee, route, model, key and plan
	viewMonth usageView = 'm' // the same
	viewTag   usageView = 't' // by day and the value of a tag

	// By month alone, and ranked by their sums, see usage_rank.go. Prices of subscriptions are in them.
	viewPayers usageView = 'r' // by payer: what an agent, or all, earned
	viewPayees usageView = 'e' // by payee: what an agent paid, or all earned

	// The prices of subscriptions' periods, see usage_fee.go.
	viewFeeHour  usageView = 'H' // by plan
	viewFeeDay   usageView = 'D' // by payer, payee, key and plan
	viewFeeMonth usageView = 'M' // the same
)

// view returns the totals that answer a query, or false if there are none.
func (q usageBy) view() (v usageView, ok bool) {
	coarse := func(name string) bool { return slices.Contains([]string{"route", "model", "plan"}, name) }
	day := func(name string) bool { return name == "day" || name == "month" }
	all := func(of func(string) bool) bool {
		return !slices.ContainsFunc(q.names, func(name string) bool { return !of(name) })
	}
	switch {
	case q.tag != "":
		return viewTag, all(func(name string) bool { return name == usageTag+q.tag || day(name) })
	case all(func(name string) bool { return coarse(name) || day(name) || name == "hour" }):
		return viewHour, true
	default:
		return viewDay, !slices.Contains(q.names, "hour")
	}
}

// floor returns the beginning of the view's period that t is in.
func (v usageView) floor(t time.Time) time.Time {
	t = t.UTC()
	switch v {
	case viewHour, viewFeeHour:
		return t.Truncate(time.Hour)
	case viewMonth, viewPayers, viewPayees, viewFeeMonth:
		return time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC)
	default:
		return t.Truncate(24 * time.Hour)
	}
}

// ceil returns the beginning of the view's first period that does not begin before t.
func (v usageView) ceil(t time.Time) time.Time {
	begin := v.floor(t)
	if begin.Equal(t) {
		return begin
	}
	switch v {
	case viewHour, viewFeeHour:
		return begin.Add(time.Hour)
	case viewMonth, viewPayers, viewPayees, viewFeeMonth:
		return begin.AddDate(0, 1, 0)
	default:
		return begin.AddDate(0, 0, 1)
	}
}

// key returns the key of the first total of a view from a time on. With a group's hash behind it, it is the key of a total.
func (v usageView) key(agent, tag string, at time.Time) []byte {
	name := string(v)
	if v == viewTag {
		sum := sha256.Sum256([]byte(tag))
		name += string(sum[:16])
	}
	return totalTable.key(agent, name+timeKey(at))
}

// usageTotal is the total of one group in one period.
type usageTotal struct {
	At     time.Time         `cbor:"1,keyasint"` // when the period begins
	Group  usageGroup        `cbor:"2,keyasint"`
	Calls  int64             `cbor:"3,keyasint,omitempty"`
	Paid   ledger.Amount     `cbor:"4,keyasint,omitempty"`
	Earned ledger.Amount     `cbor:"5,keyasint,omitempty"`
	Back   ledger.Amount     `cbor:"6,keyasint,omitempty"`
	Credit ledger.Amount     `cbor:"7,keyasint,omitempty"`
	Units  map[string]string `cbor:"8,keyasint,omitempty"`

	CreditBack ledger.Amount `cbor:"9,keyasint,omitempty"`
	Commission ledger.Amount `cbor:"10,keyasint,omitempty"`
	Priced     []pricedTotal `cbor:"11,keyasint,omitempty"` // only in totals of months
	Fees       ledger.Amount `cbor:"12,keyasint,omitempty"` // only in those that are ranked, and in those of fees
}

// pricedTotal is how much of a unit was charged at a price.
type pricedTotal struct {
	Unit     string `cbor:"1,keyasint"`
	Price    string `cbor:"2,keyasint,omitempty"`
	Quantity string `cbor:"3,keyasint"`
}

func (total usageTotal) usage() (Usage, error) {
	u := Usage{Calls: total.Calls, Paid: total.Paid, Earned: total.Earned, Back: total.Back, Credit: total.Credit, Fees: total.Fees, Units: make(map[string]decimal.Decimal, len(total.Units)),
		creditBack: total.CreditBack, commission: total.Commission, priced: make(map[pricedUnit]decimal.Decimal, len(total.Priced))}
	for unit, text := range total.Units {
		n, err := decimal.NewFromString(text)
		if err != nil {
			return Usage{}, fmt.Errorf("a total of %s: %w", unit, err)
		}
		u.Units[unit] = n
	}
	for _, p := range total.Priced {
		n, err := decimal.NewFromString(p.Quantity)
		if err != nil {
			return Usage{}, fmt.Errorf("a total of %s at %s: %w", p.Unit, p.Price, err)
		}
		u.priced[pricedUnit{p.Unit, p.Price}] = n
	}
	return u, nil
}

// eachTotal calls do with the totals of an agent, in the order of their times: those of periods that begin from a time on, and before another.
func (v usageView) eachTotal(r ledger.Reader, agent, tag string, from, to time.Time, do func(usageTotal, Usage) error) error {
	of := ledger.Range{From: v.key(agent, tag, from), To: v.key(agent, tag, to)}
	return r.Scan(of, func(key, value []byte) (bool, error) {
		var total usageTotal
		if err := decode(key, value, &total); err != nil {
			return false, err
		}
		u, err := total.usage()
		if err != nil {
			return false, err
		}
		return true, do(total, u)
	})
}

// sums are totals of one operation, before they are added to those in the ledger. Most charges of an operation are in the same few totals, so
// the keys of the records are made only once for all of them.
type sums map[sumOf]*Usage

// sumOf identifies a total.
type sumOf struct {
	view       usageView
	agent, tag string
	at         int64 // when the period begins, in Unix seconds
	group      usageGroup
}

func (s sums) add(v usageView, agent, tag string, at time.Time, g usageGroup, u Usage) {
	of := sumOf{view: v, agent: agent, tag: tag, at: v.floor(at).Unix(), group: g}
	sum := s[of]
	if sum == nil {
		sum = &Usage{}
		s[of] = sum
	}
	sum.add(u)
}

func (of sumOf) begin() time.Time { return time.Unix(of.at, 0).UTC() }

// key returns the key of the total's record.
func (of sumOf) key() []byte {
	g := of.group
	hash := sha256.Sum256(fmt.Appendf(nil, "%q", []string{g.Payer, g.Payee, g.Route, g.Model, g.Key, g.Plan, g.Tag}))
	return append(of.view.key(of.agent, of.tag, of.begin()), hash[:16]...)
}

// addRanked adds to the totals that are ranked: what payee got of payer.
func (s sums) addRanked(agent, payer, payee string, at time.Time, u Usage) {
	if agent == "" || agent != payer {
		s.add(viewPayers, agent, "", at, usageGroup{Payer: payer}, u)
	}
	if agent == "" || agent == payer {
		s.add(viewPayees, agent, "", at, usageGroup{Payee: payee}, u)
	}
}

// addCharge adds u, for a charge, to all totals of one of the parties, or of all agents. month is the same for the totals of months, which
// alone tell prices.
func (s sums) addCharge(agent string, c Charge, u, month Usage) {
	g := c.groupFor(agent, "")
	s.add(viewHour, agent, "", c.CreatedAt, usageGroup{Route: g.Route, Model: g.Model, Plan: g.Plan}, u)
	s.add(viewDay, agent, "", c.CreatedAt, g, u)
	s.add(viewMonth, agent, "", c.CreatedAt, g, month)
	s.addRanked(agent, c.Payer, c.Payee, c.CreatedAt, u)
	for tag, value := range c.TagsFor(agent) {
		s.add(viewTag, agent, tag, c.CreatedAt, usageGroup{Tag: value}, u)
	}
}

// addParties adds the usage of a charge, as all agents together have it, to all totals. It may be the sum of charges that are in the same totals.
func (s sums) addParties(c Charge, u Usage) {
	for _, party := range c.usageParties() {
		month := u
		if party != "" && party == c.Payer {
			month.Paid, month.Earned = u.Earned, 0
		}
		other := month
		other.priced = nil
		s.addCharge(party, c, other, month)
	}
}

// alike adds up charges that are in the same totals, so that each total is looked for once for all of them. Most charges of an operation are: of one
// payer, or of a few, on one route.
type alike map[likeCharge]*Usage

// likeCharge is what decides in which totals a charge is, if it has no tags.
type likeCharge struct {
	hour                                  int64 // in Unix seconds; all periods begin with an hour
	payer, payee, route, model, key, plan string
}

func (a alike) add(c Charge, u Usage) {
	like := likeCharge{viewHour.floor(c.CreatedAt).Unix(), c.Payer, c.Payee, c.Route, c.Model, c.Key, c.Plan}
	sum := a[like]
	if sum == nil {
		sum = &Usage{}
		a[like] = sum
	}
	sum.add(u)
}

func (l likeCharge) charge() Charge {
	return Charge{CreatedAt: time.Unix(l.hour, 0), Payer: l.payer, Payee: l.payee, Route: l.route, Model: l.model, Key: l.key, Plan: l.plan}
}

// usageParties are the agents in whose usage a charge is; the empty one stands for all agents.
func (c Charge) usageParties() []string {
	parties := []string{"", c.Payee}
	if c.Payer != "" {
		parties = append(parties, c.Payer)
	}
	return parties
}

// write adds sums to the totals in the ledger.
func (t *Tx) write(s sums) error {
	if err := t.beginTotals(); err != nil {
		return err
	}
	for of, more := range s {
		key := of.key()
		total := usageTotal{At: of.begin(), Group: of.group}
		if _, err := load(t.ledger, key, &total); err != nil {
			return err
		}
		u, err := total.usage()
		if err != nil {
			return err
		}
		before := u.Paid + u.Earned
		u.add(*more)
		if of.view.isRanked() {
			t.rank(of, before, u.Paid+u.Earned)
		}
		total.Calls, total.Paid, total.Earned, total.Back, total.Credit, total.Fees = u.Calls, u.Paid, u.Earned, u.Back, u.Credit, u.Fees
		total.Units = make(map[string]string, len(u.Units))
		for unit, n := range u.Units {
			total.Units[unit] = n.String()
		}
		total.CreditBack, total.Commission, total.Priced = u.creditBack, u.commission, nil
		for p, n := range u.priced {
			total.Priced = append(total.Priced, pricedTotal{p.unit, p.price, n.String()})
		}
		slices.SortFunc(total.Priced, func(a, b pricedTotal) int { return cmp.Or(cmp.Compare(a.Unit, b.Unit), cmp.Compare(a.Price, b.Price)) })
		if err := t.put(key, total); err != nil {
			return err
		}
	}
	return nil
}

// unkept knows the payees whose totals may be behind. It is lost when the process ends; then the totals of all payees may be behind.
type unkept struct {
	keeping sync.Mutex // one keeper at a time, since the next one relies on what it does

	mu     sync.Mutex
	begun  bool                // the payees of earlier processes are in it
	known  map[string]struct{} // payees that have a record in keptTable
	behind map[string]struct{}
}

func newUnkept() *unkept {
	return &unkept{known: map[string]struct{}{}, behind: map[string]struct{}{}}
}

func (k *unkept) knows(payee string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, known := k.known[payee]
	return known
}

// add says that the totals of a payee may be behind. It may be called inside an operation: if that is undone, there is nothing to do.
func (k *unkept) add(payee string) {
	k.mu.Lock()
	k.behind[payee] = struct{}{}
	k.mu.Unlock()
}

// list returns the payees whose totals may be behind.
func (k *unkept) list() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Collect(maps.Keys(k.behind))
}

// know says that a payee has a record in keptTable, which is durable.
func (k *unkept) know(payee string) {
	k.mu.Lock()
	k.known[payee] = struct{}{}
	k.mu.Unlock()
}

// take returns the payees whose totals may be behind, and forgets them.
func (k *unkept) take() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	payees := make([]string, 0, len(k.behind))
	for payee := range k.behind {
		payees = append(payees, payee)
	}
	clear(k.behind)
	return payees
}

// isBehind notes that a charge was made, so that it will be added to the totals.
func (t *Tx) isBehind(payee string) error {
	unkept := t.process.unkept
	if !unkept.knows(payee) {
		key := keptTable.key(payee)
		if value, err := t.ledger.Get(key); err != nil {
			return err
		} else if value == nil {
			t.ledger.Put(key, []byte{})
		}
		t.ledger.OnCommit(func() { unkept.know(payee) })
	}
	if t.process.shared {
		t.ledger.Put(behindTable.key(payee), []byte{1}) // another process may be asked for a report
		return nil
	}
	unkept.add(payee)
	return nil
}

const (
	keepSums     = 1024 // totals that one operation changes, about: a charge with many tags is in many totals
	keepTogether = 128  // charges that one operation adds to the totals; calls that settle meanwhile wait for no more than these
	sumsOfCharge = 13   // in which a charge without tags is, at most
	keepAtOnce   = 1024 // such operations in one KeepTotals
)

// KeepTotals adds charges to the totals that [Book.Usage] reads. All charges from before kept are then in the totals, unless done is false:
// then there are too many for one time. A worker should call it now and then; a report does it first.
func (b *Book) KeepTotals(ctx context.Context) (kept time.Time, done bool, err error) {
	b.process.unkept.keeping.Lock()
	defer b.process.unkept.keeping.Unlock()
	return b.keepTotals(ctx)
}

// keepTotals is [Book.KeepTotals]. The caller has locked the keeping, and while that is so, no other keeper of this process adds charges.
func (b *Book) keepTotals(ctx context.Context) (kept time.Time, done bool, err error) {
	unkept := b.process.unkept
	if !unkept.begun {
		if err := b.allBehind(); err != nil {
			return time.Time{}, false, err
		}
		unkept.begun = true
	}
	payees := unkept.take()
	// All operations before this one have noted what they did, and the charges of all later ones are not from before its time.
	if kept, err = Do(ctx, b, func(t *Tx) (time.Time, error) { return t.Now(), nil }); err != nil {
		b.stillBehind(payees)
		return time.Time{}, false, err
	}
	if b.process.shared {
		noted, err := b.behind()
		if err != nil {
			b.stillBehind(payees)
			return time.Time{}, false, err
		}
		payees = append(payees, noted...)
	}
	before, operations := kept, 0 // an operation may run on after ctx has ended, when kept is not its own any more
	for i, payee := range payees {
		for {
			if operations++; operations > keepAtOnce {
				b.stillBehind(payees[i:])
				return kept, false, nil
			}
			part, err := Do(ctx, b, func(t *Tx) (keptPart, error) { return t.keepUpTo(payee, before) })
			if err != nil {
				b.stillBehind(payees[i:])
				return time.Time{}, false, err
			}
			if part.later {
				unkept.add(payee)
			}
			if !part.more {
				break
			}
		}
	}
	return kept, true, nil
}

func (b *Book) stillBehind(payees []string) {
	for _, payee := range payees {
		b.process.unkept.add(payee)
	}
}

// allBehind notes all payees, since charges may have been made before this process began.
func (b *Book) allBehind() error {
	payees, err := b.idsIn(keptTable, "")
	for err == nil && len(payees) > 0 {
		b.stillBehind(payees)
		payees, err = b.idsIn(keptTable, payees[len(payees)-1])
	}
	return err
}

// keptPart is the result of adding some charges to the totals.
type keptPart struct {
	more  bool // some of the charges are left
	later bool // there are charges from the given time on, or after it
}

// behind returns the payees whose totals may be behind, if processes share the ledger.
func (b *Book) behind() (payees []string, err error) {
	for {
		after := ""
		if len(payees) > 0 {
			after = payees[len(payees)-1]
		}
		some, err := b.idsIn(behindTable, after)
		if err != nil || len(some) == 0 {
			return payees, err
		}
		payees = append(payees, some...)
	}
}

// keepUpTo is keepSome. If nothing is left, it notes that the totals of the payee are not behind.
func (t *Tx) keepUpTo(payee string, before time.Time) (keptPart, error) {
	part, err := t.keepSome(payee, before)
	if err == nil && t.process.shared && !part.more && !part.later {
		t.ledger.Delete(behindTable.key(payee))
	}
	return part, err
}

// keepSome adds some charges of a payee to the totals: those that are not in them yet, and that were made before a time.
func (t *Tx) keepSome(payee string, before time.Time) (part keptPart, err error) {
	last, err := t.ledger.Get(keptTable.key(payee))
	if err != nil {
		return part, err
	}
	all := chargeByAgent.under(payee)
	if len(last) > 0 {
		all.From = append(chargeByAgent.key(payee, string(last)), 0)
	}
	var places []string // of charges in the list: time and request id
	err = t.ledger.Scan(all, func(key, _ []byte) (bool, error) {
		next := chargeByAgent.lastPart(key, payee)
		switch {
		case next[:8] >= timeKey(before):
			part.later = true
			return false, nil
		case len(places) == keepTogether:
			part.more = true
			return false, nil
		}
		places = append(places, next)
		return true, nil
	})
	if err != nil || len(places) == 0 {
		return part, err
	}
	sums, like := sums{}, alike{}
	var charges []Charge
	for _, place := range places {
		if len(sums)+len(like)*sumsOfCharge >= keepSums {
			part.more = true
			break
		}
		last = []byte(place)
		c, found, err := t.charge(place[8:])
		if err != nil {
			return part, err
		}
		if !found || c.Payee != payee {
			continue // what a payee has paid itself is in the totals of those that it has paid
		}
		charges = append(charges, c)
		if u := c.withPrices(c.usageFor("")); len(c.Tags) > 0 {
			sums.addParties(c, u)
		} else {
			like.add(c, u)
		}
	}
	for c, u := range like {
		sums.addParties(c.charge(), *u)
	}
	t.ledger.Put(keptTable.key(payee), last)
	if err := t.write(sums); err != nil {
		return part, err
	}
	return part, t.tellCharges(charges)
}

// saveCharge writes a charge that has changed, and changes the totals in which it is.
func (t *Tx) saveCharge(c Charge) error {
	old, found, err := t.charge(c.RequestID)
	if err != nil {
		return err
	}
	last, err := t.ledger.Get(keptTable.key(c.Payee))
	if err != nil {
		return err
	}
	if found && timeKey(c.CreatedAt)+c.RequestID <= string(last) {
		sums := sums{}
		sums.addParties(c, c.usageFor("").minus(old.usageFor(""))) // units and prices of a charge never change
		if err := t.write(sums); err != nil {
			return err
		}
	}
	t.changed(c.Payer, c.Payee)
	return t.put(chargeTable.key(c.RequestID), &c)
}
