package escrow

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/canon"
)

// A table is a kind of record. A key consists of the ledger's domain prefix, the table, and parts with a zero byte between them. Ids begin with
// a time, so lists in the order of ids are in the order of creation.
type table byte

const (
	agentTable        table = 'a' // agent
	keyTable          table = 'k' // key id
	keyByAgent        table = 'K' // agent, key id
	faucetTable       table = 'f' // one record: what the faucet gave in its period
	allowanceTable    table = 'l' // payer, payee
	escrowTable       table = 'e' // escrow id
	escrowByAgent     table = 'E' // agent, escrow id; both sides
	activeByAgent     table = 'F' // agent, escrow id; both sides, those that still hold money
	openByPair        table = 'o' // payer, payee, escrow id; those that a meter may draw from
	frozenTable       table = 'D' // escrow id; refund requested or disputed
	closingTable      table = 'y' // escrow id; escrows that are over, except for what running calls hold
	dueTable          table = 'x' // agent, time, kind and id of what is due then
	dueByTime         table = 'd' // time, place and agent: when the agent's turn comes, see turns
	dueTurnOf         table = 'O' // agent: the time and place of its turn
	drawTable         table = 'w' // request id; a call that has drawn and is not settled
	chargeTable       table = 'c' // request id
	chargeByAgent     table = 'C' // agent, time and request id; both sides, and suspectCharges
	auditTable        table = 'u' // audit id
	limitTable        table = 'm' // agent, limit id
	spentTable        table = 'n' // agent, limit id: what was spent in the limit's window
	subscriptionTable table = 's' // subscription id
	subsByAgent       table = 'S' // agent, subscription id; both sides
	subsByPlan        table = 'p' // payer, payee, plan: the subscription that runs
	subsWithoutPlan   table = 'P' // payer, subscription id; those that are not ended
	webhookTable      table = 'h' // agent, webhook id
	outboxTable       table = 'b' // agent, time of the next attempt and delivery id
	outboxByTime      table = 'B' // time, place and agent: when the agent's turn comes, see turns
	outboxTurnOf      table = 'T' // agent: the time and place of its turn
	outboxCount       table = 'H' // agent, webhook id; agent, webhook id, payer, payee: how many messages wait for it, and about these two
	factsTable        table = 'r' // agent: what its reputation rests on
	pairTable         table = 'q' // payer, payee: what went from one to the other
	stainTable        table = 't' // account: how much of it is faucet money
	onceTable         table = 'i' // owner, idempotency key
	onceByHour        table = 'I' // hour in which it is forgotten and owner, idempotency key
	onceCount         table = 'N' // owner, or crowd of owners: how many keys are kept
	answerTable       table = 'v' // owner, idempotency key: the answer, as its caller has sealed it
	answerBytes       table = 'V' // owner, or nobody for all: how many bytes of answers are kept
	signerTable       table = 'z' // one record: the seed of the key that signs receipts
	bookingTable      table = '0' // kind, reference: a deposit or withdrawal with that reference
	railTable         table = 'g' // rail, payment id: money that came in by a rail
	cardTable         table = '8' // "taken", rail, id: what a rail took back; "auto", agent: the automatic top-up; "deposit", agent, deposit id: a payment's rail and id
	payoutTable       table = '%' // "id", payout id; "agent", agent, payout id: a list; "open", agent, payout id: those that are not decided; "back", payout id: refunds that a rail was told to make
	railNameTable     table = '!' // agent, name that the payer gave to a payment: the payment's rail and id
	commissionTable   table = 'R' // payee: millionths of a nano of commission that are carried over
	useTable          table = 'U' // payer, payee, kind of period, counter: what was used in the last one, where prices depend on it
	creditTable       table = 'G' // credit id
	creditByAgent     table = 'A' // agent, credit id; for both parties
	purseTable        table = 'W' // agent, payee: the credit that the agent may use there
	couponTable       table = 'J' // coupon id
	couponByPayee     table = 'Q' // payee, coupon id
	couponByCode      table = 'L' // code
	redeemedTable     table = 'M' // coupon id, agent
	laterTable        table = 'X' // payee, name: an answer that is fetched later, and who asked for it
	paidResultTable   table = '6' // payee, payer, name of a result that is charged once
	reportTable       table = '7' // payee, reference: the charge that was made for reported work
	decisionTable     table = 'j' // request id: a charge whose quality is not decided yet
	resourceTable     table = 'Y' // payee, kind, the provider's id: who made what the provider keeps
	totalTable        table = '1' // agent, kind of total, time and group: see usageTotal
	rankTable         table = '$' // agent, kind of total, time, largest sum first, and the payer or payee: see usage_rank.go
	keptTable         table = '2' // payee: time and request id of the last of its charges that is in the totals
	sentTable         table = '4' // agent, webhook id, message id: the last messages to a webhook, and how it answered; and withheldLog
	usualTable        table = '5' // agent: what it usually pays in an hour
	behindTable       table = '+' // payee: its totals may be behind; only if processes share the ledger
	paidTable         table = '=' // owner, kind, name: until when a thing is paid for; only if processes share the ledger
	claimTable        table = '&' // owner, kind, name: what the processes that share the ledger have claimed of a thing
	totalsBeginTable  table = '9' // one record: since when all that is charged is in all totals, see usage_fee.go
	feeTable          table = '3' // agent, time and escrow id: the price of a subscription's period; both sides, and nobody for all
)

// key returns the key of a record; parts are separated by a zero byte, which no id holds.
func (t table) key(parts ...string) []byte {
	size := 1 + max(1, len(parts))
	for _, part := range parts {
		size += len(part)
	}
	key := append(make([]byte, 0, size), ledger.DomainPrefix, byte(t))
	for i, part := range parts {
		if i > 0 {
			key = append(key, 0)
		}
		key = append(key, part...)
	}
	return key
}

// under returns the range of the records below parts: those with more parts.
func (t table) under(parts ...string) ledger.Range {
	key := t.key(parts...)
	if len(parts) > 0 {
		key = append(key, 0)
	}
	return ledger.Prefix(key)
}

// lastPart is what follows the last separator of a key with parts parts in front.
func (t table) lastPart(key []byte, parts ...string) string {
	skip := 2
	for _, part := range parts {
		skip += len(part) + 1
	}
	return string(key[skip:])
}

// countUpTo counts records, up to a number.
func (t *Tx) countUpTo(of ledger.Range, most int) (n int, err error) {
	err = t.ledger.Scan(of, func(_, _ []byte) (bool, error) { n++; return n < most, nil })
	return n, err
}

// timeKey returns a time as eight bytes that sort like times. Times before 1970 do not occur.
func timeKey(at time.Time) string {
	return string(binary.BigEndian.AppendUint64(nil, uint64(max(at.UnixNano(), 0))))
}

func keyTime(part string) time.Time {
	return time.Unix(0, int64(binary.BigEndian.Uint64([]byte(part[:8])))).UTC()
}

// encoding writes times exactly and the same record always as the same bytes.
var encoding = func() cbor.EncMode {
	options := cbor.CoreDetEncOptions()
	options.Time = cbor.TimeRFC3339NanoUTC
	mode, err := options.EncMode()
	if err != nil {
		panic(err) // the options are constant
	}
	return mode
}()

// quick returns a pointer to a record of each call as what package canon writes and reads, and nil for other records. What is read into it
// must be empty so far. A type that embeds such a record has its methods, but is another record.
func quick(record any) canon.Record {
	switch record.(type) {
	case *Charge, *Escrow:
		return record.(canon.Record)
	default:
		return nil
	}
}

// load reads a record into out. If there is none, found is false.
func load(r ledger.Reader, key []byte, out any) (found bool, err error) {
	value, err := r.Get(key)
	if err != nil || value == nil {
		return false, err
	}
	return true, decode(key, value, out)
}

func decode(key, value []byte, out any) error {
	if r := quick(out); r != nil && canon.Decode(value, r) {
		return nil
	}
	if err := cbor.Unmarshal(value, out); err != nil {
		return &ledger.CorruptError{Key: append([]byte(nil), key...), Detail: err.Error()}
	}
	return nil
}

// put writes a record.
func (t *Tx) put(key []byte, record any) error {
	if r := quick(record); r != nil {
		if value, ok := canon.Encode(r); ok {
			t.ledger.Put(key, value)
			return nil
		}
	}
	value, err := encoding.Marshal(record)
	if err != nil {
		return fmt.Errorf("encoding a %T: %w", record, err)
	}
	t.ledger.Put(key, value)
	return nil
}

// view runs fn on what is committed.
func (b *Book) view(fn func(ledger.Reader) error) error { return b.ledger.View(fn) }

// look is like view, but is quicker for few records, which it may read as of different commits, see [ledger.Ledger.Look].
func (b *Book) look(fn func(ledger.Reader) error) error { return b.ledger.Look(fn) }

// peek reads one record as committed, by itself, and decodes it by a function. It does nothing if there is no such record.
func (b *Book) peek(key []byte, decode func(value []byte) error) error {
	return b.ledger.Peek(key, decode)
}

// decoded remembers records in their decoded form, for those that are read in each call. A record whose bytes have changed is decoded again, so
// what it returns is never older than what is stored. Nothing in its records may be changed.
type decoded[T any] struct {
	mu      sync.RWMutex
	records map[string]*decodedRecord[T]
	ready   func(*T) // is called for each record that was decoded, if it is not nil
}

type decodedRecord[T any] struct {
	value  []byte
	record T
}

const maxDecoded = 10_000 // records; beyond it all are forgotten

// peek returns a record as committed, or nil if there is none.
func (d *decoded[T]) peek(b *Book, key []byte) (record *T, err error) {
	err = b.peek(key, func(value []byte) (err error) {
		record, err = d.of(key, value)
		return err
	})
	return record, err
}

// of returns the record that has a key and a value.
func (d *decoded[T]) of(key, value []byte) (*T, error) {
	d.mu.RLock()
	known := d.records[string(key)]
	d.mu.RUnlock()
	if known != nil && bytes.Equal(known.value, value) {
		return &known.record, nil
	}
	known = &decodedRecord[T]{value: bytes.Clone(value)}
	if err := decode(key, value, &known.record); err != nil {
		return nil, err
	}
	if d.ready != nil {
		d.ready(&known.record)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.records == nil || len(d.records) >= maxDecoded {
		d.records = make(map[string]*decodedRecord[T])
	}
	d.records[string(key)] = known
	return &known.record, nil
}
