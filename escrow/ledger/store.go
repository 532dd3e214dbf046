package ledger

import (
	"errors"
	"fmt"
	"time"
)

// Range is the set of keys with From <= key < To. Its order is ascending, or descending if Reverse is true. A nil To means no end.
type Range struct {
	From, To []byte
	Reverse  bool
}

// Prefix returns the range of all keys that begin with prefix.
func Prefix(prefix []byte) Range {
	to := append([]byte(nil), prefix...)
	for i := len(to) - 1; i >= 0; i-- {
		if to[i]++; to[i] != 0 {
			return Range{From: prefix, To: to[:i+1]}
		}
	}
	return Range{From: prefix}
}

// Reader reads records, which are ordered by their keys. The returned slices must not be changed. They are valid until the View or the
// operation ends to which the Reader belongs.
type Reader interface {
	// Get returns the value of key, or nil if there is no such record.
	Get(key []byte) ([]byte, error)
	// Scan calls fn for each record of the range, until fn returns false or an error. It returns fn's error.
	Scan(r Range, fn func(key, value []byte) (more bool, err error)) error
}

// Writer is what an operation reads from and writes to. Its reads see the operation's own writes, and those of the earlier operations in
// the same commit.
type Writer interface {
	Reader
	// Put sets a record. The caller must not change key and value afterwards.
	Put(key, value []byte)
	// Delete removes a record, if there is one. The caller must not change key afterwards.
	Delete(key []byte)
	// Try calls fn. If fn fails, Try undoes fn's writes and returns its error.
	Try(fn func() error) error
}

// Op is one operation on a store.
type Op struct {
	// Run does the work of the operation. A store may call it more than once, perhaps with other operations in between. Only the last run
	// counts; what earlier runs wrote is thrown away. If Run fails, nothing that it wrote is stored, and Run itself must take back what it
	// changed outside of the store. A shared store may show Run what others have committed before it is durable: if that is lost, Run is
	// called again.
	Run func(Writer) error
	// Undo takes back what a successful Run has changed outside of the store. It may be nil. It is called when a successful run is thrown
	// away: before Run is called again, or before Done is called with an error. If several operations are thrown away, the last one
	// that ran is undone first.
	Undo func()
	// Done is called exactly once, and must not block. Its argument is nil once the commit is durable, or the error of Run. If the commit
	// failed, it wraps ErrOutcomeUnknown. If Run was not called, it wraps ErrUnavailable, ErrClosed or ErrReadOnly.
	Done func(error)
}

// Doubter is implemented by a Writer whose reads may be out of date or guesses, as in a run before the database is asked. Doubt is called
// for a run that finds something wrong with the records. It returns true if the finding may come from such a read; then the run doesn't
// count, and there is another run. It returns false if the records are as committed.
type Doubter interface {
	Doubt() bool
}

func doubt(r Reader) bool {
	d, ok := r.(Doubter)
	return ok && d.Doubt()
}

// Store is an ordered key-value store with group commit. It is all that the ledger needs of a database.
type Store interface {
	// Submit queues an operation. One goroutine runs the operations one at a time, in the order of Submit. All operations that wait are
	// committed together, as a group. An operation that returns an error or panics leaves no trace, and does not affect the others of its
	// group. The same goroutine then calls Done of the group's operations, in their order, before it runs the next group.
	Submit(Op)
	// View calls fn with a reader of the committed records. Later commits do not change what the reader sees.
	View(fn func(Reader) error) error
	// Close commits the queued operations and releases the store.
	Close() error
}

// Reopener is implemented by stores that can go on after a failed commit.
type Reopener interface {
	// Reopen makes the store accept operations again, beginning with the state that is durable now. Otherwise it returns the reason.
	Reopen() error
}

// Observed is implemented by stores that tell about their commits, such as for metrics.
type Observed interface {
	// Observe makes the store call observer after each commit that wrote something, with the number of operations of the group, and with the time
	// that the group took until its operations were answered. The goroutine that commits calls it and waits for it.
	Observe(observer func(operations int, took time.Duration))
}

// Looker is implemented by stores that find a single record without a transaction.
type Looker interface {
	// Look returns the value of key as last committed, or nil if there is no such record. The slice must not be changed.
	Look(key []byte) ([]byte, error)
}

// Clock is implemented by stores that know the time of a database. It is the same for all processes, whatever their own clocks say.
type Clock interface {
	// Now returns the time.
	Now() time.Time
}

// Recent is implemented by stores that know some records without asking a database.
type Recent interface {
	// Recent is like View, but may read the records as of the last commit of another process that this store has heard of and knows to be durable.
	Recent(fn func(Reader) error) error
}

var (
	// ErrOutcomeUnknown is returned when the commit of an operation failed. The operation may or may not have taken place. Nothing more is
	// written until the store is reopened; after that, look for a record that the operation puts.
	ErrOutcomeUnknown = errors.New("the commit failed, its outcome is unknown")
	// ErrRunAgain is returned by a [Group]'s Commit if another process has committed since the group began. Nothing of the group was
	// written, and its operations are run again in a new group.
	ErrRunAgain = errors.New("another process has committed meanwhile")
	// ErrUnavailable is returned for an operation that was not run, because an earlier commit failed.
	ErrUnavailable = errors.New("the ledger takes no operations")
	// ErrReadOnly is returned for an operation on a ledger that was opened for reading, or whose records were found wrong.
	ErrReadOnly = errors.New("the ledger is read-only")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("the ledger is closed")
	// ErrLocked is returned if another process has the store open.
	ErrLocked = errors.New("the ledger is held by another process")
	// ErrCorrupt is returned if stored data is not what was written. If the damaged record is known, the error is a *CorruptError.
	ErrCorrupt = errors.New("the ledger is damaged")
	// ErrCurrency is returned by New if the ledger was made with another currency, or if a new ledger is given none.
	ErrCurrency = errors.New("the ledger has another currency")
	// ErrSchema is returned by New if the ledger was written by a newer version of this program, or by one that is too old to upgrade.
	ErrSchema = errors.New("the ledger was written by a newer version")
)

// CorruptError names a record that is not what was written.
type CorruptError struct {
	Key    []byte
	Detail string
}

// Error names the record by its key.
func (e *CorruptError) Error() string {
	return fmt.Sprintf("%v: record %q: %s; restore a backup, and keep the file for inquiry", ErrCorrupt, e.Key, e.Detail)
}

// Unwrap returns ErrCorrupt.
func (e *CorruptError) Unwrap() error { return ErrCorrupt }
