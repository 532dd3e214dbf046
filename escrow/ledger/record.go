package ledger

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/tallygate/tallygate/escrow/ledger/canon"
)

// The first byte of a key tells the kind of the record.
const (
	metaPrefix     = 'm' // m"meta", m"state"
	accountPrefix  = 'a' // a<account>: Account
	transferPrefix = 't' // t<seq>: a transfer
	entryPrefix    = 'e' // e<account>\x00<seq>: the account's balance after the transfer
	pendingPrefix  = 'p' // p<reference>\x00<seq>: a pending transfer that is not resolved
	headPrefix     = 'h' // h<day>: the head of the hash chain after the last transfer of the day
	leasePrefix    = 'l' // l<account>: the leases of the account
	recallPrefix   = 'r' // r<process>: accounts whose leases the process is asked to give back
	beatPrefix     = 's' // s<process>: a number that grows as long as the process lives

	// DomainPrefix is the first byte of the keys of domain records: those that the packages above this one store.
	DomainPrefix = 'd'
)

var (
	metaKey  = []byte("mmeta")
	stateKey = []byte("mstate")
)

func accountKey(id AccountID) []byte { return append([]byte{accountPrefix}, id...) }

func transferKey(seq uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{transferPrefix}, seq)
}

func entryKey(id AccountID, seq uint64) []byte { return listKey(entryPrefix, string(id), seq) }

func pendingKey(reference string, seq uint64) []byte { return listKey(pendingPrefix, reference, seq) }

func listKey(prefix byte, name string, seq uint64) []byte {
	key := make([]byte, 0, len(name)+10)
	key = append(key, prefix)
	key = append(key, name...)
	key = append(key, 0)
	return binary.BigEndian.AppendUint64(key, seq)
}

func listPrefix(prefix byte, name string) []byte {
	key := append([]byte{prefix}, name...)
	return append(key, 0)
}

// lastSeq returns the transfer number at the end of the key of a transfer, an entry or a pending transfer.
func lastSeq(key []byte) (uint64, error) {
	if len(key) < 9 {
		return 0, &CorruptError{Key: key, Detail: "the key is too short"}
	}
	return binary.BigEndian.Uint64(key[len(key)-8:]), nil
}

// metaRecord describes the ledger.
type metaRecord struct {
	Schema   uint      `cbor:"1,keyasint"`
	Currency string    `cbor:"2,keyasint"`
	Created  int64     `cbor:"3,keyasint"`           // Unix nanoseconds
	Upgrade  []byte    `cbor:"4,keyasint,omitempty"` // where the next step of an unfinished upgrade begins
	Epoch    uint64    `cbor:"5,keyasint,omitempty"` // of the last session that began
	Sessions []Session `cbor:"6,keyasint,omitempty"` // the sessions that are not over
}

// stateRecord is the current state of the ledger.
type stateRecord struct {
	Seq  uint64   `cbor:"1,keyasint"` // of the last transfer
	Time int64    `cbor:"2,keyasint"` // of the last operation, in Unix nanoseconds; later operations never get an earlier time
	Head [32]byte `cbor:"3,keyasint"` // of the hash chain, after the last transfer
	Day  string   `cbor:"4,keyasint,omitempty"`
}

// Stored implements [canon.Record].
func (r *stateRecord) Stored(f *canon.Form) {
	canon.Uint(f, 1|canon.Always, &r.Seq)
	canon.Int(f, 2|canon.Always, &r.Time)
	canon.Hash(f, 3|canon.Always, &r.Head)
	canon.Text(f, 4, &r.Day)
}

type transferRecord struct {
	Debit     AccountID `cbor:"1,keyasint"`
	Credit    AccountID `cbor:"2,keyasint"`
	Amount    Amount    `cbor:"3,keyasint"`
	Kind      string    `cbor:"4,keyasint"`
	Reference string    `cbor:"5,keyasint,omitempty"`
	Memo      string    `cbor:"6,keyasint,omitempty"`
	Phase     Phase     `cbor:"7,keyasint,omitempty"`
	Pending   uint64    `cbor:"8,keyasint,omitempty"`
	Time      int64     `cbor:"9,keyasint"` // Unix nanoseconds
}

// Stored implements [canon.Record].
func (r *transferRecord) Stored(f *canon.Form) {
	canon.Text(f, 1|canon.Always, &r.Debit)
	canon.Text(f, 2|canon.Always, &r.Credit)
	canon.Int(f, 3|canon.Always, &r.Amount)
	canon.Text(f, 4|canon.Always, &r.Kind)
	canon.Text(f, 5, &r.Reference)
	canon.Text(f, 6, &r.Memo)
	canon.Uint(f, 7, &r.Phase)
	canon.Uint(f, 8, &r.Pending)
	canon.Int(f, 9|canon.Always, &r.Time)
}

type entryRecord struct {
	BalanceAfter Amount `cbor:"1,keyasint"`
}

// Stored implements [canon.Record].
func (r *entryRecord) Stored(f *canon.Form) { canon.Int(f, 1|canon.Always, &r.BalanceAfter) }

// encoding is deterministic, because the hash chain covers the stored bytes.
var encoding = func() cbor.EncMode {
	mode, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic(err) // the options are constant
	}
	return mode
}()

// quick returns a pointer to a record of each call as what package canon writes and reads, and nil for other records. What is read into it
// must be empty so far. A type that embeds such a record has its methods, but is another record.
func quick(record any) canon.Record {
	switch record.(type) {
	case *Account, *transferRecord, *entryRecord, *stateRecord:
		return record.(canon.Record)
	default:
		return nil
	}
}

func encode(record any) []byte {
	if r := quick(record); r != nil {
		if value, ok := canon.Encode(r); ok {
			return value
		}
	}
	value, err := encoding.Marshal(record)
	if err != nil {
		panic(fmt.Sprintf("encoding %T: %v", record, err)) // can't happen, records are plain data; the writer would turn the panic into an error
	}
	return value
}

func decode(key, value []byte, record any) error {
	if r := quick(record); r != nil && canon.Decode(value, r) {
		return nil
	}
	if err := cbor.Unmarshal(value, record); err != nil {
		return &CorruptError{Key: key, Detail: err.Error()}
	}
	return nil
}

func (t Transfer) record() *transferRecord {
	return &transferRecord{
		Debit: t.Debit, Credit: t.Credit, Amount: t.Amount, Kind: t.Kind, Reference: t.Reference, Memo: t.Memo,
		Phase: t.Phase, Pending: t.Pending, Time: t.Time.UnixNano(),
	}
}

func (r *transferRecord) transfer(seq uint64) Transfer {
	return Transfer{
		Seq: seq, Debit: r.Debit, Credit: r.Credit, Amount: r.Amount, Kind: r.Kind, Reference: r.Reference, Memo: r.Memo,
		Phase: r.Phase, Pending: r.Pending, Time: time.Unix(0, r.Time).UTC(),
	}
}

// ReadAccount returns an account's counters as r sees them. An account without a record has zero counters.
func ReadAccount(r Reader, id AccountID) (Account, error) {
	var account Account
	key := accountKey(id)
	value, err := r.Get(key)
	if err != nil || value == nil {
		return account, err
	}
	return account, decode(key, value, &account)
}

// ReadTransfer returns the transfer with the number seq. If there is none, found is false.
func ReadTransfer(r Reader, seq uint64) (t Transfer, found bool, err error) {
	key := transferKey(seq)
	value, err := r.Get(key)
	if err != nil || value == nil {
		return Transfer{}, false, err
	}
	t, err = decodeTransfer(key, value)
	return t, err == nil, err
}

func decodeTransfer(key, value []byte) (Transfer, error) {
	var record transferRecord
	seq, err := lastSeq(key)
	if err != nil {
		return Transfer{}, err
	}
	if err := decode(key, value, &record); err != nil {
		return Transfer{}, err
	}
	return record.transfer(seq), nil
}
