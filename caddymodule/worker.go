package caddymodule

import (
	"context"
	"log/slog"
	"time"

	"go.uber.org/zap"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/gateway"
)

// worker is something that runs beside the requests until it is ended.
type worker struct {
	stop context.CancelFunc
	done chan struct{}
}

func startWorker(run func(context.Context)) *worker {
	ctx, cancel := context.WithCancel(context.Background())
	w := &worker{stop: cancel, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		run(ctx)
	}()
	return w
}

// end stops a worker and waits until it has stopped; one that was never started is ended.
func (w *worker) end() {
	if w != nil {
		w.stop()
		<-w.done
	}
}

const (
	// maxClockSleep bounds how late something that came to be due while the clock slept is noticed.
	maxClockSleep = time.Second
	// judgeAgainAfter is the time between two tries to have held decisions judged.
	judgeAgainAfter = 3 * time.Second
)

// startClock does what falls due by the clock alone: automatic releases, refund windows, renewals; and it brings the ledger
// back after a failed commit.
func startClock(b *books, book *escrow.Book, logger *zap.Logger) *worker {
	return startWorker(func(ctx context.Context) {
		for {
			b.bringBack(ctx)
			wait := maxClockSleep
			if b.ledger.Err() == nil {
				next, err := book.RunDue(ctx)
				if err != nil && ctx.Err() == nil {
					logger.Error("running what is due", zap.Error(err))
				}
				if !next.IsZero() {
					wait = min(wait, max(time.Until(next), 10*time.Millisecond))
				}
			}
			if !pause(ctx, wait) {
				return
			}
		}
	})
}

// startJudging asks again for the decisions that judges still owe. It is a worker of its own: a judge may be slow.
func startJudging(b *books, book *escrow.Book, logger *slog.Logger) *worker {
	return startWorker(func(ctx context.Context) {
		var judging gateway.Rejudge
		for pause(ctx, judgeAgainAfter) {
			if b.ledger.Err() == nil {
				judging.Round(ctx, book, logger)
			}
		}
	})
}

// pause waits, and reports false when ctx has ended.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
