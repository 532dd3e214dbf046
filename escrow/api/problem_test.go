package api

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"testing"

	"github.com/tallygate/tallygate/docs"
	"github.com/tallygate/tallygate/escrow"
)

// The guide has a section for each problem, with its status, and for nothing else.
func TestEachProblemHasASection(t *testing.T) {
	page, err := docs.Pages.ReadFile("problems.md")
	if err != nil {
		t.Fatal(err)
	}
	written := make(map[string]string)
	for _, found := range regexp.MustCompile(`(?m)^## (\w+)\n\nStatus (\d+)\.`).FindAllStringSubmatch(string(page), -1) {
		written[found[1]] = found[2]
	}
	for _, code := range codes() {
		if want := fmt.Sprint(kinds[escrow.Outcome(code)].status); written[code] != want {
			t.Errorf("docs/problems.md: %s has status %q, want %s", code, written[code], want)
		}
		delete(written, code)
	}
	if len(written) > 0 {
		t.Errorf("docs/problems.md has sections for %v, which are no problems", slices.Collect(maps.Keys(written)))
	}
}
