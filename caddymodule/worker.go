package caddymodule

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/cashier"
	"github.com/tallygate/tallygate/gateway"
)

// worker is a goroutine that runs in the background until it is ended.
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

// end stops a worker and waits until it has stopped. It does nothing if the worker was never started.
func (w *worker) end() {
	if w != nil {
		w.stop()
		<-w.done
	}
}

const (
	// maxClockSleep is the longest time that the clock sleeps, since something new may become due meanwhile.
	maxClockSleep = time.Second
	// judgeAgainAfter is the time between two attempts to get missing scores from judges.
	judgeAgainAfter = 3 * time.Second
	// collectEvery is the time between two rounds of asking for payments whose outcome is not known.
	collectEvery = 15 * time.Second
)

// startClock starts a worker that does what is due at a certain time: automatic releases, the end of refund windows, renewals. It also
// reopens the ledger after a failed commit. If that does not succeed, it alerts the operator.
func startClock(b *books, book *escrow.Book, alert func(context.Context, escrow.Event), logger *zap.Logger) *worker {
	return startWorker(func(ctx context.Context) {
		var alerts sync.WaitGroup
		defer alerts.Wait()
		readOnly := false
		for {
			b.bringBack(ctx)
			trouble := b.ledger.Err()
			if trouble != nil && !readOnly {
				alerts.Go(func() {
					alert(ctx, escrow.Event{Type: escrow.LedgerReadOnly, At: b.ledger.Now(), Trouble: trouble.Error()})
				})
			}
			readOnly = trouble != nil
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

// totalsEvery is the time between two rounds of adding charges to the totals. A report does not wait for the round.
const totalsEvery = 10 * time.Second

// startTotals starts a worker that adds charges to the totals that reports are made of.
func startTotals(b *books, book *escrow.Book, logger *zap.Logger) *worker {
	return startWorker(func(ctx context.Context) {
		for pause(ctx, totalsEvery) {
			if b.ledger.Err() != nil {
				continue
			}
			if _, _, err := book.KeepTotals(ctx); err != nil && ctx.Err() == nil {
				logger.Error("adding charges to the totals", zap.Error(err))
			}
		}
	})
}

// startJudging starts a worker that asks judges again for missing scores. It is separate from the clock, since a judge may be slow.
func startJudging(b *books, book *escrow.Book, logger *slog.Logger) *worker {
	return startWorker(func(ctx context.Context) {
		judging := gateway.Rejudge{Agent: judgeAgent()}
		for pause(ctx, judgeAgainAfter) {
			if b.ledger.Err() == nil {
				judging.Round(ctx, book, logger)
			}
		}
	})
}

// startCollecting starts a worker that asks payment rails for payments whose outcome is not known.
func startCollecting(b *books, g *gateway.Gateway, logger *slog.Logger) *worker {
	return startWorker(func(ctx context.Context) {
		for pause(ctx, collectEvery) {
			if b.ledger.Err() != nil {
				continue
			}
			if err := g.CollectPending(ctx, logger); err != nil && ctx.Err() == nil {
				logger.Error("asking for payments whose outcome is not known", "error", err)
			}
		}
	})
}

// startFilling starts a worker that tops wallets up from saved payment methods.
func startFilling(b *books, c *cashier.Cashier, logger *slog.Logger) *worker {
	return startWorker(func(ctx context.Context) {
		for pause(ctx, c.Service.Every()) {
			if b.ledger.Err() != nil {
				continue
			}
			if err := c.TopUps(ctx); err != nil && ctx.Err() == nil {
				logger.Error("topping wallets up", "error", err)
			}
		}
	})
}

// startRefunding starts a worker that has rails give deposits back, as soon as an agent asks, and asks again for what is not known.
func startRefunding(b *books, r *cashier.Refunds, c *cashier.Cashier, logger *slog.Logger) *worker {
	every := collectEvery
	if c != nil {
		every = min(every, c.Service.Every())
	}
	return startWorker(func(ctx context.Context) {
		for awaken(ctx, r.Woken(), every) {
			if b.ledger.Err() != nil {
				continue
			}
			if err := r.Round(ctx); err != nil && ctx.Err() == nil {
				logger.Error("giving deposits back", "error", err)
			}
		}
	})
}

// awaken waits for d, or until it is woken. It returns false if ctx ends first.
func awaken(ctx context.Context, woken <-chan struct{}, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-woken:
		return true
	case <-time.After(d):
		return true
	}
}

// pause waits for d. It returns false if ctx ends first.
func pause(ctx context.Context, d time.Duration) bool { return awaken(ctx, nil, d) }
