package wire_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/tallygate/tallygate/meter/wire"
)

// TestPricedHeaders: the headers are the same text in any order, and others do not matter.
func TestPricedHeaders(t *testing.T) {
	a := wire.PricedHeaders(http.Header{"Prefer": {"x", "y"}, "Content-Type": {"application/json"}, "X-Request-Id": {"1"}})
	if b := wire.PricedHeaders(http.Header{"Content-Type": {"application/json"}, "Prefer": {"x", "y"}}); a != b {
		t.Errorf("%q, %q", a, b)
	}
	for _, h := range []http.Header{
		{"Prefer": {"y", "x"}, "Content-Type": {"application/json"}}, {"Prefer": {"x"}, "Content-Type": {"application/json"}},
		{"Prefer": {"x", "y"}, "Content-Type": {"application/json"}, "X_portkey_config": {"z"}},
	} {
		if b := wire.PricedHeaders(h); a == b {
			t.Errorf("%v: %q", h, b)
		}
	}
}

// TestEachHeaderThatIsReadIsPriced: package meter and those below it read no header that a provider's configuration could change unseen.
func TestEachHeaderThatIsReadIsPriced(t *testing.T) {
	// These are no headers of a request that is priced: an error's form depends on them.
	others := map[string]bool{"Anthropic-Version": true, "X-Goog-Api-Client": true}
	read := 0
	err := filepath.WalkDir("..", func(path string, d os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) != 1 {
				return true
			}
			method, ok := call.Fun.(*ast.SelectorExpr)
			name, isText := call.Args[0].(*ast.BasicLit)
			if !ok || !isText || method.Sel.Name != "Get" && method.Sel.Name != "Values" {
				return true
			}
			if of, ok := method.X.(*ast.SelectorExpr); !ok || of.Sel.Name != "Header" {
				return true
			}
			header, _ := strconv.Unquote(name.Value)
			if read++; !wire.IsPricedHeader(header) && !others[header] {
				t.Errorf("%s reads the header %s, which is not among the headers on which prices depend (headers.go)", path, header)
			}
			return true
		})
		return nil
	})
	if err != nil || read < 5 {
		t.Errorf("%d headers are read: %v", read, err)
	}
}
