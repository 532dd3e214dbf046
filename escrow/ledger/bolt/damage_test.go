package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/internal/rounds"
)

// books makes a file with everything that a file can contain: branches, leaves, free pages, a large record, and two journals, of which one
// is being folded. It returns the bytes of a copy, and the records.
func books(t *testing.T) (path string, image []byte, records map[string]string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "ledger.db")
	s, err := Open(path, Options{NoSync: true, LayerSize: 1})
	must(t, err)
	l, err := ledger.New(s, ledger.Options{Currency: "USDC"})
	must(t, err)
	for from := range 3 { // only a few commits, so that few pages are free
		must(t, perform(l, func(tx *ledger.Tx) error {
			for i := from * 10; i < from*10+10; i++ {
				if err := something(tx, i); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	records = contents(t, s)
	var whole bytes.Buffer
	_, err = s.Backup(&whole) // the file itself is larger, since it grows ahead
	must(t, err)
	must(t, l.Close())
	return path, whole.Bytes(), records
}

func something(tx *ledger.Tx, i int) error {
	wallet := ledger.Wallet(fmt.Sprintf("agent%d", i%5))
	tx.Put(fmt.Appendf(nil, "dop%d", i), []byte("what is kept of it"))
	tx.Put(fmt.Appendf(nil, "dcharge%03d", i), bytes.Repeat([]byte("record "), 20))
	if i == 12 {
		tx.Put([]byte("dlarge"), bytes.Repeat([]byte("large "), 800))
	}
	if _, err := tx.Post(ledger.Transfer{Debit: ledger.World, Credit: wallet, Amount: 5, Kind: "deposit"}); err != nil {
		return err
	}
	_, err := tx.Pend(ledger.Transfer{Debit: wallet, Credit: ledger.Commission, Amount: 1, Kind: "draw", Reference: "req"})
	return err
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func contents(t *testing.T, s *Store) map[string]string {
	t.Helper()
	records := map[string]string{}
	must(t, s.View(func(r ledger.Reader) error {
		return r.Scan(ledger.Range{}, func(key, value []byte) (bool, error) {
			records[string(key)] = string(value)
			return true, nil
		})
	}))
	return records
}

// faithful compares a store with the records that were written to it. Each read must return the right record or an error.
func faithful(s *Store, records map[string]string) error {
	return s.View(func(r ledger.Reader) error {
		for key, want := range records {
			got, err := r.Get([]byte(key))
			if err == nil && string(got) != want {
				return fmt.Errorf("record %q is said to be %q", key, got)
			}
			if err != nil && !errors.Is(err, ledger.ErrCorrupt) {
				return fmt.Errorf("record %q: %w", key, err)
			}
		}
		for _, reverse := range []bool{false, true} {
			seen := 0
			err := r.Scan(ledger.Range{Reverse: reverse}, func(key, value []byte) (bool, error) {
				seen++
				if want, ok := records[string(key)]; !ok || want != string(value) {
					return false, fmt.Errorf("a scan says that record %q is %q", key, value)
				}
				return true, nil
			})
			if err == nil && seen != len(records) {
				return fmt.Errorf("a scan saw %d of %d records", seen, len(records))
			}
			if err != nil && !errors.Is(err, ledger.ErrCorrupt) {
				return err
			}
		}
		return nil
	})
}

// TestEachByteFlipped damages each byte of a file in turn; few rounds damage some. Either the file is refused with an error that names it, and is not changed; or
// the byte is in an unused place, and all records are there.
func TestEachByteFlipped(t *testing.T) {
	t.Parallel()
	path, image, records := books(t)
	must(t, os.WriteFile(path, image, 0o600))
	random := rand.New(rand.NewPCG(1, 2))
	refused, passed := 0, 0
	for i, by := strides(1); i < len(image); i += by {
		mask := byte(1) << random.IntN(8)
		if i%3 == 0 {
			mask = 0xFF
		}
		image[i] ^= mask
		err := verify(bytes.NewReader(image), int64(len(image)), true, false)
		switch {
		case err == nil:
			passed++
		case errors.Is(err, ledger.ErrCorrupt):
			refused++
		default:
			t.Fatalf("byte %d ^ %#x: %v", i, mask, err)
		}
		if random.IntN(60) == 0 { // opening the file is slower than verifying it
			poke(t, path, i, image[i])
			openDamaged(t, path, image, records, err != nil, fmt.Sprintf("byte %d ^ %#x", i, mask))
			poke(t, path, i, image[i]^mask)
		}
		image[i] ^= mask
	}
	t.Logf("of %d damages to %d bytes %d were refused, %d touched nothing in use", refused+passed, len(image), refused, passed)
	if refused < passed/10 {
		t.Errorf("only %d damages were refused", refused)
	}
}

// strides returns the first byte that is tried, and the distance to the next. Few rounds try other bytes each time.
func strides(all int) (first, by int) {
	by = rounds.Of(17*all, all)
	if racing {
		by = 17 * all
	}
	return rand.IntN(by), by
}

// poke changes one byte of a file.
func poke(t *testing.T, path string, at int, b byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt([]byte{b}, int64(at))
	must(t, errors.Join(err, f.Close()))
}

func openDamaged(t *testing.T, path string, image []byte, records map[string]string, bad bool, what string) {
	t.Helper()
	s, err := Open(path, Options{NoSync: true})
	if !bad {
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		defer s.Close()
		if err := faithful(s, records); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		return
	}
	if !errors.Is(err, ledger.ErrCorrupt) || !strings.Contains(err.Error(), path) {
		t.Fatalf("%s: opening says %v", what, err)
	}
	after, err := os.ReadFile(path)
	must(t, err)
	if !bytes.Equal(after, image) {
		t.Fatalf("%s: opening changed the damaged file", what)
	}
}

// TestEachByteFlippedUnderway damages bytes that Open does not read, as in a large file. Each read returns the right record or an error,
// and never crashes the process.
func TestEachByteFlippedUnderway(t *testing.T) {
	t.Parallel()
	path, image, records := books(t)
	must(t, os.WriteFile(path, image, 0o600))
	opened := 0
	for i, by := strides(37); i < len(image); i += by {
		for _, mask := range []byte{0xFF, 0x01, 0x10} {
			poke(t, path, i, image[i]^mask)
			s, err := Open(path, Options{ReadOnly: true, VerifyUpTo: -1})
			if errors.Is(err, ledger.ErrCorrupt) {
				poke(t, path, i, image[i])
				continue
			}
			must(t, err)
			opened++
			if err := faithful(s, records); err != nil && !lostCount(image, i) {
				t.Fatalf("byte %d ^ %#x: %v", i, mask, err)
			}
			if l, err := ledger.New(s, ledger.Options{Logger: slog.New(slog.DiscardHandler)}); err == nil {
				if _, err := l.Check(context.Background(), nil); err != nil && !errors.Is(err, ledger.ErrCorrupt) {
					t.Fatalf("byte %d ^ %#x: check: %v", i, mask, err)
				}
			}
			must(t, s.Close())
			poke(t, path, i, image[i])
		}
	}
	if opened == 0 {
		t.Error("no damaged file was opened")
	}
}

// lostCount reports whether a byte belongs to a page's count of elements. Without reading the whole page, as Open does for small files, a
// leaf that seems to end early can't be told from one that does.
func lostCount(image []byte, i int) bool { return i%4096 == 10 || i%4096 == 11 }

func TestTruncated(t *testing.T) {
	t.Parallel()
	path, image, records := books(t)
	for size := 0; size < len(image); size += 512 {
		must(t, os.WriteFile(path, image[:size], 0o600))
		s, err := Open(path, Options{ReadOnly: true})
		if err == nil {
			// Only unused pages at the end were cut off.
			err = faithful(s, records)
			must(t, s.Close())
			if err != nil {
				t.Fatalf("cut to %d: %v", size, err)
			}
			continue
		}
		if size > 0 && !errors.Is(err, ledger.ErrCorrupt) {
			t.Fatalf("cut to %d: %v", size, err)
		}
	}
}

// TestTruncatedUnderway truncates the file while it is open, as a careless operator may do.
func TestTruncatedUnderway(t *testing.T) {
	t.Parallel()
	path, _, records := books(t)
	s, err := Open(path, Options{NoSync: true})
	must(t, err)
	defer s.Close()
	must(t, os.Truncate(path, 8192))
	err = s.View(func(r ledger.Reader) error {
		for key := range records {
			if _, err := r.Get([]byte(key)); err != nil {
				return err
			}
		}
		return nil
	})
	if !errors.Is(err, ledger.ErrCorrupt) {
		t.Errorf("reading what is cut off: %v", err)
	}
	done := make(chan error, 2)
	for range 2 {
		s.Submit(ledger.Op{Run: func(w ledger.Writer) error { w.Put([]byte("dnew"), []byte("x")); return nil }, Done: func(err error) { done <- err }})
	}
	if err := errors.Join(<-done, <-done); !errors.Is(err, ledger.ErrUnavailable) || !errors.Is(err, ledger.ErrCorrupt) {
		t.Errorf("writing to what is cut off: %v", err)
	}
	if err := s.Reopen(); !errors.Is(err, ledger.ErrCorrupt) {
		t.Errorf("reopening what is cut off: %v", err)
	}
}

// TestForeign: a file that is not a ledger is refused and not changed.
func TestForeign(t *testing.T) {
	t.Parallel()
	for name, content := range map[string][]byte{
		"text":  []byte(strings.Repeat("not a ledger\n", 2000)),
		"zeros": make([]byte, 64<<10),
		"short": []byte("x"),
	} {
		path := filepath.Join(t.TempDir(), name)
		must(t, os.WriteFile(path, content, 0o600))
		if _, err := Open(path, Options{}); !errors.Is(err, ledger.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, content) {
			t.Errorf("%s was changed: %v", name, err)
		}
	}
}

// TestDamagedMeta: a file with one damaged meta page is refused, unless the operator accepts it.
func TestDamagedMeta(t *testing.T) {
	t.Parallel()
	path, _, records := books(t)
	image, err := os.ReadFile(path)
	must(t, err)
	for page := range 2 {
		damaged := bytes.Clone(image)
		damaged[page*4096+40] ^= 1
		must(t, os.WriteFile(path, damaged, 0o600))
		if _, err := Open(path, Options{}); !errors.Is(err, ledger.ErrCorrupt) || !strings.Contains(err.Error(), fmt.Sprintf("meta page %d", page)) {
			t.Errorf("meta page %d: %v", page, err)
		}
		s, err := Open(path, Options{AcceptMeta: true})
		must(t, err)
		l, err := ledger.New(s, ledger.Options{Logger: slog.New(slog.DiscardHandler)})
		must(t, err)
		if report, err := l.Check(context.Background(), nil); err != nil || len(report.Wrong) > 0 {
			t.Errorf("meta page %d: the accepted books: %v, %v", page, report.Wrong, err)
		}
		if n := len(contents(t, s)); n > len(records) || n < len(records)/2 {
			t.Errorf("meta page %d: %d records of %d", page, n, len(records))
		}
		must(t, l.Close())
	}
}

func TestAbsentReadOnly(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "none.db")
	if _, err := Open(path, Options{ReadOnly: true}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("opening what is not there: %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it was made: %v", err)
	}
}

// FuzzVerify: no file makes its verification panic or run forever.
func FuzzVerify(f *testing.F) {
	path := filepath.Join(f.TempDir(), "ledger.db")
	s, err := Open(path, Options{NoSync: true})
	must(f, err)
	l, err := ledger.New(s, ledger.Options{Currency: "USDC"})
	must(f, err)
	for from := range 3 {
		must(f, perform(l, func(tx *ledger.Tx) error {
			for i := from * 10; i < from*10+10; i++ {
				if err := something(tx, i); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	var whole bytes.Buffer
	_, err = s.Backup(&whole)
	must(f, errors.Join(err, l.Close()))
	image := whole.Bytes()
	f.Add(uint32(0), []byte{}, true)
	f.Add(uint32(56), []byte{1, 2, 3}, false)
	f.Add(uint32(4096*3+8), []byte{1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, true)
	f.Fuzz(func(t *testing.T, at uint32, patch []byte, deep bool) {
		damaged := bytes.Clone(image)
		copy(damaged[int(at)%len(damaged):], patch)
		for page := range 2 { // with a right checksum, so that the fuzzer gets past it
			meta := damaged[page*4096+pageHeader:]
			hash := fnv.New64a()
			hash.Write(meta[:metaSize-8])
			native.PutUint64(meta[metaSize-8:], hash.Sum64())
		}
		for _, accept := range []bool{false, true} {
			if err := verify(bytes.NewReader(damaged), int64(len(damaged)), deep, accept); err != nil && !errors.Is(err, ledger.ErrCorrupt) {
				t.Fatal(err)
			}
		}
	})
}
