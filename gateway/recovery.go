package gateway

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// Recovery brings a ledger back after a failed commit, and puts the calls right that were hit. Gateways on one ledger share it: during a
// reload, calls of two configurations run.
type Recovery struct {
	book   *escrow.Book
	logger *slog.Logger

	mu     sync.Mutex
	unsure []escrow.AbandonedCall // calls whose charge failed with a commit of the ledger
}

// NewRecovery returns the recovery of a book's ledger.
func NewRecovery(book *escrow.Book, logger *slog.Logger) *Recovery {
	return &Recovery{book: book, logger: logger}
}

// needed reports whether the ledger takes no money, so that nothing can be given back either.
func (r *Recovery) needed() bool { return r.book.Ledger().Err() != nil }

// unknown remembers a call whose charge failed with the ledger: the charge may stand in the books or not, but the answer has not gone
// out whole.
func (r *Recovery) unknown(c escrow.AbandonedCall) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unsure = append(r.unsure, c)
}

// Run brings the ledger back, if a commit has failed. Nothing is retried on the file that failed: the store goes on from a
// copy of what is durable (see the store's Reopen). Charges whose answers never went out are looked up by their ids, and
// paid back. As long as it fails, the books stay closed: requests that cost money are answered 503.
func (r *Recovery) Run(ctx context.Context) {
	trouble := r.book.Ledger().Err()
	if trouble == nil || errors.Is(trouble, ledger.ErrReadOnly) {
		return
	}
	if err := r.book.Ledger().Reopen(); err != nil {
		r.logger.Error("the ledger can't be reopened yet; no money is taken", "error", err, "since", trouble)
		return
	}
	r.mu.Lock()
	unsure := r.unsure
	r.unsure = nil
	r.mu.Unlock()
	for _, c := range unsure {
		err := r.book.Abandon(ctx, c)
		switch {
		case errors.Is(err, ledger.ErrOutcomeUnknown), errors.Is(err, ledger.ErrUnavailable):
			r.unknown(c)
		case err != nil:
			r.logger.Error("a charge whose response never went out can't be put right", "request", c.Request, "error", err)
		}
	}
	r.logger.Warn("the ledger takes money again", "calls_put_right", len(unsure))
}
