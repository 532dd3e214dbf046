package caddymodule_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestPagesOfOtherOrigins(t *testing.T) {
	t.Parallel()
	var asked []string
	s := openShop(t, "", perCallSite+"\n\thandle /deaf {\n\t\tmeter acme 0.001 per call\n\t\trespond \"secret\"\n\t}", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked = append(asked, fmt.Sprintf("%s %q %q %q", r.Method, body, r.Header["Access-Control-Request-Headers"], r.Header.Get("X-Http-Method-Override")))
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", "https://page.example")
		h.Set("Access-Control-Allow-Headers", "authorization")
		h.Set("Access-Control-Expose-Headers", "X-Own")
		h.Set("Vary", "Origin")
		h.Set("X-Secret", "answer")
		h.Set("Trailer", "X-Secret-Trailer")
		h.Set("Tallygate-Charge", "0")
		if r.URL.Query().Has("length") {
			h.Set("Content-Length", "11")
		}
		_, _ = io.WriteString(w, "the secret!")
		h.Set("X-Secret-Trailer", "answer")
	}))
	key := s.agent("alice", "1")
	preflight := []string{"Origin", "https://page.example", "Access-Control-Request-Method", "POST",
		"Access-Control-Request-Headers", "authorization, tallygate-max-charge,Tallygate-Tag", "X-Http-Method-Override", "POST"}

	for _, path := range []string{"/search", "/search?length"} {
		asked = nil
		a := s.do("OPTIONS", path, "", "a prompt", preflight...)
		want(t, "answer", fmt.Sprint(a.status, a.body, a.err), "200<nil>")
		want(t, "origin", a.header.Get("Access-Control-Allow-Origin"), "https://page.example")
		want(t, "vary", a.header.Get("Vary"), "Origin")
		if allowed := strings.Join(a.header["Access-Control-Allow-Headers"], ","); !strings.Contains(allowed, "authorization") || !strings.Contains(allowed, "Tallygate-Max-Charge") {
			t.Errorf("allowed headers: %s", allowed)
		}
		for name := range a.header {
			if name != "Vary" && !strings.HasPrefix(name, "Access-Control-") && name != "Date" && name != "Server" && name != "Content-Length" || len(a.trailer) > 0 {
				t.Errorf("a preflight brings %s, trailers %v", name, a.trailer)
			}
		}
		want(t, "what the upstream was asked", strings.Join(asked, ";"), `OPTIONS "" ["authorization"] ""`)
	}
	want(t, "what an upstream that knows no origins says", fmt.Sprint(s.do("OPTIONS", "/deaf", "", "", preflight...).body), "")
	want(t, "charges", fmt.Sprint(len(s.charges(key))), "0")

	// A request that is not a preflight is a call like any other.
	for i := 0; i < 4; i += 2 {
		wantProblem(t, s.do("OPTIONS", "/search", "", "", preflight[i:i+2]...), 401, "unauthorized")
	}
	wantProblem(t, s.do("POST", "/search", "", "", preflight...), 401, "unauthorized")
	wantProblem(t, s.do("OPTIONS", "/search", "", "", append(preflight, "Connection", "Upgrade", "Upgrade", "websocket")...), 401, "unauthorized")

	a := s.do("GET", "/search", key, "", "Origin", "https://page.example")
	want(t, "charge", a.header.Get("Tallygate-Charge"), "0.001")
	if exposed := strings.Join(a.header["Access-Control-Expose-Headers"], ","); !strings.Contains(exposed, "X-Own") || !strings.Contains(exposed, "Tallygate-Charge") {
		t.Errorf("exposed: %s", exposed)
	}
	// A page can read why its call was refused.
	a = s.do("GET", "/search", "", "", "Origin", "https://page.example")
	wantProblem(t, a, 401, "unauthorized")
	want(t, "origin of a refusal", a.header.Get("Access-Control-Allow-Origin"), "*")
	want(t, "origin of others", s.do("GET", "/search", "", "").header.Get("Access-Control-Allow-Origin"), "")
}

// TestASiteThatAllowsOrigins is the example of docs/reference.md.
func TestASiteThatAllowsOrigins(t *testing.T) {
	t.Parallel()
	s := openShop(t, "", "handle /search* {\n\t\tmeter acme 0.001 per call\n\t\theader Access-Control-Allow-Origin *\n\t\theader Access-Control-Allow-Headers authorization\n\t\t@preflight method OPTIONS\n\t\trespond @preflight 204\n\t\treverse_proxy UPSTREAM\n\t}", text("results"))
	key := s.agent("alice", "1")
	a := s.do("OPTIONS", "/search", "", "", "Origin", "https://page.example", "Access-Control-Request-Method", "GET")
	want(t, "preflight", fmt.Sprint(a.status, a.header.Get("Access-Control-Allow-Origin"), a.header["Access-Control-Allow-Headers"]), "204*[authorization "+strings.Join([]string{"Tallygate-Key", "Tallygate-Escrow", "Tallygate-Milestone", "Tallygate-Max-Charge", "Tallygate-Tag", "Idempotency-Key"}, ", ")+"]")
	a = s.do("GET", "/search", key, "", "Origin", "https://page.example")
	want(t, "origin", a.header.Get("Access-Control-Allow-Origin"), "*")
	if exposed := a.header.Get("Access-Control-Expose-Headers"); !strings.Contains(exposed, "Tallygate-Charge") {
		t.Errorf("exposed: %q", exposed)
	}
}
