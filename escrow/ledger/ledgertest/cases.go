package ledgertest

import (
	_ "embed"
	"strings"
	"testing"
)

//go:embed cases.txt
var cases string

// testCases runs the cases in cases.txt.
func testCases(t *testing.T, fresh func(testing.TB) Place) {
	for _, c := range strings.Split(cases, "== ")[1:] {
		title, script, _ := strings.Cut(c, "\n")
		t.Run(strings.ReplaceAll(title, " ", "_"), func(t *testing.T) {
			p := fresh(t)
			Script(t, p.Open, p.FailNext, script)
		})
	}
}
