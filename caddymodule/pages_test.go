package caddymodule_test

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"
)

// browser visits the pages as a browser without JavaScript does.
type browser struct {
	t      *testing.T
	s      *shop
	client http.Client
	base   string // the address of the pages, without the host
}

func (s *shop) browser(t *testing.T, base string) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &browser{t: t, s: s, client: http.Client{Jar: jar}, base: base}
}

// shown is a page, parsed.
type shown struct {
	answer
	at   string // below the base, after redirects
	root *html.Node
	b    *browser
}

func (b *browser) send(r *http.Request) shown {
	b.t.Helper()
	a, err := b.client.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer a.Body.Close()
	out := shown{b: b, at: strings.TrimPrefix(a.Request.URL.RequestURI(), b.base)}
	out.status, out.header = a.StatusCode, a.Header
	body, err := io.ReadAll(a.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	out.body = string(body)
	if out.root, err = html.Parse(strings.NewReader(out.body)); err != nil {
		b.t.Fatal(err)
	}
	return out
}

func (b *browser) open(path string) shown {
	b.t.Helper()
	return b.send(b.s.request("GET", b.base+path, "", ""))
}

// post sends a form as a browser does from the gateway's own origin, unless headers say otherwise.
func (b *browser) post(path string, form url.Values, headers ...string) shown {
	b.t.Helper()
	r := b.s.request("POST", path, "", form.Encode(), append([]string{"Content-Type", "application/x-www-form-urlencoded", "Origin", b.s.url, "Sec-Fetch-Site", "same-origin"}, headers...)...)
	return b.send(r)
}

func (b *browser) login(key string) shown {
	b.t.Helper()
	return b.open("/login").submit("/login", "", "key", key)
}

// attribute returns an attribute of an element.
func attribute(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

// submit fills in the first form for an action whose hidden fields have the value which (empty: any), and sends it.
func (p shown) submit(action, which string, pairs ...string) shown {
	p.b.t.Helper()
	var form url.Values
	for n := range p.root.Descendants() {
		if n.Data != "form" || attribute(n, "method") != "post" || attribute(n, "action") != p.b.base+action {
			continue
		}
		found, names, matches := url.Values{}, map[string]bool{}, which == ""
		for field := range n.Descendants() {
			if field.Data != "input" && field.Data != "select" {
				continue
			}
			name, value := attribute(field, "name"), attribute(field, "value")
			names[name] = true
			if attribute(field, "type") != "checkbox" {
				found.Set(name, value)
			}
			matches = matches || value == which
		}
		for i := 0; i < len(pairs); i += 2 {
			matches = matches && names[pairs[i]]
			found.Set(pairs[i], pairs[i+1])
		}
		if matches && form == nil {
			form = found
		}
	}
	if form == nil {
		p.b.t.Fatalf("%s has no form %s %q %v: %s", p.at, action, which, pairs, p.body)
	}
	return p.b.post(p.b.base+action, form)
}

// main is the page without what all pages have.
func (p shown) main() string {
	_, main, _ := strings.Cut(p.body, "<main")
	return main
}

// wants fails unless the page has the status and all parts.
func (p shown) wants(status int, parts ...string) shown {
	p.b.t.Helper()
	if p.status != status {
		p.b.t.Fatalf("%s: %d, want %d: %s", p.at, p.status, status, p.main())
	}
	for _, part := range parts {
		if !strings.Contains(p.body, part) {
			p.b.t.Errorf("%s: no %q in %s", p.at, part, p.main())
		}
	}
	return p
}

const pagesSite = `handle /search* {
		meter acme 0.001 per call
		respond results
	}
	handle /feed* {
		meter {
			payee feed
			subscription weekly 1.00 per 168h {
				included 10 calls
			}
		}
		respond results
	}`

// agentPages and operatorPages are all pages of the navigation.
var (
	agentPages    = []string{"/", "/spending", "/spending?by=day&from=2020-01-01", "/spending?tag=team", "/statement", "/charges", "/charges?status=charged", "/escrows", "/escrows?status=", "/subscriptions", "/earnings", "/keys", "/limits", "/webhooks", "/shop"}
	operatorPages = []string{"/", "/charges", "/escrows", "/agents", "/disputes", "/bookings", "/webhooks", "/audit", "/shop"}
)

// TestPagesShowTheirReaderAlone: each page works for an agent and for the operator, loads nothing of other origins, and shows an agent nothing of
// another one.
func TestPagesShowTheirReaderAlone(t *testing.T) {
	t.Parallel()
	s := openShop(t, "", pagesSite, text("results"))
	for prefix, directive := range map[string]string{"": "tallygate", "/pay": "tallygate /pay"} {
		s.directive = directive
		s.load("", pagesSite)
		if prefix != "" {
			s.url += prefix // of the API
		}
		suffix := strings.TrimPrefix(prefix, "/")
		alice, mallory := s.agent("alice"+suffix, "50"), s.agent("mallory"+suffix, "7")
		s.url = strings.TrimSuffix(s.url, prefix)
		first := s.do("GET", "/search", alice, "", "Tallygate-Tag", "team=secret-team")
		request := first.header.Get("Tallygate-Request")
		b := s.browser(t, prefix+"/dashboard")
		b.open("/charges?status=charged").wants(200, "Your key")
		b.login("tg_wrong").wants(401, "A valid key is needed")
		if home := b.login(alice).wants(200, "49.999 USDC", "Log out"); home.at != "/" || strings.Contains(home.body, alice) {
			t.Errorf("after the login: %s %s", home.at, home.body)
		}
		escrow := s.browserEscrow(b, "mallory"+suffix)
		for _, path := range append(agentPages, "/charges/"+request, "/escrows/"+escrow) {
			page := b.open(path).wants(200)
			if outside := regexp.MustCompile(`(?:src|href|action)="(?:https?:)?//[^"]*"`).FindString(page.body); outside != "" || strings.Contains(page.body, "style=") || strings.Contains(page.body, "<style") {
				t.Errorf("%s loads %q", path, outside)
			}
			if policy := page.header.Get("Content-Security-Policy"); strings.Contains(policy, "unsafe") || !strings.Contains(policy, "default-src 'none'") || page.header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s: %v", path, page.header)
			}
		}
		b.open("/charges/"+request).wants(200, "0.001 per call", "secret-team", "Transfers")
		b.open("/agents").wants(404)
		other := s.browser(t, prefix+"/dashboard")
		other.login(mallory).wants(200, "7 USDC")
		for _, path := range agentPages {
			page := other.open(path).wants(200)
			for _, secret := range []string{request, "secret-team", "49.", "acme: "} {
				if strings.Contains(page.body, secret) {
					t.Errorf("mallory sees %q at %s: %s", secret, path, page.body)
				}
			}
		}
		other.open("/charges/" + request).wants(404)
		other.open("/escrows?agent_id=alice" + suffix).wants(404)
		other.open("/export.csv").wants(200, "created_at,request_id")
		b.open("/export.csv").wants(200, request)
		o := s.browser(t, prefix+"/dashboard")
		o.login(operatorKey).wants(200, "Head of the chain")
		for _, path := range append(slices.Clone(operatorPages), "/agents/alice"+suffix) {
			o.open(path).wants(200)
		}
		o.open("/charges/"+request).wants(200, "Refund this charge")
		o.open("/keys").wants(404)
	}
}

// browserEscrow locks money by the form, and returns the escrow's id.
func (s *shop) browserEscrow(b *browser, payee string) string {
	b.t.Helper()
	done := b.open("/escrows").submit("/do/create-escrow", "", "to_agent_id", payee, "amount", "5", "auto_release_hours", "10").wants(200, "The money is locked")
	return regexp.MustCompile(`esc_\w+`).FindString(done.body)
}

// TestFormsOfThePages: each form does what the API does, once, and shows what the API refuses.
func TestFormsOfThePages(t *testing.T) {
	t.Parallel()
	s := openShop(t, "webhooks private", pagesSite, text("results"))
	alice, bob := s.agent("alice", "50"), s.agent("bob", "0")
	a, b, o := s.browser(t, "/dashboard"), s.browser(t, "/dashboard"), s.browser(t, "/dashboard")
	a.login(alice)
	b.login(bob)
	o.login(operatorKey)

	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	t.Cleanup(receiver.Close)
	id := s.browserEscrow(a, "bob")
	at := "/escrows/" + id
	a.open(at).submit("/do/release-part", "", "amount", "2", "memo", "half").wants(200, "A part was released")
	want(t, "bob after a part", s.balance(bob), "2")
	a.open(at).submit("/do/refund", "", "amount", "1", "reason", "late").wants(200, "Refund request", "late")
	b.open("/earnings").wants(200, id)
	b.open(at).submit("/do/refund", "", "amount", "1").wants(200)
	a.open(at).submit("/do/dispute", "", "reason", "bad").wants(200, "disputed")
	o.open("/disputes").wants(200, id)
	o.open(at).submit("/do/resolve", "", "to_payee", "0.5", "to_payer", "1.5", "note", "fair").wants(200, "The dispute is resolved")
	want(t, "bob", s.balance(bob), "2.5")
	want(t, "alice", s.balance(alice), "47.5")
	a.open("/escrows").submit("/do/create-escrow", "", "to_agent_id", "bob", "amount", "5000").wants(402, `role="alert"`)
	a.open("/escrows").submit("/do/create-escrow", "", "to_agent_id", "bob", "amount", "-1").wants(422, `role="alert"`)

	made := a.open("/keys").submit("/do/create-key", "", "name", "laptop", "payees", "acme, feed", "requests_per_minute", "60").wants(200, "shown only once")
	secret := regexp.MustCompile(`tg_\w{30,}`).FindString(made.body)
	neverLog(secret)
	want(t, "the new key's balance", s.balance(secret), "47.5")
	keys := a.open("/keys").wants(200, "laptop", "60 calls")
	if strings.Contains(keys.body, secret) {
		t.Error("the key is shown twice")
	}
	keyID := s.api("GET", "/agents/me", secret, nil, 200)["key_id"].(string)
	rotated := keys.submit("/do/rotate-key", keyID).wants(200, "shown only once")
	neverLog(regexp.MustCompile(`tg_\w{30,}`).FindString(rotated.body))
	a.open("/keys").submit("/do/revoke-key", keyID).wants(200, "The key is revoked")
	s.api("GET", "/wallet", secret, nil, 401)

	a.open("/limits").submit("/do/add-limit", "", "amount", "20", "window_hours", "24").wants(200, "The limit is set")
	a.open("/limits").submit("/do/add-limit", "", "amount", "3", "window_hours", "1", "payee", "bob").wants(200, "The limit is set")
	if limits := s.api("GET", "/limits", alice, nil, 200)["limits"].([]any); len(limits) != 2 {
		t.Errorf("limits %v", limits)
	}
	a.open("/limits").submit("/do/drop-limit", "bob").wants(200, "The limit is gone")
	if limits := s.api("GET", "/limits", alice, nil, 200)["limits"].([]any); len(limits) != 1 {
		t.Errorf("limits %v", limits)
	}
	a.open("/limits").submit("/do/allow", "", "payee", "bob", "amount", "1").wants(200, "The allowance is set")
	a.open("/limits").submit("/do/disallow", "bob").wants(200, "The allowance is gone")
	a.open("/limits").submit("/do/faucet", "").wants(200, "The faucet has paid")
	a.open("/limits").submit("/do/transfer", "", "to_agent_id", "bob", "amount", "1.000000001").wants(200, "The money is sent")
	want(t, "bob, exactly", s.balance(bob), "3.500000001")
	a.open("/limits").submit("/do/add-webhook", "balance.low", "url", receiver.URL, "balance_below", "5").wants(200, "shown only once")
	hook := s.api("GET", "/webhooks", alice, nil, 200)["webhooks"].([]any)[0].(map[string]any)["webhook_id"].(string)
	a.open("/webhooks").submit("/do/test-webhook", hook).wants(200, "on its way")
	eventually(t, "the delivery", func() bool { return strings.Contains(a.open("/webhooks/"+hook).body, "<td>yes</td>") })
	a.open("/webhooks/"+hook).submit("/do/resend", hook).wants(200, "sent again")
	a.open("/webhooks").submit("/do/drop-webhook", hook).wants(200, "deleted")

	a.open("/subscriptions").submit("/do/subscribe", "", "payee", "feed", "plan", "weekly").wants(200, "10 of 10 call", "active")
	sub := regexp.MustCompile(`sub_\w+`).FindString(a.open("/subscriptions").body)
	a.open("/subscriptions").submit("/do/end-subscription", sub).wants(200, "ends with its period")
	a.open("/subscriptions").submit("/do/resume-subscription", sub).wants(200, "goes on")
	a.open("/subscriptions").submit("/do/cancel-subscription", sub).wants(200, "has ended")

	request := s.do("GET", "/search", alice, "").header.Get("Tallygate-Request")
	a.open("/charges/"+request).submit("/do/dispute-charge", "", "reason", "empty").wants(200, "The charge is disputed")
	o.open("/disputes").wants(200, request)
	a.open("/charges/"+request).submit("/do/undispute", "").wants(200, "taken back")
	request = s.do("GET", "/search", alice, "").header.Get("Tallygate-Request") // a charge is disputed once
	a.open("/charges/"+request).submit("/do/dispute-charge", "", "reason", "still empty").wants(200)
	o.open("/charges/"+request).submit("/do/resolve-charge", "", "to_payer", "0.001").wants(200, "The dispute is resolved")
	want(t, "refunded", s.charge(alice, request)["refunded"].(string), "0.001")

	o.open("/bookings").submit("/do/deposit", "", "agent_id", "bob", "amount", "10", "reference", "bank-1").wants(200, "The deposit is booked")
	o.open("/bookings").submit("/do/deposit", "", "agent_id", "bob", "amount", "11", "reference", "bank-1").wants(409, `role="alert"`)
	o.open("/bookings").submit("/do/withdraw", "", "agent_id", "bob", "amount", "10", "reference", "bank-2").wants(200, "The withdrawal is booked")
	carol := o.open("/agents").submit("/do/create-agent", "", "agent_id", "carol").wants(200, "shown only once", "carol")
	neverLog(regexp.MustCompile(`tg_\w{30,}`).FindString(carol.body))
	o.open("/agents/bob").submit("/do/limit-agent", "", "amount", "4", "window_hours", "24", "requests_per_minute", "9").wants(200, "4 in 24 hours", "9 calls")
	o.open("/agents/bob").submit("/do/suspend", "", "reason", "rude").wants(200, "suspended (rude)")
	s.api("POST", "/wallet/transfer", bob, map[string]any{"to_agent_id": "alice", "amount": "1"}, 403)
	o.open("/agents/bob").submit("/do/resume", "").wants(200, "active again")
	o.open("/audit").wants(200, "bob")
}

// TestSessions: a form of another site does nothing, a form sent twice acts once, and a session ends with its key and by the log-out.
func TestSessions(t *testing.T) {
	t.Parallel()
	s := openShop(t, "", pagesSite, text("results"))
	alice, bob := s.agent("alice", "50"), s.agent("bob", "0")
	b := s.browser(t, "/dashboard")
	b.login(alice)
	form := url.Values{"to_agent_id": {"bob"}, "amount": {"1"}, "back": {"/limits"}, "nonce": {"form-once"}}
	b.post("/dashboard/do/transfer", form, "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site").wants(403)
	b.post("/dashboard/do/transfer", form, "Origin", "https://evil.example", "Sec-Fetch-Site", "").wants(403)
	b.post("/dashboard/login", url.Values{"key": {bob}}, "Origin", "null", "Sec-Fetch-Site", "").wants(403)
	want(t, "bob", s.balance(bob), "0")
	for range 2 {
		b.post("/dashboard/do/transfer", form).wants(200, "The money is sent")
	}
	want(t, "bob", s.balance(bob), "1")
	form.Set("back", "https://evil.example/")
	if p := b.post("/dashboard/do/transfer", form); !strings.HasPrefix(p.at, "/?done=") {
		t.Errorf("led to %s", p.at)
	}

	r := s.request("POST", "/dashboard/login", "", url.Values{"key": {alice}, "next": {"//evil.example/"}}.Encode(), "Content-Type", "application/x-www-form-urlencoded")
	a, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	a.Body.Close()
	cookie := a.Header.Get("Set-Cookie")
	for _, part := range []string{"HttpOnly", "SameSite=Strict", "Path=/dashboard", "Max-Age="} {
		if !strings.Contains(cookie, part) {
			t.Errorf("no %s in the cookie %s", part, cookie)
		}
	}
	if strings.Contains(cookie, alice) || a.Header.Get("Location") != "/dashboard/" {
		t.Errorf("the cookie %s, led to %s", cookie, a.Header.Get("Location"))
	}
	forged := s.browser(t, "/dashboard")
	value := strings.TrimPrefix(strings.Split(cookie, ";")[0], "tallygate_session=")
	for _, value := range []string{"x", alice, "A" + value[1:] + "A", value[:len(value)-4]} {
		q := s.request("GET", "/dashboard/", "", "", "Cookie", "tallygate_session="+value)
		forged.send(q).wants(200, "Your key")
	}

	// Another gateway process of this ledger, or the same after a restart, takes the session.
	s.load("", pagesSite)
	b.open("/").wants(200, "Log out")
	me := s.api("GET", "/agents/me", alice, nil, 200)["key_id"].(string)
	s.api("DELETE", "/agents/me/keys/"+me, alice, nil, 204)
	b.open("/").wants(200, "Your key")
	c := s.browser(t, "/dashboard")
	c.login(bob).submit("/logout", "").wants(200, "Your key")
	c.open("/").wants(200, "Your key")
	s.load("dashboard off", pagesSite)
	c.open("/login").wants(404)
}
