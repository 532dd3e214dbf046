package caddymodule_test

import (
	"net/http"
	"strings"
	"testing"
)

// TestAMilestoneBuysOneCall: the work of a milestone is done once, by one call, that costs no more than the milestone pays.
func TestAMilestoneBuysOneCall(t *testing.T) {
	arrived, release := make(chan struct{}, 1), make(chan struct{})
	served := 0
	s := openShop(t, "", `handle /draft {
		meter writer 1 per call
		reverse_proxy UPSTREAM
	}
	handle /book {
		meter writer 5 per call
		reverse_proxy UPSTREAM
	}
	handle /live {
		meter writer 0.1 per event
		reverse_proxy UPSTREAM
	}`, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/live":
			eventStream(strings.Split(strings.Repeat("x", 100), "")...)(w, r)
		case r.URL.Query().Has("slow"):
			arrived <- struct{}{}
			<-release
		case r.URL.Query().Has("broken"):
			exactly("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")(w, r)
		default:
			served++
		}
	}))
	key := s.agent("alice", "20")
	id := s.api("POST", "/escrow", key, map[string]any{"to_agent_id": "writer", "amount": "3", "milestones": []map[string]string{
		{"name": "a", "amount": "1"}, {"name": "b", "amount": "1"}, {"name": "c", "amount": "1"},
	}}, 201)["escrow_id"].(string)
	do := func(path, milestone string) answer {
		return s.do("GET", path, key, "", "Tallygate-Escrow", id, "Tallygate-Milestone", milestone)
	}
	wantProblem(t, do("/book", "a"), 402, "limit_exceeded")
	if a := do("/draft?broken", "a"); a.err == nil {
		t.Errorf("a broken answer looks complete: %d %q", a.status, a.body)
	}
	running := make(chan struct{})
	go func() {
		defer close(running)
		do("/draft?slow", "a")
	}()
	<-arrived
	wantProblem(t, do("/draft", "a"), 409, "invalid_status")
	close(release)
	<-running
	wantProblem(t, do("/draft", "a"), 409, "invalid_status")
	if a := do("/draft", "b"); a.status != 200 {
		t.Errorf("the next milestone: %d %s", a.status, a.body)
	}
	wantProblem(t, do("/draft", "b"), 409, "invalid_status")
	if a := do("/live", "c"); strings.Count(a.body, "data: x") > 11 || !strings.Contains(a.body, "limit_exceeded") {
		t.Errorf("a stream of 100 events at 0.1 each, for a milestone of 1, sent %d events: %.300s", strings.Count(a.body, "data: x"), a.body)
	}
	if served != 1 {
		t.Errorf("%d calls were served for the second milestone", served)
	}
	want(t, "wallet", s.balance(key), "17")
}
