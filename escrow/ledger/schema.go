package ledger

import (
	"fmt"
	"time"
)

// format is the schema that this program writes, with the upgrades from older schemas.
type format struct {
	schema   uint
	upgrades map[uint]upgrade // by the schema that the upgrade starts from
}

// upgrade makes one step of the way to the next schema. A step is small enough for one commit. from is nil in the first step, then the
// next of the step before; a nil next ends the upgrade. next is stored, so that an interrupted upgrade goes on where it stopped.
type upgrade func(w Writer, from []byte) (next []byte, err error)

var current = format{schema: 1}

// open reads or begins the ledger, upgrades it, and begins a session.
func (l *Ledger) open(currency string, f format) error {
	meta, err := l.begun(currency, f)
	if err != nil {
		return err
	}
	if meta.Schema > f.schema {
		return fmt.Errorf("%w: schema %d, this program knows up to %d; use the version that wrote it, or a newer one", ErrSchema, meta.Schema, f.schema)
	}
	if currency != "" && currency != meta.Currency {
		return fmt.Errorf("%w: it was made with %q, but the configuration says %q; the currency of a ledger can't be changed", ErrCurrency, meta.Currency, currency)
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

// begun reads the ledger's description and state. In an empty store it begins a ledger.
func (l *Ledger) begun(currency string, f format) (meta metaRecord, err error) {
	err = l.store.View(func(r Reader) (err error) {
		if meta, err = readMeta(r); err != nil {
			return err
		}
		l.applied, err = l.readApplied(r)
		l.answered = l.applied
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

// upgrade brings an older ledger to the current schema, step by step.
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

// readMeta reads the ledger's description. For an empty store it returns the zero record. If the store has records but no description,
// it returns a [CorruptError].
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

// submit runs one operation directly on a store, and returns the result of its last run.
func submit[T any](s Store, op func(Writer) (T, error)) (result T, err error) {
	done := make(chan error, 1)
	s.Submit(Op{
		Run:  func(w Writer) (err error) { result, err = op(w); return err },
		Done: func(err error) { done <- err },
	})
	err = <-done
	return result, err
}
