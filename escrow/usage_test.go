package escrow_test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"
	"pgregory.net/rapid"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
)

func TestUsageAndStatement(t *testing.T) {
	s := newShop(t, defaultRules())
	s.agents("100", "alice")
	s.agents("0", "shop", "other")
	call := func(payee, model, price, team string) string {
		id := s.NewRequestID()
		a, err := s.Authorise(context.Background(), escrow.CallOrder{Request: id, By: by("alice"), Payee: payee, Least: amount(price), Model: model, Tags: map[string]string{"team": team}})
		must(t, err)
		_, err = a.Settle(context.Background(), escrow.Settlement{Amount: amount(price), Units: map[string]string{"input": "1.5", "output": "2"}})
		must(t, err)
		return id
	}
	call("shop", "small", "1", "x")
	first := call("shop", "large", "2", "y")
	must(t, s.run(func(tx *escrow.Tx) error { _, err := tx.RefundCharge(by("shop"), first, amount("0.5"), ""); return err }))
	s.clock.advance(8 * 24 * time.Hour) // into December
	call("other", "small", "4", "x")
	for _, test := range []struct{ agent, by, from, to, want string }{
		{"alice", "", "", "", "other 1 4 0 0 0 0 1.5/2, shop 2 3 0 0.5 0 0 3/4"},
		{"alice", "model", "", "", "large 1 2 0 0.5 0 0 1.5/2, small 2 5 0 0 0 0 3/4"},
		{"alice", "day", "", "", "2026-11-24 2 3 0 0.5 0 0 3/4, 2026-12-02 1 4 0 0 0 0 1.5/2"},
		{"alice", "month,payee", "", "", "2026-11 shop 2 3 0 0.5 0 0 3/4, 2026-12 other 1 4 0 0 0 0 1.5/2"},
		{"alice", "model,month", "", "2026-12-01", "large 2026-11 1 2 0 0.5 0 0 1.5/2, small 2026-11 1 1 0 0 0 0 1.5/2"},
		{"alice", "tag:team", "2026-12-01", "", "x 1 4 0 0 0 0 1.5/2"},
		{"shop", "payer", "", "", "alice 2 0 3 0.5 0 0 3/4"},
		{"shop", "tag:team", "", "", " 2 0 3 0.5 0 0 3/4"},
		{"shop", "", "2026-12-01", "", ""},
		{"", "payee", "", "", "other 1 0 4 0 0 0 1.5/2, shop 2 0 3 0.5 0 0 3/4"},
		{"", "payer,model", "", "", "alice large 1 0 2 0.5 0 0 1.5/2, alice small 2 0 5 0 0 0 3/4"},
	} {
		if got := usage(t, s, test.agent, test.by, test.from, test.to); got != test.want {
			t.Errorf("usage of %s by %q from %q: %s, want %s", test.agent, test.by, test.from, got, test.want)
		}
	}
	for _, test := range []struct {
		agent, by string
		top       int
		of        escrow.Sum
		want      string
	}{
		{"alice", "payee", 1, "", "[[other]]"},
		{"alice", "model", 5, escrow.SumPaid, "[[small] [large]]"},
		{"alice", "payee", 5, escrow.SumEarned, "[]"},
		{"", "payer,payee", 5, escrow.SumEarned, "[[alice other] [alice shop]]"},
	} {
		rows, whole, err := s.Usage(context.Background(), escrow.UsageQuery{Agent: test.agent, By: strings.Split(test.by, ","), Top: test.top, TopOf: test.of})
		must(t, err)
		groups := [][]string{}
		for _, row := range rows {
			groups = append(groups, row.Group)
		}
		if got := fmt.Sprint(groups); got != test.want || !whole {
			t.Errorf("the %d largest of %s by %s %s: %s, want %s", test.top, test.agent, test.by, test.of, got, test.want)
		}
	}
	for _, by := range []string{"colour", "payee,payee", "tag:", "tag:a,tag:b"} {
		_, _, err := s.Usage(context.Background(), escrow.UsageQuery{Agent: "alice", By: strings.Split(by, ",")})
		if !escrow.IsRefusal(err, escrow.InvalidRequest) {
			t.Errorf("grouped by %s: %v", by, err)
		}
	}
	for month, want := range map[string]string{
		"2026-10": "0 0 []",
		"2026-11": "0 97.5 [{charge 2 0 3} {charge_refund 1 0.5 0} {deposit 1 100 0}]",
		"2026-12": "97.5 93.5 [{charge 1 0 4}]",
		"2027-01": "93.5 93.5 []",
	} {
		st, err := s.Statement(context.Background(), "alice", month)
		must(t, err)
		if got := fmt.Sprint(st.Opening, " ", st.Closing, " ", st.Lines); got != want {
			t.Errorf("statement of %s: %s, want %s", month, got, want)
		}
	}
	if _, err := s.Statement(context.Background(), "alice", "November"); !escrow.IsRefusal(err, escrow.InvalidRequest) {
		t.Errorf("a statement of November: %v", err)
	}
}

// usage returns a report as text: for each row the group, the calls, what was paid, earned, refunded, paid by credit and for subscriptions, and
// the units "input" and "output".
func usage(t *testing.T, s *shop, agent, by, from, to string) string {
	t.Helper()
	q := escrow.UsageQuery{Agent: agent}
	if by != "" {
		q.By = strings.Split(by, ",")
	}
	var err error
	if from != "" {
		q.From, err = time.Parse(time.DateOnly, from)
		must(t, err)
	}
	if to != "" {
		q.To, err = time.Parse(time.DateOnly, to)
		must(t, err)
	}
	rows, whole, err := s.Usage(context.Background(), q)
	must(t, err)
	if !whole {
		t.Errorf("the usage of %s by %q is incomplete", agent, by)
	}
	var text []string
	for _, row := range rows {
		text = append(text, fmt.Sprintf("%s %d %s %s %s %s %s %s/%s", strings.Join(row.Group, " "), row.Calls, row.Paid, row.Earned, row.Back, row.Credit,
			row.Fees, row.Units["input"], row.Units["output"]))
	}
	return strings.Join(text, ", ")
}

// TestTotalsAreSumsOfCharges makes random calls, refunds and subscriptions, at random times, and compares every report with the sum of the
// single charges and periods, whatever was in the totals at the time of each change.
func TestTotalsAreSumsOfCharges(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := newShop(t, defaultRules())
		s.agents("1000", "alice", "bob")
		s.agents("0", "shop", "other")
		pick := func(label string, of ...string) string { return rapid.SampledFrom(of).Draw(rt, label) }
		var charges []escrow.Charge
		var fees []struct {
			payer, payee string
			at           time.Time
		}
		for range rapid.IntRange(1, 25).Draw(rt, "steps") {
			switch pick("step", "call", "call", "call", "refund", "keep", "later", "subscribe") {
			case "call":
				id := s.NewRequestID()
				tags := map[string]string{}
				if pick("tagged", "yes", "no") == "yes" {
					tags[pick("tag", "team", "shared.team")] = pick("team", "x", "y")
				}
				a, err := s.Authorise(context.Background(), escrow.CallOrder{
					Request: id, By: by(pick("payer", "alice", "bob")), Payee: pick("payee", "shop", "other"), Least: amount("1"),
					Model: pick("model", "small", "large"), Route: pick("route", "/a", "/b"), Tags: tags,
				})
				must(t, err)
				c, err := a.Settle(context.Background(), escrow.Settlement{
					Amount: amount(pick("price", "1", "0.5", "0")), Units: map[string]string{"input": pick("input", "1.5", "2")},
				})
				must(t, err)
				charges = append(charges, c)
			case "refund":
				if len(charges) == 0 {
					continue
				}
				c := &charges[rapid.IntRange(0, len(charges)-1).Draw(rt, "charge")]
				if c.Amount == c.Refunded {
					continue
				}
				must(t, s.run(func(tx *escrow.Tx) (err error) {
					*c, err = tx.RefundCharge(by(c.Payee), c.RequestID, amount("0.1"), "")
					return err
				}))
			case "keep":
				_, done, err := s.KeepTotals(context.Background())
				must(t, err)
				if !done {
					t.Error("some charges are left")
				}
			case "later":
				s.clock.advance(time.Duration(rapid.IntRange(1, 40*24).Draw(rt, "hours")) * time.Hour)
			case "subscribe":
				must(t, s.run(func(tx *escrow.Tx) error {
					sub, err := tx.Subscribe(by("alice"), escrow.SubscriptionOrder{Payee: "shop", Amount: amount("1"), Period: 365 * 24 * time.Hour})
					if err == nil {
						fees = append(fees, struct {
							payer, payee string
							at           time.Time
						}{"alice", "shop", sub.PeriodStart})
					}
					return err
				}))
			}
		}
		for range 8 {
			agent := pick("agent", "alice", "bob", "shop", "")
			groups := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"payer", "payee", "route", "model", "hour", "day", "month", "tag:team", "tag:shared.team"}), 1, 3, rapid.ID).Draw(rt, "groups")
			if slices.Contains(groups, "tag:team") && slices.Contains(groups, "tag:shared.team") {
				continue
			}
			from, to := time.Unix(0, 0), s.Now().Add(time.Hour)
			if pick("bounded", "yes", "no") == "yes" {
				from = s.Now().Add(-time.Duration(rapid.IntRange(0, 80*24*60).Draw(rt, "from")) * time.Minute)
				to = from.Add(time.Duration(rapid.IntRange(1, 80*24*60).Draw(rt, "to")) * time.Minute)
			}
			want := map[string]string{}
			total := map[string]*[6]decimal.Decimal{}
			add := func(payer, payee, route, model string, tags map[string]string, at time.Time, values [6]string) {
				if at.Before(from) || !at.Before(to) || agent != "" && agent != payer && agent != payee {
					return
				}
				var group []string
				for _, name := range groups {
					switch name {
					case "payer":
						group = append(group, payer)
					case "payee":
						group = append(group, payee)
					case "route":
						group = append(group, route)
					case "model":
						group = append(group, model)
					case "hour":
						group = append(group, at.UTC().Format("2006-01-02T15Z"))
					case "day":
						group = append(group, at.UTC().Format("2006-01-02"))
					case "month":
						group = append(group, at.UTC().Format("2006-01"))
					default:
						tag := strings.TrimPrefix(name, "tag:")
						if agent == payer || strings.HasPrefix(tag, "shared.") {
							group = append(group, tags[tag])
						} else {
							group = append(group, "")
						}
					}
				}
				name := strings.Join(group, " ")
				if total[name] == nil {
					total[name] = new([6]decimal.Decimal)
				}
				for i, value := range values {
					total[name][i] = total[name][i].Add(decimal.RequireFromString(value))
				}
			}
			side := func(payer, amount string) (paid, earned string) {
				if payer == agent {
					return amount, "0"
				}
				return "0", amount
			}
			for _, c := range charges {
				paid, earned := side(c.Payer, c.Amount.String())
				add(c.Payer, c.Payee, c.Route, c.Model, c.Tags, c.CreatedAt, [6]string{"1", paid, earned, c.Refunded.String(), "0", c.Units["input"]})
			}
			for _, f := range fees {
				paid, earned := side(f.payer, "1")
				add(f.payer, f.payee, "", "", nil, f.at, [6]string{"0", paid, earned, "0", "1", "0"})
			}
			for name, v := range total {
				want[name] = fmt.Sprint(v[0], v[1], v[2], v[3], v[4], v[5])
			}
			rows, whole, err := s.Usage(context.Background(), escrow.UsageQuery{Agent: agent, From: from, To: to, By: groups})
			must(t, err)
			got := map[string]string{}
			for _, row := range rows {
				got[strings.Join(row.Group, " ")] = fmt.Sprint(row.Calls, row.Paid, row.Earned, row.Back, row.Fees, row.Units["input"])
			}
			if !whole || !maps.Equal(got, want) {
				rt.Fatalf("usage of %q by %v from %s to %s:\n%v, want\n%v", agent, groups, from, to, got, want)
			}
		}
	})
}

// TestRankedTotals makes random calls, refunds and subscriptions in two months, and compares the largest payers and payees of a month with those of the
// report that adds up all of them.
func TestRankedTotals(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := newShop(t, defaultRules())
		payers, payees := []string{"alice", "bob", "carol", "dan"}, []string{"shop", "other", "alice"}
		s.agents("1000", payers...)
		s.agents("0", "shop", "other")
		pick := func(label string, of ...string) string { return rapid.SampledFrom(of).Draw(rt, label) }
		var charges []escrow.Charge
		for range rapid.IntRange(1, 25).Draw(rt, "steps") {
			payer, payee := pick("payer", payers...), pick("payee", payees...)
			if payer == payee {
				continue
			}
			switch pick("step", "call", "call", "call", "refund", "keep", "later", "subscribe") {
			case "call":
				a, err := s.Authorise(context.Background(), escrow.CallOrder{Request: s.NewRequestID(), By: by(payer), Payee: payee, Least: amount("1")})
				must(t, err)
				c, err := a.Settle(context.Background(), escrow.Settlement{Amount: amount(pick("price", "1", "0.5", "0")), Units: map[string]string{"call": "1"}})
				must(t, err)
				charges = append(charges, c)
			case "refund":
				if len(charges) == 0 {
					continue
				}
				c := charges[rapid.IntRange(0, len(charges)-1).Draw(rt, "charge")]
				_ = s.run(func(tx *escrow.Tx) error { // which may have been refunded before
					_, err := tx.RefundCharge(by(c.Payee), c.RequestID, amount("0.1"), "")
					return err
				})
			case "keep":
				_, _, err := s.KeepTotals(context.Background())
				must(t, err)
			case "later":
				s.clock.advance(time.Duration(rapid.IntRange(1, 10*24).Draw(rt, "hours")) * time.Hour)
			case "subscribe":
				must(t, s.run(func(tx *escrow.Tx) error {
					_, err := tx.Subscribe(by(payer), escrow.SubscriptionOrder{Payee: payee, Amount: amount("1"), Period: 365 * 24 * time.Hour})
					return err
				}))
			}
		}
		now := s.Now()
		begin := time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC).AddDate(0, rapid.IntRange(-1, 0).Draw(rt, "month"), 0)
		q := escrow.UsageQuery{From: begin, To: begin.AddDate(0, 1, 0), Top: rapid.IntRange(1, 5).Draw(rt, "top")}
		for _, of := range []struct {
			agent, by string
			sum       escrow.Sum
		}{{"", "payer", escrow.SumEarned}, {"", "payee", escrow.SumEarned}, {"alice", "payee", escrow.SumPaid}, {"alice", "payer", escrow.SumEarned}, {"shop", "payer", escrow.SumEarned}, {"bob", "payer", escrow.SumEarned}} {
			q.Agent, q.By, q.TopOf = of.agent, []string{of.by}, of.sum
			got, whole, err := s.Usage(context.Background(), q)
			must(t, err)
			all := q
			all.Top = 0
			want, _, err := s.Usage(context.Background(), all)
			must(t, err)
			if !whole {
				t.Errorf("the ranks of %v are incomplete", of)
			}
			sum := func(row escrow.UsageRow) ledger.Amount {
				if of.sum == escrow.SumPaid {
					return row.Paid
				}
				return row.Earned
			}
			want = slices.DeleteFunc(want, func(row escrow.UsageRow) bool { return sum(row) == 0 })
			slices.SortStableFunc(want, func(a, b escrow.UsageRow) int { return cmp.Compare(sum(b), sum(a)) })
			want = want[:min(len(want), q.Top)]
			if g, w := rankText(got), rankText(want); g != w {
				t.Errorf("the %d largest of %v in %s: %s, want %s", q.Top, of, begin.Format("2006-01"), g, w)
			}
		}
	})
}

func rankText(rows []escrow.UsageRow) string {
	var text []string
	for _, r := range rows {
		text = append(text, fmt.Sprint(r.Group, r.Calls, r.Paid, r.Earned, r.Back, r.Credit, r.Fees, r.Units["call"]))
	}
	return strings.Join(text, ", ")
}

// TestTotalsOfManyTags: charges with many tags are in more totals than one operation changes.
func TestTotalsOfManyTags(t *testing.T) {
	s := newShop(t, defaultRules())
	s.agents("1000", "alice")
	s.agents("0", "shop")
	const calls = 120
	for n := range calls {
		tags := map[string]string{}
		for i := range 16 {
			tags[fmt.Sprintf("shared.%d", i)] = fmt.Sprint(n)
		}
		a, err := s.Authorise(context.Background(), escrow.CallOrder{Request: s.NewRequestID(), By: by("alice"), Payee: "shop", Least: amount("1"), Tags: tags})
		must(t, err)
		_, err = a.Settle(context.Background(), escrow.Settlement{Amount: amount("1")})
		must(t, err)
	}
	s.clock.advance(time.Second)
	for _, agent := range []string{"alice", "shop", ""} {
		rows, whole, err := s.Usage(context.Background(), escrow.UsageQuery{Agent: agent, By: []string{"tag:shared.7"}})
		must(t, err)
		if !whole || len(rows) != calls || rows[5].Calls != 1 {
			t.Errorf("the usage of %q by tag: %d rows of %d", agent, len(rows), calls)
		}
		if got := usage(t, s, agent, "month", "", ""); !strings.Contains(got, " 120 ") {
			t.Errorf("the usage of %q: %s", agent, got)
		}
	}
}
