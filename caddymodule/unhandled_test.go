package caddymodule_test

import (
	"crypto/sha256"
	"encoding/base64"
	"regexp"
	"strings"
	"testing"

	"github.com/tidwall/gjson"
)

// TestThePageOfWhatIsSold: where the site has nothing at its address, a page says what is sold, at which prices, and how to get a key.
func TestThePageOfWhatIsSold(t *testing.T) {
	t.Parallel()
	s := openShop(t, chatPrices, perCallSite+"\n\t"+chatSite, text("results"))
	for prefix, directive := range map[string]string{"": "tallygate", "/pay": "tallygate /pay"} {
		s.directive = directive
		s.load(chatPrices, perCallSite+"\n\t"+chatSite)
		a := s.do("GET", prefix+"/", "", "")
		if a.status != 200 || a.header.Get("Content-Type") != "text/html; charset=utf-8" {
			t.Fatalf("%d %v %s", a.status, a.header, a.body)
		}
		for _, part := range []string{
			"/search*", "0.001 USDC per call", "model test-", "USDC per 1M input tokens", "acme",
			s.url + prefix + "/api/v1/agents", "100 USDC, once", s.url + "/v1/chat/completions",
			"from openai import OpenAI", "await fetch(", "http.NewRequest(", "curl -i", s.url + prefix + "/mcp",
		} {
			if !strings.Contains(a.body, part) {
				t.Errorf("no %q in the page %s", part, a.body)
			}
		}
		style := regexp.MustCompile(`(?s)<style>(.*?)</style>`).FindStringSubmatch(a.body)[1]
		sum := sha256.Sum256([]byte(style))
		policy := a.header.Get("Content-Security-Policy")
		if !strings.Contains(policy, "default-src 'none'; style-src 'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"'") || strings.Contains(policy, "unsafe") {
			t.Errorf("the policy is %s", policy)
		}
		if outside := regexp.MustCompile(`(?:src|href)="https?://[^"]*"`).FindAllString(a.body, -1); len(outside) > 0 {
			for _, link := range outside {
				if !strings.Contains(link, s.url) {
					t.Errorf("the page names %s", link)
				}
			}
		}
		if a := s.do("HEAD", prefix+"/", "", ""); a.status != 200 || a.body != "" {
			t.Errorf("HEAD: %d %q", a.status, a.body)
		}
	}
	s.directive = "tallygate"
	s.load("", perCallSite+"\n\trespond / `the site's own`")
	want(t, "the site's own page", s.do("GET", "/", "", "").body, "the site's own")
}

// TestTheTypeOfAProblemIsAPage: the type of a problem leads to a page about it, wherever the API is mounted, unless the operator has pages.
func TestTheTypeOfAProblemIsAPage(t *testing.T) {
	t.Parallel()
	s := openShop(t, chatPrices, perCallSite+"\n\t"+chatSite, text("results"))
	for prefix, directive := range map[string]string{"": "tallygate", "/pay": "tallygate /pay"} {
		s.directive = directive
		s.load(chatPrices, perCallSite+"\n\t"+chatSite)
		for _, path := range []string{"/search", prefix + "/api/v1/wallet", prefix + "/api/v1/none", "/none"} {
			problem := s.do("GET", path, "", "")
			at, code := gjson.Get(problem.body, "type").String(), gjson.Get(problem.body, "code").String()
			if want := prefix + "/problems/" + code; at != want {
				t.Errorf("%s: the type is %s, want %s", path, at, want)
			}
			page := s.do("GET", at, "", "", "Accept", "text/html")
			if page.status != 200 || !strings.Contains(page.body, `<h1 id="`+code+`"`) {
				t.Errorf("%s: %d %s", at, page.status, page.body)
			}
		}
		if a := s.do("GET", prefix+"/dashboard/docs/reference", "", ""); a.status != 200 || !strings.HasPrefix(a.body, "# Reference") {
			t.Errorf("the guide: %d %.100s", a.status, a.body)
		}
		if a := s.do("GET", prefix+"/problems/none", "", ""); a.status != 404 {
			t.Errorf("no problem: %d", a.status)
		}
	}
	s.directive = "tallygate"
	s.load(chatPrices+"\n\t\tproblem_types https://docs.example/p/", perCallSite)
	for _, path := range []string{"/search", "/api/v1/wallet"} {
		if problem := s.do("GET", path, "", ""); gjson.Get(problem.body, "type").String() != "https://docs.example/p/unauthorized" {
			t.Errorf("%s: %s", path, problem.body)
		}
	}
}

// TestUnknownPathsNameTheNearMiss: what nothing handles is 404, with the path that was most likely meant.
func TestUnknownPathsNameTheNearMiss(t *testing.T) {
	t.Parallel()
	s := openShop(t, chatPrices, perCallSite+"\n\t"+chatSite+"\n\trespond /empty 204", text("results"))
	for _, test := range []struct{ method, path, near string }{
		{"POST", "/chat/completions", "/v1/chat/completions"},
		{"POST", "/responses", "/v1/responses"},
		{"GET", "/models", "/v1/models"},
		{"GET", "/v1", "/v1/"},
		{"GET", "/serch?q=owls", "/search"},
		{"POST", "/agents", "/api/v1/agents"},
		{"GET", "/wallet/entries", "/api/v1/wallet/entries"},
		{"POST", "/v2/chat/completions", "/v1/chat/completions"},
		{"GET", "/nothing/like/it", ""},
		{"POST", "/", ""},
	} {
		a := s.do(test.method, test.path, "", "")
		wantProblem(t, a, 404, "not_found")
		if near := "did you mean " + test.near + "?"; test.near != "" && !strings.Contains(a.body, near) || test.near == "" && strings.Contains(a.body, "did you mean") {
			t.Errorf("%s: no %q in %s", test.path, near, a.body)
		}
	}
	if a := s.do("GET", "/empty", "", ""); a.status != 204 {
		t.Errorf("an empty answer of the site became %d %s", a.status, a.body)
	}
}
