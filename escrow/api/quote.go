package api

import (
	"bytes"
	"encoding/json"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// Tariff is what one metered route costs.
type Tariff struct {
	Route   string   `json:"route" jsonschema:"the paths that the route is for"`
	Payee   string   `json:"payee"`
	Pattern string   `json:"pattern" jsonschema:"how a call is charged, such as per_call or per_token"`
	Charge  string   `json:"charge" jsonschema:"what pays: a wallet, an escrow or a subscription"`
	Prices  []string `json:"prices" jsonschema:"the prices as the configuration writes them, such as 0.001 per call"`
	Cost    string   `json:"cost,omitempty" jsonschema:"where the provider states what a call costs, such as json usage.cost markup 20%; where it is there, that cost is charged instead of the prices"`
}

type tariffsOut struct {
	Tariffs    []Tariff `json:"tariffs"`
	Currency   string   `json:"currency"`
	NextCursor *string  `json:"next_cursor"`
}

// QuoteOrder is a request whose price is asked for.
type QuoteOrder struct {
	Method string          `json:"method,omitempty" jsonschema:"missing: POST if there is a body, else GET"`
	Path   string          `json:"path"`
	Body   json.RawMessage `json:"body,omitempty" jsonschema:"the request's JSON, or its text as a string"`
}

// Quote is what a request would cost.
type Quote struct {
	Route      string         `json:"route"`
	Payee      string         `json:"payee"`
	Model      string         `json:"model,omitempty"`
	Estimate   ledger.Amount  `json:"estimate"`
	Most       *ledger.Amount `json:"most" jsonschema:"the most that the call can cost; null if that has no bound"`
	Cost       string         `json:"cost,omitempty" jsonschema:"where the provider states what a call costs, such as json usage.cost markup 20%; where it is there, that cost is charged instead of the estimate"`
	Affordable bool           `json:"affordable" jsonschema:"whether the wallet, escrow or subscription that would pay has enough now"`
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
