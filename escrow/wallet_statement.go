package escrow

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

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
	from, err := readMonth(month)
	if err != nil {
		return Statement{}, err
	}
	end, err := b.awaitReport(ctx, agent)
	if err != nil {
		return Statement{}, err
	}
	defer end()
	s := Statement{Agent: agent, From: from, To: from.AddDate(0, 1, 0)}
	earlier, err := b.ledger.TransfersBefore(s.To)
	if err != nil {
		return Statement{}, err
	}
	last, _, err := b.Entries(ctx, agent, earlier+1, 1)
	if err != nil {
		return Statement{}, err
	}
	for _, e := range last {
		s.Opening, s.Closing = e.BalanceAfter, e.BalanceAfter
	}
	lines := map[string]*StatementLine{}
	for before, more := earlier+1, true; more; {
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
	if lines[e.Kind] == nil {
		lines[e.Kind] = &StatementLine{Kind: e.Kind}
	}
	line := lines[e.Kind]
	line.Count++
	line.In += max(e.Amount, 0)
	line.Out += max(-e.Amount, 0)
}
