package caddymodule_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const listedCatalog = `{
	"alpha": {"input_cost_per_token": 0.000001, "output_cost_per_token": 0.000002, "max_output_tokens": 4096},
	"beta": {"input_cost_per_token": 0.000001, "input_cost_per_token_above_200k_tokens": 0.000003, "input_cost_per_token_batches": 0.0000005},
	"gamma": {"input_cost_per_request": 0.0000000033},
	"images": {"input_cost_per_image": 0.01}
}`

// openListed opens a shop with a route of each kind.
func openListed(t *testing.T) *shop {
	file := filepath.Join(t.TempDir(), "prices.json")
	if err := os.WriteFile(file, []byte(listedCatalog), 0o600); err != nil {
		t.Fatal(err)
	}
	options := `
		tariff chat {
			model free* {
				input 0 per 1M tokens
				output 0 per 1M tokens
			}
			catalog ` + file + ` markup 20%
			for acme-* other {
				catalog ` + file + ` markup 5%
			}
			at sat,sun 00:00-24:00 UTC {
				model free* {
					token 1 per 1M tokens
				}
			}
		}`
	site := `handle /v1/* {
		meter acme {
			tariff chat
		}
		reverse_proxy UPSTREAM
	}
	handle /mcp {
		meter tools {
			tariff {
				tool search* 10 per 1k calls
				tool * 0.02 per call
			}
		}
		reverse_proxy UPSTREAM
	}
	handle /rows {
		meter rows {
			count rows header X-Rows
			price 0.02 per 1k rows {
				after 1M 0.01
				each day
			}
			price 0.001 per call
		}
		reverse_proxy UPSTREAM
	}
	handle /plan {
		meter plans {
			subscription base 5 per 168h {
				included 1k calls
				overage 0.01 per call from 2
			}
		}
		reverse_proxy UPSTREAM
	}`
	return openShop(t, options, site, text("results"))
}

// listedTariffs returns the tariffs of a list, one per line.
func listedTariffs(t *testing.T, body map[string]any) string {
	t.Helper()
	var lines []string
	for _, item := range body["tariffs"].([]any) {
		tariff := item.(map[string]any)
		line := fmt.Sprint(tariff["route"], " ", tariff["pattern"], " ", tariff["charge"])
		if when, ok := tariff["when"].([]any); ok {
			line += fmt.Sprint(" ", when)
		}
		if model, ok := tariff["model"]; ok {
			line += fmt.Sprint(" ", model)
		}
		if tariff["catalog"] == true {
			line += " of the catalog"
		}
		for _, item := range tariff["prices"].([]any) {
			p := item.(map[string]any)
			line += fmt.Sprintf(", %s %s/%.0f %s", p["class"], p["amount"], p["per"], p["unit"])
			for _, name := range []string{"above", "service", "tool", "after", "each", "volume"} {
				if value, ok := p[name]; ok {
					line += fmt.Sprintf(" %s=%v", name, value)
				}
			}
		}
		if plan, ok := tariff["plan"]; ok {
			data, err := json.Marshal(plan)
			if err != nil {
				t.Fatal(err)
			}
			line += " " + string(data)
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

const listedRest = `/plan subscription subscription, call 0.01/1 call {"amount":"5","included":"1000","name":"base","period":"168h","period_hours":168,"pool":"2","unit":"call"}
/rows per_unit wallet, rows 0.02/1000 rows each=day, rows 0.01/1000 rows after=1e+06 each=day, call 0.001/1 call
`

const listedTools = `/mcp per_unit wallet, tool_call 10/1000 call tool=search*, tool_call 0.02/1 call tool=*
`

const listedWeekend = `/v1/* per_token wallet [at sat,sun 00:00-24:00 UTC] free*, input 1/1000000 token, output 1/1000000 token
`

const listedModels = `/v1/* per_call wallet free*, input 0/1000000 input, output 0/1000000 output
/v1/* per_token wallet alpha of the catalog, input 1.2/1000000 input, output 2.4/1000000 output
/v1/* per_token wallet beta of the catalog, input 1.2/1000000 input, input 3.6/1000000 input above=200000, input 0.6/1000000 input service=batch
/v1/* per_call wallet gamma of the catalog, call 0.000000004/1 call`

func TestTariffsAreListedAsData(t *testing.T) {
	t.Parallel()
	s := openListed(t)
	want(t, "for anybody", listedTariffs(t, s.api("GET", "/tariffs", "", nil, 200)), listedRest+listedTools+listedWeekend+listedModels)

	customer := listedTariffs(t, s.api("GET", "/tariffs", s.agent("acme-1", "1"), nil, 200))
	if !strings.HasPrefix(customer, listedRest+listedTools+"/v1/* per_token wallet [for acme-*] alpha of the catalog, input 1.05/1000000 input, output 2.1/1000000 output\n") {
		t.Errorf("for a customer:\n%s", customer)
	}
	operators := listedTariffs(t, s.api("GET", "/tariffs", operatorKey, nil, 200))
	if !strings.HasPrefix(operators, listedRest+listedTools+"/v1/* per_token wallet [for acme-* other] alpha") {
		t.Errorf("for the operator:\n%s", operators)
	}

	var paged []string
	for cursor := any(""); cursor != nil; {
		page := s.api("GET", "/tariffs?limit=2&cursor="+url.QueryEscape(cursor.(string)), "", nil, 200)
		if n := len(page["tariffs"].([]any)); n < 1 || n > 2 {
			t.Fatalf("a page has %d tariffs", n)
		}
		paged = append(paged, listedTariffs(t, page))
		cursor = page["next_cursor"]
	}
	want(t, "in pages", strings.Join(paged, "\n"), listedRest+listedTools+listedWeekend+listedModels)
}

// A model is listed by the prices by which its calls are charged. Routes that charge nothing by models are listed too.
func TestTariffsOfAModel(t *testing.T) {
	t.Parallel()
	s := openListed(t)
	customer := s.agent("acme-1", "1")
	for _, test := range []struct{ model, key, last string }{
		{"gamma", "", "/v1/* per_call wallet gamma of the catalog, call 0.000000004/1 call"},
		{"alpha", customer, "/v1/* per_token wallet alpha of the catalog, input 1.05/1000000 input, output 2.1/1000000 output"},
		{"images", "", ""},
		{"unknown", "", ""},
	} {
		want(t, test.model, listedTariffs(t, s.api("GET", "/tariffs?model="+test.model, test.key, nil, 200)), strings.TrimSuffix(listedRest+test.last, "\n"))
	}
}

// Models of a catalog that can't be charged are logged at the start.
func TestTheStartTellsOfACatalogsProblems(t *testing.T) {
	t.Parallel()
	s := openListed(t)
	logged, err := os.ReadFile(s.log)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(logged), `"entries":1,"problems":["images: `) {
		t.Errorf("the log tells nothing of images:\n%s", logged)
	}
}

// The price of a tier is shown by the charge, by explain and by verify, also after a restart.
func TestTiersAreTold(t *testing.T) {
	t.Parallel()
	const site = `handle /search* {
		meter acme {
			price 0.01 per event {
				after 3 0.002
			}
			price 0.5 per call
		}
		reverse_proxy UPSTREAM
	}`
	p := newProcess(t, "1s", "", site, flushes("text/event-stream", "data: 1\n\n", "data: 2\n\n", "data: [DONE]\n\n"))
	p.start()
	key := p.agent("alice", "10")
	p.do("GET", "/search", key, "")
	p.stop(syscall.SIGTERM)
	p.start()
	p.do("GET", "/search", key, "")
	charge := p.charges(key)[0]
	want(t, "charge", charge["amount"].(string), "0.512")
	want(t, "prices", fmt.Sprint(charge["unit_prices"]), "map[call:0.5 per call event:0.01 per event; 0.002 after 3; from 2]")
	q := p.api("POST", "/quote", key, map[string]any{"method": "GET", "path": "/search"}, 200)
	want(t, "quote", fmt.Sprint(q["tiers"]), "[map[amount:0.002 class:event each:month per:1 unit:event used:4]]")
	id := charge["request_id"].(string)
	for _, c := range []struct{ line, want string }{
		{"explain " + id, "x 0.01 per event; 0.002 after 3; from 2  = 0.012"},
		{"explain " + id, "sum 0.512"},
		{"explain --json " + id, `"amount": "0.512"`},
	} {
		if code, out := run(t, append(strings.Fields(c.line), "--config", p.config)...); code != 0 || !strings.Contains(out, c.want) {
			t.Errorf("%s: exit %d, want %s in\n%s", c.line, code, c.want, out)
		}
	}
	p.verify()
	p.stop(syscall.SIGTERM)
	p.wantNoPanic()
}
