package ledger

import (
	"errors"
	"fmt"
)

// Range is the keys From <= key < To, in ascending order or from the end. A nil To means no end.
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

// Reader reads records in the order of their keys. What it returns is valid until the View or the operation that it belongs to
// ends, and must not be changed.
type Reader interface {
	// Get returns the value of key, nil where there is none.
	Get(key []byte) ([]byte, error)
	// Scan calls fn for each record of the range until fn says that it wants no more, or fails.
	Scan(r Range, fn func(key, value []byte) (more bool, err error)) error
}

// Writer is what an operation writes to. Its reads see its own writes, and those of the operations before it in the same commit.
type Writer interface {
	Reader
	// Put sets a record. key and value must not be changed from then on.
	Put(key, value []byte)
	// Delete removes a record, if there is one. key must not be changed from then on.
	Delete(key []byte)
	// Try runs fn; where it fails, what it wrote is undone and its error returned.
	Try(fn func() error) error
}

// Op is one operation on a store.
type Op struct {
	// Run is what the operation does. A store may call it more than once, also after other operations ran in between: what the earlier
	// runs wrote is thrown away, and the last run counts. A run that fails leaves no trace in the store; what it changed elsewhere it takes
	// back itself.
	Run func(Writer) error
	// Undo takes back what a run that succeeded has changed outside of the Writer; nil where that is nothing. It is called when the run is
	// thrown away: before Run is called again, and before Done is called with an error. Of several operations it is called in the
	// reverse of the order in which they ran.
	Undo func()
	// Done is called exactly once, and must not block: with nil after the commit is durable; with the error of Run; with an error that
	// wraps ErrOutcomeUnknown where the commit failed; or with one that wraps ErrUnavailable, ErrClosed or ErrReadOnly where Run was not
	// called.
	Done func(error)
}

// Store is an ordered key-value store with group commit: all that the ledger asks of a database.
type Store interface {
	// Submit queues an operation. Operations are applied one at a time, in the order of Submit, by one goroutine; all that wait are
	// committed together, as a group, and each is kept or dropped on its own: one that returns an error or panics leaves no trace. Those of a
	// group that were run are answered, by Done, in their order, by the same goroutine, before it runs others.
	Submit(Op)
	// View calls fn with what is committed, unchanging while fn runs.
	View(fn func(Reader) error) error
	// Close commits what is queued and releases the store.
	Close() error
}

// Reopener is a store that can take up its work again after a failed commit.
type Reopener interface {
	// Reopen makes the store ready again, at the state that is durable now, or says why it can't.
	Reopen() error
}

var (
	// ErrOutcomeUnknown is returned where the commit of an operation failed: it may or may not have taken place. Nothing more is
	// written until the store is reopened; then the records that it was to put tell what became of it.
	ErrOutcomeUnknown = errors.New("the commit failed, its outcome is unknown")
	// ErrRunAgain is what a [Group]'s Commit returns where another process has committed since the group began: nothing of the group was
	// written, and its operations are run again in a new one.
	ErrRunAgain = errors.New("another process has committed meanwhile")
	// ErrUnavailable is returned for operations that were not run since an earlier commit failed.
	ErrUnavailable = errors.New("the ledger takes no operations")
	// ErrReadOnly is returned for operations on a ledger that was opened for reading, or whose books or records were found wrong.
	ErrReadOnly = errors.New("the ledger is read-only")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("the ledger is closed")
	// ErrLocked is returned where another process holds the store.
	ErrLocked = errors.New("the ledger is held by another process")
	// ErrCorrupt is returned where what is stored is not what was written. Errors that know the record are *CorruptError.
	ErrCorrupt = errors.New("the ledger is damaged")
	// ErrCurrency is returned by New where the ledger was made with another currency.
	ErrCurrency = errors.New("the ledger has another currency")
	// ErrSchema is returned by New where the ledger was written by a newer version of this program.
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
