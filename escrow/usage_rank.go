package escrow

import (
	"context"
	"encoding/binary"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Who pays most, and who earns most: lists of them are read often, and there may be any number of payers. So the totals of a month by payer and
// by payee are ranked. An index has them in the order of their sums, and the first of a list are read without looking at the others.

// isRanked reports whether the totals of a view are in the index.
func (v usageView) isRanked() bool { return v == viewPayers || v == viewPayees }

// rankKey returns the key of a total in the index. Totals with the same sum are in the order of their groups' ids.
func rankKey(of sumOf, sum ledger.Amount) []byte {
	key := rankTable.key(of.agent, string(of.view)+timeKey(of.begin()))
	key = binary.BigEndian.AppendUint64(key, uint64(math.MaxInt64-int64(sum)))
	return append(key, of.group.party()...)
}

// party is the payer or the payee in the group of a ranked total, which has only one of them.
func (g usageGroup) party() string { return g.Payer + g.Payee }

// partyGroup returns the group of a payer or payee in a ranked view.
func (v usageView) partyGroup(id string) usageGroup {
	if v == viewPayers {
		return usageGroup{Payer: id}
	}
	return usageGroup{Payee: id}
}

// rank moves a total to its place in the index. Totals whose sum is zero are not there.
func (t *Tx) rank(of sumOf, before, after ledger.Amount) {
	if before == after {
		return
	}
	if before != 0 {
		t.ledger.Delete(rankKey(of, before))
	}
	if after != 0 {
		t.ledger.Put(rankKey(of, after), []byte{})
	}
}

// ranked returns the view whose totals answer a query, and the month, if there is such a view: the query wants the largest payers or payees of
// one month.
func (q UsageQuery) ranked(now time.Time) (of sumOf, ok bool) {
	if q.Top == 0 || len(q.By) != 1 || q.From.IsZero() || q.TopOf == "" {
		return sumOf{}, false
	}
	switch {
	case q.By[0] == "payer" && q.TopOf == SumEarned:
		of.view = viewPayers
	case q.By[0] == "payee" && (q.TopOf == SumPaid && q.Agent != "" || q.TopOf == SumEarned && q.Agent == ""):
		of.view = viewPayees
	default:
		return sumOf{}, false
	}
	of.agent, of.at = q.Agent, q.From.Unix()
	begin := of.view.floor(q.From)
	end := of.view.ceil(begin.Add(time.Nanosecond))
	whole := q.To.IsZero() && now.Before(end) || q.To.Equal(end)
	return of, begin.Equal(q.From) && whole
}

// rankedUsage answers a query from the index. Charges that are not in the totals yet are added.
func (b *Book) rankedUsage(ctx context.Context, of sumOf, q UsageQuery) (rows []UsageRow, whole bool, err error) {
	b.process.unkept.keeping.Lock()
	defer b.process.unkept.keeping.Unlock()
	kept, done, err := b.keepTotals(ctx)
	if err != nil {
		return nil, false, err
	}
	err = b.view(func(r ledger.Reader) error {
		found, err := b.sinceKept(r, of, kept)
		if err != nil {
			return err
		}
		parties, err := firstRanked(r, of, q.Top)
		if err != nil {
			return err
		}
		for g := range found {
			if !slices.Contains(parties, g.party()) {
				parties = append(parties, g.party())
			}
		}
		for _, id := range parties {
			of.group = of.view.partyGroup(id)
			u, err := totalOf(r, of)
			if err != nil {
				return err
			}
			u.add(found[of.group])
			rows = append(rows, UsageRow{Group: []string{id}, Usage: u})
		}
		return nil
	})
	if err != nil {
		return nil, false, err
	}
	slices.SortFunc(rows, func(a, b UsageRow) int { return slices.Compare(a.Group, b.Group) })
	return q.TopOf.largest(rows, q.Top), done, nil
}

// firstRanked returns the payers or payees of the largest totals of a month.
func firstRanked(r ledger.Reader, of sumOf, most int) (parties []string, err error) {
	month := rankTable.key(of.agent, string(of.view)+timeKey(of.begin()))
	err = r.Scan(ledger.Prefix(month), func(key, _ []byte) (bool, error) {
		parties = append(parties, string(key[len(month)+8:])) // after the sum
		return len(parties) < most, nil
	})
	return parties, err
}

// totalOf returns the total of a group.
func totalOf(r ledger.Reader, of sumOf) (Usage, error) {
	var total usageTotal
	if _, err := load(r, of.key(), &total); err != nil {
		return Usage{}, err
	}
	return total.usage()
}

// sinceKept adds up the charges of a month that are not in the totals. There are few: those that were made since the totals were kept.
func (b *Book) sinceKept(r ledger.Reader, of sumOf, kept time.Time) (map[usageGroup]Usage, error) {
	agents := []string{of.agent}
	if of.agent == "" {
		noted := make(map[string]bool)
		for _, payee := range b.process.unkept.list() {
			noted[payee] = true
		}
		if err := r.Scan(behindTable.under(), func(key, _ []byte) (bool, error) { noted[behindTable.lastPart(key)] = true; return true, nil }); err != nil {
			return nil, err
		}
		agents = slices.Collect(maps.Keys(noted))
	}
	found := make(map[usageGroup]Usage)
	for _, agent := range agents {
		end := of.view.ceil(of.begin().Add(time.Nanosecond))
		all := ledger.Range{From: chargeByAgent.key(agent, timeKey(kept)), To: chargeByAgent.key(agent, timeKey(end))}
		var places []string // time and request id
		err := r.Scan(all, func(key, _ []byte) (bool, error) {
			places = append(places, chargeByAgent.lastPart(key, agent))
			return true, nil
		})
		for _, place := range places {
			if err == nil {
				err = addSince(r, of, agent, place, found)
			}
		}
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// addSince adds up a charge in the list of an agent, if it is not in the totals.
func addSince(r ledger.Reader, of sumOf, listed, place string, found map[usageGroup]Usage) error {
	var c Charge
	if ok, err := load(r, chargeTable.key(place[8:]), &c); err != nil || !ok {
		return err
	}
	last, err := r.Get(keptTable.key(c.Payee))
	if err != nil || place <= string(last) || of.agent == "" && c.Payee != listed {
		return err
	}
	sums := sums{}
	sums.addRanked(of.agent, c.Payer, c.Payee, c.CreatedAt, c.usageFor(of.agent))
	for to, u := range sums {
		if to.view == of.view {
			sum := found[to.group]
			sum.add(*u)
			found[to.group] = sum
		}
	}
	return nil
}
