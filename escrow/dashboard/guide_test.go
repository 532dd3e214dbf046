package dashboard_test

import (
	"io/fs"
	"net/http/httptest"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tallygate/tallygate/docs"
	"github.com/tallygate/tallygate/escrow/dashboard"
)

// page returns a page of the guide as a browser gets it, or an empty text.
func page(at, accept string) string {
	r := httptest.NewRequest("GET", "https://gate.example"+at, nil)
	r.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	if !dashboard.WriteGuide(w, r, at) {
		return ""
	}
	return w.Body.String()
}

const browser = "text/html,application/xhtml+xml,*/*;q=0.8"

var (
	reference = regexp.MustCompile(`(?:href|src)="([^"]*)"`)
	heading   = regexp.MustCompile(`<h[1-6] id="([^"]+)"`)
)

// Every link on every page leads to a page and a heading that exist, or to the repository.
func TestLinksOfTheGuide(t *testing.T) {
	starts := []string{"/problems/", "/problems/no_price", "/problems/insufficient_funds"}
	err := fs.WalkDir(docs.Pages, ".", func(file string, _ fs.DirEntry, err error) error {
		if name, is := strings.CutSuffix(file, ".md"); is {
			starts = append(starts, "/dashboard/docs/"+strings.TrimSuffix(name, "README"))
		}
		return err
	})
	if err != nil || len(starts) < 10 || !slices.Contains(starts, "/dashboard/docs/guides/") {
		t.Fatalf("only the pages %v, %v", starts, err)
	}
	for _, at := range starts {
		text := page(at, browser)
		if !strings.Contains(text, "<h1") && !strings.Contains(text, "<h2") {
			t.Errorf("%s has no heading: %.300q", at, text)
		}
		for _, found := range reference.FindAllStringSubmatch(text, -1) {
			to := found[1]
			if strings.Contains(to, "://") || to == "data:," {
				continue
			}
			target, fragment, _ := strings.Cut(to, "#")
			other := text
			if target != "" {
				full := target
				if !strings.HasPrefix(target, "/") {
					full = path.Join(path.Dir(at), target)
					if strings.HasSuffix(at, "/") {
						full = path.Join(at, target)
					}
					if strings.HasSuffix(target, "/") {
						full += "/"
					}
				}
				if other = page(full, browser); other == "" {
					t.Errorf("%s: the link %s leads to %s, which is no page", at, to, full)
					continue
				}
			}
			if fragment == "" {
				continue
			}
			if !strings.Contains(other, `id="`+fragment+`"`) {
				t.Errorf("%s: the link %s leads to no heading: %v", at, to, heading.FindAllString(other, -1))
			}
		}
	}
}

func TestGuideForPrograms(t *testing.T) {
	if text := page("/problems/no_price", "*/*"); !strings.HasPrefix(text, "# no_price\n\nStatus 422.") || strings.Contains(text, "## too_early") {
		t.Errorf("the problem as Markdown: %q", text)
	}
	for _, at := range []string{"/problems/none", "/problems", "/dashboard/docs/none", "/dashboard/docs", "/dashboard/docs/docs.go"} {
		if text := page(at, browser); text != "" {
			t.Errorf("%s: %.100q", at, text)
		}
	}
	r := httptest.NewRequest("POST", "/problems/no_price", nil)
	if dashboard.WriteGuide(httptest.NewRecorder(), r, "/problems/no_price") {
		t.Error("a POST is answered")
	}
}
