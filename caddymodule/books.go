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
)

// pool holds one open ledger for each store, shared by the configs that name it: a reload starts the new config before it
// stops the old one, and the file can be opened only once.
var pool = caddy.NewUsagePool()

// books is an open ledger with all that must outlive a config: the calls that are being served on it.
//
// A reload does not wait for requests in flight, and their handlers run on after the config that started them is cleaned
// up. So each request takes a reference of its own, and the store is closed by whoever lets go last.
type books struct {
	ledger *ledger.Ledger
	book   *escrow.Book // under the rules of the config that opened it
	store  ledger.Store
	logger *zap.Logger

	mu     sync.Mutex
	refs   int  // requests that hold the books open
	closed bool // no config holds them any more
}

// openBooks opens the store's ledger, and what died with the last process is put right before money moves.
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
	if err := b.book.RecoverPending(context.Background()); err != nil {
		_ = st.Close()
		return nil, fmt.Errorf("posting the draws of calls that died with the last process: %w", err)
	}
	return b, nil
}

// bringBack brings the ledger back, if a commit has failed. Nothing is retried on the file that failed: the store goes on from a copy of
// what is durable (see the store's Reopen). Then the calls that were hit are put right. As long as it fails, the books stay closed:
// requests that cost money are answered 503.
func (b *books) bringBack(ctx context.Context) {
	trouble := b.ledger.Err()
	if errors.Is(trouble, ledger.ErrReadOnly) {
		return
	}
	if trouble != nil {
		if err := b.ledger.Reopen(); err != nil {
			b.logger.Error("the ledger can't be reopened yet; no money is taken", zap.Error(err), zap.NamedError("since", trouble))
			return
		}
		b.logger.Warn("the ledger takes money again", zap.NamedError("since", trouble))
	}
	right, err := b.book.PutRight(ctx)
	if right > 0 {
		b.logger.Warn("calls were put right whose charge had failed", zap.Int("calls", right))
	}
	if err != nil {
		b.logger.Error("calls whose charge had failed can't be put right", zap.Error(err))
	}
}

// acquire holds the books open for one request. It reports false when they are closed.
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

// Destruct is called by the pool when the last config lets go. The store stays open while requests hold it, but not
// beyond the process.
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

// close ends the store once; a second call does nothing.
func (b *books) close() error {
	b.mu.Lock()
	store := b.store
	b.store = nil
	b.mu.Unlock()
	if store == nil {
		return nil
	}
	err := b.ledger.Close() // which closes the store
	if err != nil {
		b.logger.Error("closing the ledger", zap.Error(err))
	}
	return err
}
