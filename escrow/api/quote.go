package api

import "encoding/json"

// Tariff is what one metered route costs.
type Tariff struct {
	Route   string   `json:"route" jsonschema:"the paths it is for"`
	Payee   string   `json:"payee"`
	Pattern string   `json:"pattern" jsonschema:"how it is charged: per_call, per_token, ..."`
	Charge  string   `json:"charge" jsonschema:"wallet or escrow"`
	Prices  []string `json:"prices" jsonschema:"in the words of the configuration: 0.001 per call"`
}

// QuoteOrder is a request whose price is asked for.
type QuoteOrder struct {
	Method string          `json:"method,omitempty"`
	Path   string          `json:"path"`
	Body   json.RawMessage `json:"body,omitempty"`
}

// Quote is what a request would cost. Amounts are decimal text.
type Quote struct {
	Route      string `json:"route"`
	Payee      string `json:"payee"`
	Estimate   string `json:"estimate"`
	Most       string `json:"most,omitempty" jsonschema:"missing: it has no bound but the wallet"`
	Affordable bool   `json:"affordable"`
	Currency   string `json:"currency"`
}
