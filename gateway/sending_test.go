package gateway_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/pricing"
)

// TestMaySend: any handler that asks before it sends is told whether it may, and reading the body fails if it is a different one. A call
// that was refused stays refused, whatever the handler does then.
func TestMaySend(t *testing.T) {
	t.Parallel()
	tariff := &pricing.Tariff{Models: perToken(t, "0.001")}
	must(t, tariff.Compile(nil))
	const request = `{"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":10}`
	const answer = `{"id":"1","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"secret"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}`
	body := func(r *http.Request, s string, length int64) {
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(s)), length
	}
	for _, test := range []struct {
		name   string
		change func(r *http.Request)
		sent   bool
	}{
		{"nothing", func(*http.Request) {}, true},
		{"header", func(r *http.Request) { r.Header.Set("X-Added", "1") }, true},
		{"the type of the body", func(r *http.Request) { r.Header.Set("Content-Type", "application/json; charset=utf-8") }, true},
		{"a header that names a model", func(r *http.Request) { r.Header.Set("Azureml-Model-Deployment", "dear") }, false},
		{"a header that asks for a tier", func(r *http.Request) { r.Header.Set("X-Amzn-Bedrock-Service-Tier", "priority") }, false},
		{"a header that configures a router", func(r *http.Request) { r.Header.Set("X-Portkey-Config", "{}") }, false},
		{"a header that overrides the method", func(r *http.Request) { r.Header.Set("X-Http-Method-Override", "GET") }, false},
		{"a header that says how to read the body", func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") }, false},
		{"a header that sends the answer elsewhere", func(r *http.Request) { r.Header.Set("X-DashScope-Async", "enable") }, false},
		{"host", func(r *http.Request) { r.Host, r.URL.Host = "provider", "provider" }, true},
		{"a prefix", func(r *http.Request) { r.URL.Path = "/api" + r.URL.Path }, true},
		{"query", func(r *http.Request) { r.URL.RawQuery = "api-version=1" }, true},
		{"the same body, of unknown length", func(r *http.Request) { body(r, request, -1) }, true},
		{"path", func(r *http.Request) { r.URL.Path = "/v1/responses" }, false},
		{"a path that is free", func(r *http.Request) { r.URL.Path = "/v1/messages/count_tokens" }, false},
		{"a path that can be read in two ways", func(r *http.Request) { r.URL.Path = "/v1/x;/../chat/completions" }, false},
		{"method", func(r *http.Request) { r.Method = http.MethodPut }, false},
		{"model in the query", func(r *http.Request) { r.URL.RawQuery = "model=dear" }, false},
		{"no body", func(r *http.Request) { r.Body, r.ContentLength = nil, 0 }, false},
		{"an empty body", func(r *http.Request) { r.Body, r.ContentLength = http.NoBody, 0 }, false},
		{"a longer body", func(r *http.Request) { body(r, request+" ", int64(len(request)+1)) }, false},
		{"a longer body, of unknown length", func(r *http.Request) { body(r, request+" ", -1) }, false},
		{"a shorter body, of unknown length", func(r *http.Request) { body(r, request[:len(request)-1], -1) }, false},
		{"another body", func(r *http.Request) { body(r, strings.Replace(request, "hi", "ho", 1), int64(len(request))) }, false},
	} {
		for end, ends := range map[string]func(w http.ResponseWriter){
			"answers": func(w http.ResponseWriter) { _, _ = io.WriteString(w, answer) },
			"panics":  func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
			"returns": func(http.ResponseWriter) {},
			"fails":   func(w http.ResponseWriter) { w.WriteHeader(http.StatusBadGateway) },
		} {
			work := make(chan bool, 2)
			send := func(r *http.Request) bool {
				if !gateway.MaySend(r) {
					return false
				}
				if r.Body == nil || r.Body == http.NoBody {
					return true
				}
				_, err := io.ReadAll(r.Body)
				return err == nil
			}
			s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{Tariff: tariff}, func(w http.ResponseWriter, r *http.Request) {
				changed := r.Clone(r.Context())
				test.change(changed)
				sent := send(changed)
				if !sent {
					sent = send(r) // as it came, after all
				}
				if work <- sent; sent {
					_, _ = io.WriteString(w, answer)
					return
				}
				ends(w)
			})
			r, err := http.NewRequest(http.MethodPost, s.url+"/v1/chat/completions", strings.NewReader(request))
			must(t, err)
			r.Header.Set("Authorization", "Bearer "+s.key)
			response, err := http.DefaultClient.Do(r)
			must(t, err)
			got, err := io.ReadAll(response.Body)
			must(t, err)
			_ = response.Body.Close()
			if sent := <-work; sent != test.sent {
				t.Errorf("%s: sent %t", test.name, sent)
			}
			charged := s.balance("alice") != "1"
			if secret := strings.Contains(string(got), "secret"); secret != test.sent || charged != test.sent || (response.StatusCode == 422) == test.sent {
				t.Errorf("%s, and the handler %s: %d %s, charged %t", test.name, end, response.StatusCode, got, charged)
			}
		}
	}
}
