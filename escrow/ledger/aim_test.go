package ledger

import "testing"

// TestAim: what a group waits for, with callers that come in different ways.
func TestAim(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		atOnce   int // operations that wait when a commit has ended
		late     int // more that come while a group waits
		size     int // of groups, after a while
		mostVain int // in so many of 100 groups everybody waits in vain
	}{
		{"one caller", 1, 0, 1, 2},
		{"eight callers that are back at once", 8, 0, 8, 2},
		{"callers of whom half are back at once", 16, 16, 32, 2},
		{"callers that come one by one", 12, 12, 24, 60},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a := aim{most: 1000}
			vain, sum := 0, 0
			const groups = 1000
			for i := range groups {
				n := c.atOnce
				if a.size <= n {
					a.met(n)
				} else if n += c.late; a.size <= n {
					n = a.size // whoever is last ends the waiting
					a.met(n)
				} else {
					vain++
					a.missed(n, c.late)
				}
				if i >= groups/2 {
					sum += n
				}
			}
			if size := sum / (groups / 2); size < c.size*7/8 || size > c.size {
				t.Errorf("groups have %d operations, want about %d", size, c.size)
			}
			if vain > groups*c.mostVain/100 {
				t.Errorf("%d of %d groups waited in vain", vain, groups)
			}
		})
	}
	t.Run("more callers than a group may have, and then fewer", func(t *testing.T) {
		t.Parallel()
		a := aim{most: 100}
		for range 1000 {
			a.met(100)
		}
		groups := 0
		for ; a.size > 20; groups++ {
			a.missed(20, 10)
		}
		if groups > 20 {
			t.Errorf("%d groups waited in vain until they waited for fewer", groups)
		}
	})
	t.Run("after many callers comes one", func(t *testing.T) {
		t.Parallel()
		a := aim{size: 60, most: 1000}
		a.missed(1, 0)
		if a.size != 1 {
			t.Errorf("it waits for %d operations", a.size)
		}
	})
}
