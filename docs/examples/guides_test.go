package examples

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/tallygate/tallygate/internal/commandtest"
)

const site = ":8402" // of the guides' gateways

// Each guide's Caddyfile serves, and each step of its session prints what the guide says. With TALLYGATE_GUIDES=write, what is printed is
// written into the guides.
func TestGuides(t *testing.T) {
	t.Parallel()
	replay, err := filepath.Abs(filepath.Join(root, ".ci", "replay"))
	if err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{"bash", "curl", "awk", "diff", "sed"} {
		if _, err := exec.LookPath(program); err != nil && os.Getenv("CI") != "" {
			t.Fatalf("CI must have what the guides use: %v", err)
		} else if err != nil {
			t.Skipf("SKIPPED, the guides need what is not here: %v", err)
		}
	}
	tested := clientLines(t)
	pages, err := filepath.Glob("../guides/*.md")
	if err != nil || len(pages) != len(providers)+1 {
		t.Fatalf("%d guides with a list of them, %d providers, %v", len(pages), len(providers), err)
	}
	bin := build(t)
	for _, page := range pages {
		name := strings.TrimSuffix(filepath.Base(page), ".md")
		if name == "README" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			for _, block := range clientBlock.FindAllStringSubmatch(string(text), -1) {
				if line := gatewayURL.ReplaceAllString(strings.TrimSpace(block[1]), "BASE"); !strings.Contains(tested, line) {
					t.Errorf("clients/ does not test %s", line)
				}
			}
			var write func(string)
			if os.Getenv("TALLYGATE_GUIDES") == "write" {
				write = func(text string) {
					if err := os.WriteFile(page, []byte(text), 0o644); err != nil {
						t.Error(err)
					}
				}
			}
			follow(t, bin, replay, string(text), providers[name], write)
		})
	}
}

var (
	clientBlock = regexp.MustCompile("(?s)```js\n(.*?)```")
	gatewayURL  = regexp.MustCompile(`"http://localhost:8402[^"]*"`)
	testedURL   = regexp.MustCompile("(baseURL: )base(?: \\+ \"/v1\")?|`\\$\\{gate.base\\}/mcp-tools`")
)

// clientLines returns what the tests of the official clients do, with BASE for each address.
func clientLines(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, file := range []string{"clients.mjs", "mcp.test.mjs"} {
		text, err := os.ReadFile(filepath.Join(root, "clients", file))
		if err != nil {
			t.Fatal(err)
		}
		all.WriteString(testedURL.ReplaceAllString(string(text), "${1}BASE"))
	}
	return all.String()
}

var caddyfileBlock = regexp.MustCompile("(?s)```caddyfile\n(.*?)```")

// follow does what a guide says, at ports of this machine that are free. If there is a write, it gets the guide with what was printed.
func follow(t *testing.T, bin, replay, text string, p provider, write func(string)) {
	upstream := httptest.NewUnstartedServer(p.answer)
	upstream.Config.Protocols = new(http.Protocols)
	upstream.Config.Protocols.SetHTTP1(true)
	upstream.Config.Protocols.SetUnencryptedHTTP2(true)
	upstream.Start()
	t.Cleanup(upstream.Close)
	address, admin := commandtest.FreeAddress(t), commandtest.FreeAddress(t)
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	found := caddyfileBlock.FindStringSubmatch(text)
	if found == nil || !strings.Contains(found[1], p.address) || !strings.Contains(found[1], site) {
		t.Fatalf("the guide has no Caddyfile with %s and %s", p.address, site)
	}
	there := strings.TrimPrefix(upstream.URL, "http://")
	if strings.HasPrefix(p.address, "https://") {
		there = upstream.URL
	}
	here := strings.NewReplacer(site, ":"+port, p.address, there)
	s := serve(t, bin, address, here.Replace(found[1]), "CADDY_ADMIN="+admin, "ANTHROPIC_API_KEY="+providerKey, "OPENROUTER_API_KEY="+providerKey,
		"PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	copied := filepath.Join(filepath.Dir(s.config), "guide.md")
	if err := os.WriteFile(copied, []byte(here.Replace(text)), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{replay, copied}
	if write != nil {
		args = []string{replay, "--write", copied}
	}
	out, err := s.command("bash", args...).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s\nthe server's log:\n%s", err, out, s.log)
	} else if write != nil {
		said, err := os.ReadFile(copied)
		if err != nil {
			t.Fatal(err)
		}
		write(strings.NewReplacer(":"+port, site, there, p.address).Replace(string(said)))
	}
	s.close()
	s.verify()
}
