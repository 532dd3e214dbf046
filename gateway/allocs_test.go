//go:build unix && !race

package gateway_test

import (
	"testing"

	"github.com/tallygate/tallygate/escrow/ledger/bolt"
)

// TestAllocs: an honest call makes no more allocations than its budget, which is what it made when the budget was set and a little more. The
// test's own request and recorder are included, and a commit for each call, since the calls come one by one. If a change needs more, look at it
// with BenchmarkCall and -memprofile first; if it needs less, lower the budget.
func TestAllocs(t *testing.T) {
	for _, h := range hotCalls(t) {
		t.Run(h.name, func(t *testing.T) {
			call := h.open(t, bolt.Options{NoSync: true})
			for range 100 {
				call()
			}
			if allocs := testing.AllocsPerRun(500, call); allocs > h.allocs {
				t.Errorf("%.0f allocations a call, the budget is %.0f", allocs, h.allocs)
			} else {
				t.Logf("%.0f allocations a call, the budget is %.0f", allocs, h.allocs)
			}
		})
	}
}
