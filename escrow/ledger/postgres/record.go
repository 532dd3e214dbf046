package postgres

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/jackc/pgx/v5"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// record is a record, or if value is nil, a key without a record.
type record struct{ key, value []byte }

const sumSize = 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(key, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
}

// seal appends the checksum to a value.
func seal(key, value []byte) []byte {
	sealed := make([]byte, 0, len(value)+sumSize)
	return binary.BigEndian.AppendUint32(append(sealed, value...), checksum(key, value))
}

// open checks a stored value and returns it without its checksum.
func open(key, sealed []byte) ([]byte, error) {
	n := len(sealed) - sumSize
	if n < 0 || binary.BigEndian.Uint32(sealed[n:]) != checksum(key, sealed[:n]) {
		return nil, &ledger.CorruptError{Key: key, Detail: "its checksum is wrong"}
	}
	return sealed[:n:n], nil
}

// readRecords reads rows of keys and values. A value of null is a record that does not exist any more.
func readRecords(rows pgx.Rows, list *[]record) error {
	*list = (*list)[:0]
	for rows.Next() {
		var r record
		err := rows.Scan(&r.key, &r.value)
		if err == nil && r.value != nil {
			r.value, err = open(r.key, r.value)
		}
		if err != nil {
			return err
		}
		*list = append(*list, r)
	}
	return rows.Err()
}

const getSQL = "select key, value from records where key = any($1::bytea[])"

// queueGet reads several records.
func queueGet(b *pgx.Batch, keys [][]byte, found *[]record) {
	b.Queue(getSQL, keys).Query(func(rows pgx.Rows) error { return readRecords(rows, found) })
}

// page is the beginning of a range.
type page struct {
	records []record
	whole   bool // nothing of the range comes after it
}

const (
	firstPage = 64 // records: most scans want few
	nextPage  = 1024
)

// queuePage reads the first records of a range.
func queuePage(b *pgx.Batch, in ledger.Range, most int, p *page) {
	from := in.From
	if from == nil {
		from = []byte{}
	}
	sql, args := "select key, value from records where key >= $1", []any{from}
	if in.To != nil {
		sql, args = sql+" and key < $3", []any{from, most, in.To}
	} else {
		args = append(args, most)
	}
	sql += " order by key"
	if in.Reverse {
		sql += " desc"
	}
	b.Queue(sql+" limit $2", args...).Query(func(rows pgx.Rows) error {
		err := readRecords(rows, &p.records)
		p.whole = len(p.records) < most
		return err
	})
}

// rest returns what of a range comes after a key.
func rest(in ledger.Range, key []byte) ledger.Range {
	if in.Reverse {
		in.To = key
	} else {
		in.From = append(key[:len(key):len(key)], 0)
	}
	return in
}

// scan calls fn for the records of a range. next reads pages.
func scan(in ledger.Range, p *page, next func(ledger.Range) (*page, error), fn func(key, value []byte) (bool, error)) error {
	for {
		for _, r := range p.records {
			if more, err := fn(r.key, r.value); err != nil || !more {
				return err
			}
		}
		if p.whole {
			return nil
		}
		var err error
		in = rest(in, p.records[len(p.records)-1].key)
		if p, err = next(in); err != nil {
			return err
		}
	}
}
