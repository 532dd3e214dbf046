package caddymodule_test

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestWhatIsNoAnswerIsNotSold: nothing is charged if no handler has answered, and an aborted connection stays one.
func TestWhatIsNoAnswerIsNotSold(t *testing.T) {
	t.Parallel()
	s := openShop(t, "", `
	handle /nobody {
		meter acme 0.001 per call
	}
	handle /header {
		meter acme 0.001 per call
		header X-Shop open
	}
	handle /abort {
		meter acme 0.001 per call
		abort
	}
	handle /abort-bytes {
		meter acme 0.001 per byte
		abort
	}
	handle /empty {
		meter acme 0.001 per call
		respond "" 200
	}`, text("results"))
	key := s.agent("alice", "1")
	for _, path := range []string{"/nobody", "/header"} {
		a := s.do("GET", path, key, "")
		want(t, path, fmt.Sprint(a.status, a.header.Get("Tallygate-Charge"), a.body), "2000")
	}
	for _, path := range []string{"/abort", "/abort-bytes"} {
		if a := s.do("GET", path, key, ""); a.err == nil {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	want(t, "before an answer", s.balance(key), "1")
	want(t, "an empty answer", s.do("GET", "/empty", key, "").header.Get("Tallygate-Charge"), "0.001")
	s.wantNothingHeld(t, key)
}

// TestGRPC: an answer of gRPC is charged if its own status is OK: in a trailer, in the header, or in the last frame of gRPC-Web.
func TestGRPC(t *testing.T) {
	t.Parallel()
	frame := func(flag byte, text string) string {
		return string([]byte{flag, 0, 0, 0, byte(len(text))}) + text
	}
	upstream := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		q, h := r.URL.Query(), w.Header()
		status, message := q.Get("status"), frame(0, "hello")
		kind := "application/grpc" + q.Get("kind")
		h.Set("Content-Type", kind)
		body := ""
		if q.Has("message") {
			body = message
		}
		switch q.Get("in") {
		case "header":
			h.Set("Grpc-Status", status)
		case "trailer":
			h.Set("Trailer", "Grpc-Status")
			w.WriteHeader(200)
			_, _ = io.WriteString(w, body)
			h.Set("Grpc-Status", status)
			return
		case "late":
			_, _ = io.WriteString(w, body)
			w.(http.Flusher).Flush()
			h.Set(http.TrailerPrefix+"Grpc-Status", status)
			return
		case "frame":
			body += frame(0x80, "grpc-status: "+status+"\r\ngrpc-message: m\r\n")
			if strings.HasSuffix(kind, "-text") {
				body = base64.StdEncoding.EncodeToString([]byte(body))
			}
		}
		_, _ = io.WriteString(w, body)
	})
	s := openShop(t, "", `
	handle /grpc* {
		meter acme 0.001 per call
		reverse_proxy UPSTREAM
	}
	handle /some* {
		meter acme {
			price 0.001 per call
			charge_on 2xx grpc OK not_found 16
		}
		reverse_proxy UPSTREAM
	}
	handle /bytes* {
		meter acme 0.001 per byte
		reverse_proxy UPSTREAM
	}`, upstream)
	key := s.agent("alice", "10")
	for query, charge := range map[string]string{
		"/grpc?in=trailer&status=0&message":                 "0.001",
		"/grpc?in=trailer&status=0":                         "0.001",
		"/grpc?in=trailer&status=5":                         "0",
		"/grpc?in=trailer&status=13&message":                "0",
		"/grpc?in=late&status=0&message":                    "0.001",
		"/grpc?in=late&status=5":                            "0",
		"/grpc?in=header&status=5":                          "0",
		"/grpc?in=header&status=0":                          "0.001",
		"/grpc?in=none&message":                             "0.001",
		"/grpc?kind=%2Bproto&in=trailer&status=5":           "0",
		"/grpc?kind=-web&in=frame&status=0&message":         "0.001",
		"/grpc?kind=-web%2Bproto&in=frame&status=5&message": "0",
		"/grpc?kind=-web&in=header&status=5":                "0",
		"/grpc?kind=-web-text&in=frame&status=0&message":    "0.001",
		"/grpc?kind=-web-text&in=frame&status=7&message":    "0",
		"/grpc?kind=ish&in=header&status=5":                 "0.001",
		"/grpc?in=trailer&status=4":                         "0",
		"/grpc?in=trailer&status=4&message":                 "0.001", // the caller's own deadline does not make its messages free
		"/grpc?in=late&status=1&message":                    "0.001",
		"/grpc?kind=-web&in=frame&status=3&message":         "0.001",
		"/grpc?kind=-web-text&in=frame&status=11":           "0",
		"/grpc?kind=-web-text&in=frame&status=11&message":   "0.001",
		"/some?in=trailer&status=4&message":                 "0", // as the provider has it
		"/some?in=trailer&status=5":                         "0.001",
		"/some?in=trailer&status=16":                        "0.001",
		"/some?in=trailer&status=13":                        "0",
		"/bytes?in=trailer&status=5":                        "0",
		"/bytes?in=trailer&status=0&message":                "0.01",
		"/bytes?in=trailer&status=13&message":               "0.01", // the messages that came before the failure
	} {
		before := len(s.charges(key))
		a := s.do("POST", query, key, "x", "Te", "trailers")
		told := a.header.Get("Tallygate-Charge") + a.trailer.Get("Tallygate-Charge")
		want(t, query, told, charge)
		if status := a.header.Get("Grpc-Status") + a.trailer.Get("Grpc-Status"); status == "" && !strings.Contains(query, "frame") && !strings.Contains(query, "none") {
			t.Errorf("%s: no status: %v %v", query, a.header, a.trailer)
		}
		sum := "0"
		if all := s.charges(key); len(all) > before {
			sum = fmt.Sprint(all[0]["amount"])
		}
		want(t, query+": in the books", sum, charge)
	}
	s.wantNothingHeld(t, key)
}

// TestIncludesPayOnce: a page that includes other answers of the site is one call.
func TestIncludesPayOnce(t *testing.T) {
	t.Parallel()
	files := t.TempDir()
	for name, page := range map[string]string{
		"page.html": `page[{{httpInclude "/part.html"}}{{httpInclude "/other/x"}}]`, "part.html": `part{{httpInclude "/leaf.html"}}`, "leaf.html": "leaf",
		"free.html": `free[{{httpInclude "/part.html"}}]`,
	} {
		if err := os.WriteFile(filepath.Join(files, name), []byte(page), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := openShop(t, "", `
	@paid not path /free.html
	meter @paid acme 0.001 per call
	templates
	handle /other/* {
		meter other 0.5 per call
		reverse_proxy UPSTREAM
	}
	root `+files+`
	file_server`, http.HandlerFunc(told))
	key := s.agent("alice", "1")
	a := s.do("GET", "/page.html", key, "")
	if a.status != 200 || !strings.Contains(a.body, "page[partleafGET /other/x") || strings.Contains(a.body, "Tallygate") {
		t.Errorf("%d %s", a.status, a.body)
	}
	want(t, "charge", a.header.Get("Tallygate-Charge"), "0.001")
	want(t, "balance", s.balance(key), "0.999")
	a = s.do("GET", "/page.html", "", "", "Tallygate-Within", "x")
	want(t, "without a key", fmt.Sprint(a.status), "401")
	a = s.do("GET", "/free.html", key, "")
	want(t, "a part of a free page", fmt.Sprint(a.status, a.body), "200free[partleaf]")
	want(t, "is paid", s.balance(key), "0.998")
}
