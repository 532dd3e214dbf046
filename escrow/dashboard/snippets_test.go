package dashboard

import (
	"bytes"
	"encoding/json"
	"go/parser"
	"os/exec"
	"reflect"
	"strings"
	"testing"
)

// odd is a body with what the languages quote differently.
const odd = `{"a": "it's \"x\" ` + "`y`" + `, true, null \\", "b": [true, false, null, 1.50]}`

// TestSnippetsSayWhatTheyStandFor: the programs have the body as it is, in their own language.
func TestSnippetsSayWhatTheyStandFor(t *testing.T) {
	t.Parallel()
	for _, e := range []example{
		{Method: "POST", URL: "https://gate.example/a?b=c&d=$e", Body: odd},
		{Method: "POST", URL: "https://gate.example/v1/chat/completions", Base: "https://gate.example/v1", Body: odd},
		{Method: "DELETE", URL: "https://gate.example/a"},
		{Method: "POST", URL: "https://gate.example/mcp", MCP: true, Body: `{"jsonrpc": "2.0"}`},
	} {
		if _, err := parser.ParseExpr("func() {\n" + e.Go() + "\n}"); err != nil {
			t.Errorf("Go: %v\n%s", err, e.Go())
		}
		for name, run := range map[string][]string{
			"sh":      {"sh", "-nc", e.Curl()},
			"python3": {"python3", "-c", "import ast, sys; ast.parse(sys.argv[1])", e.Python()},
			"node":    {"node", "--input-type=module", "--check", "-"},
		} {
			if _, err := exec.LookPath(name); err != nil {
				continue // its language is not on this machine
			}
			cmd := exec.Command(run[0], run[1:]...)
			cmd.Stdin = strings.NewReader(e.JavaScript())
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s: %v %s\n%s", name, err, out, run[len(run)-1])
			}
		}
	}
	out, err := exec.Command("sh", "-c", "printf %s "+shellWord(odd)).Output()
	if err != nil || string(out) != odd {
		t.Errorf("a shell reads %q, %v", out, err)
	}
	if _, err := exec.LookPath("python3"); err != nil {
		return
	}
	out, err = exec.Command("python3", "-c", "import json; print(json.dumps("+pythonValue(odd)+"))").Output()
	if err != nil {
		t.Fatal(err)
	}
	var got, want any
	if err := json.Unmarshal(bytes.TrimSpace(out), &got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(odd), &want); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("Python reads %v, want %v", got, want)
	}
}
