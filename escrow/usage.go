package escrow

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// UsageQuery asks for the sums of an agent's charges and subscription prices.
type UsageQuery struct {
	Agent    string    // whose, as payer or payee; empty: all agents', which only the operator may see
	From, To time.Time // From <= time < To; zero: no bound. A charge counts when it was made, a subscription's price when its period begins
	By       []string  // the groups: payer, payee, route, model, key, plan, hour, day, month (in UTC) or tag:NAME; none: payee
	Top      int       // only so many groups with the largest sums, largest first; 0: all, in the order of their values
	TopOf    Sum       // by which sum; empty: what was paid and earned together
}

// Sum names a sum of a usage.
type Sum string

// The sums by which groups can be chosen.
const (
	SumPaid   Sum = "paid"
	SumEarned Sum = "earned"
)

func (s Sum) of(u Usage) ledger.Amount {
	switch s {
	case SumPaid:
		return u.Paid
	case SumEarned:
		return u.Earned
	default:
		return u.Paid + u.Earned
	}
}

// largest returns the rows with the n largest sums, largest first. Rows whose sum is zero are left out.
func (s Sum) largest(rows []UsageRow, n int) []UsageRow {
	rows = slices.DeleteFunc(rows, func(row UsageRow) bool { return s.of(row.Usage) == 0 })
	slices.SortStableFunc(rows, func(a, b UsageRow) int { return cmp.Compare(s.of(b.Usage), s.of(a.Usage)) })
	return rows[:min(n, len(rows))]
}

// UsageRow is the sum of one group.
type UsageRow struct {
	Group []string // a value for each of the query's By
	Usage
}

// Usage is a sum of charges and subscription prices.
type Usage struct {
	Calls  int64
	Paid   ledger.Amount // as payer, before refunds, with Fees
	Earned ledger.Amount // as payee, before refunds, with Fees, and including the operator's commission; for all agents: everything
	Back   ledger.Amount // part of Paid and Earned that was refunded
	Credit ledger.Amount // part of Paid and Earned that credit paid, before refunds
	Fees   ledger.Amount // part of Paid and Earned that were prices of subscriptions' periods
	Units  map[string]decimal.Decimal

	// What only invoices tell.
	creditBack ledger.Amount // part of Back that was given back as credit
	commission ledger.Amount // part of Paid and Earned that the operator took of charges and kept
	priced     map[pricedUnit]decimal.Decimal
}

// pricedUnit is a unit and the price at which it was charged, as the charge states it.
type pricedUnit struct{ unit, price string }

func (u *Usage) add(v Usage) {
	u.Calls += v.Calls
	u.Paid += v.Paid
	u.Earned += v.Earned
	u.Back += v.Back
	u.Credit += v.Credit
	u.Fees += v.Fees
	u.creditBack += v.creditBack
	u.commission += v.commission
	for unit, n := range v.priced {
		if u.priced == nil {
			u.priced = make(map[pricedUnit]decimal.Decimal, len(v.priced))
		}
		if _, listed := u.priced[unit]; !listed && len(u.priced) >= maxPriced {
			unit.price = ""
		}
		u.priced[unit] = u.priced[unit].Add(n)
	}
	for unit, n := range v.Units {
		if u.Units == nil {
			u.Units = make(map[string]decimal.Decimal, len(v.Units))
		}
		u.Units[unit] = u.Units[unit].Add(n)
	}
}

// minus returns what must be added to v to get u.
func (u Usage) minus(v Usage) Usage {
	less := Usage{Calls: u.Calls - v.Calls, Paid: u.Paid - v.Paid, Earned: u.Earned - v.Earned, Back: u.Back - v.Back, Credit: u.Credit - v.Credit, Fees: u.Fees - v.Fees,
		creditBack: u.creditBack - v.creditBack, commission: u.commission - v.commission}
	less.Units = make(map[string]decimal.Decimal, len(u.Units))
	for unit, n := range u.Units {
		less.Units[unit] = n
	}
	for unit, n := range v.Units {
		less.Units[unit] = less.Units[unit].Sub(n)
	}
	return less
}

// usageFor returns what the charge adds to the usage of an agent.
func (c Charge) usageFor(agent string) Usage {
	u := Usage{Calls: 1, Back: c.Refunded, Credit: c.Credit, creditBack: c.CreditBack, commission: c.Commission - c.CommissionBack, Units: make(map[string]decimal.Decimal, len(c.Units))}
	if agent != "" && c.Payer == agent {
		u.Paid = c.Amount
	} else {
		u.Earned = c.Amount
	}
	for unit, text := range c.Units {
		if n, err := decimal.NewFromString(text); err == nil {
			u.Units[unit] = n
		}
	}
	return u
}

// maxPriced is how many pairs of a unit and a price one sum tells apart. Further prices are added up without the price.
const maxPriced = 64

// withPrices adds to a usage at which prices the units of the charge were charged.
func (c Charge) withPrices(u Usage) Usage {
	u.priced = make(map[pricedUnit]decimal.Decimal, len(u.Units))
	for unit, n := range u.Units {
		price := c.UnitPrices[unit]
		if strings.Contains(price, ";") { // the text of a price with tiers says where in the tiers the call began
			price = ""
		}
		u.priced[pricedUnit{unit, price}] = n
	}
	return u
}

// usageGroup is what usage is grouped by. The fields that do not matter are empty.
type usageGroup struct {
	Payer string `cbor:"1,keyasint,omitempty"`
	Payee string `cbor:"2,keyasint,omitempty"`
	Route string `cbor:"3,keyasint,omitempty"`
	Model string `cbor:"4,keyasint,omitempty"`
	Key   string `cbor:"5,keyasint,omitempty"`
	Plan  string `cbor:"6,keyasint,omitempty"`
	Tag   string `cbor:"7,keyasint,omitempty"` // of the tag that is asked for
}

// groupFor returns the group of a charge in the usage of an agent. Keys and unshared tags of a payer are private, so they do not group the
// charges in the reports of others.
func (c Charge) groupFor(agent, tag string) usageGroup {
	g := usageGroup{Payer: c.Payer, Payee: c.Payee, Route: c.Route, Model: c.Model, Plan: c.Plan}
	if c.Payer == agent {
		g.Key = c.Key
	}
	if tag != "" {
		g.Tag = c.TagsFor(agent)[tag]
	}
	return g
}

// usageBy is how a query groups: which fields of a group count, and how long a span of time is.
type usageBy struct {
	names []string
	tag   string // the name of the tag that groups, if any
}

const usageTag = "tag:"

func readUsageBy(by []string) (usageBy, error) {
	if len(by) == 0 {
		by = []string{"payee"}
	}
	q := usageBy{names: by}
	for i, name := range by {
		if slices.Contains(by[:i], name) {
			return q, invalid("group_by", "group_by names %.40q twice", name)
		}
		if tag, is := strings.CutPrefix(name, usageTag); is && tag != "" {
			if q.tag != "" {
				return q, invalid("group_by", "group_by names two tags; one at a time can group")
			}
			q.tag = tag
			continue
		}
		switch name {
		case "payer", "payee", "route", "model", "key", "plan", "hour", "day", "month":
		default:
			return q, invalid("group_by", "group_by %.40q: payer, payee, route, model, key, plan, hour, day, month or tag:NAME, several with commas between them", name)
		}
	}
	return q, nil
}

// values returns the values of a group, at a time.
func (q usageBy) values(g usageGroup, at time.Time) []string {
	values := make([]string, len(q.names))
	for i, name := range q.names {
		switch name {
		case "payer":
			values[i] = g.Payer
		case "payee":
			values[i] = g.Payee
		case "route":
			values[i] = g.Route
		case "model":
			values[i] = g.Model
		case "key":
			values[i] = g.Key
		case "plan":
			values[i] = g.Plan
		case "hour":
			values[i] = at.UTC().Format("2006-01-02T15Z")
		case "day":
			values[i] = at.UTC().Format(time.DateOnly)
		case "month":
			values[i] = at.UTC().Format("2006-01")
		default:
			values[i] = g.Tag
		}
	}
	return values
}

// Usage adds up charges and subscription prices. It reads the totals that are kept (see [Book.KeepTotals]) as far as they answer the query.
// The largest payers or payees of one calendar month are ranked, so however many there are, only those are read. Usage
// adds up single charges and prices for what the totals do not answer: the parts of a day or an hour at From and To, hours together with payers, payees or
// keys, and tags together with anything but days and months. whole is false if there were more records than it adds up.
func (b *Book) Usage(ctx context.Context, q UsageQuery) (rows []UsageRow, whole bool, err error) {
	by, err := readUsageBy(q.By)
	if err != nil {
		return nil, false, err
	}
	end, err := b.awaitReport(ctx, q.Agent)
	if err != nil {
		return nil, false, err
	}
	defer end()
	since, err := b.totalsBegin()
	if err != nil {
		return nil, false, err
	}
	if of, ok := q.ranked(b.Now()); ok && !of.begin().Before(since) {
		return b.rankedUsage(ctx, of, q)
	}
	kept, done, err := b.KeepTotals(ctx)
	if err != nil {
		return nil, false, err
	}
	r := &report{ctx: ctx, book: b, agent: q.Agent, by: by, kept: kept, rows: map[string]*UsageRow{}}
	if q.From.Before(time.Unix(0, 0)) {
		q.From = time.Unix(0, 0)
	}
	if q.To.IsZero() {
		q.To = endOfTime
	}
	if err = r.addFees(q.From, q.To); err == nil {
		err = r.addCharges(q.From, q.To)
	}
	if err != nil && !errors.Is(err, errTooMuchUsage) {
		return nil, false, err
	}
	for _, row := range r.rows {
		if row.Calls != 0 || row.Fees != 0 || row.Back != 0 {
			rows = append(rows, *row)
		}
	}
	slices.SortFunc(rows, func(a, b UsageRow) int { return slices.Compare(a.Group, b.Group) })
	if q.Top > 0 {
		rows = q.TopOf.largest(rows, q.Top)
	}
	return rows, err == nil && done, nil
}

// endOfTime is later than all times in the books.
var endOfTime = time.Unix(0, math.MaxInt64).UTC()

// maxUsage is the largest number of records that one answer adds up. maxGroups is how many groups the report of one agent may have: each takes
// memory, and the tags by which it groups are as many as the agent likes.
const (
	maxUsage  = 200_000
	maxGroups = 20_000
)

// errTooMuchUsage ends a report that has added up [maxUsage] records, or has [maxGroups].
var errTooMuchUsage = errors.New("too many records to add up")

// report adds up usage.
type report struct {
	ctx   context.Context
	book  *Book
	agent string
	by    usageBy
	price bool      // the sums tell prices; only months' totals do
	kept  time.Time // charges from before it are in the totals
	rows  map[string]*UsageRow
	seen  int
}

// sees counts a record that is added up.
func (r *report) sees() error {
	if r.seen++; r.seen > maxUsage || r.agent != "" && len(r.rows) > maxGroups {
		return errTooMuchUsage
	}
	return r.ctx.Err()
}

func (r *report) add(g usageGroup, at time.Time, u Usage) {
	values := r.by.values(g, at)
	name := strings.Join(values, "\x00")
	if r.rows[name] == nil {
		r.rows[name] = &UsageRow{Group: values}
	}
	r.rows[name].add(u)
}

// addCharges adds up the charges of a span of time: from the totals for whole periods, and one by one for what is left at both ends. What is
// not in the totals yet is the end, too.
func (r *report) addCharges(from, to time.Time) error {
	view, ok := r.by.view()
	first := view.ceil(from)
	if !ok || first.After(r.kept) {
		return r.addSingle(from, to)
	}
	last := view.floor(to)
	if !to.Before(r.kept) { // the totals contain nothing from after r.kept
		last = to
	}
	if !first.Before(last) {
		return r.addSingle(from, to)
	}
	if err := r.addSingle(from, first); err != nil {
		return err
	}
	if err := r.addTotals(view, first, last); err != nil {
		return err
	}
	if last.Equal(to) {
		last = r.kept
	}
	return r.addSingle(last, to)
}

// addTotals adds up totals. A view by days is left for the same one by months where whole months are asked for, and no days. The totals of a
// tag have no row for the charges without it; these are all others.
func (r *report) addTotals(view usageView, from, to time.Time) error {
	if view == viewTag {
		if err := r.readTotals(viewHour, from, to, r.add); err != nil {
			return err
		}
		return r.readTotals(viewTag, from, to, func(g usageGroup, at time.Time, u Usage) {
			r.add(g, at, u)
			r.add(usageGroup{}, at, Usage{}.minus(u))
		})
	}
	if view != viewDay {
		return r.readTotals(view, from, to, r.add)
	}
	months := viewMonth.floor(to)
	if !to.Before(r.kept) {
		months = to
	}
	return r.addDays(viewDay, viewMonth, from, to, months)
}

// addDays adds up totals of days. It reads those of months instead, as far as there are whole months until a time, and if the report doesn't
// tell days apart.
func (r *report) addDays(day, month usageView, from, to, months time.Time) error {
	first := month.ceil(from)
	if slices.Contains(r.by.names, "day") || !first.Before(months) {
		return r.readTotals(day, from, to, r.add)
	}
	if err := r.readTotals(day, from, first, r.add); err != nil {
		return err
	}
	if err := r.readTotals(month, first, months, r.add); err != nil {
		return err
	}
	return r.readTotals(day, months, to, r.add)
}

func (r *report) readTotals(view usageView, from, to time.Time, add func(usageGroup, time.Time, Usage)) error {
	if !from.Before(to) {
		return nil
	}
	tag := ""
	if view == viewTag {
		tag = r.by.tag
	}
	return r.book.view(func(reader ledger.Reader) error {
		return view.eachTotal(reader, r.agent, tag, from, to, func(total usageTotal, u Usage) error {
			if view == viewHour && r.by.tag != "" {
				total.Group = usageGroup{}
			}
			add(total.Group, total.At, u)
			return r.sees()
		})
	})
}

// addSingle adds up charges one by one.
func (r *report) addSingle(from, to time.Time) error {
	if !from.Before(to) {
		return nil
	}
	if r.agent != "" {
		return r.addChargesOf(r.agent, from, to)
	}
	payees, err := r.book.idsIn(keptTable, "")
	for err == nil && len(payees) > 0 {
		for _, payee := range payees {
			if err = r.addChargesOf(payee, from, to); err != nil {
				return err
			}
		}
		payees, err = r.book.idsIn(keptTable, payees[len(payees)-1])
	}
	return err
}

// addChargesOf adds up the charges in the list of an agent. In a report of all agents, that is a payee, and what it has paid is in the list of
// others.
func (r *report) addChargesOf(agent string, from, to time.Time) error {
	f, p := ChargeFilter{Agent: agent, From: from, To: to}, Page{Limit: MaxPage}
	if r.agent == "" {
		f.Payee = agent
	}
	for {
		charges, next, err := r.book.Charges(f, p)
		if err != nil {
			return err
		}
		for _, c := range charges {
			if err := r.sees(); err != nil {
				return err
			}
			u := c.usageFor(r.agent)
			if r.price {
				u = c.withPrices(u)
			}
			r.add(c.groupFor(r.agent, r.by.tag), c.CreatedAt, u)
		}
		if next == "" {
			return nil
		}
		p.Before = next
	}
}
