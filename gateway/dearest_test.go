package gateway_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/pricing"
)

// TestTheDearerModelIsCharged: a client asks for a cheap model and an expensive one answers, and the other way round.
func TestTheDearerModelIsCharged(t *testing.T) {
	t.Parallel()
	tariff := &pricing.Tariff{}
	for _, model := range []string{"cheap 0.001", "dear 0.01"} {
		name, price, _ := strings.Cut(model, " ")
		output, err := pricing.ParseClassPrice("output", strings.Fields(price+" per token"))
		must(t, err)
		tariff.Models = append(tariff.Models, pricing.Model{Glob: name + "*", Prices: []pricing.Price{output}})
	}
	must(t, tariff.Compile(nil))
	for _, test := range []struct{ asked, answers, charge string }{
		{"cheap", "cheap-2026-01-01", "0.01"}, {"cheap", "dear", "0.1"}, {"dear", "cheap", "0.1"}, {"cheap", "unknown", "0.01"}, {"cheap", "", "0.01"},
	} {
		s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{Tariff: tariff}, document("Content-Type", "application/json",
			`{"object":"chat.completion","model":"`+test.answers+`","choices":[{"index":0,"message":{"content":"w"}}],"usage":{"prompt_tokens":0,"completion_tokens":10,"total_tokens":10}}`))
		good := sold{request: `{"model":"` + test.asked + `","messages":[],"max_tokens":10,"stream":%t}`}
		_, body, complete := good.ask(t, s, false)
		if !complete || len(s.charges()) == 0 {
			t.Fatalf("%v: %s", test, body)
		}
		charge := s.charges()[0]
		want(t, test.asked+" answered by "+test.answers, charge.Amount, test.charge)
		if told := charge.AskedModel + " " + charge.Model; test.answers != "" && told != test.asked+" "+test.answers || test.answers == "" && told != " "+test.asked {
			t.Errorf("%s answered by %q is told as %q", test.asked, test.answers, told)
		}
	}
}

// TestTheDearestOfTheNamedModelsIsCharged: only the answer tells which of the models that a request names has answered.
func TestTheDearestOfTheNamedModelsIsCharged(t *testing.T) {
	t.Parallel()
	tariff := &pricing.Tariff{}
	for _, model := range []string{"cheap 0.001", "dear 0.01"} {
		name, price, _ := strings.Cut(model, " ")
		output, err := pricing.ParseClassPrice("output", strings.Fields(price+" per token"))
		must(t, err)
		tariff.Models = append(tariff.Models, pricing.Model{Glob: name, Prices: []pricing.Price{output}})
	}
	must(t, tariff.Compile(nil))
	for _, test := range []struct{ path, body, answers, charge string }{
		{"/openai/deployments/cheap/chat/completions", `"model":"dear",`, "", "0.1"},
		{"/openai/deployments/cheap/chat/completions", `"model":"dear",`, "a model without a price", "0.1"},
		{"/openai/deployments/cheap/chat/completions", `"model":"dear",`, "cheap", "0.01"},
		{"/openai/deployments/dear/chat/completions", `"model":"cheap",`, "", "0.1"},
		{"/v1/chat/completions?model=dear", `"model":"cheap",`, "", "0.1"},
		{"/v1/chat/completions", `"model":"cheap","models":["cheap","dear"],`, "", "0.1"},
		{"/v1/chat/completions", `"model":"cheap","models":["cheap","dear"],`, "cheap", "0.01"},
	} {
		s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{Tariff: tariff}, document("Content-Type", "application/json",
			`{"object":"chat.completion","model":"`+test.answers+`","choices":[{"index":0,"message":{"content":"w"}}],"usage":{"prompt_tokens":0,"completion_tokens":10,"total_tokens":10}}`))
		good := sold{path: test.path, request: `{` + test.body + `"messages":[],"max_tokens":10,"stream":%t}`}
		_, body, complete := good.ask(t, s, false)
		if !complete || len(s.charges()) == 0 {
			t.Fatalf("%v: %s", test, body)
		}
		want(t, fmt.Sprint(test), s.charges()[0].Amount, test.charge)
	}
}

// TestManyModels: the results of a batch name more models than are told apart. The others are charged as the most expensive one.
func TestManyModels(t *testing.T) {
	t.Parallel()
	tariff := &pricing.Tariff{}
	for _, model := range []string{"cheap 0.01", "dear 0.04"} {
		name, price, _ := strings.Cut(model, " ")
		output, err := pricing.ParseClassPrice("output", strings.Fields(price+" per token"))
		must(t, err)
		tariff.Models = append(tariff.Models, pricing.Model{Glob: name + "*", Prices: []pricing.Price{output}})
	}
	must(t, tariff.Compile(nil))
	for _, cheap := range []int{3, 62, 63, 64, 65, 200} {
		var lines strings.Builder
		line := func(model string) {
			fmt.Fprintf(&lines, `{"custom_id":"1","response":{"status_code":200,"body":{"model":%q,"choices":[{"message":{"content":"w"}}],"usage":{"prompt_tokens":0,"completion_tokens":1}}}}`+"\n", model)
		}
		for i := range cheap {
			line(fmt.Sprintf("cheap-%d", i))
		}
		line("dear")
		var p shelf
		s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{Tariff: tariff, Shared: shared(t, "*")}, p.ServeHTTP)
		must(t, s.do(func(tx *escrow.Tx) error {
			_, err := tx.Deposit(operator, escrow.PaymentOrder{To: "alice", Amount: amount("99")})
			return err
		}))
		p.put("/v1/files/f/content", "application/octet-stream", lines.String())
		_, _ = s.call(s.key, "GET", "/v1/files/f/content", "")
		charge := s.charges()[0]
		least, apart := amount("0.01")*ledger.Amount(cheap)+amount("0.04"), cheap <= 64
		if charge.Suspect == apart || apart && charge.Amount != least || charge.Amount < least || cheap == 200 && charge.Amount <= least {
			t.Errorf("%d models cost %s, suspect %v; one by one %s", cheap+1, charge.Amount, charge.Suspect, least)
		}
	}
}
