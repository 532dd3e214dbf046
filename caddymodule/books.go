package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/gateway"
)

// pool has the open ledger of each store. Configs that name the same store share it, since a reload starts the new config before it
// stops the old one, and a file can be opened only once.
var pool = caddy.NewUsagePool()

// books is an open ledger, together with everything else that must outlive a config.
//
// A reload does not wait for running requests: their handlers run on after their config is cleaned up. So each request has a reference to
// the books, and the store is closed when the last reference is released.
type books struct {
	ledger *ledger.Ledger
	book   *escrow.Book // with the rules of the config that opened it
	store  ledger.Store
	logger *zap.Logger

	owed bool // calls of gateways that have ended are not settled yet; used by the clock only

	mu     sync.Mutex
	refs   int  // the number of requests that use the books
	closed bool // no config uses the books any more
}

// openBooks opens the ledger of a store. Before any money moves, it settles the calls that were running when the last process died.
func openBooks(store StoreModule, currency string, rules escrow.Rules, logger *zap.Logger, slogger *slog.Logger) (*books, error) {
	st, err := store.Open()
	if err != nil {
		return nil, err
	}
	l, err := ledger.New(st, ledger.Options{Currency: currency, Logger: slogger})
	if err != nil {
		_ = st.Close()
		return nil, fmt.Errorf("opening the ledger: %w", err)
	}
	book := escrow.New(l, rules)
	b := &books{ledger: l, book: book, store: st, logger: logger}
	if store, ok := st.(ledger.Observed); ok {
		store.Observe(gateway.CountCommit)
	}
	if err := b.book.RecoverPending(context.Background()); err != nil {
		_ = st.Close()
		return nil, fmt.Errorf("settling the calls that were running when the last process died: %w", err)
	}
	return b, nil
}

// bringBack reopens the ledger after a failed commit. Nothing is written again to the file that failed: the store goes on with a copy of
// what is durable (see the store's Reopen). Then the calls whose charge had failed are settled. Until this succeeds, requests that cost
// money are answered with 503.
func (b *books) bringBack(ctx context.Context) {
	trouble := b.ledger.Err()
	if errors.Is(trouble, ledger.ErrReadOnly) {
		return
	}
	if trouble != nil {
		if err := b.ledger.Reopen(); err != nil {
			b.logger.Error("the ledger can't be reopened yet; calls that cost money are refused", zap.Error(err), zap.NamedError("since", trouble))
			return
		}
		b.logger.Warn("the ledger accepts charges again", zap.NamedError("since", trouble))
		b.owed = true // if other gateways have ended this one's session, its calls are over
	}
	b.succeed(ctx)
	right, err := b.book.PutRight(ctx)
	if right > 0 {
		b.logger.Warn("calls whose charge had failed were settled", zap.Int("calls", right))
	}
	if err != nil {
		b.logger.Error("calls whose charge had failed can't be settled", zap.Error(err))
	}
}

// succeed does what gateways have left that shared the ledger and have ended: it settles their calls, and pays out what they had set aside of
// escrows that are over.
func (b *books) succeed(ctx context.Context) {
	if !b.ledger.IsShared() || b.ledger.Err() != nil {
		return
	}
	select {
	case <-b.ledger.Ended():
		b.owed = true
	default:
	}
	settle := b.book.FinishClosing
	if b.owed {
		settle = b.book.RecoverPending
	}
	err := settle(ctx)
	if err == nil {
		b.owed = false
	} else if ctx.Err() == nil {
		b.logger.Error("what gateways that have ended have left can't be settled yet", zap.Error(err))
	}
}

// acquire keeps the books open for one request. It returns false if they are closed.
func (b *books) acquire() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	b.refs++
	return true
}

func (b *books) release() {
	b.mu.Lock()
	b.refs--
	last := b.closed && b.refs == 0
	b.mu.Unlock()
	if last {
		b.close()
	}
}

// Destruct is called by the pool when the last config releases the books. The store stays open while requests use it, but not after
// the process exits.
func (b *books) Destruct() error {
	if caddy.Exiting() {
		b.book.Claims().EndLive()
	}
	b.mu.Lock()
	b.closed = true
	last := b.refs == 0 || caddy.Exiting()
	b.mu.Unlock()
	if last {
		return b.close()
	}
	return nil
}

// size returns the size of the store, if it is a file that is open.
func (b *books) size() (bytes int64, known bool) {
	b.mu.Lock()
	store := b.store
	b.mu.Unlock()
	file, is := store.(interface{ Size() (int64, error) })
	if !is {
		return 0, false
	}
	bytes, err := file.Size()
	return bytes, err == nil
}

// close closes the store. A second call does nothing.
func (b *books) close() error {
	b.mu.Lock()
	store := b.store
	b.store = nil
	b.mu.Unlock()
	if store == nil {
		return nil
	}
	verifications.Delete(b.ledger)
	err := b.ledger.Close() // also closes the store
	if err != nil {
		b.logger.Error("closing the ledger", zap.Error(err))
	}
	return err
}
