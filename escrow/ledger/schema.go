package ledger

import (
	"fmt"
	"time"
)

// format is what this program writes, and how it gets there from what older versions wrote.
type format struct {
	schema   uint
	upgrades map[uint]upgrade // by the schema that it starts from
}

// upgrade takes a ledger to the next schema, in steps that each fit one commit: from where the last one stopped, nil at first, to
// where the next one is to go on, nil at the end. A process that dies in between goes on there.
type upgrade func(w Writer, from []byte) (next []byte, err error)

var current = format{schema: 1}

// open reads what the store says of itself, or begins the books on an empty one.
func (l *Ledger) open(currency string, f format) error {
	meta, found, err := l.readMeta()
	if err != nil {
		return err
	}
	if !found {
		if currency == "" {
			return fmt.Errorf("%w: a new ledger needs one, such as USDC", ErrCurrency)
		}
		meta = metaRecord{Schema: f.schema, Currency: currency, Created: l.now().UTC().UnixNano()}
		if err := l.submit(func(w Writer) error { w.Put(metaKey, encode(meta)); return nil }); err != nil {
			return fmt.Errorf("beginning the ledger: %w", err)
		}
	}
	if meta.Schema > f.schema {
		return fmt.Errorf("%w: schema %d, this program knows up to %d; use the version that wrote it, or a newer one", ErrSchema, meta.Schema, f.schema)
	}
	if currency != "" && currency != meta.Currency {
		return fmt.Errorf("%w: it was made with %q, the configuration says %q; a ledger keeps its currency", ErrCurrency, meta.Currency, currency)
	}
	l.currency = meta.Currency
	return l.upgrade(meta, f)
}

// upgrade brings an older ledger up to date, step by step.
func (l *Ledger) upgrade(meta metaRecord, f format) error {
	for meta.Schema < f.schema {
		step, ok := f.upgrades[meta.Schema]
		if !ok {
			return fmt.Errorf("%w: schema %d can't be brought to %d by this program", ErrSchema, meta.Schema, f.schema)
		}
		next := meta
		err := l.submit(func(w Writer) (err error) {
			if next.Upgrade, err = step(w, meta.Upgrade); err != nil {
				return err
			}
			if next.Upgrade == nil {
				next.Schema++
			}
			w.Put(metaKey, encode(next))
			return nil
		})
		if err != nil {
			return fmt.Errorf("bringing the ledger from schema %d to %d: %w", meta.Schema, meta.Schema+1, err)
		}
		if next.Schema != meta.Schema {
			l.logger.Info("the ledger has a new schema", "schema", next.Schema)
		}
		meta = next
	}
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
