package ledgertest

import (
	_ "embed"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/tallygate/tallygate/internal/rounds"
)

//go:embed cases.txt
var cases string

// testCases runs the cases in cases.txt.
func testCases(t *testing.T, fresh func(testing.TB) Place) {
	some := fresh(t).Slow && !rounds.Full()
	for _, c := range strings.Split(cases, "== ")[1:] {
		if some && rand.IntN(4) != 0 {
			continue
		}
		title, script, _ := strings.Cut(c, "\n")
		t.Run(strings.ReplaceAll(title, " ", "_"), func(t *testing.T) {
			p := fresh(t)
			Script(t, p.Open, p.FailNext, script)
		})
	}
}
