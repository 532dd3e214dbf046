package escrow_test

import (
	"os"
	"regexp"
	"testing"
)

// TestTablesDiffer: no two kinds of records have the same first byte.
func TestTablesDiffer(t *testing.T) {
	source, err := os.ReadFile("book_record.go")
	must(t, err)
	tables := map[string]string{}
	for _, table := range regexp.MustCompile(`(?m)^\t(\w+)\s+table = ('.+?')`).FindAllStringSubmatch(string(source), -1) {
		if other := tables[table[2]]; other != "" {
			t.Errorf("%s and %s are both %s", other, table[1], table[2])
		}
		tables[table[2]] = table[1]
	}
	if len(tables) < 40 {
		t.Errorf("%d tables were found", len(tables))
	}
}
