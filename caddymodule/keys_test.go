package caddymodule_test

import (
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/fcgi"
	"slices"
	"strings"
	"testing"
)

// told is an upstream that answers with all that it was told: the URL, and the headers of the request in the order of their names.
func told(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	fmt.Fprintf(w, "%s %s\n", r.Method, r.URL.RequestURI())
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		fmt.Fprintf(w, "%s: %s\n", name, strings.Join(r.Header[name], ", "))
	}
	for name, value := range fcgi.ProcessEnv(r) {
		fmt.Fprintf(w, "env %s: %s\n", name, value)
	}
	fmt.Fprintf(w, "env REQUEST_URI: %s\n", r.RequestURI)
}

// TestKeysBehindAnotherIdentity: where a handler before the meter says who calls, only keys of our own form are taken off the request.
func TestKeysBehindAnotherIdentity(t *testing.T) {
	t.Parallel()
	s := openShop(t, "", `handle /v1/* {
		meter acme {
			price 0.001 per call
			agent {http.request.header.X-User}
		}
		reverse_proxy UPSTREAM
	}`, http.HandlerFunc(told))
	key := s.agent("alice", "1")
	for name, test := range map[string]struct {
		header []string
		path   string
		wants  []string
	}{
		"a token":              {[]string{"Authorization", "Bearer eyJh.eyJz.c2ln"}, "", []string{"Authorization: Bearer eyJh.eyJz.c2ln"}},
		"a password":           {[]string{"Authorization", "Basic YTpi"}, "", []string{"Authorization: Basic YTpi"}},
		"the provider's keys":  {[]string{"X-Api-Key", "sk-1", "Api-Key", "sk-2", "X-Goog-Api-Key", "sk-3"}, "?key=sk-4", []string{"X-Api-Key: sk-1", "Api-Key: sk-2", "X-Goog-Api-Key: sk-3", "?key=sk-4"}},
		"ours beside another":  {[]string{"X-Api-Key", key, "Authorization", "Bearer sk-1"}, "?a=1&key=" + key, []string{"Authorization: Bearer sk-1", "?a=1\n"}},
		"the operator's":       {[]string{"Authorization", "Bearer " + operatorKey}, "", nil},
		"ours, where none are": {[]string{"X-Forwarded-Key", "of " + key}, "?token=" + key, nil},
	} {
		a := s.do("GET", "/v1/x"+test.path, "", "", append(test.header, "X-User", "alice")...)
		want(t, name, fmt.Sprint(a.status), "200")
		for _, text := range test.wants {
			if !strings.Contains(a.body, text) {
				t.Errorf("%s: no %q at the upstream:\n%s", name, text, a.body)
			}
		}
		wantNoKey(t, name, a.body, key)
		wantNoKey(t, name, a.body, operatorKey)
	}
}

func wantNoKey(t *testing.T, name, text, key string) {
	t.Helper()
	if strings.Contains(text, key) {
		t.Errorf("%s: the upstream got the key:\n%s", name, strings.ReplaceAll(text, key, "THE KEY"))
	}
}

// TestKeysInCopiesOfTheRequest: a key leaves every copy of the request that Caddy has: the URL before rewrites, in placeholders and for FastCGI.
func TestKeysInCopiesOfTheRequest(t *testing.T) {
	t.Parallel()
	php, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { php.Close() })
	go func() { _ = fcgi.Serve(php, http.HandlerFunc(told)) }()
	copies := `header_up X-Uri {http.request.orig_uri}
			header_up X-Query {http.request.orig_uri.query}{http.request.orig_uri.prefixed_query}
			header_up X-Header "{http.request.header.Authorization} {http.request.header.x-api-key} {http.request.header.tallygate-key}"
			header_up X-Now {uri}{query}`
	s := &shop{t: t, level: "INFO"} // the debug log of rewrite has the query
	s.open("", `
	handle /php/* {
		meter acme 0.001 per call
		reverse_proxy `+php.Addr().String()+` {
			transport fastcgi
			`+copies+`
		}
	}
	handle_path /paid/* {
		rewrite * {path}?{query}&b=2
		meter acme 0.001 per call
		reverse_proxy UPSTREAM {
			`+copies+`
		}
	}
	handle /some/* {
		@post method POST
		meter @post acme 0.001 per call
		reverse_proxy UPSTREAM {
			`+copies+`
		}
	}
	handle /free/* {
		reverse_proxy UPSTREAM {
			`+copies+`
		}
	}
	handle /failed/* {
		meter acme 0.001 per call
		error 418
	}
	handle_errors {
		reverse_proxy UPSTREAM {
			`+copies+`
		}
	}`, http.HandlerFunc(told))
	key := s.agent("alice", "1")
	for _, path := range []string{"/php/x", "/paid/x", "/some/x", "/free/x", "/failed/x"} {
		for place, header := range map[string][]string{
			"bearer": {"Authorization", "Bearer " + key}, "x-api-key": {"X-Api-Key", key}, "api-key": {"Api-Key", key}, "own": {"Tallygate-Key", key}, "query": nil,
		} {
			target := path + "?a=1"
			if place == "query" {
				target += "&key=" + key
			}
			name := path + " " + place
			a := s.do("GET", target, "", "", header...)
			if !strings.Contains(a.body, "X-Now:") || !strings.Contains(a.body, "a=1") {
				t.Errorf("%s: %d %s", name, a.status, a.body)
			}
			wantNoKey(t, name, a.body, key)
		}
	}
	for _, path := range []string{"/free/x", "/some/x"} {
		wantNoKey(t, path+" of the operator", s.do("GET", path, operatorKey, "").body, operatorKey)
		wantNoKey(t, path+" of the operator", s.do("GET", path+"?key="+operatorKey, "", "").body, operatorKey)
	}
	want(t, "what is charged", s.balance(key), "0.99")
	want(t, "others' tokens", fmt.Sprint(strings.Contains(s.do("GET", "/free/x", "", "", "Authorization", "Bearer sk-1").body, "Authorization: Bearer sk-1")), "true")
}

// TestIdempotencyKeysOfARoute: an idempotency key belongs to its payer, payee, route and original path, also where a rewrite makes the paths
// of two routes equal. Elsewhere the same key is another one.
func TestIdempotencyKeysOfARoute(t *testing.T) {
	t.Parallel()
	keep := "keep_responses 64KiB for 1h"
	s := openShop(t, "", `
	handle_path /one/* {
		meter {
			payee one
			price 0.001 per call
			`+keep+`
		}
		reverse_proxy UPSTREAM {
			header_up X-Who one
		}
	}
	handle_path /two/* {
		meter {
			payee two
			price 0.001 per call
			`+keep+`
		}
		reverse_proxy UPSTREAM {
			header_up X-Who two
		}
	}
	handle /all/* {
		rewrite * /same
		meter {
			payee one
			price 0.001 per call
			`+keep+`
		}
		reverse_proxy UPSTREAM
	}`, http.HandlerFunc(told))
	key := s.agent("alice", "1")
	answers := make(map[string]string)
	keys := make(map[string]bool)
	for _, path := range []string{"/one/x", "/two/x", "/all/1", "/all/2", "/one/y"} {
		a := s.do("POST", path, key, "{}", "Idempotency-Key", "k")
		want(t, path, fmt.Sprint(a.status, a.header.Get("Idempotency-Replayed")), "200")
		again := s.do("POST", path, key, "{}", "Idempotency-Key", "k")
		want(t, path+" again", fmt.Sprint(again.status, again.header.Get("Idempotency-Replayed"), again.body == a.body), "200truetrue")
		wantProblem(t, s.do("POST", path, key, `{"a":1}`, "Idempotency-Key", "k"), 409, "idempotency_conflict")
		answers[a.header.Get("Tallygate-Request")] = path
		_, sent, _ := strings.Cut(a.body, "Idempotency-Key: ")
		sent, _, _ = strings.Cut(sent, "\n")
		keys[sent] = true
	}
	want(t, "calls", fmt.Sprintln(len(answers), s.balance(key)), "5 0.995\n")
	want(t, "keys that the provider got", fmt.Sprint(len(keys)), "5")
}
