package escrow

import (
	"context"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// EachCharge calls fn for the charges of all agents with from <= CreatedAt < to (a zero time is no bound), in the order of
// their ids, which is nearly that of their times. It reads page by page, so that it keeps neither memory nor a read of the
// store for long.
func (b *Book) EachCharge(ctx context.Context, from, to time.Time, fn func(Charge) error) error {
	return b.each(ctx, chargeTable, func(r ledger.Reader, id string) error {
		c, found, err := chargeByID(r, id)
		if err != nil || !found || c.CreatedAt.Before(from) || !to.IsZero() && !c.CreatedAt.Before(to) {
			return err
		}
		return fn(c)
	})
}
