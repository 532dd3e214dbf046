package postgres

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// ErrLost is returned if the database does not have commits any more that it had confirmed, as after a failover to a standby that was behind.
// It wraps [ledger.ErrReadOnly]: the store takes no more operations, and must be opened again.
var ErrLost = fmt.Errorf("%w: the database has lost what it had confirmed", ledger.ErrReadOnly)

// head is the row whose lock keeps the order.
type head struct {
	point        // the last commit
	logged int64 // the last commit that has left its records to a fold
	known  int64 // the writer of the commit whose number was asked for; 0 if the log does not say
}

func (h *head) scan(row pgx.Row) error {
	return row.Scan(&h.commit, &h.writer, &h.logged, &h.known)
}

// follows reports whether the news since the tail's commit are all that has happened since.
func (h *head) follows(t *tail) bool {
	return h.known != 0 && h.known == t.writer && h.commit >= t.commit && h.commit-t.commit <= maxTakenIn
}

// lost returns an error if a commit, whose number was asked for, is not part of the history any more.
func (h *head) lost(p point) error {
	switch {
	case p.commit < 0:
		return nil
	case h.commit < p.commit:
		return fmt.Errorf("%w: commits %d to %d are missing", ErrLost, h.commit+1, p.commit)
	case h.known != 0 && h.known != p.writer, h.commit == p.commit && h.writer != p.writer:
		return fmt.Errorf("%w: commit %d is now another one", ErrLost, p.commit)
	}
	return nil
}

// The row of the log is read as it was before the lock was waited for. That is right for a commit that is known to have ended.
const (
	headSQL = "select commit, writer, logged, coalesce((select writer from log where commit = $1), 0) from head where id = 1"
	lockSQL = headSQL + " for update"
)

// entry is a commit that another process has made.
type entry struct {
	commit, writer int64
	direct         bool // it has written its records itself
	changes        []record
}

// news is what has happened since a commit.
type news struct {
	folded  int64 // all commits up to this one are in the table of records
	entries []entry
}

const (
	// A commit that has written its records itself has its values there; $3 asks for them. The inner select is of one value, so that each
	// is found by its key whatever the database knows of the sizes.
	newsSQL = `select f.folded, l.commit, l.writer, l.new_values is null,
			case when $3 or l.new_values is not null then l.keys end,
			coalesce(l.new_values, case when $3 then
				array(select (select r.value from records r where r.key = k.key) from unnest(l.keys) with ordinality as k(key, n) order by k.n) end)
		from fold f left join log l on l.commit > $1 and l.commit <= $2
		where f.id = 1 order by l.commit`
	restSQL = `select $1::bigint, commit, writer, false, keys, new_values from log
		where commit > $1 and commit <= $2 and new_values is not null order by commit`
)

// queueNews reads what has happened since a commit. With values it also reads the values of commits that have written their records
// themselves, as they are now.
func queueNews(b *pgx.Batch, since int64, values bool, n *news) {
	b.Queue(newsSQL, since, since+maxTakenIn, values).Query(n.read)
}

// queueRest reads all commits up to one that are not folded yet.
func queueRest(b *pgx.Batch, commit int64, n *news) { b.Queue(restSQL, n.folded, commit).Query(n.read) }

func (n *news) read(rows pgx.Rows) error {
	n.entries = nil
	for rows.Next() {
		var commit, writer *int64 // null if there are no entries
		var e entry
		var keys, values [][]byte
		if err := rows.Scan(&n.folded, &commit, &writer, &e.direct, &keys, &values); err != nil {
			return err
		}
		if commit == nil {
			continue
		}
		e.commit, e.writer = *commit, *writer
		if len(values) != len(keys) {
			return &ledger.CorruptError{Key: fmt.Appendf(nil, "log %d", e.commit), Detail: fmt.Sprintf("it has %d keys and %d values", len(keys), len(values))}
		}
		for i, key := range keys {
			r := record{key: key}
			if values[i] != nil {
				var err error
				if r.value, err = open(key, values[i]); err != nil {
					return err
				}
			}
			e.changes = append(e.changes, r)
		}
		slices.SortFunc(e.changes, func(a, b record) int { return bytes.Compare(a.key, b.key) })
		n.entries = append(n.entries, e)
	}
	return rows.Err()
}

// goOn reports whether a tail with the news is the whole tail as of a head.
func (n *news) goOn(t *tail, h head) bool {
	last := t.commit
	if len(n.entries) > 0 {
		last = n.entries[len(n.entries)-1].commit
	}
	return h.follows(t) && last == h.commit && n.folded >= t.mark
}

// after returns a tail with the news.
func (n *news) after(t *tail) *tail {
	for _, e := range n.entries {
		if e.direct {
			t = t.at(e.commit, e.writer)
		} else {
			t = t.with(e.commit, e.writer, e.changes)
		}
	}
	return t.folded(n.folded)
}
