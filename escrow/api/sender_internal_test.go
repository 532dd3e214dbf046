package api

import (
	"context"
	"sync"
	"time"
)

// Send makes one attempt at each delivery that is due. It returns the time at which the next one is due, or the zero time if none waits.
// An error is one of the ledger; failed deliveries are not returned.
func (s *Sender) Send(ctx context.Context) (next time.Time, err error) {
	for {
		var sending sync.WaitGroup
		begun, next, err := s.begin(ctx, s.book(), &sending, make(chan struct{}, 1))
		sending.Wait()
		if err != nil || begun == 0 {
			return next, err
		}
	}
}
