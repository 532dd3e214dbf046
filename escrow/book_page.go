package escrow

import (
	"slices"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Page selects a part of a list. Lists begin with the newest item. Before is the end of the previous page.
type Page struct {
	Before string // empty: from the newest
	Limit  int    // items at most; out of 1 to [MaxPage]: [DefaultPage]
}

// The bounds of a page.
const (
	DefaultPage = 50
	MaxPage     = 500
	maxExamined = 5000 // records read for one page, however few of them a filter wants
)

func (p Page) limit() int {
	if p.Limit < 1 {
		return DefaultPage
	}
	return min(p.Limit, MaxPage)
}

// list is a range of index keys under some parts, and how to make an item of each.
type list[T any] struct {
	table    table
	parts    []string
	from, to string // bounds of the last part: from <= last < to; empty: none
	item     func(r ledger.Reader, last string, value []byte) (item T, wanted bool, err error)
}

// page returns the items of one page, and the Before of the next page, empty at the end. With a filter a page may have few items, or none,
// although more follow.
func (l list[T]) page(r ledger.Reader, p Page) (items []T, next string, err error) {
	all := l.table.under(l.parts...)
	all.Reverse = true
	if l.from != "" {
		all.From = l.end(l.from)
	}
	if to := l.to; to != "" || p.Before != "" {
		if p.Before != "" && (to == "" || p.Before < to) {
			to = p.Before
		}
		all.To = l.end(to)
	}
	last, examined := "", 0
	err = r.Scan(all, func(key, value []byte) (bool, error) {
		if len(items) == p.limit() || examined == maxExamined {
			next = last
			return false, nil
		}
		last = l.table.lastPart(key, l.parts...)
		examined++
		item, wanted, err := l.item(r, last, value)
		if wanted && err == nil {
			items = append(items, item)
		}
		return true, err
	})
	return items, next, err
}

func (l list[T]) end(last string) []byte {
	return l.table.key(append(slices.Clone(l.parts), last)...)
}
