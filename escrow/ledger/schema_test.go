package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"testing"
	"time"
)

// plain is a store in a map, for tests inside the package.
type plain struct {
	*GroupCommit
	records sorted
}

func newPlain() *plain {
	p := &plain{records: sorted{}}
	p.GroupCommit = NewGroupCommit(func() (Group, error) { return plainGroup{maps.Clone(p.records), p}, nil }, 16)
	return p
}

type plainGroup struct {
	sorted
	store *plain
}

func (g plainGroup) Commit(changes iter.Seq2[[]byte, []byte]) error {
	for key, value := range changes {
		if value == nil {
			delete(g.sorted, string(key))
		} else {
			g.sorted[string(key)] = string(value)
		}
		g.store.records = g.sorted
	}
	return nil
}

func (p *plain) View(fn func(Reader) error) error { return fn(maps.Clone(p.records)) }

func (p *plain) Close() error {
	p.GroupCommit.Close()
	return nil
}

func newLedger(s Store) *Ledger {
	return &Ledger{store: s, now: time.Now, logger: slog.New(slog.DiscardHandler), memory: newMemory(false), elapsed: func() time.Duration { return 0 }}
}

// do runs an operation that has no result.
func do(l *Ledger, op func(*Tx) error) error {
	_, err := Do(context.Background(), l, func(tx *Tx) (struct{}, error) { return struct{}{}, op(tx) })
	return err
}

func put(s Store, key, value string) error {
	_, err := submit(s, func(w Writer) (struct{}, error) { w.Put([]byte(key), []byte(value)); return struct{}{}, nil })
	return err
}

// upper is an upgrade that turns domain records to upper case, two records in each step.
func upper(w Writer, from []byte) (next []byte, err error) {
	in, done := Prefix([]byte{DomainPrefix}), 0
	if from != nil {
		in.From = from
	}
	err = w.Scan(in, func(key, value []byte) (bool, error) {
		if done == 2 {
			next = bytes.Clone(key)
			return false, nil
		}
		done++
		w.Put(key, bytes.ToUpper(value))
		return true, nil
	})
	return next, err
}

// TestUpgrade upgrades a ledger by two schemas. After a failure in the middle the upgrade goes on where it stopped.
func TestUpgrade(t *testing.T) {
	s := newPlain()
	defer s.Close()
	if err := newLedger(s).open("USDC", format{schema: 1}); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		key := fmt.Sprintf("d%d", i)
		if err := put(s, key, "value"); err != nil {
			t.Fatal(err)
		}
	}
	steps, failure := 0, errors.New("on purpose")
	f := format{schema: 3, upgrades: map[uint]upgrade{
		1: func(w Writer, from []byte) ([]byte, error) {
			if steps++; steps == 2 {
				return nil, failure
			}
			return upper(w, from)
		},
		2: func(w Writer, from []byte) ([]byte, error) { w.Put([]byte("dnew"), nil); return nil, nil },
	}}
	if err := newLedger(s).open("USDC", f); !errors.Is(err, failure) {
		t.Fatalf("an upgrade that fails: %v", err)
	}
	if s.records["d1"] != "VALUE" || s.records["d2"] != "value" {
		t.Fatalf("after the first step: %v", s.records)
	}
	if err := newLedger(s).open("EUR", f); !errors.Is(err, ErrCurrency) {
		t.Fatalf("another currency: %v", err)
	}
	if err := newLedger(s).open("USDC", f); err != nil {
		t.Fatal(err)
	}
	if steps != 4 {
		t.Errorf("%d steps, want 4: one was done, one failed, two were left", steps)
	}
	if _, ok := s.records["dnew"]; s.records["d4"] != "VALUE" || !ok {
		t.Errorf("after the upgrade: %v", s.records)
	}
	if err := newLedger(s).open("USDC", f); err != nil || steps != 4 {
		t.Errorf("opened again: %v, %d steps", err, steps)
	}
	if err := newLedger(s).open("USDC", format{schema: 2}); !errors.Is(err, ErrSchema) {
		t.Errorf("an older program: %v", err)
	}
	if err := newLedger(s).open("USDC", format{schema: 4}); !errors.Is(err, ErrSchema) {
		t.Errorf("a program that knows no way: %v", err)
	}
}
