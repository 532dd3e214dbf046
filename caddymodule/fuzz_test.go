package caddymodule

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/gateway"
)

// blocks are the seeds of FuzzCaddyfile.
var blocks = []string{
	"meter acme 0.001 per call",
	"meter {\n\tpayee acme\n\tprice 0.02 per 1k rows\n\tprice 1 per call\n\tcount rows header X-Rows\n\tcount sum json items.#.n\n}",
	"meter {\n\tpayee llm\n\ttariff gpt\n\tcost json usage.cost response.usage.cost markup 5.5%\n}",
	"meter x {\n\tprice 1 per call\n\tcost header X-Cost\n}",
	"meter {\n\tpayee llm\n\ttariff gpt\n\tcharge escrow {\n\t\tbatch 1k tokens\n\t\topen 5.00 for 168h\n\t}\n\tagent {http.auth.user.id}\n\tmax_charge 0.5\n\tmax_body 1000\n}",
	"meter x {\n\ttariff {\n\t\tmodel gpt-* {\n\t\t\tinput 0.15 per 1M tokens\n\t\t\tabove 200k tokens {\n\t\t\t\tinput 1 per 1M tokens\n\t\t\t}\n\t\t\tservice batch {\n\t\t\t\toutput 1 per token\n\t\t\t}\n\t\t}\n\t\ttool look* 0.1 per call\n\t\tmax_output 10\n\t}\n\tdurable_holds above 1\n\ton_exhausted finish\n\ton_cancel finish\n\tcharge_on 2xx 404 101\n\tkeep_responses 1MiB for 24h\n\tenforce off\n}",
	"meter {\n\tpayee saas\n\tsubscription base 5.00 per 168h {\n\t\tincluded 1000 calls\n\t\toverage 0.01 per call from 5.00\n\t}\n}",
	"meter {\n\tpayee quant\n\tprice 0.05 per call\n\tquality http http://127.0.0.1/judge {\n\t\t>= 0.9 100%\n\t\t>= 0.7 70%\n\t\telse dispute\n\t\ton_error hold\n\t}\n}",
	"meter {\n\tpayee quant\n\tprice 0.05 per call\n\tquality payer within 24h {\n\t\t>= 1 100%\n\t}\n}",
	"tallygate {\n\tledger bolt x.db\n\tcurrency USDC\n\toperator_key {env.X}\n\tregistration open\n\tfaucet 1.00 budget 10 per 24h\n\tcommission 1%\n\tmin_escrow 0.1\n\trefund_window 72h\n\twebhooks private\n\tmax_bodies 1000000\n\ttariff t {\n\t\tmodel * {\n\t\t\toutput 10 per 1M tokens\n\t\t}\n\t\tcatalog prices.json markup 20%\n\t}\n}",
	"tallygate /pay",
}

// FuzzCaddyfile: reading any block never panics, an error names its line, and a block without an error survives as JSON and compiles.
func FuzzCaddyfile(f *testing.F) {
	for _, block := range blocks {
		f.Add(block)
	}
	f.Fuzz(func(t *testing.T, text string) {
		tokens, err := caddyfile.Tokenize([]byte(text), "Caddyfile")
		if err != nil || len(tokens) == 0 {
			return
		}
		read := map[string]caddyfile.Unmarshaler{"meter": new(Meter), "tallygate": new(App)}
		if strings.Contains(text, "/") && !strings.Contains(text, "{") {
			read["tallygate"] = new(Handler)
		}
		module, ok := read[tokens[0].Text]
		if !ok || strings.Contains(text, "postgres") {
			return
		}
		if err := module.UnmarshalCaddyfile(caddyfile.NewDispenser(tokens)); err != nil {
			if !strings.Contains(err.Error(), "Caddyfile:") {
				t.Errorf("an error without a line: %v\nof %q", err, text)
			}
			return
		}
		config, err := json.Marshal(module)
		if err != nil {
			t.Fatalf("%v\nof %q", err, text)
		}
		if m, ok := module.(*Meter); ok {
			again := new(Meter)
			if err := json.Unmarshal(config, again); err != nil {
				t.Fatalf("%v\nof %s", err, config)
			}
			again.makeReady()
			_ = m
		}
	})
}

// makeReady compiles the parts of a config that need no file and no other module.
func (m *Meter) makeReady() {
	m.app, m.logger = new(App), zap.NewNop()
	if m.TariffName == "" && (m.Tariff == nil || m.Tariff.Catalog == nil) {
		_ = m.compile()
	}
}

// FuzzQuotePath quotes any path. The request of a quote must reach the same meter as a client's request with that path.
func FuzzQuotePath(f *testing.F) {
	for _, seed := range [][2]string{{"POST", "/v1/chat/completions"}, {"", "//host/x"}, {"GET", "/a?b=c#d"}, {"GET", "http://x/y"}, {"CONNECT", "x:1"}, {"G T", "/"}, {"GET", "/%zz"}, {"GET", "*"}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, method, path string) {
		reached := false
		next := caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
			reached = true
			want, err := url.ParseRequestURI(path)
			if err != nil {
				t.Fatalf("%q is no path: %v", path, err)
			}
			if r.URL.Host != "" || r.URL.Scheme != "" || r.URL.Path != want.Path || r.URL.RawQuery != want.RawQuery || r.RequestURI != path && r.RequestURI != want.RequestURI() {
				t.Errorf("%q goes on as %q, %v", path, r.RequestURI, r.URL)
			}
			if r.Context().Err() == nil {
				t.Error("an upstream would be called")
			}
			if n, err := w.Write(make([]byte, 1<<20)); n > 0 && err == nil {
				t.Error("an answer would be collected")
			}
			return nil
		})
		_, err := gateway.Quote(t.Context(), escrow.Actor{Agent: "a"}, api.QuoteOrder{Method: method, Path: path}, nil, next)
		if err == nil {
			t.Errorf("%q has a price although no meter was reached (%v)", path, reached)
		}
	})
}
