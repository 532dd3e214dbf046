package caddymodule_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

var update = flag.Bool("update", false, "write what is, as what is wanted")

// Each golden is a Caddyfile, a line of dashes, and the resulting JSON config or error.
func TestCaddyfiles(t *testing.T) {
	files, err := filepath.Glob("testdata/*.caddyfiletest")
	if err != nil || len(files) == 0 {
		t.Fatalf("no goldens: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".caddyfiletest"), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			input, golden, ok := strings.Cut(string(raw), "----------\n")
			if !ok && !*update {
				t.Fatalf("%s has no line of dashes", file)
			}
			got := adapted(t, input)
			if *update {
				if err := os.WriteFile(file, []byte(input+"----------\n"+got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != golden {
				t.Errorf("got:\n%s\nwant:\n%s", got, golden)
			}
			if formatted := string(caddyfile.Format([]byte(input))); formatted != input {
				t.Errorf("not formatted as `tallygate fmt` would:\n%s", formatted)
			}
		})
	}
}

// adapted returns the config of a Caddyfile as indented JSON. If the Caddyfile can't be read or is not valid, it returns the error.
func adapted(t *testing.T, input string) string {
	t.Helper()
	config, err := adapt(input)
	if err != nil {
		return err.Error() + "\n"
	}
	var parsed caddy.Config
	if err := json.Unmarshal(config, &parsed); err != nil {
		t.Fatal(err)
	}
	var indented strings.Builder
	encoder := json.NewEncoder(&indented)
	encoder.SetIndent("", "\t")
	if err := encoder.Encode(json.RawMessage(config)); err != nil {
		t.Fatal(err)
	}
	if err := caddy.Validate(&parsed); err != nil {
		return err.Error() + "\n"
	}
	return indented.String()
}
