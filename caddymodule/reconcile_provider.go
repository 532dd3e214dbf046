package caddymodule

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/meter"
)

// A reconciliation compares a provider's report of usage or costs with the charges in the ledger, by day and model.

// billed is the usage and the amount of a model on a day, as stated by the provider, or by the ledger. Fields that are not stated are nil.
type billed struct {
	Requests *int64           `json:"requests,omitempty"`
	Input    *decimal.Decimal `json:"input_tokens,omitempty"` // all classes of input together
	Output   *decimal.Decimal `json:"output_tokens,omitempty"`
	Amount   *decimal.Decimal `json:"amount,omitempty"` // what the provider bills, or what the ledger has charged
}

// billedLine is a line of a provider's report.
type billedLine struct {
	Day   string `json:"day"` // in UTC, such as 2026-11-24
	Model string `json:"model"`
	billed
}

type reconcileArgs struct {
	Lines []billedLine `json:"lines"`
	Payee string       `json:"payee,omitempty"` // compare only the charges of this payee; empty: all
	Route string       `json:"route,omitempty"` // compare only the charges of this route; empty: all
}

// reconciled is the result of `tallygate reconcile`.
type reconciled struct {
	From        string       `json:"from"` // the first day of the report, and the last
	To          string       `json:"to"`
	Days        []comparison `json:"days"`
	Differences int          `json:"differences"`
}

// comparison compares one model on one day. Difference says in words what differs; it is empty if nothing does.
type comparison struct {
	Day        string   `json:"day"`
	Model      string   `json:"model"`
	Provider   *billed  `json:"provider"`
	Ledger     *billed  `json:"ledger"`
	Difference []string `json:"difference,omitempty"`
}

type dayAndModel struct{ day, model string }

func reconcile(ctx context.Context, on bench, args reconcileArgs) (reconciled, error) {
	theirs := map[dayAndModel]*billed{}
	var r reconciled
	for _, line := range args.Lines {
		if _, err := time.Parse(time.DateOnly, line.Day); err != nil {
			return r, fmt.Errorf("day %q: expected a date such as 2026-11-24", line.Day)
		}
		theirs[dayAndModel{line.Day, line.Model}] = &line.billed
		if r.From == "" || line.Day < r.From {
			r.From = line.Day
		}
		r.To = max(r.To, line.Day)
	}
	if len(theirs) == 0 {
		return r, fmt.Errorf("the report has no line with a day and a model")
	}
	ours, err := chargedByDay(ctx, on, args, r.From, r.To)
	if err != nil {
		return r, err
	}
	all := maps.Clone(theirs)
	for at := range ours {
		all[at] = nil
	}
	for _, at := range slices.SortedFunc(maps.Keys(all), func(a, b dayAndModel) int {
		return cmp.Or(cmp.Compare(a.day, b.day), cmp.Compare(a.model, b.model))
	}) {
		c := comparison{Day: at.day, Model: at.model, Provider: theirs[at], Ledger: ours[at]}
		c.compare()
		if len(c.Difference) > 0 {
			r.Differences++
		}
		r.Days = append(r.Days, c)
	}
	return r, nil
}

// chargedByDay adds up the charges of the days from one to another, including both.
func chargedByDay(ctx context.Context, on bench, args reconcileArgs, from, to string) (map[dayAndModel]*billed, error) {
	filter := escrow.ChargeFilter{Payee: args.Payee, Route: args.Route}
	filter.From, _ = time.Parse(time.DateOnly, from)
	filter.To, _ = time.Parse(time.DateOnly, to)
	filter.To = filter.To.AddDate(0, 0, 1)
	ours := map[dayAndModel]*billed{}
	for page := (escrow.Page{Limit: escrow.MaxPage}); ; {
		charges, next, err := on.Charges(filter, page)
		if err != nil {
			return nil, err
		}
		for _, c := range charges {
			addCharge(ours, c)
		}
		if page.Before = next; next == "" {
			return ours, ctx.Err()
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
}

// addCharge adds a charge to its model. Usage of another model within the call (CLASS@MODEL) is added to that model.
func addCharge(ours map[dayAndModel]*billed, c escrow.Charge) {
	day := c.CreatedAt.UTC().Format(time.DateOnly)
	of := func(model string) *billed {
		at := dayAndModel{day, modelName(model)}
		if ours[at] == nil {
			ours[at] = &billed{Requests: new(int64), Input: new(decimal.Decimal), Output: new(decimal.Decimal), Amount: new(decimal.Decimal)}
		}
		return ours[at]
	}
	own := of(c.Model)
	*own.Requests++
	*own.Amount = own.Amount.Add(decimal.New(int64(c.Amount), -9))
	for name, text := range c.Units {
		n, err := decimal.NewFromString(text)
		if err != nil {
			continue
		}
		into := own
		class, model, beside := strings.Cut(name, "@")
		if beside {
			into = of(model)
		}
		switch meter.Class(class) {
		case meter.Input, meter.Cached, meter.CacheWrite, meter.CacheWrite1h, meter.AudioInput, meter.ImageInput:
			*into.Input = into.Input.Add(n)
		case meter.Output, meter.Reasoning, meter.AudioOutput, meter.ImageOutput:
			*into.Output = into.Output.Add(n)
		}
	}
}

// addUp adds up the lines of each day and model. It replaces model names by the names that are compared with the ledger's.
func addUp(lines []billedLine) []billedLine {
	sums := map[dayAndModel]*billedLine{}
	var list []billedLine
	for _, line := range lines {
		line.Model = modelName(line.Model)
		at := dayAndModel{line.Day, line.Model}
		if sums[at] == nil {
			sums[at] = &billedLine{Day: line.Day, Model: line.Model}
		}
		sums[at].add(line.billed)
	}
	for _, sum := range sums {
		list = append(list, *sum)
	}
	return list
}

// add adds another line for the same day and model.
func (b *billed) add(other billed) {
	if other.Requests != nil {
		if b.Requests == nil {
			b.Requests = new(int64)
		}
		*b.Requests += *other.Requests
	}
	for _, sum := range []struct {
		into **decimal.Decimal
		of   *decimal.Decimal
	}{{&b.Input, other.Input}, {&b.Output, other.Output}, {&b.Amount, other.Amount}} {
		if sum.of == nil {
			continue
		}
		if *sum.into == nil {
			*sum.into = new(decimal.Decimal)
		}
		**sum.into = (*sum.into).Add(*sum.of)
	}
}

// compare lists the differences. An amount is a difference only if less was charged than the provider bills, since prices may contain a
// profit.
func (c *comparison) compare() {
	differ := func(format string, words ...any) { c.Difference = append(c.Difference, fmt.Sprintf(format, words...)) }
	switch {
	case c.Ledger == nil:
		differ("in the provider's report, but no charge in the ledger")
		return
	case c.Provider == nil:
		differ("charges in the ledger, but not in the provider's report")
		return
	}
	if their, our := c.Provider.Requests, c.Ledger.Requests; their != nil && *their != *our {
		differ("requests: the provider has %d, the ledger %d", *their, *our)
	}
	tokens := func(what string, their, our *decimal.Decimal) {
		if their != nil && !their.Equal(*our) {
			differ("%s: the provider has %s, the ledger %s", what, their, our)
		}
	}
	tokens("input tokens", c.Provider.Input, c.Ledger.Input)
	tokens("output tokens", c.Provider.Output, c.Ledger.Output)
	if their, our := c.Provider.Amount, c.Ledger.Amount; their != nil && our.LessThan(*their) {
		differ("amount: the provider bills %s, %s was charged", their, our)
	}
}

// dated matches the date of release at the end of a model's name.
var dated = regexp.MustCompile(`-(\d{4}-\d{2}-\d{2}|\d{8})$`)

// modelName returns a model's name without the parts that providers and reports spell differently: the case of letters, the date of
// release, and the name of the provider.
func modelName(name string) string {
	name = strings.ToLower(strings.TrimSpace(name))
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		name = name[i+1:]
	}
	return dated.ReplaceAllString(name, "")
}

func (r reconciled) print(w io.Writer) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "day\tmodel\trequests\tinput\toutput\tamount\t")
	for _, c := range r.Days {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", c.Day, printable(cmp.Or(c.Model, "(none)")), c.Ledger.columns(), strings.Join(c.Difference, "; "))
	}
	_ = table.Flush()
	fmt.Fprintf(w, "%s to %s: %d of %d differ\n", r.From, r.To, r.Differences, len(r.Days))
}

func (b *billed) columns() string {
	if b == nil {
		return "-\t-\t-\t-"
	}
	return fmt.Sprintf("%d\t%s\t%s\t%s", *b.Requests, b.Input, b.Output, b.Amount)
}
