package escrow_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"testing"

	"github.com/tallygate/tallygate/escrow"
)

// TestReportsTakeTurns: an agent that asks for many reports at once, of any sort, gets them one after the other, and too many are refused. Others
// get theirs in the meantime, and the operator does even if many agents ask.
func TestReportsTakeTurns(t *testing.T) {
	t.Parallel()
	for name, report := range map[string]func(s *shop, ctx context.Context, agent string) error{
		"usage": func(s *shop, ctx context.Context, agent string) error {
			_, _, err := s.Usage(ctx, escrow.UsageQuery{Agent: agent})
			return err
		},
		"statement": func(s *shop, ctx context.Context, agent string) error {
			_, err := s.Statement(ctx, agent, "2020-01")
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShop(t, defaultRules())
			agents := []string{"alice", "bob", "carol", "dave", "erin"}
			s.agents("1", agents...)
			runs := func(agent string) escrow.Claim { // a report that takes long
				c, err := s.Claims().Take(t.Context(), 1, escrow.Bound{Of: escrow.Thing{Kind: escrow.RunningReport, Owner: agent, Name: "runs"}, Most: 1},
					escrow.Bound{Of: escrow.Thing{Kind: escrow.RunningReport}, Most: 100})
				must(t, err)
				return c
			}
			first := runs("alice")
			ctx, leave := context.WithCancel(t.Context())
			var waiting sync.WaitGroup
			for range 16 {
				waiting.Go(func() {
					if err := report(s, ctx, "alice"); !errors.Is(err, context.Canceled) {
						t.Errorf("one that waits: %v", err)
					}
				})
			}
			for s.Claims().Taken(escrow.Thing{Kind: escrow.RunningReport, Owner: "alice", Name: "asked"}) < 16 {
				runtime.Gosched()
			}
			if err := report(s, t.Context(), "alice"); !escrow.IsRefusal(err, escrow.RateLimited) {
				t.Errorf("the 17th: %v", err)
			}
			must(t, report(s, t.Context(), "bob"))
			leave()
			waiting.Wait()
			first.End()
			must(t, report(s, t.Context(), "alice"))

			for _, agent := range agents[:4] {
				runs(agent)
			}
			ended, cancel := context.WithCancel(t.Context())
			cancel()
			if err := report(s, ended, "erin"); !errors.Is(err, context.Canceled) {
				t.Errorf("one more agent: %v", err)
			}
			_, _, err := s.Usage(t.Context(), escrow.UsageQuery{}) // the operator's
			must(t, err)
		})
	}
}

// TestReportsOfManyGroups: a report has at most so many groups, since the payer makes as many tags as it likes.
func TestReportsOfManyGroups(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it makes 20,001 charges")
	}
	s := newShop(t, defaultRules())
	s.agents("100", "alice")
	s.agents("0", "acme")
	var calls sync.WaitGroup
	for at := range 8 {
		calls.Go(func() {
			for i := at; i <= 20_001; i += 8 {
				a, err := s.Authorise(context.Background(), escrow.CallOrder{Request: s.NewRequestID(), By: by("alice"), Payee: "acme", Least: 1, Tags: map[string]string{"run": strconv.Itoa(i)}})
				if err == nil {
					_, err = a.Settle(context.Background(), escrow.Settlement{Amount: 1})
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	calls.Wait()
	rows, whole, err := s.Usage(t.Context(), escrow.UsageQuery{Agent: "alice", By: []string{"tag:run"}})
	must(t, err)
	if whole || len(rows) > 20_002 {
		t.Errorf("%d groups, whole: %v", len(rows), whole)
	}
	rows, whole, err = s.Usage(t.Context(), escrow.UsageQuery{Agent: "alice", By: []string{"payee"}})
	must(t, err)
	if got := fmt.Sprint(len(rows), rows[0].Calls, whole); got != "1 20002 true" {
		t.Errorf("by payee: %s", got)
	}
}
