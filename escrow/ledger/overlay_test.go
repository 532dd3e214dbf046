package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// sorted is a Reader over a map.
type sorted map[string]string

func (s sorted) Get(key []byte) ([]byte, error) {
	if value, ok := s[string(key)]; ok {
		return []byte(value), nil
	}
	return nil, nil
}

func (s sorted) Scan(r Range, fn func(key, value []byte) (bool, error)) error {
	keys := slices.Sorted(maps.Keys(s))
	if r.Reverse {
		slices.Reverse(keys)
	}
	for _, key := range keys {
		if key < string(r.From) || r.To != nil && key >= string(r.To) {
			continue
		}
		if more, err := fn([]byte(key), []byte(s[key])); !more || err != nil {
			return err
		}
	}
	return nil
}

// list returns the records that a scan sees, up to a limit.
func list(r Reader, in Range, limit int) (seen []string) {
	_ = r.Scan(in, func(key, value []byte) (bool, error) {
		seen = append(seen, string(key)+"="+string(value))
		return len(seen) < limit, nil
	})
	return seen
}

var errNo = errors.New("no")

// TestOverlay compares an overlay with a map, through random writes, nested parts that fail, and scans.
func TestOverlay(t *testing.T) {
	key := rapid.StringMatching(`[abc]{0,2}`)
	o := newOverlay() // all checks use it in turn, like groups
	rapid.Check(t, func(t *rapid.T) {
		base := sorted(rapid.MapOf(key, rapid.StringMatching(`[xyz]?`)).Draw(t, "base"))
		model := maps.Clone(base)
		o.begin(base)
		if model == nil {
			model = sorted{}
		}
		var run func(depth int)
		run = func(depth int) {
			for range rapid.IntRange(0, 6).Draw(t, "steps") {
				k := key.Draw(t, "key")
				switch rapid.IntRange(0, 4).Draw(t, "step") {
				case 0, 1:
					v := rapid.StringMatching(`[uvw]?`).Draw(t, "value")
					o.Put([]byte(k), []byte(v))
					model[k] = v
				case 2:
					o.Delete([]byte(k))
					delete(model, k)
				case 3:
					if depth > 3 {
						continue
					}
					saved := maps.Clone(model)
					fails := rapid.Bool().Draw(t, "fails")
					err := o.Try(func() error {
						run(depth + 1)
						if fails {
							return errNo
						}
						return nil
					})
					if fails {
						model = saved
					}
					if fails != errors.Is(err, errNo) {
						t.Fatalf("a part that fails, %t: %v", fails, err)
					}
				case 4:
					if depth == 0 { // as between operations
						o.keep()
					}
				}
			}
		}
		run(0)
		got, err := o.Get([]byte("a"))
		if want, ok := model["a"]; err != nil || string(got) != want || (got != nil) != ok {
			t.Fatalf("get: %q, %v, want %q, %t", got, err, want, ok)
		}
		in := Range{From: []byte(key.Draw(t, "from")), Reverse: rapid.Bool().Draw(t, "reverse")}
		if rapid.Bool().Draw(t, "bounded") {
			in.To = []byte(key.Draw(t, "to"))
		}
		limit := rapid.IntRange(1, 10).Draw(t, "limit")
		if got, want := list(o, in, limit), list(model, in, limit); !slices.Equal(got, want) {
			t.Fatalf("scan %q to %q, reverse %t: %q, want %q", in.From, in.To, in.Reverse, got, want)
		}
		after := maps.Clone(base)
		if after == nil {
			after = sorted{}
		}
		before := []byte(nil)
		for key, value := range o.all() {
			if before != nil && bytes.Compare(before, key) >= 0 {
				t.Fatalf("changes are out of order: %q, %q", before, key)
			}
			before = key
			if value == nil {
				delete(after, string(key))
			} else {
				after[string(key)] = string(value)
			}
		}
		if !maps.Equal(after, model) {
			t.Fatalf("the changes make %v, want %v", after, model)
		}
	})
}

// TestOverlayWriteWhileScanning: an operation may change what it scans.
func TestOverlayWriteWhileScanning(t *testing.T) {
	base := sorted{}
	for i := range 20 {
		base[fmt.Sprintf("%02d", i)] = "x"
	}
	o := newOverlay()
	o.begin(base)
	seen := 0
	err := o.Scan(Range{}, func(key, value []byte) (bool, error) {
		seen++
		o.Delete(key)
		o.Put(append([]byte("0"), key...), value) // before the scan's position
		return true, o.Try(func() error { o.Put([]byte("~"), value); return nil })
	})
	if err != nil || seen < 20 {
		t.Fatalf("saw %d, %v", seen, err)
	}
	if n := len(list(o, Range{}, 1000)); n < 20 {
		t.Errorf("%d records are left", n)
	}
}

// TestOverlayHashesCollide: two keys may have the same hash.
func TestOverlayHashesCollide(t *testing.T) {
	o := newOverlay()
	o.begin(sorted{})
	a, b := o.insert(1, []byte("a")), o.insert(1, []byte("b"))
	if o.find(1, []byte("a")) != a || o.find(1, []byte("b")) != b || o.find(1, []byte("c")) != nil {
		t.Error("a key with the hash of others is not found")
	}
	o.begin(sorted{})
	if o.find(1, []byte("a")) != nil {
		t.Error("a key of the last group is found")
	}
}
