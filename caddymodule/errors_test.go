package caddymodule_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestRefusalsChangeNothing(t *testing.T) {
	t.Parallel()
	served := 0
	up := &chat{}
	s := openShop(t, chatPrices, perCallSite+"\n"+chatSite, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		served++
		up.ServeHTTP(w, r)
	}))
	rich, poor := s.agent("rich", "1"), s.agent("poor", "0.0005")
	for _, test := range []struct {
		name, method, path, key, body string
		headers                       []string
		status                        int
		code                          string
	}{
		{"no key", "GET", "/search", "", "", nil, 401, "unauthorized"},
		{"wrong key", "GET", "/search", "nonsense", "", nil, 401, "unauthorized"},
		{"mistyped key", "GET", "/search", rich[:len(rich)-1] + "!", "", nil, 401, "unauthorized"},
		{"operator's key", "GET", "/search", operatorKey, "", nil, 403, "forbidden"},
		{"no money", "GET", "/search", poor, "", nil, 402, "insufficient_funds"},
		{"no money for the input", "POST", chatCompletions, poor, chatBody, nil, 402, "insufficient_funds"},
		{"no price", "POST", chatCompletions, rich, `{"model":"other","messages":[]}`, nil, 422, "no_price"},
		{"no price for an unknown call", "POST", "/v1/other", rich, `{}`, nil, 422, "no_price"},
		{"over the caller's limit", "GET", "/search", rich, "", []string{"Tallygate-Max-Charge", "0.0001"}, 402, "limit_exceeded"},
		{"a limit that is none", "GET", "/search", rich, "", []string{"Tallygate-Max-Charge", "cheap"}, 422, "invalid_request"},
	} {
		t.Run(test.name, func(t *testing.T) {
			wantProblem(t, s.do(test.method, test.path, test.key, test.body, test.headers...), test.status, test.code)
		})
	}
	if served != 0 {
		t.Errorf("the provider served %d refused requests", served)
	}
	want(t, "rich wallet", s.balance(rich), "1")
	want(t, "poor wallet", s.balance(poor), "0.0005")
}

func TestInsufficientFundsTellsHowToMendIt(t *testing.T) {
	t.Parallel()
	s := openShop(t, "", perCallSite, text("results"))
	a := s.do("GET", "/search", s.agent("poor", "0.0005"), "")
	for _, part := range []string{`"required":"0.001"`, `"available":"0.0005"`, `"currency":"USDC"`, `"payee":"acme"`, `"pay":`, `"error":{`} {
		if !strings.Contains(compact(a.body), part) {
			t.Errorf("no %s in %s", part, a.body)
		}
	}
}

func TestRefusalsNameThePathsOfTheAPI(t *testing.T) {
	t.Parallel()
	site := strings.Replace(perCallSite, "meter acme 0.001 per call", "meter {\n\t\t\tpayee acme\n\t\t\tprice 0.001 per call\n\t\t\tcharge escrow\n\t\t}", 1)
	site += "\n\t" + strings.ReplaceAll(perCallSite, "/search", "/wallet")
	s := openShop(t, "", site, text("results"))
	poor := s.agent("poor", "0.0005")
	for prefix, directive := range map[string]string{"": "tallygate", "/pay": "tallygate /pay"} {
		s.directive = directive
		s.load("", site)
		for path, request := range map[string]string{"/search": "POST " + prefix + "/api/v1/escrow", "/wallet": `"request":"POST ` + prefix + "/api/v1/faucet"} {
			if a := s.do("GET", path, poor, ""); a.status != 402 || !strings.Contains(a.body, request) {
				t.Errorf("no %s in %d %s %v", request, a.status, a.body, a.err)
			}
		}
	}
}

func TestMoneyForTheInputButNotForTheAnswer(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, onExhausted string
		stopped           bool
	}{{"stop", "", true}, {"finish", "on_exhausted finish", false}} {
		t.Run(test.name, func(t *testing.T) {
			s := openShop(t, chatPrices, `handle /v1/* {
		meter {
			payee llm
			tariff chat
			charge wallet {
				batch 10 tokens
			}
			`+test.onExhausted+`
		}
		reverse_proxy UPSTREAM
	}`, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/event-stream")
				for i := range 2000 {
					_, _ = fmt.Fprintf(w, `data: {"object":"chat.completion.chunk","model":"test-1","choices":[{"index":0,"delta":{"content":" word number %d of a long answer"}}]}`+"\n\n", i)
					w.(http.Flusher).Flush()
				}
				_, _ = io.WriteString(w, "data: [DONE]\n\n")
			}))
			// About 2,000 events of 8 tokens at 0.000015 each: ten times the available money.
			key := s.agent("alice", "0.02")
			a := s.do("POST", chatCompletions, key, chatStream)
			if a.err != nil {
				t.Fatal(a.err)
			}
			if stopped := strings.Contains(a.body, `"insufficient_funds"`); stopped != test.stopped {
				t.Errorf("stopped: %v, want %v", stopped, test.stopped)
			}
			if !strings.HasSuffix(a.body, "data: [DONE]\n\n") {
				t.Errorf("the stream does not end properly: %q", a.body[max(0, len(a.body)-200):])
			}
			if test.stopped && strings.Count(a.body, "long answer") > 200 {
				t.Errorf("%d events went out, for money for about 160", strings.Count(a.body, "long answer"))
			}
			charge := s.charges(key)[0]
			if test.stopped {
				want(t, "cut", charge["cut"].(string), "funds")
				want(t, "source", charge["source"].(string), "estimated")
			} else {
				want(t, "wallet", s.balance(key), "0")
			}
		})
	}
}

func TestUpstreamFailuresCostNothing(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		upstream http.HandlerFunc
		status   int
	}{
		{"500", func(w http.ResponseWriter, r *http.Request) { http.Error(w, "broken", http.StatusInternalServerError) }, 500},
		{"429", func(w http.ResponseWriter, r *http.Request) { http.Error(w, "slow down", http.StatusTooManyRequests) }, 429},
		{"dies before the header", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 502},
		{"dies in a small body", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "not a hundred")
		}, 502},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := openShop(t, "", perCallSite, test.upstream)
			key := s.agent("alice", "1")
			a := s.do("GET", "/search", key, "")
			if a.status != test.status {
				t.Errorf("%d %s %v, want %d", a.status, a.body, a.err, test.status)
			}
			want(t, "wallet", s.balance(key), "1")
			if n := len(s.charges(key)); n != 0 {
				t.Errorf("%d charges", n)
			}
		})
	}
	t.Run("down", func(t *testing.T) {
		s := openShop(t, "", "handle /search* {\n\t\tmeter acme 0.001 per call\n\t\treverse_proxy 127.0.0.1:1\n\t}", text(""))
		key := s.agent("alice", "1")
		if a := s.do("GET", "/search", key, ""); a.status != 502 || a.header.Get("Tallygate-Request") == "" {
			t.Errorf("%d %v", a.status, a.header)
		}
		want(t, "wallet", s.balance(key), "1")
	})
}

func TestUpstreamDiesInTheMiddleOfAStream(t *testing.T) {
	t.Parallel()
	s := openShop(t, chatPrices, chatSite, &chat{truncate: true})
	key := s.agent("alice", "1")
	a := s.do("POST", chatCompletions, key, chatStream)
	if a.err == nil {
		t.Error("the client takes the response for complete")
	}
	charge := s.charges(key)[0]
	want(t, "cut", charge["cut"].(string), "upstream")
	want(t, "source", charge["source"].(string), "estimated")
	units := charge["units"].(map[string]any)
	want(t, "output", fmt.Sprint(units["output"]), "3") // "hello there friend"
}

func TestClientHangsUp(t *testing.T) {
	t.Parallel()
	t.Run("before the first byte: free", func(t *testing.T) {
		arrived, left := make(chan struct{}), make(chan struct{})
		s := openShop(t, chatPrices, chatSite, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.ReadAll(r.Body)
			close(arrived)
			<-r.Context().Done()
			close(left)
		}))
		key := s.agent("alice", "1")
		ctx, hangUp := context.WithCancel(context.Background())
		go func() { <-arrived; hangUp() }()
		if a := send(t, s.request("POST", chatCompletions, key, chatStream).WithContext(ctx)); a.err == nil {
			t.Fatal("no error")
		}
		<-left // the upstream's call was cancelled
		eventually(t, "the hold goes back", func() bool { return s.balance(key) == "1" })
		if n := len(s.charges(key)); n != 0 {
			t.Errorf("%d charges", n)
		}
	})
	t.Run("later: pays for what was sent", func(t *testing.T) {
		ctx, hangUp := context.WithCancel(context.Background())
		cancelled := make(chan struct{})
		s := openShop(t, chatPrices, chatSite, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.ReadAll(r.Body)
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, `data: {"object":"chat.completion.chunk","model":"test-1","choices":[{"index":0,"delta":{"content":"hello there"}}]}`+"\n\n")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			close(cancelled)
		}))
		key := s.agent("alice", "1")
		response, err := http.DefaultClient.Do(s.request("POST", chatCompletions, key, chatStream).WithContext(ctx))
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if _, err := io.ReadFull(response.Body, make([]byte, 40)); err != nil {
			t.Fatal(err)
		}
		hangUp()
		<-cancelled
		eventually(t, "the call is charged", func() bool { return len(s.charges(key)) == 1 })
		charge := s.charges(key)[0]
		want(t, "cut", charge["cut"].(string), "client")
		want(t, "output", fmt.Sprint(charge["units"].(map[string]any)["output"]), "2")
	})
}

func TestForgedHeadersAreStripped(t *testing.T) {
	t.Parallel()
	var got http.Header
	s := openShop(t, "", perCallSite, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Header
		w.Header().Set("Tallygate-Charge", "0")
		w.Header().Set("Tallygate-Balance", "1000000")
		w.Header().Set("Tallygate-Anything", "x")
	}))
	key := s.agent("alice", "1")
	a := s.do("GET", "/search", key, "", "Tallygate-Forged", "yes", "Tallygate-Tag", "team=x")
	want(t, "charge", a.header.Get("Tallygate-Charge"), "0.001")
	want(t, "balance", a.header.Get("Tallygate-Balance"), "0.999")
	want(t, "unknown", a.header.Get("Tallygate-Anything"), "")
	for name := range got {
		if strings.HasPrefix(name, "Tallygate-") {
			t.Errorf("the provider sees %s", name)
		}
	}
	tags := s.charge(key, a.header.Get("Tallygate-Request"))["tags"].(map[string]any)
	want(t, "tag", fmt.Sprint(tags["team"]), "x")
}

// TestErrorsHaveTheShapeOfTheProvidersOwn: on a provider's paths the provider's clients find the message, and programs always find the code.
func TestErrorsHaveTheShapeOfTheProvidersOwn(t *testing.T) {
	t.Parallel()
	s := openShop(t, chatPrices, strings.Replace(chatSite, "/v1/*", "/*", 1), text("{}"))
	poor := s.agent("poor", "0")
	const message = `"message":"Not enough money: `
	for _, test := range []struct {
		path, header, kind, error, kindOfProblem string
	}{
		{"/v1/chat/completions", "", "application/problem+json", `{"code":"insufficient_funds",` + message, "/problems/insufficient_funds"},
		{"/v1beta/openai/chat/completions", "", "application/problem+json", `{"code":"insufficient_funds",` + message, "/problems/insufficient_funds"},
		{"/v2/chat", "", "application/problem+json", `{"code":"insufficient_funds",` + message, "/problems/insufficient_funds"},
		{"/v1/messages", "", "application/json", `{` + message, "error"},
		{"/proxy/v1/messages/", "", "application/json", `{` + message, "error"},
		{"/v1/chat/completions", "Anthropic-Version", "application/json", `{` + message, "error"},
		{"/v1beta/models/test-1:generateContent", "", "application/json", `{"code":402,` + message, "/problems/insufficient_funds"},
		{"/v1/publishers/google/models/test-1:streamGenerateContent", "", "application/json", `{"code":402,` + message, "/problems/insufficient_funds"},
		{"/api/chat", "", "application/json", `"Not enough money: `, "/problems/insufficient_funds"},
	} {
		t.Run(test.path+" "+test.header, func(t *testing.T) {
			headers := []string{}
			if test.header != "" {
				headers = []string{test.header, "1"}
			}
			body := strings.TrimSuffix(chatBody, "}") + `,"contents":[]}`
			a := s.do("POST", test.path, poor, body, headers...)
			if a.status != 402 || a.header.Get("Content-Type") != test.kind || !strings.Contains(a.body, `"error":`+test.error) {
				t.Errorf("%d %s %s", a.status, a.header.Get("Content-Type"), a.body)
			}
			for _, part := range []string{`"code":"insufficient_funds","currency"`, `"detail":"`, `"pay":[`, `"status":402`, `"type":"` + test.kindOfProblem + `"`, message} {
				if !strings.Contains(compact(a.body), part) {
					t.Errorf("no %s in %s", part, a.body)
				}
			}
		})
	}
}

// TestAConflictThatStaysIsNotTriedAgain: clients treat a 409 as a temporary lock, and try again by themselves. A 409 that names a charge, or
// another request with the same key, tells them not to.
func TestAConflictThatStaysIsNotTriedAgain(t *testing.T) {
	t.Parallel()
	s := openShop(t, "", perCallSite, text("results"))
	key := s.agent("alice", "1")
	if a := s.do("GET", "/search?q=1", key, "", "Idempotency-Key", "k"); a.status != 200 {
		t.Fatal(a.status, a.body)
	}
	for _, path := range []string{"/search?q=1", "/search?q=2"} {
		a := s.do("GET", path, key, "", "Idempotency-Key", "k")
		wantProblem(t, a, 409, "idempotency_conflict")
		want(t, path+": X-Should-Retry", a.header.Get("X-Should-Retry"), "false")
		want(t, path+": Retry-After", a.header.Get("Retry-After"), "")
	}
}

// TestCallersWithoutAnAccountAreToldHowToGetOne: a key in a form that is not read, and a caller that an earlier handler knows and the books don't.
func TestCallersWithoutAnAccountAreToldHowToGetOne(t *testing.T) {
	t.Parallel()
	by := func(path, more string) string {
		return "handle " + path + " {\n\t\tmeter {\n\t\t\tpayee acme\n\t\t\tprice 0.001 per call\n\t\t\tagent {http.request.header.X-User}\n\t\t\t" + more + "\n\t\t}\n\t\treverse_proxy UPSTREAM\n\t}\n\t"
	}
	s := openShop(t, "", by("/known", "")+by("/any", "agent_auto")+perCallSite, text("results"))
	key := s.agent("alice", "1")
	a := s.do("GET", "/search", "", "", "Authorization", key)
	wantProblem(t, a, 401, "unauthorized")
	if !strings.Contains(a.body, "no word Bearer before the key") {
		t.Errorf("%s", a.body)
	}

	a = s.do("GET", "/known", "", "", "X-User", "ben")
	wantProblem(t, a, 401, "unauthorized")
	for _, part := range []string{`there is no agent \"ben\"`, "tallygate agents add ben", "agent_auto"} {
		if !strings.Contains(a.body, part) {
			t.Errorf("no %s in %s", part, a.body)
		}
	}
	if a := s.do("GET", "/known", "", "", "X-User", "alice"); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
	wantProblem(t, s.do("GET", "/any", "", "", "X-User", "ben"), 402, "insufficient_funds") // ben is made, and has no money yet
	s.api("POST", "/wallet/deposit", operatorKey, map[string]any{"agent_id": "ben", "amount": "1"}, 200)
	for _, path := range []string{"/any", "/known"} {
		if a := s.do("GET", path, "", "", "X-User", "ben"); a.status != 200 {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	want(t, "ben's wallet", s.balanceOf("ben"), "0.998")
	wantProblem(t, s.do("GET", "/any", "", "", "X-User", "b e n"), 401, "unauthorized")
}
