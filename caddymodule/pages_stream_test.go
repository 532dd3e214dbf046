package caddymodule_test

import (
	"bufio"
	"net/http"
	"strings"
	"testing"
)

// pageEvents is the stream of events that an open page listens to.
type pageEvents struct {
	t     *testing.T
	lines *bufio.Scanner
	close func()
}

// events opens the stream of a session. headers are pairs.
func (b *browser) events(since string, headers ...string) (*pageEvents, *http.Response) {
	b.t.Helper()
	r := b.s.request("GET", b.base+"/events?since="+since, "", "", headers...)
	a, err := b.client.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = a.Body.Close() })
	return &pageEvents{b.t, bufio.NewScanner(a.Body), func() { _ = a.Body.Close() }}, a
}

// next returns the next event and its id. Both are empty at the end of the stream.
func (e *pageEvents) next() (event, id string) {
	for e.lines.Scan() {
		if name, is := strings.CutPrefix(e.lines.Text(), "event: "); is {
			event = name
		}
		if value, is := strings.CutPrefix(e.lines.Text(), "id: "); is {
			id = value
		}
		if e.lines.Text() == "" && event != "" {
			return event, id
		}
	}
	return "", ""
}

func (e *pageEvents) wants(want string) (id string) {
	e.t.Helper()
	event, id := e.next()
	if event != want {
		e.t.Fatalf("the event %q, want %q", event, want)
	}
	return id
}

// TestPagesHearOfChanges: an open page is told of its reader's own changes, behind a prefix and encode too, also of those that were made while
// it was not connected. The stream ends with the session, and at once.
func TestPagesHearOfChanges(t *testing.T) {
	t.Parallel()
	s := openShop(t, "", pagesSite, text("results"))
	s.directive = "encode gzip\n\ttallygate /pay"
	s.load("", pagesSite)
	root := s.url
	s.url += "/pay" // of the API
	alice, bob := s.agent("alice", "50"), s.agent("bob", "7")
	pays := func(key string) {
		s.api("POST", "/wallet/transfer", key, map[string]any{"to_agent_id": "carol", "amount": "1"}, 200)
	}
	s.agent("carol", "1")
	s.url = root
	b := s.browser(t, "/pay/dashboard")
	home := b.login(alice).wants(200, `data-stream="/pay/dashboard/events"`)
	_, mark, _ := strings.Cut(home.body, `data-mark="`)
	mark, _, _ = strings.Cut(mark, `"`)
	stream, answer := b.events(mark, "Accept-Encoding", "gzip")
	if answer.StatusCode != 200 || answer.Header.Get("Content-Type") != "text/event-stream" || answer.Header.Get("Content-Encoding") != "" {
		t.Fatal(answer.Status, answer.Header)
	}
	s.url += "/pay"
	pays(bob)
	pays(alice)
	id := stream.wants("changed")
	stream.close()
	pays(alice)
	s.url = root
	again, _ := b.events(mark, "Last-Event-ID", id)
	id = again.wants("changed")
	whole, _ := b.events("of-another-server")
	whole.wants("changed") // it knows nothing, so all is new

	s.url += "/pay"
	keyID := s.api("GET", "/agents/me", alice, nil, 200)["key_id"].(string)
	s.url = root
	quiet, _ := b.events(id)
	out := s.browser(t, "/pay/dashboard")
	out.login(alice)
	other, _ := out.events(id)
	out.open("/").submit("/logout", "").wants(200, "Your key")
	other.wants("ended")
	s.url += "/pay"
	s.api("DELETE", "/agents/me/keys/"+keyID, alice, nil, 204)
	s.url = root
	for _, stream := range []*pageEvents{again, quiet, whole} {
		stream.wants("ended")
	}
	if event, _ := quiet.next(); event != "" {
		t.Errorf("%q after the end", event)
	}
	if _, answer := b.events(""); answer.StatusCode != 401 {
		t.Errorf("a stream without a session: %s", answer.Status)
	}
}

// TestOpenPagesAreBounded: one session opens only so many streams, and a server that stops does not wait for them.
func TestOpenPagesAreBounded(t *testing.T) {
	t.Parallel()
	s := openShop(t, "", pagesSite, text("results"))
	b := s.browser(t, "/dashboard")
	b.login(s.agent("alice", "50"))
	last := (*pageEvents)(nil)
	for n := 0; ; n++ {
		stream, answer := b.events("")
		if answer.StatusCode == 503 && n > 0 {
			break
		}
		if last = stream; answer.StatusCode != 200 || n > 100 {
			t.Fatal(n, answer.Status)
		}
	}
	last.wants("changed")
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	s.stop = nil
	if event, _ := last.next(); event != "" {
		t.Errorf("%q after the server has stopped", event)
	}
}
