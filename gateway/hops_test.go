package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/pricing"
)

// TestConnectionTakesNothingOff: a client that names headers in Connection, which a proxy behind the meter takes off then, keeps neither what the
// meter tells the provider from it, nor a header that was priced.
func TestConnectionTakesNothingOff(t *testing.T) {
	t.Parallel()
	tariff := &pricing.Tariff{Models: perToken(t, "0.01")}
	must(t, tariff.Compile(nil))
	identify, err := gateway.Identifies("whsec_" + strings.Repeat("AAAA", 8))
	must(t, err)
	for _, test := range []struct {
		name, connection string
		header           http.Header
		gone             string // a header that the provider does not get
		kept             string // the provider's Connection and Te
	}{
		{name: "nothing", header: http.Header{"X-Own": {"a"}}},
		{name: "the payer", connection: "Tallygate-Payer, Tallygate-Request"},
		{name: "in another case", connection: "tALLYGATE-pAYER,webhook-SIGNATURE"},
		{name: "the signature", connection: "Webhook-Id,Webhook-Timestamp, Webhook-Signature"},
		{name: "the key for repetitions", connection: "Idempotency-Key", header: http.Header{"Idempotency-Key": {"k"}}, gone: "Idempotency-Key"},
		{name: "a header that is priced", connection: "X-Amzn-Bedrock-Service-Tier", header: http.Header{"X-Amzn-Bedrock-Service-Tier": {"priority"}}, gone: "X-Amzn-Bedrock-Service-Tier"},
		{name: "its own", connection: "close, X-Own", header: http.Header{"X-Own": {"a"}}, gone: "X-Own"},
		{name: "what a proxy needs", connection: "TE, X-Own", header: http.Header{"Te": {"trailers"}, "X-Own": {"a"}}, gone: "X-Own", kept: "[] [trailers]"},
		{name: "underscores", header: http.Header{"Webhook_Signature": {"v1,x"}, "Tallygate_payer": {"mallory"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var got http.Header
			provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				got = r.Header.Clone()
				_, _ = io.WriteString(w, `{"model":"m","choices":[{"message":{"content":"w"}}],"usage":{"prompt_tokens":0,"completion_tokens":10,"total_tokens":10}}`)
			}))
			defer provider.Close()
			at, err := url.Parse(provider.URL)
			must(t, err)
			s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{Tariff: tariff, Identify: identify}, httputil.NewSingleHostReverseProxy(at).ServeHTTP)
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/v1/chat/completions", strings.NewReader(`{"model":"m","messages":[],"max_tokens":10}`))
			must(t, err)
			for name, values := range test.header {
				r.Header[name] = values
			}
			r.Header.Set("Tallygate-Key", s.key)
			if test.connection != "" {
				r.Header.Set("Connection", test.connection)
			}
			answer, err := http.DefaultClient.Do(r)
			must(t, err)
			defer answer.Body.Close()
			want(t, "status", answer.StatusCode, http.StatusOK)
			want(t, "payer, as the provider sees it", got["Tallygate-Payer"], "[alice]")
			want(t, "request", got["Tallygate-Request"], fmt.Sprint(answer.Header["Tallygate-Request"]))
			must(t, identify.Signer.Verify([]byte("alice"), got))
			if _, there := got[test.gone]; there {
				t.Errorf("the provider got %s", test.gone)
			}
			for name := range got {
				if strings.Contains(name, "_") {
					t.Errorf("the provider got %s", name)
				}
			}
			if test.kept != "" {
				want(t, "Connection and TE", fmt.Sprint(got["Connection"], got["Te"]), test.kept)
			}
			want(t, "charged", s.balance("acme"), "0.1")
		})
	}
}
