package caddymodule

import (
	"context"
	"errors"

	"go.uber.org/zap"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// unknown remembers a call whose charge failed with the ledger: it may stand in the books or not, but its response has not gone
// out whole.
func (b *books) unknown(c escrow.AbandonedCall) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.unsure = append(b.unsure, c)
}

// abandoned is the call as the books must know it when they are put right.
func (c *call) abandoned() escrow.AbandonedCall {
	return escrow.AbandonedCall{Request: c.id, Payer: c.payer.Agent, IdempotencyKey: c.terms.idempotencyKey, Sent: c.sent}
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
	for _, c := range unsure {
		err := b.book.Abandon(ctx, c)
		switch {
		case errors.Is(err, ledger.ErrOutcomeUnknown), errors.Is(err, ledger.ErrUnavailable):
			b.unknown(c)
		case err != nil:
			b.logger.Error("a charge whose response never went out can't be put right", zap.String("request", c.Request), zap.Error(err))
		}
	}
	b.logger.Warn("the ledger takes money again", zap.Int("calls_put_right", len(unsure)))
}
