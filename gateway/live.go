package gateway

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// Live knows the calls that run on a ledger. Gateways on one ledger share it: during a reload, calls of two configurations run.
type Live struct {
	book   *escrow.Book
	logger *slog.Logger

	mu     sync.Mutex
	calls  map[*admitted]struct{}
	unsure []escrow.AbandonedCall // calls whose charge failed with a commit of the ledger
}

// NewLive returns a register of calls that is empty.
func NewLive(book *escrow.Book, logger *slog.Logger) *Live {
	return &Live{book: book, logger: logger, calls: make(map[*admitted]struct{})}
}

// enter registers a call that may have to be settled when the process exits before its handler has ended.
func (l *Live) enter(a *admitted) {
	l.mu.Lock()
	l.calls[a] = struct{}{}
	l.mu.Unlock()
	metrics.live.Inc()
}

func (l *Live) leave(a *admitted) {
	l.mu.Lock()
	delete(l.calls, a)
	l.mu.Unlock()
	metrics.live.Dec()
}

// Settle charges what the calls in flight have sent, and lets no further byte out. It is for the end of the process: a server may kill
// handlers whose grace period has passed without running what they deferred.
func (l *Live) Settle() {
	l.mu.Lock()
	calls := make([]*admitted, 0, len(l.calls))
	for a := range l.calls {
		calls = append(calls, a)
	}
	l.mu.Unlock()
	var wg sync.WaitGroup
	for _, a := range calls {
		wg.Go(a.abandon)
	}
	wg.Wait()
}

// broken reports whether the ledger takes no money, so that nothing can be given back either.
func (l *Live) broken() bool { return l.book.Ledger().Err() != nil }

// unknown remembers a call whose charge failed with the ledger: the charge may stand in the books or not, but the answer has not gone
// out whole.
func (l *Live) unknown(c escrow.AbandonedCall) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unsure = append(l.unsure, c)
}

// Recover brings the ledger back after a failed commit. Nothing is retried on the file that failed: the store goes on from a
// copy of what is durable (see the store's Reopen). Charges whose answers never went out are looked up by their ids, and
// paid back. As long as it fails, the books stay closed: requests that cost money are answered 503.
func (l *Live) Recover(ctx context.Context) {
	trouble := l.book.Ledger().Err()
	if trouble == nil || errors.Is(trouble, ledger.ErrReadOnly) {
		return
	}
	if err := l.book.Ledger().Reopen(); err != nil {
		l.logger.Error("the ledger can't be reopened yet; no money is taken", "error", err, "since", trouble)
		return
	}
	l.mu.Lock()
	unsure := l.unsure
	l.unsure = nil
	l.mu.Unlock()
	for _, c := range unsure {
		err := l.book.Abandon(ctx, c)
		switch {
		case errors.Is(err, ledger.ErrOutcomeUnknown), errors.Is(err, ledger.ErrUnavailable):
			l.unknown(c)
		case err != nil:
			l.logger.Error("a charge whose response never went out can't be put right", "request", c.Request, "error", err)
		}
	}
	l.logger.Warn("the ledger takes money again", "calls_put_right", len(unsure))
}
