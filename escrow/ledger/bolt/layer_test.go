package bolt

import (
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// TestLayer: a layer shows the changes of its groups. The older layers that it was made from still show only theirs.
func TestLayer(t *testing.T) {
	t.Parallel()
	key := rapid.StringMatching(`[abc]{0,3}`)
	rapid.Check(t, func(t *rapid.T) {
		type version struct {
			layer *layer
			model map[string]string // "-": deleted
		}
		versions := []version{{newLayer(1, 0), map[string]string{}}}
		for range rapid.IntRange(1, 12).Draw(t, "groups") {
			last := versions[len(versions)-1]
			group := rapid.MapOfN(key, rapid.SampledFrom([]string{"-", "", "x", "yy"}), 1, 9).Draw(t, "group")
			var changes []change
			for _, k := range slices.Sorted(maps.Keys(group)) {
				c := change{key: []byte(k)}
				if group[k] != "-" {
					c.value = []byte(group[k])
				}
				changes = append(changes, c)
			}
			model := maps.Clone(last.model)
			maps.Copy(model, group)
			versions = append(versions, version{last.layer.with(encodeChanges(changes)), model})
		}
		in := ledger.Range{From: []byte(key.Draw(t, "from")), Reverse: rapid.Bool().Draw(t, "reverse")}
		if rapid.Bool().Draw(t, "bounded") {
			in.To = []byte(key.Draw(t, "to"))
		}
		for i, v := range versions {
			for _, k := range append(slices.Collect(maps.Keys(versions[len(versions)-1].model)), "none") {
				value, found := v.layer.get([]byte(k))
				if want, ok := v.model[k]; found != ok || found && written(value) != want {
					t.Fatalf("after %d groups %q is %q, %t; want %q, %t", i, k, value, found, want, ok)
				}
			}
			var want, got []string
			for _, k := range slices.Sorted(maps.Keys(v.model)) {
				if k >= string(in.From) && (in.To == nil || k < string(in.To)) {
					want = append(want, k+"="+v.model[k])
				}
			}
			if in.Reverse {
				slices.Reverse(want)
			}
			for c := v.layer.cursor(in); ; c.Next() {
				key, value, ok := c.Peek()
				if !ok {
					break
				}
				got = append(got, string(key)+"="+written(value))
			}
			if !slices.Equal(got, want) {
				t.Fatalf("after %d groups the cursor over %q to %q, reverse %t, passes %q, want %q", i, in.From, in.To, in.Reverse, got, want)
			}
		}
	})
}

func written(value []byte) string {
	if value == nil {
		return "-"
	}
	return string(value)
}

// TestLayerRunsStayFew: each group adds a run, but the number of runs stays small.
func TestLayerRunsStayFew(t *testing.T) {
	t.Parallel()
	l := newLayer(1, 0)
	for i := range 5000 {
		l = l.with(encodeChanges([]change{{fmt.Appendf(nil, "k%05d", i*7919%5000), []byte("v")}}))
	}
	if len(l.runs) > 13 || len(l.runs[0]) < 2000 {
		t.Errorf("%d runs, the longest of %d", len(l.runs), len(l.runs[0]))
	}
}

// TestLayerHashesCollide: two keys with the same hash are not mixed up.
func TestLayerHashesCollide(t *testing.T) {
	t.Parallel()
	l := newLayer(1, 0).with(encodeChanges([]change{{[]byte("a"), []byte("1")}, {[]byte("b"), []byte("2")}}))
	hash := func(key string) uint64 { return maphash.String(l.newest.seed, key) }
	l.newest.places[hash("b")] = l.newest.places[hash("a")]
	l.newest.places[hash("c")] = l.newest.places[hash("a")]
	for key, want := range map[string]string{"a": "1", "b": "2", "c": ""} {
		if value, found := l.get([]byte(key)); string(value) != want || found != (want != "") {
			t.Errorf("%s is %q, %t", key, value, found)
		}
	}
}
