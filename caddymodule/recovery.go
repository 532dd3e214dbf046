package caddymodule

import (
	"context"
	"errors"

	"go.uber.org/zap"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// unknown remembers a call whose charge was being committed when the commit failed: it may stand in the books or not, but its
// response has not gone out.
func (b *books) unknown(request string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.unsure = append(b.unsure, request)
}

// recover brings the ledger back after a failed commit. Nothing is retried on the file that failed: the store goes on from a
// copy of what is durable (see the store's Reopen). Charges whose responses never went out are looked up by their ids, and
// paid back. As long as it fails, the books stay closed: requests that cost money are answered 503.
func (b *books) recover(ctx context.Context) {
	trouble := b.ledger.Err()
	if trouble == nil || errors.Is(trouble, ledger.ErrReadOnly) {
		return
	}
	if err := b.ledger.Reopen(); err != nil {
		b.logger.Error("the ledger can't be reopened yet; no money is taken", zap.Error(err), zap.NamedError("since", trouble))
		return
	}
	b.mu.Lock()
	unsure := b.unsure
	b.unsure = nil
	b.mu.Unlock()
	for _, request := range unsure {
		b.void(ctx, request)
	}
	b.logger.Warn("the ledger takes money again", zap.Int("charges_of_unknown_outcome", len(unsure)))
}

// void pays a charge back whose response never went out, if it stands in the books.
func (b *books) void(ctx context.Context, request string) {
	err := b.book.Do(ctx, func(tx *escrow.Tx) error {
		_, err := tx.RefundCharge(operator, request, 0, "the response never went out: the commit of the charge had failed")
		return err
	})
	switch {
	case escrow.IsRefusal(err, escrow.NotFound), escrow.IsRefusal(err, escrow.InvalidStatus):
		// It was never charged, or nothing.
	case errors.Is(err, ledger.ErrOutcomeUnknown), errors.Is(err, ledger.ErrUnavailable):
		b.unknown(request)
	case err != nil:
		b.logger.Error("a charge whose response never went out can't be paid back", zap.String("request", request), zap.Error(err))
	}
}
