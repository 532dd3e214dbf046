package postgres

import (
	"context"
	"math/rand/v2"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
)

// Whoever commits holds the lock of the order, and all others wait. So the lock is not held while the disk is waited for, or a synchronous
// standby: the transaction with the lock commits with synchronous_commit off, and one behind it, in the same round trip, is flushed as the
// database's setting says. The server writes its log in the order of the commits, so whatever is committed before a flushed transaction is as
// durable as that. See "Asynchronous Commit" in PostgreSQL's manual.
//
// Until then others can read a commit that a crash may still take back. So nobody answers before a flush of what was read: neither
// a group that changes nothing, nor a View.
const (
	asyncSQL = "set local synchronous_commit = off"
	flushSQL = "insert into flushed (slot, commit) values ($1, $2) on conflict (slot) do update set commit = excluded.commit"
	slots    = 1024
)

// queueFlush makes all commits up to a number durable. No transaction must be open.
func queueFlush(b *pgx.Batch, commit int64) { b.Queue(flushSQL, rand.IntN(slots), commit) }

// point is a commit in the history: its number, and the writer's connection.
type point struct{ commit, writer int64 }

// durable is the newest commit that this process knows to be durable.
type durable struct{ newest atomic.Pointer[point] }

func (d *durable) get() point { return *d.newest.Load() }

func (d *durable) is(commit int64) bool { return commit <= d.get().commit }

func (d *durable) note(p point) {
	for {
		before := d.newest.Load()
		if p.commit <= before.commit || d.newest.CompareAndSwap(before, &p) {
			return
		}
	}
}

// checkHistory returns an error if the database has lost what was durable before the head was read. That it does not have the tail's commit any
// more is none if nobody has made sure of that commit. A transaction must be open on the connection.
func (s *Store) checkHistory(ctx context.Context, conn *pgx.Conn, h head, t *tail, sure point) error {
	if h.lost(t.point) == nil {
		return nil
	}
	b := new(pgx.Batch)
	b.Queue(headSQL, sure.commit).QueryRow(h.scan)
	if err := conn.SendBatch(ctx, b).Close(); err != nil {
		return err
	}
	err := h.lost(sure)
	if err == nil {
		s.options.Logger.Warn("the database has crashed between a commit and its flush; nothing was lost that was answered", "commit", t.commit)
	}
	return err
}
