package caddymodule_test

import (
	"bytes"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/tallygate/tallygate/"

// mayImport says for each folder (the longest prefix counts) which of our folders it may import, and which libraries it must not.
var rooms = []struct {
	room      string
	ours      []string
	forbidden []string
}{
	{"docs/examples", []string{"docs/examples"}, []string{"github.com/caddyserver"}},
	{"docs", nil, nil},
	{"cmd/tallygate/demo", nil, nil},
	{"bench", []string{"escrow"}, []string{"github.com/caddyserver"}},
	{"cmd", []string{"cmd", "caddymodule"}, nil},
	{"caddymodule/postgres", []string{"caddymodule", "escrow/ledger"}, drivers[2:]},
	{"caddymodule/refund", []string{"escrow/cashier"}, drivers[:4]},
	{"caddymodule/stripe", []string{"caddymodule/refund", "escrow"}, drivers[:4]},
	{"caddymodule/mpp", []string{"caddymodule/refund", "gateway", "escrow"}, drivers[:4]},
	{"caddymodule", []string{"caddymodule", "gateway", "meter", "pricing", "escrow"}, append([]string{module + "caddymodule/mpp"}, drivers...)},
	{"gateway", []string{"gateway", "meter", "pricing", "escrow"}, []string{"github.com/caddyserver", "go.uber.org/zap"}},
	{"pricing", []string{"pricing", "meter"}, []string{"github.com/caddyserver", "net/http"}},
	{"meter", []string{"meter"}, []string{"github.com/caddyserver", "github.com/shopspring/decimal"}},
	{"escrow/cashier", []string{"escrow"}, []string{"github.com/caddyserver"}},
	{"escrow/ledger/postgres", []string{"escrow/ledger"}, []string{"github.com/caddyserver", "net/http"}},
	{"escrow/ledger/ledgertest", []string{"escrow/ledger", "internal/rounds"}, []string{"github.com/caddyserver", "net/http"}},
	{"escrow/ledger", []string{"escrow/ledger"}, append([]string{"github.com/caddyserver", "net/http"}, drivers...)},
	{"escrow/api", []string{"escrow"}, []string{"github.com/caddyserver"}},
	{"escrow/dashboard", []string{"escrow", "docs"}, []string{"github.com/caddyserver"}},
	{"escrow", []string{"escrow/ledger"}, []string{"github.com/caddyserver", "net/http"}},
	{"internal", nil, nil},
}

// drivers are what only the store for PostgreSQL, and only the cashier at Stripe, may import: a plain build of the plugin must not have them.
var drivers = []string{
	module + "caddymodule/postgres", module + "escrow/ledger/postgres", "github.com/jackc/pgx/v5", "github.com/pressly/goose/v3",
	module + "caddymodule/stripe", "github.com/stripe/stripe-go/v85",
}

// exact are stricter rules for single packages: pricing may import meter itself but not its formats, and the ledger only the form of its records, none of its stores.
var exact = map[string][]string{
	"pricing":       {"pricing", "meter"},
	"escrow/ledger": {"escrow/ledger/canon"},
	"escrow":        {"escrow/ledger", "escrow/ledger/canon"},
}

func TestRoomsImportOnlyWhatTheHouseAllows(t *testing.T) {
	t.Parallel()
	root := ".."
	seen := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		relative, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		folder := filepath.ToSlash(relative)
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		for _, spec := range file.Imports {
			imported, _ := strconv.Unquote(spec.Path.Value)
			checkImport(t, folder, path, imported)
		}
		if file.Doc != nil {
			seen[folder] = true
		} else if !seen[folder] {
			seen[folder] = false
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for folder, documented := range seen {
		if !documented {
			t.Errorf("package %s has no doc comment that says what it is for", folder)
		}
	}
}

func checkImport(t *testing.T, folder, path, imported string) {
	t.Helper()
	for _, room := range rooms {
		if folder != room.room && !strings.HasPrefix(folder, room.room+"/") {
			continue
		}
		ours, is := strings.CutPrefix(imported, module)
		if allowed, narrow := exact[folder]; is && narrow {
			if !slices.Contains(allowed, ours) {
				t.Errorf("%s imports %s: %s may import %v of ours", path, ours, folder, allowed)
			}
		} else if is && !slices.ContainsFunc(room.ours, func(r string) bool { return ours == r || strings.HasPrefix(ours, r+"/") }) {
			if folder == ours || strings.HasPrefix(ours, room.room+"/") {
				return
			}
			t.Errorf("%s imports %s: the room %s may import %v of ours", path, ours, room.room, room.ours)
		}
		for _, library := range room.forbidden {
			if imported == library || strings.HasPrefix(imported, library+"/") {
				t.Errorf("%s imports %s, which the room %s must not know", path, imported, room.room)
			}
		}
		return
	}
	t.Errorf("%s is in no room of the house", path)
}

// TestTestsShareConnectionsSteadily: tests that start servers import internal/steady. Else a server that closes cuts off requests to others.
func TestTestsShareConnectionsSteadily(t *testing.T) {
	t.Parallel()
	starts := regexp.MustCompile(`\bhttptest\.New(Unstarted|TLS)?Server\(`)
	where, steady := map[string]string{}, map[string]bool{"../internal/steady": true}
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if starts.Match(source) {
			where[filepath.Dir(path)] = path
		}
		if bytes.Contains(source, []byte(`"`+module+`internal/steady"`)) {
			steady[filepath.Dir(path)] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for folder, path := range where {
		if !steady[folder] {
			t.Errorf("%s starts a server, and no test of its package imports %sinternal/steady", path, module)
		}
	}
}

// TestPlainBuildHasNoDriver: a build of the plugin alone links neither the store for PostgreSQL, nor the cashier at Stripe, nor what they need. pgx is not looked for:
// Caddy's own certificate authority links it.
func TestPlainBuildHasNoDriver(t *testing.T) {
	t.Parallel()
	linked := func(folder string) []string {
		out, err := exec.Command("go", "list", "-deps", module+folder).Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.Fields(string(out))
	}
	plain, ours := linked("caddymodule"), linked("cmd/tallygate")
	for _, driver := range drivers {
		if driver == "github.com/jackc/pgx/v5" {
			continue
		}
		if slices.Contains(plain, driver) {
			t.Errorf("the plugin links %s", driver)
		}
		if !slices.Contains(ours, driver) {
			t.Errorf("our own binary does not link %s", driver)
		}
	}
}

func TestTopLevelHoldsTheHouseAndNothingElse(t *testing.T) {
	t.Parallel()
	allowed := []string{"caddymodule", "gateway", "meter", "pricing", "escrow", "cmd", "internal", "bench", "clients", "Caddyfile", "go.mod", "go.sum", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "docs", "deploy", ".ci", ".github", ".gitignore", ".git"}
	entries, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if !slices.Contains(allowed, entry.Name()) && !ignored(t, entry.Name()) {
			t.Errorf("%s at the top level: expected one of %v", entry.Name(), allowed)
		}
	}
}

// ignored reports whether .gitignore names a file, such as the demo shop's ledger or a built binary.
func ignored(t *testing.T, name string) bool {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", ".gitignore"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		pattern := strings.Trim(strings.TrimSpace(line), "/")
		if match, _ := filepath.Match(pattern, name); match && pattern != "" {
			return true
		}
	}
	return false
}

// declaredTests returns the folders in which each test is declared, and all folders with tests.
func declaredTests(t *testing.T) (folders map[string][]string, rooms map[string]bool) {
	t.Helper()
	folders, rooms = map[string][]string{}, map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		folder := strings.TrimPrefix(filepath.ToSlash(filepath.Dir(path)), "../")
		rooms[folder] = true
		for _, name := range declared.FindAllSubmatch(source, -1) {
			folders[string(name[1])] = append(folders[string(name[1])], folder)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return folders, rooms
}

// TestCINamesTestsThatAreThere: a test that CI runs by its name, and that has another name now, would not run any more.
func TestCINamesTestsThatAreThere(t *testing.T) {
	t.Parallel()
	folders, _ := declaredTests(t)
	names := regexp.MustCompile(`[(|^]((?:Test|Fuzz)[A-Z]\w+)`) // in the patterns of -run
	named := 0
	for _, script := range []string{"../.ci/run", "../.ci/long"} {
		text, err := os.ReadFile(script)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names.FindAllStringSubmatch(string(text), -1) {
			if named++; folders[name[1]] == nil {
				t.Errorf("%s names %s, which is no test", script, name[1])
			}
		}
	}
	if named < 10 {
		t.Errorf("only %d tests are named", named)
	}
}

// TestThreatsNameTheirTests: each test that docs/security.md names is there, in the folder that it names.
func TestThreatsNameTheirTests(t *testing.T) {
	t.Parallel()
	folders, rooms := declaredTests(t)
	doc, err := os.ReadFile("../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	room, named := "caddymodule", 0
	words := regexp.MustCompile("`([^`]+)`")
	for line := range strings.SplitSeq(string(doc), "\n") {
		switch {
		case strings.HasPrefix(line, "## The law"):
			room = "gateway"
		case strings.HasPrefix(line, "## "):
			room = "caddymodule"
		}
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		if !strings.HasPrefix(line, "|") {
			continue
		}
		for part := range strings.SplitSeq(cells[len(cells)-1], ";") {
			folder := room
			for _, word := range words.FindAllStringSubmatch(part, -1) {
				name := word[1]
				switch {
				case rooms[strings.TrimSuffix(name, "/")]:
					folder = strings.TrimSuffix(name, "/")
				case !strings.HasPrefix(name, "Test") && !strings.HasPrefix(name, "Fuzz"): // a part of a test
				case !slices.Contains(folders[name], folder):
					t.Errorf("%s is in %v, not in %s: %.100s", name, folders[name], folder, line)
				default:
					named++
				}
			}
		}
	}
	if named < 100 {
		t.Errorf("only %d tests are named", named)
	}
}
