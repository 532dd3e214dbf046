package pricing

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/shopspring/decimal"

	"github.com/tallygate/tallygate/meter"
)

const caseTariff = `{
	"models": [
		{"glob": "chat", "prices": [{"amount": "1", "unit": "input"}, {"amount": "2", "unit": "output"}]},
		{"glob": "embed", "prices": [{"amount": "0.1", "unit": "input"}]}
	],
	"tools": [{"glob": "search", "amount": "0.01"}, {"glob": "*", "amount": "0.02"}],
	"max_output": 100,
	"cases": [
		{"agents": ["acme-*", "Partner"], "models": [{"glob": "chat", "prices": [{"amount": "0.5", "unit": "input"}, {"amount": "1", "unit": "output"}]}], "cases": [
			{"at": "00:00-06:00 UTC", "models": [{"glob": "chat", "prices": [{"amount": "0.25", "unit": "input"}]}]}
		]},
		{"at": "mon-fri 09:00-18:00 UTC", "models": [{"glob": "chat", "prices": [{"amount": "4", "unit": "input"}, {"amount": "8", "unit": "output"}]}], "tools": [{"glob": "search", "amount": "0.05"}]},
		{"at": "22:00-23:00 UTC", "max_output": 7, "models": [{"glob": "night", "prices": [{"amount": "3", "unit": "input"}]}]}
	]
}`

// The first case that holds has the prices of a call; what it does not say, the tariff around it does.
func TestCases(t *testing.T) {
	tariff := compiled(t, caseTariff)
	tests := []struct {
		agent, at, model, units, want string
	}{
		{"bob", "mon 08:00", "chat", "input=1 output=1", "3"},
		{"bob", "mon 09:00", "chat", "input=1 output=1", "12"},
		{"bob", "sat 09:00", "chat", "input=1 output=1", "3"},
		{"bob", "mon 09:00", "embed", "input=1", "0.1"},
		{"bob", "mon 09:00", "night", "input=1", "no price"},
		{"bob", "mon 22:30", "night", "input=1", "3"},
		{"bob", "mon 22:30", "chat", "input=1", "1"},
		{"acme-1", "mon 09:00", "chat", "input=1 output=1", "1.5"},
		{"acme-1", "mon 09:00", "embed", "input=1", "0.1"},
		{"acme-1", "mon 05:00", "chat", "input=1 output=1", "0.25"}, // its models have their own lines alone
		{"acme-1", "mon 22:30", "night", "input=1", "no price"},     // the first case that holds, and no other
		{"Partner", "mon 09:00", "chat", "input=1", "0.5"},
		{"partner", "mon 09:00", "chat", "input=1", "4"}, // ids differ by case
		{"Acme-1", "mon 09:00", "chat", "input=1", "4"},
		{"", "mon 08:00", "chat", "input=1", "1"},
	}
	for _, test := range tests {
		got := "no price"
		if rates, ok := tariff.Under(test.agent, inWeek(t, test.at)).For(test.model); ok {
			e, err := rates.Explain(meter.Usage{Units: used(t, test.units)})
			if err != nil {
				t.Fatal(err)
			}
			got = e.Amount
		}
		if got != test.want {
			t.Errorf("%q on %s, %s %s: %s, want %s", test.agent, test.at, test.model, test.units, got, test.want)
		}
	}
	for at, want := range map[string]int64{"mon 09:00": 50_000_000, "mon 08:00": 10_000_000} {
		rates, _ := tariff.Under("bob", inWeek(t, at)).ForTools()
		if due, err := rates.Due(meter.Usage{Units: used(t, "tool_call=1"), Tools: map[string]int64{"search": 1}}); due != want || err != nil {
			t.Errorf("a search on %s costs %d, %v; want %d", at, due, err, want)
		}
		if due, _ := rates.Due(meter.Usage{Units: used(t, "tool_call=1"), Tools: map[string]int64{"other": 1}}); due != 20_000_000 {
			t.Errorf("another tool on %s costs %d", at, due)
		}
	}
	if rates, _ := tariff.Under("bob", inWeek(t, "mon 22:30")).For("chat"); rates.MaxOutput() != 7 {
		t.Errorf("max_output at night is %d", rates.MaxOutput())
	}
	if none := (*Tariff)(nil).Under("bob", inWeek(t, "mon 09:00")); none != nil {
		t.Error("no tariff has one")
	}
}

func TestCasesOfACatalog(t *testing.T) {
	tariff := Tariff{Catalog: &CatalogUse{File: "x"}}
	if err := json.Unmarshal([]byte(`[{"agents": ["acme"], "catalog": {"file": "x", "markup": "10%"}}]`), &tariff.Cases); err != nil {
		t.Fatal(err)
	}
	catalog, err := LoadCatalog(strings.NewReader(`{"m": {"input_cost_per_token": 0.001}}`))
	if err != nil {
		t.Fatal(err)
	}
	if err := tariff.Compile(catalog); err != nil {
		t.Fatal(err)
	}
	for agent, want := range map[string]int64{"acme": 1_100_000, "bob": 1_000_000} {
		rates, ok := tariff.Under(agent, inWeek(t, "mon 12:00")).For("m")
		if !ok {
			t.Fatalf("%s has no price", agent)
		}
		if due, err := rates.Due(meter.Usage{Units: used(t, "input=1")}); due != want || err != nil {
			t.Errorf("%s pays %d, %v; want %d", agent, due, err, want)
		}
	}
}

func TestCasesThatAreWrong(t *testing.T) {
	const models = `"models": [{"glob": "*", "prices": [{"amount": "1", "unit": "input"}]}]`
	for cases, want := range map[string]string{
		`[{` + models + `}]`:                            "without a condition",
		`[{"agents": [""], ` + models + `}]`:            "without a condition",
		`[{"agents": ["a"]}]`:                           "for a: no prices",
		`[{"at": "09:00-10:00 UTC"}]`:                   "at 09:00-10:00 UTC: no prices",
		`[{"agents": ["a"], "max_output": 3}]`:          "no prices",
		`[{"agents": ["a"], "catalog": {"file": "y"}}]`: "name the catalog of the tariff around",
		`[{"agents": ["a"], "models": [{"glob": "*", "prices": [{"amount": "1e-10", "unit": "call"}]}]}]`: "finer than the 9 digits",
		`[{"agents": ["a"], "cases": [{"agents": ["b"], "models": [{"glob": "", "prices": []}]}]}]`:       "for a: for b: model",
	} {
		var tariff Tariff
		if err := strictJSON([]byte(`{`+models+`, "cases": `+cases+`}`), &tariff); err != nil {
			t.Fatalf("%s: %v", cases, err)
		}
		if err := tariff.Compile(nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", cases, err, want)
		}
	}
}

func TestToolsOnlyWithCases(t *testing.T) {
	const tools = `"tools": [{"glob": "*", "amount": "1"}]`
	for config, want := range map[string]bool{
		`{` + tools + `}`: true,
		`{` + tools + `, "cases": [{"agents": ["a"], ` + tools + `}]}`:                                                           true,
		`{"cases": [{"agents": ["a"], ` + tools + `}]}`:                                                                          true,
		`{` + tools + `, "cases": [{"agents": ["a"], "models": [{"glob": "*", "prices": [{"amount": "1", "unit": "input"}]}]}]}`: false,
	} {
		if got := compiled(t, config).ToolsOnly(); got != want {
			t.Errorf("%s: %v", config, got)
		}
	}
}

// A caller sees the parts that are for it, and of a case that is for others too, no other's name.
func TestParts(t *testing.T) {
	tariff := compiled(t, caseTariff)
	for _, test := range []struct {
		agent string
		all   bool
		want  string
	}{
		{"bob", false, "at mon-fri 09:00-18:00 UTC: chat+1 tools; at 22:00-23:00 UTC: night; : chat embed+2 tools"},
		{"acme-1", false, "for acme-* & at 00:00-06:00 UTC: chat; for acme-*: chat; at mon-fri 09:00-18:00 UTC: chat+1 tools; at 22:00-23:00 UTC: night; : chat embed+2 tools"},
		{"", true, "for acme-* Partner & at 00:00-06:00 UTC: chat; for acme-* Partner: chat; at mon-fri 09:00-18:00 UTC: chat+1 tools; at 22:00-23:00 UTC: night; : chat embed+2 tools"},
	} {
		var parts []string
		for _, part := range tariff.Parts(test.agent, test.all) {
			var names []string
			for name := range part.Names() {
				if _, rates, ok := part.Model(name); !ok || rates == nil {
					t.Errorf("%s has no rates", name)
				}
				names = append(names, name)
			}
			text := strings.Join(part.When, " & ") + ": " + strings.Join(names, " ")
			if tools, rates, ok := part.Tools(); ok {
				text += fmt.Sprintf("+%d tools", len(tools))
				if rates == nil {
					t.Error("tools without rates")
				}
			}
			parts = append(parts, text)
		}
		if got := strings.Join(parts, "; "); got != test.want {
			t.Errorf("%q: %s\nwant %s", test.agent, got, test.want)
		}
	}
}

func TestList(t *testing.T) {
	m := Model{Glob: "*", Prices: []Price{{Amount: decimal.New(15, -2), Per: 1e6, Unit: "token"}, {Amount: decimal.New(6, -3), Unit: "minute"}},
		Above:    []Above{{1000, []Price{{Amount: decimal.New(3, -1), Per: 1e6, Unit: "input"}}}},
		Services: []Service{{Name: "flex", Prices: []Price{{Amount: decimal.New(1, -1), Per: 1e6, Unit: "output"}}, Above: []Above{{2000, []Price{{Amount: decimal.New(2, -1), Unit: "call"}}}}}}}
	var got []string
	for _, l := range append(m.List(), List([]Price{{Amount: decimal.New(2, 0), Unit: "rows"}}, "rows")...) {
		got = append(got, fmt.Sprintf("%s %s/%d %s>%d %s", l.Class, l.Amount, l.Per, l.Unit, l.Above, l.Service))
	}
	const want = "input 0.15/1000000 token>0 ; output 0.15/1000000 token>0 ; second 0.006/1 minute>0 ; input 0.3/1000000 input>1000 ; " +
		"output 0.1/1000000 output>0 flex; call 0.2/1 call>2000 flex; rows 2/1 rows>0 "
	if text := strings.Join(got, "; "); text != want {
		t.Errorf("%s\nwant %s", text, want)
	}
}
