package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/bolt"
)

// keep fills a ledger, unless its file is there already. Half a ledger is not kept.
func keep(file string, agents, charges int) error {
	if _, err := os.Stat(file); err == nil {
		return nil
	}
	part := file + ".part"
	if err := os.RemoveAll(part); err != nil {
		return err
	}
	if err := fill(part, agents, charges); err != nil {
		return err
	}
	return os.Rename(part, file)
}

// fill makes a ledger in a file, with agents that have already paid charges: one agent after the other, which is several times as fast as in turns,
// and leaves as many records.
func fill(file string, agents, charges int) (err error) {
	store, err := bolt.Open(file, bolt.Options{})
	if err != nil {
		return err
	}
	books, err := ledger.New(store, ledger.Options{Currency: "USDC", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return errors.Join(err, store.Close())
	}
	defer func() { err = errors.Join(err, books.Close()) }()
	book := escrow.New(books, escrow.Rules{})
	ctx, operator := context.Background(), escrow.Actor{Operator: true}
	if err := book.Reserve(ctx, "acme"); err != nil {
		return err
	}
	name := func(i int) string { return fmt.Sprintf("earlier-%d", i) }
	if err := each(agents, func(i int) error {
		_, err := escrow.Do(ctx, book, func(tx *escrow.Tx) (struct{}, error) {
			if _, _, _, err := tx.CreateAgent(operator, escrow.AgentOrder{ID: name(i)}); err != nil {
				return struct{}{}, err
			}
			_, err := tx.Deposit(operator, escrow.PaymentOrder{To: name(i), Amount: 1_000_000_000})
			return struct{}{}, err
		})
		return err
	}); err != nil {
		return err
	}
	if err := each(charges, func(i int) error {
		call, err := book.Authorise(ctx, escrow.CallOrder{Request: book.NewRequestID(), By: escrow.Actor{Agent: name(i * agents / charges)}, Payee: "acme", Least: 1})
		if err != nil {
			return err
		}
		_, err = call.Settle(ctx, escrow.Settlement{Amount: 1})
		return err
	}); err != nil {
		return err
	}
	for done := false; !done; { // as a server does in the background
		if _, done, err = book.KeepTotals(ctx); err != nil {
			return err
		}
	}
	return nil
}

// each does n things, many of them at the same time, so that the ledger's groups are full.
func each(n int, do func(i int) error) error {
	var (
		next   atomic.Int64
		all    sync.WaitGroup
		once   sync.Once
		failed error
	)
	for range 512 {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := do(i); err != nil {
					once.Do(func() { failed = err })
					next.Store(int64(n))
				}
			}
		})
	}
	all.Wait()
	return failed
}
