package api

import (
	"bytes"
	"encoding/json"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// Tariff is what one metered route costs.
type Tariff struct {
	Route   string   `json:"route" jsonschema:"the paths it is for"`
	Payee   string   `json:"payee"`
	Pattern string   `json:"pattern" jsonschema:"how it is charged, per_call or per_token for two"`
	Charge  string   `json:"charge" jsonschema:"what pays, a wallet, an escrow or a subscription"`
	Prices  []string `json:"prices" jsonschema:"in the words of the configuration, such as 0.001 per call"`
	Cost    string   `json:"cost,omitempty" jsonschema:"where the provider states what a call costs, such as json usage.cost markup 20%; that is charged then, and not the prices"`
}

type tariffsOut struct {
	Tariffs    []Tariff `json:"tariffs"`
	Currency   string   `json:"currency"`
	NextCursor *string  `json:"next_cursor"`
}

// QuoteOrder is a request whose price is asked for.
type QuoteOrder struct {
	Method string          `json:"method,omitempty" jsonschema:"GET, or POST where there is a body, if missing"`
	Path   string          `json:"path"`
	Body   json.RawMessage `json:"body,omitempty" jsonschema:"the request's JSON, or its text as a string"`
}

// Quote is what a request would cost.
type Quote struct {
	Route      string         `json:"route"`
	Payee      string         `json:"payee"`
	Model      string         `json:"model,omitempty"`
	Estimate   ledger.Amount  `json:"estimate"`
	Most       *ledger.Amount `json:"most" jsonschema:"null where it has no bound"`
	Cost       string         `json:"cost,omitempty" jsonschema:"where the provider states what a call costs, such as json usage.cost markup 20%; that is charged then, and not the estimate"`
	Affordable bool           `json:"affordable" jsonschema:"by what would pay it (wallet, escrow or subscription), as that is now"`
	Currency   string         `json:"currency"`
}

func quoteRoutes() []route {
	return []route{
		get("/tariffs", "listTariffs", "What each metered route costs", listTariffs).open(),
		ask("/quote", "quote", "What a request to a metered route would cost", quote).open(),
	}
}

func listTariffs(r *request, _ *none) (tariffsOut, error) {
	out := tariffsOut{Tariffs: []Tariff{}, Currency: r.book.Currency()}
	if r.server.o.Tariffs != nil {
		out.Tariffs = append(out.Tariffs, r.server.o.Tariffs()...)
	}
	return out, nil
}

func quote(r *request, in *QuoteOrder) (Quote, error) {
	if r.server.o.Quote == nil {
		return Quote{}, &escrow.Refusal{Outcome: escrow.NotFound, Detail: "there are no metered routes here"}
	}
	if in.Method == "" {
		in.Method = "GET"
		if len(in.Body) > 0 {
			in.Method = "POST"
		}
	}
	if text := ""; bytes.HasPrefix(in.Body, []byte(`"`)) {
		if err := json.Unmarshal(in.Body, &text); err != nil {
			return Quote{}, invalid("body", "body: %s", plain(err))
		}
		in.Body = json.RawMessage(text)
	}
	q, err := r.server.o.Quote(r.Context(), r.by, *in)
	q.Currency = r.book.Currency()
	return q, err
}
