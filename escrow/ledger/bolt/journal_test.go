package bolt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/internal/rounds"
)

// do runs one operation on a store.
func do(s *Store, op func(ledger.Writer)) error {
	done := make(chan error, 1)
	s.Submit(ledger.Op{Run: func(w ledger.Writer) error { op(w); return nil }, Done: func(err error) { done <- err }})
	return <-done
}

// TestViewsAreOneCommit: while layers are filled, frozen and folded, a view shows the records exactly as one commit left them.
func TestViewsAreOneCommit(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 8 << 10, 64 << 10} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			s, err := Open(filepath.Join(t.TempDir(), "ledger.db"), Options{NoSync: true, LayerSize: size})
			must(t, err)
			defer s.Close()
			const keys = 40
			var writing, reading sync.WaitGroup
			stop := make(chan struct{})
			for writer := range 4 {
				writing.Go(func() {
					for n := range rounds.Of(60, 300) {
						must(t, do(s, func(w ledger.Writer) {
							last, _ := w.Get([]byte("k00"))
							for i := range keys {
								key := fmt.Appendf(nil, "k%02d", i)
								if i%7 == 3 { // these records exist in every second commit
									if len(last)%2 == 0 {
										w.Put(key, []byte("x"))
									} else {
										w.Delete(key)
									}
									continue
								}
								w.Put(key, append(bytes.Clone(last), 'x')[:(len(last)+1)%100])
							}
							w.Put(fmt.Appendf(nil, "m%d.%d", writer, n), bytes.Repeat([]byte("filler"), 20))
						}))
					}
				})
			}
			for range 3 {
				reading.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
							must(t, s.View(oneCommit))
							runtime.Gosched() // else a commit waits for the processor far longer than it takes
						}
					}
				})
			}
			writing.Wait()
			close(stop)
			reading.Wait()
		})
	}
}

func oneCommit(r ledger.Reader) error {
	first, err := r.Get([]byte("k00"))
	if err != nil {
		return err
	}
	for _, reverse := range []bool{false, true} {
		seen := 0
		err = r.Scan(ledger.Range{From: []byte("k"), To: []byte("l"), Reverse: reverse}, func(key, value []byte) (bool, error) {
			seen++
			if string(value) != "x" && !bytes.Equal(value, first) {
				return false, fmt.Errorf("%s is of another commit than k00: %d and %d", key, len(value), len(first))
			}
			got, err := r.Get(key)
			if err == nil && !bytes.Equal(got, value) {
				err = fmt.Errorf("%s is %q by Get, %q by Scan", key, got, value)
			}
			return true, err
		})
		if err == nil && seen != 0 && seen != 34 && seen != 40 {
			err = fmt.Errorf("a scan saw %d records", seen)
		}
	}
	return err
}

// TestLayersStaySmall: however much is written, the layers and the journals stay below a bound, and all other records are in the bucket,
// also after the file is reopened in the middle.
func TestLayersStaySmall(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ operations, records, longest int }{{2000, 1, 200}, {60, 300, 3}} {
		t.Run(fmt.Sprintf("%d records each", c.records), func(t *testing.T) {
			const size = 32 << 10
			path := filepath.Join(t.TempDir(), "ledger.db")
			want := map[string]string{}
			random := rand.New(rand.NewPCG(7, 9))
			for range 3 {
				s, err := Open(path, Options{NoSync: true, LayerSize: size})
				must(t, err)
				for range c.operations {
					must(t, do(s, func(w ledger.Writer) {
						for range c.records {
							key, value := fmt.Sprint("k", random.IntN(2000)), strings.Repeat("v", 1+random.IntN(c.longest))
							if random.IntN(4) == 0 {
								w.Delete([]byte(key))
								delete(want, key)
								continue
							}
							w.Put([]byte(key), []byte(value))
							want[key] = value
						}
					}))
					l := s.file.Load().layers.Load()
					if most := size + c.records*(changeOverhead+300); l.active.size > most || l.frozen != nil && l.frozen.size > most {
						t.Fatalf("the layers take %d bytes and more", l.active.size)
					}
				}
				must(t, faithful(s, want))
				folded := 0
				must(t, s.file.Load().view(func(tx *bbolt.Tx) error {
					folded = tx.Bucket(bucketName).Stats().KeyN
					return nil
				}))
				if folded < len(want)/2 {
					t.Errorf("of %d records %d are in their place", len(want), folded)
				}
				must(t, s.Close())
			}
		})
	}
}

// TestNoRoomToFold: if the disk has room for the journal but not for folding, commits still succeed.
func TestNoRoomToFold(t *testing.T) {
	t.Parallel()
	s, err := Open(filepath.Join(t.TempDir(), "ledger.db"), Options{NoSync: true, LayerSize: 1, MaxSize: 17 << 20})
	must(t, err)
	defer s.Close()
	large, written := make([]byte, 6<<20), 0
	for ; err == nil; written++ {
		err = do(s, func(w ledger.Writer) { w.Put(fmt.Appendf(nil, "d%d", written), large) })
	}
	if written == 1 {
		t.Fatal(err)
	}
	must(t, s.Reopen())
	for i := range 100 {
		must(t, do(s, func(w ledger.Writer) { w.Put(fmt.Appendf(nil, "e%02d", i), []byte("x")) }))
	}
	if n := len(contents(t, s)); n != 100+written-1 {
		t.Errorf("%d records, want %d", n, 100+written-1)
	}
}

// TestDamagedJournal: every damage to a journal is found.
func TestDamagedJournal(t *testing.T) {
	t.Parallel()
	text, _ := encodeChanges([]change{{[]byte("a"), []byte("one")}, {[]byte("b"), nil}, {[]byte("c"), []byte{}}})
	for i := range text {
		if err := decodeChanges(text[:i], func(uint32, change) {}); err == nil && i != 0 && i != 6 && i != 9 {
			t.Errorf("a text that ends after %d bytes was read", i)
		}
	}
	for name, damage := range map[string]func(*bbolt.Bucket) error{
		"a chunk is missing": func(b *bbolt.Bucket) error { return b.Delete(make([]byte, 8)) },
		"a chunk of another place": func(b *bbolt.Bucket) error {
			return b.Put(binary.BigEndian.AppendUint64(nil, 7), seal(binary.BigEndian.AppendUint64(nil, 7), nil))
		},
		"no text": func(b *bbolt.Bucket) error {
			return b.Put(binary.BigEndian.AppendUint64(nil, 2), seal(binary.BigEndian.AppendUint64(nil, 2), []byte("\x09x")))
		},
		"a flipped bit": func(b *bbolt.Bucket) error {
			key, sealed := b.Cursor().First()
			sealed = bytes.Clone(sealed)
			sealed[len(sealed)-1] ^= 1
			return b.Put(key, sealed)
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "ledger.db")
			s, err := Open(path, Options{NoSync: true})
			must(t, err)
			for range 2 {
				must(t, do(s, func(w ledger.Writer) { w.Put([]byte("k"), []byte("v")) }))
			}
			must(t, s.file.Load().db.Update(func(tx *bbolt.Tx) error { return damage(tx.Bucket(journalName(1))) }))
			must(t, s.Close())
			for _, readOnly := range []bool{true, false} {
				if _, err := Open(path, Options{ReadOnly: readOnly}); !errors.Is(err, ledger.ErrCorrupt) {
					t.Errorf("opening it, read-only %t: %v", readOnly, err)
				}
			}
		})
	}
}

// FuzzJournal: no text makes the reader panic, and a text that was read is the same when it is written again.
func FuzzJournal(f *testing.F) {
	text, _ := encodeChanges([]change{{[]byte("key"), []byte("value")}, {[]byte("gone"), nil}})
	f.Add(text)
	f.Add([]byte{1, 'k', 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, text []byte) {
		var changes []change
		if err := decodeChanges(text, func(_ uint32, c change) { changes = append(changes, c) }); err != nil {
			return
		}
		again := 0
		text, offsets := encodeChanges(changes)
		must(t, decodeChanges(text, func(offset uint32, c change) {
			if offset != offsets[again] || !bytes.Equal(c.key, changes[again].key) || !bytes.Equal(c.value, changes[again].value) || c.value == nil != (changes[again].value == nil) {
				t.Fatalf("change %d is %q, was %q", again, c, changes[again])
			}
			again++
		}))
		if again != len(changes) {
			t.Fatalf("%d changes, were %d", again, len(changes))
		}
	})
}
