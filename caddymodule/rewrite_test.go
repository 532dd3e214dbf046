package caddymodule_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// worker is a provider of chat completions that records its requests.
type worker struct {
	chat
	mu   sync.Mutex
	work []string
}

func (p *worker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/auth" {
		w.Header().Set("X-User", "somebody")
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // it is half a request
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.work = append(p.work, r.Method+" "+r.URL.RequestURI())
	switch {
	case r.Header.Get("X-Fails") != "":
		w.WriteHeader(http.StatusServiceUnavailable)
	case strings.HasSuffix(r.URL.Path, "/chat/completions"):
		p.chat.ServeHTTP(w, r)
	default:
		_, _ = w.Write([]byte(`{"secret":"answer"}`))
	}
}

func (p *worker) worked() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	work := p.work
	p.work = nil
	return work
}

// ask is a request to a site, and what should become of it.
type ask struct {
	method, path, body string
	work               string // what the provider is asked for; empty: it is not asked, since the call is refused
}

const (
	countTokens   = `{"model":"test-1","messages":[{"role":"user","content":"hi"}]}`
	embedding     = `{"model":"free-1","input":"hi"}`
	siteMeter     = "meter {\n\t\tpayee llm\n\t\ttariff chat\n\t}\n\t"
	fails         = "X-Fails"
	paid          = " (paid)" // marks work that has a price
	chatOfTheFree = `{"model":"free-1","messages":[{"role":"user","content":"hi"}],"max_tokens":9}`
)

// TestWhatIsSentIsWhatIsPriced: a request that is changed between the meter and the provider, in whatever place, is sent only if it still
// has the same price. Otherwise it is refused before the provider works.
func TestWhatIsSentIsWhatIsPriced(t *testing.T) {
	t.Parallel()
	chatBody := strings.Replace(chatStream, `"stream":true`, `"stream":false`, 1)
	free := ask{"POST", "/ask/messages/count_tokens", countTokens, ""}
	for _, test := range []struct {
		name, site string
		asks       []ask
	}{
		{"rewrite", siteMeter + "handle /ask/* {\n\t\trewrite * /v1/messages\n\t\treverse_proxy UPSTREAM\n\t}", []ask{free}},
		{"of a cheap call", siteMeter + "handle /v1/* {\n\t\trewrite /v1/embeddings /v1/chat/completions\n\t\treverse_proxy UPSTREAM\n\t}", []ask{
			{"POST", "/v1/embeddings", embedding, ""}, {"POST", chatCompletions, chatBody, "POST " + chatCompletions + paid}}},
		{"to another model", siteMeter + "handle /v1/* {\n\t\trewrite * /openai/deployments/test-1/chat/completions?api-version=1\n\t\treverse_proxy UPSTREAM\n\t}", []ask{
			{"POST", chatCompletions, chatOfTheFree, ""},
			{"POST", chatCompletions, chatBody, "POST /openai/deployments/test-1/chat/completions?api-version=1" + paid}}},
		{"uri", siteMeter + `handle /suffix/* {
		uri strip_suffix /count_tokens
		reverse_proxy UPSTREAM
	}
	handle /replace/* {
		uri replace models search
		reverse_proxy UPSTREAM
	}
	handle /regexp/* {
		uri path_regexp ^.*/models/(.*)$ /v1/$1
		reverse_proxy UPSTREAM
	}
	handle /prefix/* {
		uri strip_prefix /prefix
		reverse_proxy UPSTREAM
	}`, []ask{
			{"POST", "/suffix/v1/messages/count_tokens", countTokens, ""},
			{"GET", "/replace/v1/models", "", ""},
			{"GET", "/regexp/v1/models/search", "", ""},
			{"GET", "/regexp/v1/models/files", "", ""}, // free, too, but of the payer's own
			{"GET", "/regexp/v1/models/models", "", "GET /v1/models"},
			{"GET", "/prefix/v1/models?x=1", "", "GET /v1/models?x=1"},
			{"POST", "/prefix/v1/messages/count_tokens", countTokens, "POST /v1/messages/count_tokens"},
			{"POST", "/prefix/v1/chat/completions", chatBody, "POST /v1/chat/completions" + paid},
		}},
		{"query", siteMeter + `handle /query/* {
		uri query model test-1
		reverse_proxy UPSTREAM
	}
	handle /rewrite/* {
		rewrite * {path}?deployment={header.X-Deployment}
		reverse_proxy UPSTREAM
	}
	handle /version/* {
		uri query api-version 2026
		reverse_proxy UPSTREAM
	}`, []ask{
			{"POST", "/query/chat/completions", chatOfTheFree, ""},
			{"POST", "/query/chat/completions", chatBody, "POST /query/chat/completions?model=test-1" + paid},
			{"POST", "/rewrite/chat/completions", chatOfTheFree, "POST /rewrite/chat/completions?deployment=" + paid},
			{"POST", "/version/chat/completions", chatBody, "POST /version/chat/completions?api-version=2026" + paid},
		}},
		{"method", siteMeter + "handle /v1/* {\n\t\tmethod POST\n\t\treverse_proxy UPSTREAM\n\t}", []ask{{"GET", "/v1/models", "", ""}}},
		{"the proxy's own", siteMeter + `handle /v1/models/* {
		reverse_proxy UPSTREAM {
			rewrite /v1/search
		}
	}
	handle /v1/models {
		reverse_proxy UPSTREAM {
			method POST
		}
	}
	handle /v1/* {
		reverse_proxy UPSTREAM {
			rewrite /own{uri}
		}
	}
	handle /get/* {
		reverse_proxy UPSTREAM {
			method GET
		}
	}`, []ask{
			{"GET", "/v1/models/x", "", ""},
			{"GET", "/v1/models", "", ""},
			{"GET", "/v1/files", "", "GET /own/v1/files"},
			{"POST", chatCompletions, chatBody, "POST /own" + chatCompletions + paid},
			{"POST", "/get/v1/chat/completions", chatBody, ""},
		}},
		{"handle_path", siteMeter + "handle_path /v1/models/* {\n\t\treverse_proxy UPSTREAM\n\t}\n\thandle_path /llm/* {\n\t\treverse_proxy UPSTREAM\n\t}", []ask{
			{"GET", "/v1/models/search", "", ""},
			{"GET", "/llm/v1/models", "", "GET /v1/models"},
			{"POST", "/llm/v1/chat/completions", chatBody, "POST /v1/chat/completions" + paid},
		}},
		{"route", "route {\n\t\tmeter {\n\t\t\tpayee llm\n\t\t\ttariff chat\n\t\t}\n\t\trewrite /ask/* /v1/messages\n\t\treverse_proxy UPSTREAM\n\t}", []ask{
			free, {"POST", chatCompletions, chatBody, "POST " + chatCompletions + paid}}},
		{"before the meter", "rewrite /ask/* " + chatCompletions + "\n\t" + chatSite, []ask{
			{"POST", "/ask/messages/count_tokens", chatBody, "POST " + chatCompletions + paid}}},
		{"named route", siteMeter + "handle {\n\t\tinvoke own\n\t}\n}\n&(own) {\n\trewrite /ask/* /v1/messages\n\treverse_proxy UPSTREAM", []ask{
			free, {"GET", "/v1/files", "", "GET /v1/files"}}},
		{"handle_response", siteMeter + `handle {
		reverse_proxy UPSTREAM {
			header_up ` + fails + ` yes
			@down status 5xx
			handle_response @down {
				rewrite /ask/* /v1/messages
				reverse_proxy UPSTREAM
			}
		}
	}`, []ask{{free.method, free.path, free.body, "POST /ask/messages/count_tokens (refused)"}, {"GET", "/v1/files", "", "GET /v1/files;GET /v1/files"}}},
		{"intercept", siteMeter + `handle {
		intercept {
			@down status 5xx
			handle_response @down {
				reverse_proxy UPSTREAM {
					rewrite /v1/messages
				}
			}
		}
		respond 503
	}`, []ask{free}},
		{"handle_errors", "handle {\n\t\terror 503\n\t}\n\thandle_errors {\n\t\tmeter {\n\t\t\tpayee llm\n\t\t\ttariff chat\n\t\t}\n\t\treverse_proxy UPSTREAM {\n\t\t\trewrite /v1/messages\n\t\t}\n\t}", []ask{free}},
		{"map", "map {header.X-To} {to} {\n\t\tdear /v1/messages\n\t\tdefault {path}\n\t}\n\t" + siteMeter + "handle {\n\t\trewrite * {to}\n\t\treverse_proxy UPSTREAM\n\t}", []ask{
			{"GET", "/v1/models?X-To=dear", "", ""}, {"GET", "/v1/models", "", "GET /v1/models"}}},
		{"fastcgi", siteMeter + "reverse_proxy UPSTREAM {\n\t\trewrite /v1/messages\n\t\ttransport fastcgi\n\t}", []ask{free}},
		{"dynamic upstreams", siteMeter + "reverse_proxy {\n\t\tdynamic a HOST PORT\n\t\trewrite /v1/messages\n\t}", []ask{free}},
		{"tried again", siteMeter + "reverse_proxy UPSTREAM {\n\t\tlb_try_duration 1000h\n\t\tfail_duration 1000h\n\t\trewrite {header.X-To}\n\t}", []ask{
			{"GET", "/v1/models?X-To=/v1/messages", "", ""}, {"GET", "/v1/models?X-To=/v1/models/x", "", "GET /v1/models/x"}}},
		{"forward_auth", "route {\n\t\tmeter {\n\t\t\tpayee llm\n\t\t\ttariff chat\n\t\t}\n\t\tforward_auth UPSTREAM {\n\t\t\turi /auth\n\t\t\tcopy_headers X-User\n\t\t}\n\t\treverse_proxy UPSTREAM\n\t}", []ask{
			{"POST", chatCompletions, chatBody, "POST " + chatCompletions + paid}, {"GET", "/v1/models", "", "GET /v1/models"}}},
		{"what looks like forward_auth", siteMeter + `reverse_proxy UPSTREAM {
		rewrite /v1/messages
		@good status 2xx
		handle_response @good {
			copy_response
		}
	}`, []ask{free}},
		{"what looks like it, with another status", siteMeter + `reverse_proxy UPSTREAM {
		rewrite /v1/messages
		@good status 2xx
		replace_status @good 201
	}`, []ask{free}},
	} {
		t.Run(test.name, func(t *testing.T) {
			provider := new(worker)
			backend := httptest.NewServer(provider)
			defer backend.Close()
			host, port, _ := strings.Cut(backend.Listener.Addr().String(), ":")
			site := strings.NewReplacer("UPSTREAM", backend.Listener.Addr().String(), "HOST", host, "PORT", port).Replace(test.site)
			s := openShop(t, chatPrices, site, provider)
			key := s.agent("alice", "1")
			spent := 0
			for _, ask := range test.asks {
				path, to, _ := strings.Cut(ask.path, "?X-To=")
				a := s.do(ask.method, path, key, ask.body, "X-To", to)
				work := strings.Join(provider.worked(), ";")
				what := fmt.Sprintf("%s %s: %d %s %v", ask.method, ask.path, a.status, a.body, a.err)
				expected, isPaid := strings.CutSuffix(ask.work, paid)
				expected, refused := strings.CutSuffix(expected, " (refused)")
				if work != expected {
					t.Errorf("%s: the provider did %q, want %q", what, work, expected)
				}
				if refused = refused || expected == ""; refused {
					if a.status != 422 || strings.Contains(a.body, "secret") || !strings.Contains(a.body, "no_price") {
						t.Errorf("%s: want a refusal", what)
					}
				} else if a.status >= 300 && a.status != 503 {
					t.Error(what)
				}
				if isPaid {
					spent++
				}
			}
			charged := 0
			for _, charge := range s.charges(key) {
				if charge["amount"] != "0" {
					charged++
				}
			}
			if charged != spent {
				t.Errorf("charged %d times, want %d: %v", charged, spent, s.charges(key))
			}
		})
	}
}

// TestHeadersThatAreSentAreThoseThatArePriced: a header on which the price depends is looked at again, wherever behind the meter it is set. What
// configures a router is the provider's own, unless the request says it.
func TestHeadersThatAreSentAreThoseThatArePriced(t *testing.T) {
	t.Parallel()
	const body = `{"model":"test-1","messages":[{"role":"user","content":"hi"}],"max_tokens":200}`
	for _, test := range []struct {
		name, before, in string
		sent             string // a header as the provider gets it; empty: the call is refused
	}{
		{"others", "request_header X-Team {header.X-To}", "header_up X-Own 1\n\t\t\theader_up -X-To", "X-Own: 1"},
		{"a model, of the request", "", "header_up Azureml-Model-Deployment {header.X-To}", ""},
		{"a model, fixed", "", "header_up Azureml-Model-Deployment test-9", ""},
		{"the model that is asked for", "", "header_up Azureml-Model-Deployment test-1", "Azureml-Model-Deployment: test-1"},
		{"a model, before the proxy", "request_header Azureml-Model-Deployment {header.X-To}", "", ""},
		{"a model, by a name of the request", "", "header_up {header.X-To} dear", ""},
		{"a tier", "", "header_up X-Amzn-Bedrock-Service-Tier {header.X-To}", ""},
		{"added", "", "header_up +Prefer {header.X-To}", ""},
		{"replaced", "", "header_up Content-Type json xml", "Content-Type: application/xml"},
		{"a router, fixed", "", "header_up X-Portkey-Config pc-own", "X-Portkey-Config: pc-own"},
		{"a router, by the environment", "", "header_up +X-Portkey-Config {env.NOTHING}own", "X-Portkey-Config: own"},
		{"a router, by the request", "", "header_up X-Portkey-Config {header.X-To}", ""},
		{"a router, in part by the request", "", "header_up X-Portkey-Config pc-{header.X-To}", ""},
		{"a router, before the proxy", "request_header Helicone-Fallbacks {header.X-To}", "", ""},
		{"tried again", "", "to 127.0.0.1:9\n\t\t\tlb_policy round_robin\n\t\t\tlb_retries 5\n\t\t\theader_up +X-Portkey-Config pc-own", "X-Portkey-Config: pc-own"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got http.Header
			provider := new(worker)
			site := `route {
		meter {
			payee llm
			tariff chat
		}
		` + test.before + `
		reverse_proxy UPSTREAM {
			` + test.in + `
		}
	}`
			s := openShop(t, chatPrices, site, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				got = r.Header
				provider.ServeHTTP(w, r)
			}))
			key := s.agent("alice", "1")
			to := "respond-async"
			if strings.Contains(test.in, "{header.X-To} dear") {
				to = "Azureml-Model-Deployment"
			}
			for range 2 {
				a := s.do("POST", chatCompletions, key, body, "X-To", to, "Content-Type", "application/json")
				name, value, sent := strings.Cut(test.sent, ": ")
				if work := len(provider.worked()); sent && (a.status != 200 || work != 1 || got.Get(name) != value) || !sent && (a.status != 422 || work != 0) {
					t.Errorf("%d %s, the provider worked %d times, with %v", a.status, a.body, work, got)
				}
			}
		})
	}
}

// TestTheBodyThatIsSentIsTheOneThatIsPriced: if something behind the meter changes the body, the call is refused; if it only reads the
// body, the call goes on. The upstream does not count as failed.
func TestTheBodyThatIsSentIsTheOneThatIsPriced(t *testing.T) {
	t.Parallel()
	const body = `{"model":"test-1","messages":[{"role":"user","content":"hi"}],"max_tokens":200}`
	for _, test := range []struct {
		name, before, in string
		fits             bool
	}{
		{"as it came", "", "", true},
		{"bounded", "request_body {\n\t\t\tmax_size 1MB\n\t\t}", "", true},
		{"buffered", "", "request_buffers 1MB", true},
		{"sent again, where an upstream is down", "", "to 127.0.0.1:9\n\t\t\tlb_policy round_robin\n\t\t\tlb_retries 5", true},
		{"of another length", "request_body @set {\n\t\t\tset `{\"model\":\"test-10\"}`\n\t\t}", "", false},
		{"of the same length", "request_body @set {\n\t\t\tset `" + strings.Replace(body, "test-1", "test-2", 1) + "`\n\t\t}", "", false},
		{"of the same length, buffered", "request_body @set {\n\t\t\tset `" + strings.Replace(body, "test-1", "test-2", 1) + "`\n\t\t}", "request_buffers 1MB", false},
		{"without one", "request_body @set {\n\t\t\tset {http.request.header.X-Nothing}\n\t\t}", "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			provider := new(worker)
			site := `@set header X-Set *
	route {
		meter {
			payee llm
			tariff chat
		}
		` + test.before + `
		reverse_proxy UPSTREAM {
			fail_duration 1000h
			` + test.in + `
		}
	}`
			s := openShop(t, chatPrices, site, provider)
			key := s.agent("alice", "1")
			for range 2 { // the second time it would find the upstream down, if that were held against it
				a := s.do("POST", chatCompletions, key, body, "X-Set", "yes")
				if work := len(provider.worked()); test.fits && (a.status != 200 || work != 1) || !test.fits && (a.status != 422 || work != 0) {
					t.Errorf("%d %s, and the provider worked %d times", a.status, a.body, work)
				}
			}
			if a := s.do("POST", chatCompletions, key, body); a.status != 200 || provider.gotBody != body {
				t.Errorf("as it came: %d %s, the provider was sent %s", a.status, a.body, provider.gotBody)
			}
		})
	}
}

// TestWhatIsSentUnseenIsWithheld: if a handler does not ask before it sends, its answer is checked when it comes. Only a limited number of
// its answers are withheld before the agent is refused.
func TestWhatIsSentUnseenIsWithheld(t *testing.T) {
	t.Parallel()
	s := openShop(t, chatPrices, siteMeter+`handle /v1/models/* {
		rewrite * /v1/search
		respond "the secret answer"
	}
	handle /failed/* {
		rewrite * /v1/search
		respond "not here" 404
	}
	handle {
		respond "catalog"
	}`, text("results"))
	key := s.agent("alice", "1")
	want(t, "a free answer", s.do("GET", "/v1/models", key, "").body, "catalog")
	want(t, "no answer", s.do("GET", "/failed/v1/models", key, "").body, "not here")
	a := s.do("GET", "/v1/models/x", key, "")
	if a.status != 422 || strings.Contains(a.body, "secret") || !strings.Contains(a.body, `"withheld":true`) {
		t.Errorf("%d %s, want it withheld", a.status, a.body)
	}
	var last answer
	for range 40 {
		last = s.do("GET", "/v1/models/x", key, "")
	}
	wantProblem(t, last, 429, "rate_limited")
}

// TestShadowModeRefusesNoRewrite: in shadow mode a call that would be refused goes on.
func TestShadowModeRefusesNoRewrite(t *testing.T) {
	t.Parallel()
	provider := new(worker)
	s := openShop(t, chatPrices, "meter {\n\t\tpayee llm\n\t\ttariff chat\n\t\tenforce off\n\t}\n\treverse_proxy UPSTREAM {\n\t\trewrite /v1/messages\n\t}", provider)
	if a := s.do("GET", "/v1/models", s.agent("alice", "1"), ""); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
	want(t, "the provider did", strings.Join(provider.worked(), ";"), "GET /v1/messages")
}
