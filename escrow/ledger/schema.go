package ledger

import (
	"fmt"
	"time"
)

// schema is the version of the records that this program writes.
const schema = 1

// open reads what the store says of itself, or begins the books on an empty one.
func (l *Ledger) open(currency string) error {
	meta, found, err := l.readMeta()
	if err != nil {
		return err
	}
	if !found {
		if currency == "" {
			return fmt.Errorf("%w: a new ledger needs one, such as USDC", ErrCurrency)
		}
		meta = metaRecord{Schema: schema, Currency: currency, Created: l.now().UTC().UnixNano()}
		if err := l.submit(func(w Writer) error { w.Put(metaKey, encode(meta)); return nil }); err != nil {
			return fmt.Errorf("beginning the ledger: %w", err)
		}
	}
	if meta.Schema > schema {
		return fmt.Errorf("%w: schema %d, this program knows up to %d; use the version that wrote it, or a newer one", ErrSchema, meta.Schema, schema)
	}
	if currency != "" && currency != meta.Currency {
		return fmt.Errorf("%w: it was made with %q, the configuration says %q; a ledger keeps its currency", ErrCurrency, meta.Currency, currency)
	}
	l.currency = meta.Currency
	return nil
}

// readMeta also reads the last time, and refuses a store that has records but does not say what it is.
func (l *Ledger) readMeta() (meta metaRecord, found bool, err error) {
	err = l.store.View(func(r Reader) error {
		value, err := r.Get(metaKey)
		if err != nil {
			return err
		}
		if value == nil {
			return r.Scan(Range{}, func(key, _ []byte) (bool, error) {
				return false, &CorruptError{Key: metaKey, Detail: fmt.Sprintf("it is missing, though there are records such as %q", key)}
			})
		}
		found = true
		if err := decode(metaKey, value, &meta); err != nil {
			return err
		}
		state, err := readState(r)
		l.last = time.Unix(0, state.Time).UTC()
		return err
	})
	return meta, found, err
}

// submit runs one operation straight on the store.
func (l *Ledger) submit(op func(Writer) error) error {
	done := make(chan error, 1)
	l.store.Submit(op, func(err error) { done <- err })
	return <-done
}
