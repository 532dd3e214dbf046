package caddymodule_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shopspring/decimal"
)

// TestAMilestoneBuysOneCall: only one call does the work of a milestone, and its price may not be above what the milestone pays.
func TestAMilestoneBuysOneCall(t *testing.T) {
	t.Parallel()
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

// TestNoKeyStaysAnywhere puts keys into unusual places of a request, in addition to the key that pays.
func TestNoKeyStaysAnywhere(t *testing.T) {
	t.Parallel()
	up := &witness{}
	s := openShop(t, chatPrices, perCallSite+`
	handle /shadow* {
		meter {
			payee acme
			price 0.001 per call
			enforce off
		}
		reverse_proxy UPSTREAM
	}
	handle /nested* {
		meter {
			payee outer
			tariff chat
			enforce off
		}
		handle {
			meter acme 0.001 per call
			reverse_proxy UPSTREAM
		}
	}`, up)
	key, other := s.agent("alice", "1"), s.agent("bob", "1")
	for _, test := range []struct {
		name, target string
		headers      []string
	}{
		{"alone", "/search", nil},
		{"without a scheme", "/search", []string{"Authorization: KEY2"}},
		{"another scheme", "/search", []string{"Authorization: Token KEY2"}},
		{"a tab", "/search", []string{"Authorization: Bearer\tKEY2"}},
		{"two in a line", "/search", []string{"Authorization: Bearer KEY2, Bearer KEY2"}},
		{"two lines", "/search", []string{"Authorization: Bearer KEY2", "Authorization: Bearer KEY2"}},
		{"a scheme in capitals", "/search", []string{"AUTHORIZATION: BEARER KEY2"}},
		{"a scheme in small letters", "/search", []string{"authorization: bearer KEY2"}},
		{"Proxy-Authorization", "/search", []string{"Proxy-Authorization: Bearer KEY2"}},
		{"a cookie", "/search", []string{"Cookie: a=b; key=KEY2"}},
		{"a page", "/search", []string{"Referer: http://x/?key=KEY2"}},
		{"a subprotocol", "/search", []string{"Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.KEY2"}},
		{"a header nobody knows", "/search", []string{"X-My-Key: 'KEY2'"}},
		{"behind what looks like one", "/search", []string{"X-My-Key: tg_tg_KEY2"}},
		{"underscores", "/search", []string{"X_Api_Key: KEY2", "Tallygate_Key: KEY2"}},
		{"dots", "/search", []string{"X.Api.Key: KEY2", "Tallygate.Key: KEY2"}},
		{"named in Connection", "/search", []string{"Connection: X-Api-Key, Tallygate-Key", "X-Api-Key: KEY2"}},
		{"query", "/search?key=KEY2", nil},
		{"query, encoded", "/search?%6bey=KEY2&a=%74g_REST", nil},
		{"query, another name", "/search?api_key=KEY2&token=xKEY2x&KEY2=1", nil},
		{"shadow mode", "/shadow", []string{"X-Api-Key: KEY2"}},
		{"shadow mode, terms that are refused", "/shadow", []string{"X-Api-Key: KEY2", "Tallygate-Max-Charge: cheap", "Tallygate-Tag: x"}},
		{"below a meter in shadow mode that refuses", "/nested", []string{"X-Api-Key: KEY2"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			lines := "Tallygate-Key: " + key + "\r\n"
			for _, h := range test.headers {
				lines += h + "\r\n"
			}
			fill := strings.NewReplacer("KEY2", other, "REST", other[len("tg_"):])
			answer := s.speak(fill.Replace("GET " + test.target + " HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n" + lines + "\r\n"))
			got := up.take()
			if !strings.HasPrefix(answer, "HTTP/1.1 200") || len(got) != 1 {
				t.Fatalf("%d requests reached the upstream: %.300s", len(got), answer)
			}
			query, err := url.QueryUnescape(got[0].RequestURI)
			if err != nil {
				t.Fatal(err)
			}
			if seen := query + fmt.Sprint(got[0].Header); strings.Contains(seen, other) || strings.Contains(seen, key) || strings.Contains(strings.ToLower(seen), "tallygate") {
				t.Errorf("the provider sees %s", seen)
			}
		})
	}
	want(t, "the other's wallet", s.balance(other), "1")
	if n := len(s.charges(key)); n < 20 {
		t.Errorf("%d charges", n)
	}
}

// TestTheUpstreamForgesNothing: an upstream can't set the headers, trailers and comments that belong to Tallygate.
func TestTheUpstreamForgesNothing(t *testing.T) {
	t.Parallel()
	forged := "tallygate-charge: 0\r\nTALLYGATE-BALANCE: 1000000\r\nTallygate_Charge: 0\r\nTallygate-Request: req_forged\r\nTallygate-X: y\r\n"
	responses := map[string]string{
		"header":               "HTTP/1.1 200 OK\r\n" + forged + "Content-Length: 2\r\n\r\nok",
		"early":                "HTTP/1.1 103 Early Hints\r\n" + forged + "Link: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
		"refusal":              "HTTP/1.1 429 Too Many Requests\r\n" + forged + "Content-Length: 2\r\n\r\nok",
		"trailers":             "HTTP/1.1 200 OK\r\nTrailer: Tallygate-Charge, tallygate-balance, X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n" + forged + "X-Sum: 1\r\n\r\n",
		"unannounced trailers": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n" + forged + "\r\n",
		"an empty answer":      "HTTP/1.1 204 No Content\r\n" + forged + "\r\n",
	}
	s := openShop(t, chatPrices, perCallSite, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		exactly(strings.Replace(responses[r.URL.Query().Get("case")], "\r\n", "\r\nConnection: close\r\n", 1))(w, r)
	}))
	key := s.agent("alice", "1")
	for name := range responses {
		t.Run(name, func(t *testing.T) {
			answer := s.speak("GET /search?case=" + url.QueryEscape(name) + " HTTP/1.1\r\nHost: 127.0.0.1\r\nTE: trailers\r\nConnection: close\r\nAuthorization: Bearer " + key + "\r\n\r\n")
			for line := range strings.Lines(answer) {
				name, value, _ := strings.Cut(strings.ToLower(strings.TrimSpace(line)), ": ")
				value = strings.TrimSpace(value)
				if strings.HasPrefix(strings.ReplaceAll(name, "_", "-"), "tallygate-") && (value == "1000000" || value == "req_forged" || value == "y" || strings.Contains(name, "_") || name == "tallygate-charge" && value == "0" && !strings.Contains(answer, "429")) {
					t.Errorf("%s gets through:\n%s", line, answer)
				}
			}
			if strings.Count(strings.ToLower(answer), "tallygate-charge: ") > 1 {
				t.Errorf("two charges:\n%s", answer)
			}
		})
	}
}

// TestNoRequestHasTwoReadings: a request that a provider could read differently from the meter never reaches the provider.
func TestNoRequestHasTwoReadings(t *testing.T) {
	t.Parallel()
	up := &witness{}
	s := openShop(t, chatPrices, chatSite, up)
	key := s.agent("alice", "10")
	for _, fields := range []string{
		`"Model":"dear"`, `"mod\u0065l":"dear"`, `"max_completion_tokens":1,"max_tokens":12000`, `"max_tokens":1,"max_toKens":12000`, `"max_tokens":true`,
		`"max_tokens":"1"`, `"max_tokens":0`, `"max_tokens":1,"options":{"num_predict":12000}`, `"n":"9"`, `"stream":"yes"`, `"ſtream":true,"stream":false`,
		`"stream":true,"stream_options":{"include_usage":2}`, `"stream":true,"stream_options":7`, `"models":{"a":"dear"}`, `"tools":"web_search"`, `"__proto__":{"n":9}`,
	} {
		a := s.do("POST", chatCompletions, key, `{"model":"test-1","messages":[{"role":"user","content":"hi"}],`+fields+`}`)
		if a.status != 422 {
			t.Errorf("%s: %d %s", fields, a.status, a.body)
		}
		if n := len(up.take()); n > 0 {
			t.Errorf("%s reached the provider", fields)
		}
	}
	if n := len(s.charges(key)); n != 0 {
		t.Errorf("%d charges", n)
	}
	want(t, "wallet", s.balance(key), "10")
}

// TestNamesAreBounded: all names that are stored with a charge have a largest length, whoever sends them.
func TestNamesAreBounded(t *testing.T) {
	t.Parallel()
	s := openShop(t, `tariff any {
			model * {
				input 0 per 1M tokens
				output 0 per 1M tokens
			}
		}`, `handle /v1/* {
		meter {
			payee llm
			tariff any
		}
		reverse_proxy UPSTREAM
	}
	handle /as/v1/* {
		meter {
			payee llm
			tariff any
			agent {http.request.header.X-Agent}
		}
		reverse_proxy UPSTREAM
	}
	handle /shadow/v1/* {
		meter {
			payee llm
			tariff any
			agent {http.request.header.X-Agent}
			enforce off
		}
		reverse_proxy UPSTREAM
	}`, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answers(200, `{"model":"m`+strings.Repeat("x", 50_000)+`\u000a","choices":[{"message":{"content":"hi"}}],"usage":`+chatUsage+`}`, "Content-Type", "application/json")(w, r)
	}))
	key := s.agent("alice", "1")
	long := strings.Repeat("m", 1<<20)
	a := s.do("POST", chatCompletions, key, `{"model":"`+long+`","messages":[]}`)
	wantProblem(t, a, 422, "invalid_request")
	if len(a.body) > 2000 {
		t.Errorf("a problem of %d bytes", len(a.body))
	}
	if a := s.do("POST", chatCompletions, key, chatBody); a.status != 200 {
		t.Fatalf("%d %.300s", a.status, a.body)
	}
	if model := s.charges(key)[0]["model"].(string); len(model) > 256 {
		t.Errorf("a model's name of %d bytes is kept", len(model))
	}
	for _, agent := range []string{long[:8000], "no body", "a\tb", "me"} {
		wantProblem(t, s.do("POST", "/as"+chatCompletions, "", chatBody, "X-Agent", agent), 401, "unauthorized")
		want(t, "in shadow", fmt.Sprint(s.do("POST", "/shadow"+chatCompletions, "", chatBody, "X-Agent", agent).status), "200")
	}
	for _, tag := range []string{strings.Repeat("t", 200) + "=1", "=1", "t", strings.Repeat("a=1,", 17)} {
		wantProblem(t, s.do("POST", chatCompletions, key, chatBody, "Tallygate-Tag", tag), 422, "invalid_request")
	}
	for _, name := range []string{"Tallygate-Escrow", "Tallygate-Milestone", "Idempotency-Key"} {
		if a := s.do("POST", chatCompletions, key, chatBody, name, long[:8000], "Tallygate-Tag", "a=b"); a.status < 200 || a.status >= 500 {
			t.Errorf("%s: %d %.300s", name, a.status, a.body)
		}
	}
	for _, most := range []string{"-1", "0", "NaN", "1e400", "0x10", "1,000", " ", "١", long[:1000]} {
		if a := s.do("POST", chatCompletions, key, chatBody, "Tallygate-Max-Charge", most); a.status != 422 && strings.TrimSpace(most) != "" {
			t.Errorf("Tallygate-Max-Charge %.20q: %d %.300s", most, a.status, a.body)
		}
	}
	want(t, "the server lives, wallet", s.balance(key), "1")
}

// TestWrongKeysAreBounded: wrong keys from one address are counted together for the API and all metered routes. A valid key is still accepted.
func TestWrongKeysAreBounded(t *testing.T) {
	t.Parallel()
	s := openShop(t, "}\n\tservers {\n\t\ttrusted_proxies static 127.0.0.1/32\n", perCallSite+"\n\thandle /other* {\n\t\tmeter other 0.001 per call\n\t\treverse_proxy UPSTREAM\n\t}", text("results"))
	key := s.agent("alice", "1")
	from := func(client, path, key string) answer { return s.do("GET", path, key, "", "X-Forwarded-For", client) }
	// One more attempt is allowed every two seconds, so a slow machine needs more attempts to reach the limit.
	began, guesses := time.Now(), 0
	refused := func(path string) answer {
		for {
			a := from("203.0.113.7", path, "tg_wrong")
			if a.status == 429 {
				return a
			}
			wantProblem(t, a, 401, "unauthorized")
			if guesses++; guesses > 30+int(time.Since(began)/(2*time.Second)) {
				t.Fatalf("%d guesses in %s", guesses, time.Since(began))
			}
		}
	}
	for i := range 30 {
		path := []string{"/search", "/other", "/api/v1/wallet"}[i%3]
		wantProblem(t, from("203.0.113.7", path, "tg_wrong"), 401, "unauthorized")
		guesses++
	}
	for _, path := range []string{"/search", "/other", "/api/v1/wallet"} {
		a := refused(path)
		wantProblem(t, a, 429, "rate_limited")
		if after := a.header.Get("Retry-After"); after == "" || after == "0" {
			t.Errorf("%s: Retry-After %q", path, after)
		}
	}
	wantProblem(t, from("203.0.113.7", "/search", ""), 401, "unauthorized") // a request without a key does not count
	want(t, "a right key", from("203.0.113.7", "/search", key).body, "results")
	wantProblem(t, from("203.0.113.8", "/search", "tg_wrong"), 401, "unauthorized")
}

// TestCallsOfAnAgentAreBounded: the number of calls of an agent that run at the same time is limited.
func TestCallsOfAnAgentAreBounded(t *testing.T) {
	t.Parallel()
	const most = 1000
	arrived, release := make(chan struct{}, most), make(chan struct{})
	s := openShop(t, "", perCallSite, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-release
	}))
	key, other := s.agent("alice", "10"), s.agent("bob", "10")
	var running sync.WaitGroup
	for range most {
		running.Go(func() { want(t, "status", fmt.Sprint(s.do("GET", "/search", key, "").status), "200") })
	}
	for range most {
		<-arrived
	}
	a := s.do("GET", "/search", key, "")
	wantProblem(t, a, 429, "rate_limited")
	want(t, "Retry-After", a.header.Get("Retry-After"), "1")
	running.Go(func() { want(t, "another agent's call", fmt.Sprint(s.do("GET", "/search", other, "").status), "200") })
	<-arrived
	close(release)
	running.Wait()
	want(t, "status, when some have ended", fmt.Sprint(s.do("GET", "/search", key, "").status), "200")
	s.wantBooks(key, "10", decimal.RequireFromString("1.001"))
}

// TestResultsThatAreChargedOnce: the results of a batch are charged once, however often they are fetched. Fetching them in parts, or hanging up
// before their end, does not make them cheaper.
func TestResultsThatAreChargedOnce(t *testing.T) {
	t.Parallel()
	line := func(n int) string {
		return fmt.Sprintf(`{"custom_id":"%d","response":{"body":{"model":"test-1","usage":{"prompt_tokens":1000,"completion_tokens":200}}}}`, n) + "\n"
	}
	const each = "0.006" // 1000 x 3 + 200 x 15, per million
	gone := make(chan struct{}, 1)
	ranged := false
	site := strings.Replace(chatSite, "tariff chat", "tariff chat\n\t\t\tshared f1", 1)
	s := openShop(t, strings.Replace(chatPrices, "model test-*", "model *", 1), site, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ranged = ranged || r.Header.Get("Range") != ""
		w.Header().Set("Content-Type", "application/jsonl")
		for n := range 4 {
			_, _ = io.WriteString(w, line(n))
			w.(http.Flusher).Flush()
			if n == 2 && r.Header.Get("X-Stall") != "" {
				<-r.Context().Done()
				gone <- struct{}{}
				return
			}
		}
	}))
	key := s.agent("alice", "1")
	const path = "/v1/files/f1/content"

	// All but the last line, and then it hangs up: three lines are paid.
	ctx, hangUp := context.WithCancel(t.Context())
	response, err := http.DefaultClient.Do(s.request("GET", path, key, "", "X-Stall", "1").WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	want(t, "status", response.Status, "200 OK")
	if _, err := io.ReadFull(response.Body, make([]byte, 3*len(line(0)))); err != nil {
		t.Fatal(err)
	}
	hangUp()
	<-gone
	eventually(t, "what was sent is charged", func() bool { return len(s.charges(key)) == 1 })
	part := s.only(key)
	want(t, "cut", part["cut"].(string), "client")
	want(t, "charge of the part", part["amount"].(string), decimal.RequireFromString(each).Mul(decimal.NewFromInt(3)).String())
	paid := decimal.RequireFromString(part["amount"].(string))
	s.wantBooks(key, "1", paid)

	// The whole, by a range or not, is charged once.
	paid = paid.Add(decimal.RequireFromString(each).Mul(decimal.NewFromInt(4)))
	for range 2 {
		a := s.do("GET", path, key, "", "Range", "bytes=0-10")
		want(t, "results", a.body, line(0)+line(1)+line(2)+line(3))
		s.wantBooks(key, "1", paid)
	}
	if ranged {
		t.Error("a range reached the provider")
	}
}
