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

// open reads what the store says of itself, or begins the books on an empty one, and begins the session.
func (l *Ledger) open(currency string, f format) error {
	meta, err := l.begun(currency, f)
	if err != nil {
		return err
	}
	if meta.Schema > f.schema {
		return fmt.Errorf("%w: schema %d, this program knows up to %d; use the version that wrote it, or a newer one", ErrSchema, meta.Schema, f.schema)
	}
	if currency != "" && currency != meta.Currency {
		return fmt.Errorf("%w: it was made with %q, the configuration says %q; a ledger keeps its currency", ErrCurrency, meta.Currency, currency)
	}
	l.currency = meta.Currency
	if err := l.upgrade(meta.Schema, f); err != nil {
		return err
	}
	if err := l.beginSession(); err != nil {
		return fmt.Errorf("beginning a session: %w", err)
	}
	return nil
}

// begun reads what the ledger is and where it stands. On an empty store it begins one.
func (l *Ledger) begun(currency string, f format) (meta metaRecord, err error) {
	err = l.store.View(func(r Reader) (err error) {
		if meta, err = readMeta(r); err != nil {
			return err
		}
		l.applied, err = readState(r)
		l.last = time.Unix(0, l.applied.Time).UTC()
		return err
	})
	if err != nil || meta.Schema != 0 {
		return meta, err
	}
	if currency == "" {
		return meta, fmt.Errorf("%w: a new ledger needs one, such as USDC", ErrCurrency)
	}
	meta, err = submit(l.store, func(w Writer) (metaRecord, error) {
		if meta, err := readMeta(w); err != nil || meta.Schema != 0 { // another process was faster
			return meta, err
		}
		meta := metaRecord{Schema: f.schema, Currency: currency, Created: l.now().UTC().UnixNano()}
		w.Put(metaKey, encode(meta))
		return meta, nil
	})
	if err != nil {
		return meta, fmt.Errorf("beginning the ledger: %w", err)
	}
	return meta, nil
}

// upgrade brings an older ledger up to date, step by step.
func (l *Ledger) upgrade(schema uint, f format) error {
	for schema < f.schema {
		step, ok := f.upgrades[schema]
		if !ok {
			return fmt.Errorf("%w: schema %d can't be brought to %d by this program", ErrSchema, schema, f.schema)
		}
		meta, err := submit(l.store, func(w Writer) (metaRecord, error) {
			meta, err := readMeta(w)
			if err != nil || meta.Schema != schema { // another process was faster
				return meta, err
			}
			if meta.Upgrade, err = step(w, meta.Upgrade); err != nil {
				return meta, err
			}
			if meta.Upgrade == nil {
				meta.Schema++
			}
			w.Put(metaKey, encode(meta))
			return meta, nil
		})
		if err != nil {
			return fmt.Errorf("bringing the ledger from schema %d to %d: %w", schema, schema+1, err)
		}
		if meta.Schema != schema {
			l.logger.Info("the ledger has a new schema", "schema", meta.Schema)
		}
		schema = meta.Schema
	}
	return nil
}

// readMeta reads what the ledger is: the zero record where the store is empty. It refuses a store that has records but does not say
// what it is.
func readMeta(r Reader) (meta metaRecord, err error) {
	value, err := r.Get(metaKey)
	if err != nil {
		return meta, err
	}
	if value == nil {
		return meta, r.Scan(Range{}, func(key, _ []byte) (bool, error) {
			return false, &CorruptError{Key: metaKey, Detail: fmt.Sprintf("it is missing, though there are records such as %q", key)}
		})
	}
	return meta, decode(metaKey, value, &meta)
}

// submit runs one operation straight on a store, and returns what its last run did.
func submit[T any](s Store, op func(Writer) (T, error)) (result T, err error) {
	done := make(chan error, 1)
	s.Submit(Op{
		Run:  func(w Writer) (err error) { result, err = op(w); return err },
		Done: func(err error) { done <- err },
	})
	err = <-done
	return result, err
}
