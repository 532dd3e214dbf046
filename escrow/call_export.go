package escrow

import (
	"context"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// EachCharge calls fn for the charges of all agents with from <= CreatedAt < to. A zero time means no limit. The charges are in the order of
// their ids, which is nearly the order of their times. EachCharge reads page by page, so it needs little memory and no long read of the store.
func (b *Book) EachCharge(ctx context.Context, from, to time.Time, fn func(Charge) error) error {
	return b.each(ctx, chargeTable, func(r ledger.Reader, id string) error {
		c, found, err := chargeByID(r, id)
		if err != nil || !found || c.CreatedAt.Before(from) || !to.IsZero() && !c.CreatedAt.Before(to) {
			return err
		}
		return fn(c)
	})
}
