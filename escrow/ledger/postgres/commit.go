package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// writer is what only the goroutine that commits uses. A group that has to run again goes on in the same transaction.
type writer struct {
	conn    *pgx.Conn        // nil if there is none
	id      int64            // of the connection, chosen at random: a commit that a crash took back is never taken for a later one
	locked  bool             // conn is in a transaction that has the lock: nobody else can commit
	runs    int              // of the group in this transaction
	pages   map[string]*page // beginnings of ranges, read in this transaction
	losses  int              // transactions that were lost since the last commit
	losing  time.Time        // when the first of them was lost
	tail    *tail            // as of the last commit that is known; the cache is as of the same commit
	trouble error            // why there are no groups until Reopen

	folded, logged int64 // as of when the lock was taken: see the columns

	marked     time.Time // when fresh was set
	old, fresh int64     // commits of at least one minute ago, and of less
}

const (
	maxGuesses = 4  // runs with guesses; then reads that are not known are made one by one
	maxLosses  = 10 // in a row
	maxTakenIn = 64 // commits of others that are taken in one by one; if there are more, the cache is emptied
)

// group implements [ledger.Group]: one run of a group of operations.
type group struct {
	*Store
	keys  [][]byte                // read in this run, but not known
	spans map[string]ledger.Range // likewise
	again bool                    // the run does not count
	err   error                   // of a read
}

func (s *Store) beginGroup() (ledger.Group, error) {
	w := &s.writer
	if w.trouble == nil && w.conn == nil {
		w.trouble = s.connect(s.options.Patience)
	}
	if w.trouble == nil {
		w.trouble = s.makeRoom()
	}
	if w.trouble != nil {
		return nil, w.trouble
	}
	return &group{Store: s}, nil
}

// Doubt implements [ledger.Doubter].
func (g *group) Doubt() bool {
	if g.sure() {
		return false
	}
	g.again = true
	return true
}

// sure reports whether everything that was read in this run so far is as committed.
func (g *group) sure() bool { return g.writer.locked && len(g.keys) == 0 && len(g.spans) == 0 }

// runAgain ends the run of an operation.
func (g *group) runAgain() {
	g.again = true
	panic(ledger.ErrRunAgain)
}

// Get implements [ledger.Reader]. A domain record that is not known is taken for absent, since most of them are looked up under an id
// that is new. The run of an operation that needs another record that is not known ends.
func (g *group) Get(key []byte) ([]byte, error) {
	if value, known := g.cache.get(key); known {
		return value, nil
	}
	if value, changed := g.writer.tail.get(key); changed {
		g.cache.put(key, value)
		return value, nil
	}
	if g.writer.locked && g.writer.runs >= maxGuesses {
		var found []record
		g.ask(func(b *pgx.Batch) { queueGet(b, [][]byte{key}, &found) })
		return g.learn(key, found), nil
	}
	g.keys = append(g.keys, bytes.Clone(key))
	if len(key) == 0 || key[0] != ledger.DomainPrefix {
		g.runAgain()
	}
	return nil, nil
}

// learn puts a record that was read into the cache.
func (g *group) learn(key []byte, found []record) (value []byte) {
	if len(found) > 0 {
		value = found[0].value
	}
	g.cache.put(key, value)
	return value
}

// Scan implements [ledger.Reader]. The run of an operation ends that needs a range that is not known.
func (g *group) Scan(in ledger.Range, fn func(key, value []byte) (bool, error)) error {
	next := func(in ledger.Range) (*page, error) {
		p := new(page)
		g.ask(func(b *pgx.Batch) { queuePage(b, in, nextPage, p) })
		return p, nil
	}
	name := fmt.Sprintf("%t %x %t %x", in.Reverse, in.From, in.To == nil, in.To)
	first, known := g.writer.pages[name]
	switch {
	case known:
	case g.writer.locked && g.writer.runs >= maxGuesses:
		first, _ = next(in)
	default:
		if g.spans == nil {
			g.spans = make(map[string]ledger.Range)
		}
		in.From, in.To = bytes.Clone(in.From), bytes.Clone(in.To)
		g.spans[name] = in
		g.runAgain()
	}
	return g.writer.tail.scan(in, func(in ledger.Range, fn func(key, value []byte) (bool, error)) error {
		return scan(in, first, next, fn)
	}, fn)
}

// ask makes a round trip in the middle of a run. If it fails, it ends the run of the operation.
func (g *group) ask(queue func(*pgx.Batch)) {
	b := new(pgx.Batch)
	queue(b)
	if err := g.trip(b); err != nil {
		g.err = err
		g.runAgain()
	}
}

// trip makes a round trip on the writer's connection.
func (s *Store) trip(b *pgx.Batch) error {
	ctx, cancel := context.WithTimeout(context.Background(), roundTrip)
	defer cancel()
	return s.writer.conn.SendBatch(ctx, b).Close()
}

// Commit implements [ledger.Group].
func (g *group) Commit(changed iter.Seq2[[]byte, []byte]) error {
	if g.err == nil && !g.sure() {
		g.err = g.verify()
	}
	if g.err != nil {
		return g.lose(g.err)
	}
	if g.again {
		g.writer.runs++
		return ledger.ErrRunAgain
	}
	var changes []record
	for key, value := range changed {
		changes = append(changes, record{key, value})
	}
	return g.commit(changes)
}

// verify takes the lock, if this transaction doesn't have it, takes in what others have committed, and reads what the run has guessed.
// The run does not count if one of its reads was wrong.
func (g *group) verify() error {
	w := &g.writer
	var h head
	var n news
	var found []record
	b := new(pgx.Batch)
	if !w.locked {
		b.Queue("begin isolation level read committed")
		b.Queue(asyncSQL)
		b.Queue(lockSQL, w.tail.commit).QueryRow(h.scan)
		queueNews(b, w.tail.commit, true, &n)
		g.queueClock(b)
	}
	wished := g.cache.wishes()
	if asked := slices.Concat(g.keys, wished); len(asked) > 0 {
		queueGet(b, asked, &found)
	}
	pages := make(map[string]*page, len(g.spans))
	for name, in := range g.spans {
		pages[name] = new(page)
		queuePage(b, in, firstPage, pages[name])
	}
	if err := g.trip(b); err != nil {
		return err
	}
	if !w.locked {
		w.locked, w.runs, w.pages = true, 0, nil
		if err := g.takeIn(h, n); err != nil {
			return err
		}
	}
	if w.pages == nil {
		w.pages = pages
	} else {
		for name, p := range pages {
			w.pages[name] = p
		}
	}
	g.check(found, wished)
	return nil
}

// takeIn takes in what others have committed, now that the lock is held.
func (g *group) takeIn(h head, n news) error {
	w := &g.writer
	ctx, cancel := context.WithTimeout(context.Background(), roundTrip)
	defer cancel()
	// Nobody has committed since the lock was taken.
	if err := g.checkHistory(ctx, w.conn, h, w.tail, g.durable.get()); err != nil {
		return err
	}
	before := w.tail
	if n.goOn(before, h) {
		w.tail = n.after(before)
		for _, e := range n.entries {
			for _, r := range e.changes {
				g.cache.put(r.key, r.value)
			}
		}
	} else { // too much has happened since, or a crash has taken something back
		g.cache.forget()
		rest := news{folded: n.folded}
		if n.folded < h.logged {
			b := new(pgx.Batch)
			queueRest(b, h.commit, &rest)
			if err := g.trip(b); err != nil {
				return err
			}
		}
		w.tail = rest.after(unknown).upTo(h, n.folded)
	}
	w.folded, w.logged = n.folded, h.logged
	g.again = g.again || h.point != before.point
	g.latest.Store(w.tail)
	return nil
}

// check compares what the run has guessed with the records that were read. It also remembers the records that readers wished for.
func (g *group) check(found []record, wished [][]byte) {
	values := make(map[string][]byte, len(found))
	for _, r := range found {
		values[string(r.key)] = r.value
	}
	for _, key := range g.keys {
		value, changed := g.writer.tail.get(key)
		if !changed {
			value = values[string(key)]
		}
		g.again = g.again || value != nil
		g.cache.put(key, value)
	}
	for _, key := range wished {
		value, changed := g.writer.tail.get(key)
		if !changed {
			value = values[string(key)]
		}
		g.cache.put(key, value)
	}
}

const (
	putSQL = `insert into records (key, value) select * from unnest($1::bytea[], $2::bytea[])
		on conflict (key) do update set value = excluded.value`
	deleteSQL = "delete from records where key = any($1::bytea[])"
	logSQL    = "insert into log (commit, writer, keys, new_values) values ($1, $2, $3, $4)"
	moveSQL   = "update head set commit = $1, writer = $2, logged = $3 where id = 1"
	markSQL   = "update fold set folded = $1 where id = 1 and folded < $1"
	pruneSQL  = `delete from log where commit < least($1, (select min(commit) from log) + 128)
		and (new_values is null or commit <= (select folded from fold where id = 1))`
)

// commit writes the changes, commits them and makes them durable, in one round trip.
func (g *group) commit(changes []record) error {
	w := &g.writer
	if len(changes) == 0 {
		return g.rollback()
	}
	if err := g.fault(StepCommit); err != nil {
		g.drop()
		return err
	}
	number, id := w.tail.commit+1, w.id
	// A commit may write its records itself only if all earlier ones are in the table: otherwise a fold would write older values over them.
	direct := g.options.Mode == Rows && w.folded >= w.logged
	b := new(pgx.Batch)
	if direct {
		queueRecords(b, number, id, changes)
	} else {
		queueLog(b, number, id, changes)
		if w.folded >= w.logged && w.folded < number-1 {
			b.Queue(markSQL, number-1) // the commits since then have written their records
		}
		w.logged = number
	}
	b.Queue(moveSQL, number, id, w.logged)
	if old := w.prunable(number); number%64 == 0 && old > 0 {
		b.Queue(pruneSQL, old)
	}
	committed := false
	b.Queue("commit").Exec(func(pgconn.CommandTag) error { committed = true; return nil })
	queueFlush(b, number)
	if err := g.trip(b); err != nil {
		// The server's own word that a statement failed, on a connection that it keeps, means that it did not come to the commit.
		var refused *pgconn.PgError
		if errors.As(err, &refused) && !committed && !w.conn.IsClosed() {
			return g.lose(err)
		}
		if err := g.settle(point{number, id}, err); err != nil {
			return err
		}
	}
	w.locked, w.losses, w.pages = false, 0, nil
	for _, r := range changes {
		g.cache.put(r.key, r.value)
	}
	g.cache.show()
	if direct {
		w.tail = w.tail.at(number, id)
	} else {
		w.tail = w.tail.with(number, id, changes)
		g.wakeFolder()
	}
	g.durable.note(w.tail.point)
	g.latest.Store(w.tail)
	return g.fault(StepAnswer)
}

// queueRecords writes changes to the table of records.
func queueRecords(b *pgx.Batch, number, writer int64, changes []record) {
	var keys, puts, values, deletes [][]byte
	for _, r := range changes {
		keys = append(keys, r.key)
		if r.value == nil {
			deletes = append(deletes, r.key)
			continue
		}
		puts, values = append(puts, r.key), append(values, seal(r.key, r.value))
	}
	if len(puts) > 0 {
		b.Queue(putSQL, puts, values)
	}
	if len(deletes) > 0 {
		b.Queue(deleteSQL, deletes)
	}
	b.Queue(logSQL, number, writer, keys, nil)
}

// queueLog leaves changes to a fold.
func queueLog(b *pgx.Batch, number, writer int64, changes []record) {
	keys, values := make([][]byte, len(changes)), make([][]byte, len(changes))
	for i, r := range changes {
		if keys[i] = r.key; r.value != nil {
			values[i] = seal(r.key, r.value)
		}
	}
	b.Queue(logSQL, number, writer, keys, values)
}

// prunable returns the number of a commit of which the log needs no row any more, since it is at least a minute old.
func (w *writer) prunable(number int64) int64 {
	if now := time.Now(); now.Sub(w.marked) >= time.Minute {
		w.old, w.fresh, w.marked = w.fresh, number, now
	}
	return w.old
}

// rollback ends a transaction that has changed nothing. What it has read of others is made durable before it is answered for. If a view has
// done that meanwhile, it counts only if the connection still stands: after a crash it may be other commits of the same numbers.
func (s *Store) rollback() error {
	w := &s.writer
	b := new(pgx.Batch)
	b.Queue("rollback")
	if !s.durable.is(w.tail.commit) {
		queueFlush(b, w.tail.commit)
	}
	if err := s.trip(b); err != nil {
		return s.lose(err)
	}
	s.cache.show()
	s.durable.note(w.tail.point)
	w.locked, w.losses, w.pages = false, 0, nil
	return nil
}

// lose ends the transaction after an error before the commit. The operations run again in another one while there is patience, if that may help.
func (s *Store) lose(err error) error {
	w := &s.writer
	s.drop()
	if w.losses++; w.losses == 1 {
		w.losing = time.Now()
	}
	if errors.Is(err, ErrLost) {
		s.nameLost(err)
	}
	if !mayPass(err) || w.losses > maxLosses || time.Since(w.losing) > s.options.Patience {
		w.trouble = err
	}
	return fmt.Errorf("%w: %w", ledger.ErrRunAgain, err)
}

// settle finds out whether a commit took place whose answer is missing. It returns nil if it did. If it didn't, the operations run again.
func (s *Store) settle(made point, cause error) error {
	deadline := time.Now().Add(s.options.Patience)
	for {
		is, err := s.lookUp(made, time.Until(deadline))
		switch {
		case err != nil && mayPass(err) && time.Now().Before(deadline):
			continue
		case err != nil:
			return fmt.Errorf("the connection broke during the commit (%w), and what became of it can't be looked up: %w", cause, err)
		case is:
			s.options.Logger.Warn("the connection broke during a commit, which took place", "error", cause)
			return nil
		default:
			s.options.Logger.Warn("the connection broke during a commit, which did not take place; its operations run again", "error", cause)
			return s.lose(cause)
		}
	}
}

// lookUp reports, on a new connection, whether a commit was made, and makes it durable then. The lock is free only after the transaction that was
// to make it has ended. All is one round trip, so that the flush is of the same server that has been asked, and it has not crashed in between.
func (s *Store) lookUp(made point, patience time.Duration) (is bool, err error) {
	s.drop()
	if err := s.connect(patience); err != nil {
		return false, err
	}
	var writer int64
	b := new(pgx.Batch)
	b.Queue("begin isolation level read committed")
	b.Queue("select commit from head where id = 1 for update")
	b.Queue("select coalesce((select writer from log where commit = $1), 0)", made.commit).QueryRow(func(row pgx.Row) error { return row.Scan(&writer) })
	b.Queue("rollback")
	queueFlush(b, made.commit)
	if err = s.trip(b); err != nil {
		s.drop()
	}
	return writer == made.writer, err
}

func (s *Store) fault(step Step) error {
	if s.options.Fault == nil {
		return nil
	}
	return s.options.Fault(step)
}
