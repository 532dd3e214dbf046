package caddymodule_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

func qualitySite(from, more string) string {
	return fmt.Sprintf(`handle /predict* {
		meter {
			payee quant
			price 0.05 per call
			quality %s {
				>= 0.9 100%%
				>= 0.7 70%%
				else dispute
				%s
			}
		}
		reverse_proxy UPSTREAM
	}`, from, more)
}

func TestQualityByTheProvidersOwnScore(t *testing.T) {
	t.Parallel()
	for _, from := range []string{"header X-Score", "json $.meta.score"} {
		for _, test := range []struct{ score, charge, status, wallet string }{
			{"0.95", "0.05", "charged", "0.95"},
			{"0.9", "0.05", "charged", "0.95"},
			{"0.70", "0.035", "charged", "0.965"},
			{"0.69999", "0", "disputed", "0.95"},
		} {
			t.Run(from+" "+test.score, func(t *testing.T) {
				s := openShop(t, "", qualitySite(from, ""), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("X-Score", test.score)
					w.Header().Set("Content-Type", "application/json")
					_, _ = fmt.Fprintf(w, `{"answer":42,"meta":{"score":%s}}`, test.score)
				}))
				key := s.agent("alice", "1")
				a := s.do("GET", "/predict", key, "")
				want(t, "charge", a.header.Get("Tallygate-Charge"), test.charge)
				want(t, "wallet", s.balance(key), test.wallet)
				charge := s.charge(key, a.header.Get("Tallygate-Request"))
				want(t, "status", charge["status"].(string), test.status)
			})
		}
	}
}

// judgedQuery is the query of the calls that are judged, as the judge must see it.
const judgedQuery = "symbol=TULIP"

// judge is a judge that answers with what a test has set.
func judge(t *testing.T, says *atomic.Value) *httptest.Server {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q struct {
			Payer, Price string
			Request      struct{ Query string }
			Response     struct{ Body string }
		}
		body, _ := io.ReadAll(r.Body)
		if err := json.Unmarshal(body, &q); err != nil || q.Payer != "alice" || q.Price != "0.05" || q.Request.Query != judgedQuery || q.Response.Body != "forty-two" {
			t.Errorf("the judge is asked %s", body)
		}
		answer := says.Load().(string)
		if answer == "" {
			w.WriteHeader(500)
		}
		_, _ = io.WriteString(w, answer)
	}))
	t.Cleanup(server.Close)
	return server
}

func TestQualityByAJudge(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, answer, onError, charge, quality, status string
	}{
		{"good", `{"score":0.93}`, "", "0.05", "score=0.93", "charged"},
		{"fair, as a bare number", `0.75`, "", "0.035", "score=0.75", "charged"},
		{"bad", `{"score":0.2}`, "", "0", "disputed; score=0.2", "disputed"},
		{"down", ``, "", "0", "held", "held"},
		{"rubbish", `<html>`, "", "0", "held", "held"},
		{"down, on_error pay", ``, "on_error pay", "0.05", "unscored", "charged"},
		{"down, on_error refund", ``, "on_error refund", "0", "unscored", "charged"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var says atomic.Value
			says.Store(test.answer)
			s := openShop(t, "", qualitySite("http "+judge(t, &says).URL, test.onError), text("forty-two"))
			key := s.agent("alice", "1")
			a := s.do("GET", "/predict?"+judgedQuery, key, "")
			want(t, "charge", a.header.Get("Tallygate-Charge"), test.charge)
			want(t, "quality", a.header.Get("Tallygate-Quality"), test.quality)
			want(t, "status", s.charge(key, a.header.Get("Tallygate-Request"))["status"].(string), test.status)
		})
	}
}

func TestAHeldDecisionIsResolvedWhenTheJudgeIsBack(t *testing.T) {
	t.Parallel()
	var says atomic.Value
	says.Store("")
	s := openShop(t, "", qualitySite("http "+judge(t, &says).URL, ""), text("forty-two"))
	key := s.agent("alice", "1")
	a := s.do("GET", "/predict?"+judgedQuery, key, "")
	want(t, "quality", a.header.Get("Tallygate-Quality"), "held")
	want(t, "wallet while it is held", s.balance(key), "0.95")
	want(t, "payee's wallet while it is held", s.balanceOf("quant"), "0")
	says.Store(`{"score":0.8}`)
	eventually(t, "the decision is made", func() bool { return s.balance(key) == "0.965" })
	want(t, "payee's wallet", s.balanceOf("quant"), "0.035")
	want(t, "score on record", s.charge(key, a.header.Get("Tallygate-Request"))["score"].(string), "0.8")
}

func TestQualityByThePayer(t *testing.T) {
	t.Parallel()
	s := openShop(t, "", qualitySite("payer within 24h", ""), text("forty-two"))
	key, other := s.agent("alice", "1"), s.agent("mallory", "1")
	id := s.do("GET", "/predict?"+judgedQuery, key, "").header.Get("Tallygate-Request")
	if a := s.do("PUT", "/api/v1/charges/"+id+"/quality", other, `{"score":"1"}`); a.status != 404 {
		t.Errorf("another agent scores: %d %s", a.status, a.body)
	}
	if a := s.do("PUT", "/api/v1/charges/"+id+"/quality", key, `{"score":"0.75"}`); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	want(t, "wallet", s.balance(key), "0.965")
	want(t, "payee's wallet", s.balanceOf("quant"), "0.035")
}

func TestShadowModeRefusesAndChargesNothing(t *testing.T) {
	t.Parallel()
	s := openShop(t, "", strings.Replace(perCallSite, "meter acme 0.001 per call", "meter acme {\n\t\t\tprice 0.001 per call\n\t\t\tenforce off\n\t\t}", 1), text("results"))
	key := s.agent("poor", "0")
	for _, with := range []string{key, "", "nonsense"} {
		a := s.do("GET", "/search", with, "")
		if a.status != 200 || a.body != "results" {
			t.Errorf("with key %q: %d %s", with, a.status, a.body)
		}
	}
	charge := s.charges(key)[0]
	want(t, "amount", charge["amount"].(string), "0")
	want(t, "what it would have been", charge["price"].(string), "0.001")
	want(t, "status", charge["status"].(string), "shadow")
}

func TestACallThatDoesTheWorkOfAMilestone(t *testing.T) {
	t.Parallel()
	s := openShop(t, "", "handle /draft {\n\t\tmeter writer 4 per call\n\t\treverse_proxy UPSTREAM\n\t}", text("the draft"))
	key := s.agent("alice", "20")
	e := s.api("POST", "/escrow", key, map[string]any{"to_agent_id": "writer", "amount": "10", "milestones": []map[string]string{
		{"name": "draft", "amount": "4"}, {"name": "final", "amount": "6"},
	}}, 201)
	id := e["escrow_id"].(string)
	a := s.do("POST", "/draft", key, "", "Tallygate-Escrow", id, "Tallygate-Milestone", "draft")
	if a.status != 200 || a.header.Get("Tallygate-Charge") != "0" {
		t.Fatalf("%d %v %s", a.status, a.header, a.body)
	}
	e = s.api("GET", "/escrow/"+id, key, nil, 200)
	first := e["milestones"].([]any)[0].(map[string]any)
	want(t, "milestone", first["status"].(string), "delivered")
	want(t, "wallet", s.balance(key), "10")
	s.api("POST", "/escrow/"+id+"/release-partial", key, map[string]any{"milestone": "draft"}, 200)
	want(t, "payee's wallet", s.balanceOf("writer"), "4")
	if a := s.do("POST", "/draft", key, "", "Tallygate-Milestone", "draft"); a.status != 422 {
		t.Errorf("a milestone of no escrow: %d %s", a.status, a.body)
	}
}

func TestIdempotencyKeyOfAMeteredCall(t *testing.T) {
	t.Parallel()
	arrived, answer := make(chan struct{}, 1), make(chan struct{})
	s := openShop(t, "", perCallSite, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("slow") {
			arrived <- struct{}{}
			<-answer
		}
		_, _ = io.WriteString(w, "results")
	}))
	key := s.agent("alice", "1")
	first := s.do("POST", "/search", key, `{"q":"owls"}`, "Idempotency-Key", "k1")
	want(t, "first", first.body, "results")
	again := s.do("POST", "/search", key, `{"q":"owls"}`, "Idempotency-Key", "k1")
	wantProblem(t, again, 409, "idempotency_conflict")
	if !strings.Contains(again.body, first.header.Get("Tallygate-Request")) {
		t.Errorf("the repeated call is not told its charge: %s", again.body)
	}
	wantProblem(t, s.do("POST", "/search", key, `{"q":"cats"}`, "Idempotency-Key", "k1"), 409, "idempotency_conflict")
	want(t, "wallet", s.balance(key), "0.999")

	running := make(chan struct{})
	go func() {
		defer close(running)
		want(t, "slow call", s.do("POST", "/search?slow", key, `{}`, "Idempotency-Key", "k2").body, "results")
	}()
	<-arrived
	busy := s.do("POST", "/search?slow", key, `{}`, "Idempotency-Key", "k2")
	wantProblem(t, busy, 409, "idempotency_conflict")
	want(t, "Retry-After", busy.header.Get("Retry-After"), "1")
	close(answer)
	<-running
	want(t, "wallet after two calls", s.balance(key), "0.998")
}
