package escrow

import (
	"context"
	"errors"
	"sync"
)

// A report adds up many records. So that nobody takes the processor and the memory from all others by asking for many reports at once, each
// agent has one report at a time, and only some agents have one at the same time. The others wait.
const (
	reportsAtOnce  = 4  // of all agents; the operator's own do not count
	waitingReports = 16 // of one agent, with the one that is added up
)

// awaitReport waits until a report of an agent may be added up. The caller calls end when it is. An empty agent is the operator, who asks for
// all agents.
func (b *Book) awaitReport(ctx context.Context, agent string) (end func(), err error) {
	asked := Thing{Kind: RunningReport, Owner: agent, Name: "asked"}
	waits, err := b.process.claims.Take(ctx, 1, Bound{Of: asked, Most: waitingReports})
	if full := (*NoRoom)(nil); errors.As(err, &full) {
		return nil, refuse(RateLimited, map[string]string{"retry_after": "1"}, "%d reports of this agent are waited for already", waitingReports)
	} else if err != nil {
		return nil, err
	}
	of := []Bound{{Of: Thing{Kind: RunningReport, Owner: agent, Name: "runs"}, Most: 1}}
	if agent != "" {
		of = append(of, Bound{Of: Thing{Kind: RunningReport}, Most: reportsAtOnce})
	}
	runs, err := b.process.claims.Await(ctx, 1, of...)
	if err != nil {
		waits.End()
		return nil, err
	}
	return sync.OnceFunc(func() {
		runs.End()
		waits.End()
	}), nil
}
