package escrow

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// UsageRow is the sum of an agent's charges of one group in a span of time.
type UsageRow struct {
	Group  string // the payee, route, ... of the group
	Calls  int64
	Paid   ledger.Amount // as payer, before refunds
	Earned ledger.Amount // as payee, commission included
	Back   ledger.Amount // part of both that was refunded
	Credit ledger.Amount // part of both that credit paid, before refunds
	Units  map[string]string
}

// maxUsage is the largest number of charges that one answer adds up.
const maxUsage = 200_000

// Usage adds up the charges of an agent with From <= time < To, by "payee" (default), "payer", "route", "model", "day", "key", or
// "tag:NAME". whole is false if there were more charges than [Book.Usage] adds up.
func (b *Book) Usage(ctx context.Context, f ChargeFilter, groupBy string) (rows []UsageRow, whole bool, err error) {
	group, err := grouping(f.Agent, groupBy)
	if err != nil {
		return nil, false, err
	}
	groups, units := map[string]*UsageRow{}, map[string]map[string]decimal.Decimal{}
	for p, seen := (Page{Limit: MaxPage}), 0; seen < maxUsage; seen += MaxPage {
		charges, next, err := b.Charges(f, p)
		if err != nil {
			return nil, false, err
		}
		for _, c := range charges {
			name := group(c)
			if groups[name] == nil {
				groups[name], units[name] = &UsageRow{Group: name}, map[string]decimal.Decimal{}
			}
			groups[name].add(f.Agent, c, units[name])
		}
		if next == "" {
			whole = true
			break
		}
		if p.Before = next; ctx.Err() != nil {
			return nil, false, ctx.Err()
		}
	}
	for name, row := range groups {
		row.Units = map[string]string{}
		for unit, n := range units[name] {
			row.Units[unit] = n.String()
		}
		rows = append(rows, *row)
	}
	slices.SortFunc(rows, func(a, b UsageRow) int { return cmp.Compare(a.Group, b.Group) })
	return rows, whole, nil
}

func (row *UsageRow) add(agent string, c Charge, units map[string]decimal.Decimal) {
	row.Calls++
	row.Back += c.Refunded
	row.Credit += c.Credit
	if c.Payer == agent {
		row.Paid += c.Amount
	} else {
		row.Earned += c.Amount
	}
	for unit, text := range c.Units {
		if n, err := decimal.NewFromString(text); err == nil {
			units[unit] = units[unit].Add(n)
		}
	}
}

// grouping returns the function that gives the group of a charge. Keys and unshared tags of a payer are private, so they do not group the charges
// in the reports of its payees.
func grouping(agent, by string) (func(Charge) string, error) {
	if tag, is := strings.CutPrefix(by, "tag:"); is && tag != "" {
		return func(c Charge) string { return c.TagsFor(agent)[tag] }, nil
	}
	switch by {
	case "", "payee":
		return func(c Charge) string { return c.Payee }, nil
	case "payer":
		return func(c Charge) string { return c.Payer }, nil
	case "route":
		return func(c Charge) string { return c.Route }, nil
	case "model":
		return func(c Charge) string { return c.Model }, nil
	case "key":
		return func(c Charge) string {
			if c.Payer != agent {
				return ""
			}
			return c.Key
		}, nil
	case "day":
		return func(c Charge) string { return c.CreatedAt.Format(time.DateOnly) }, nil
	default:
		return nil, invalid("group_by", "group_by %.40q: payee, payer, route, model, key, day or tag:NAME", by)
	}
}

// Statement is the statement of a wallet for one month.
type Statement struct {
	Agent    string
	From, To time.Time
	Opening  ledger.Amount
	Closing  ledger.Amount // at the present, if the month is not over
	Lines    []StatementLine
}

// StatementLine is the sum of all transfers of one kind.
type StatementLine struct {
	Kind    string
	Count   int64
	In, Out ledger.Amount
}

// Statement adds up what moved in a wallet in a month, such as 2026-11.
func (b *Book) Statement(ctx context.Context, agent, month string) (Statement, error) {
	from, err := time.Parse("2006-01", month)
	if err != nil {
		return Statement{}, invalid("month", "month %.40q: write it like 2026-11", month)
	}
	s := Statement{Agent: agent, From: from, To: from.AddDate(0, 1, 0)}
	wallet, err := b.Wallet(ctx, agent)
	if err != nil {
		return Statement{}, err
	}
	s.Opening, s.Closing = wallet.Balance, wallet.Balance
	lines := map[string]*StatementLine{}
	for before, more := uint64(0), true; more; {
		entries, next, err := b.Entries(ctx, agent, before, MaxPage)
		if err != nil {
			return Statement{}, err
		}
		for _, e := range entries {
			if more = !e.At.Before(from); !more {
				break
			}
			s.add(e, lines)
		}
		if before, more = next, more && next != 0; ctx.Err() != nil {
			return Statement{}, ctx.Err()
		}
	}
	for _, line := range lines {
		s.Lines = append(s.Lines, *line)
	}
	slices.SortFunc(s.Lines, func(a, b StatementLine) int { return cmp.Compare(a.Kind, b.Kind) })
	return s, nil
}

// add adds an entry; entries come newest first.
func (s *Statement) add(e Entry, lines map[string]*StatementLine) {
	s.Opening = e.BalanceAfter - e.Amount
	if !e.At.Before(s.To) {
		s.Closing = s.Opening
		return
	}
	if lines[e.Kind] == nil {
		lines[e.Kind] = &StatementLine{Kind: e.Kind}
	}
	line := lines[e.Kind]
	line.Count++
	line.In += max(e.Amount, 0)
	line.Out += max(-e.Amount, 0)
}
