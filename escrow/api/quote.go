package api

import (
	"bytes"
	"encoding/json"

	"github.com/shopspring/decimal"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// Tariff is what calls to a metered route cost: calls of one model, or all calls if the price does not depend on a model.
type Tariff struct {
	Route     string        `json:"route" jsonschema:"the name of the route: its paths, or the name of a named route; with its host if another host has the same paths"`
	Host      string        `json:"host,omitempty" jsonschema:"the hosts that the route is for; missing if it is for all"`
	Payee     string        `json:"payee"`
	Pattern   string        `json:"pattern" jsonschema:"how a call is charged, such as per_call, per_token or subscription"`
	Charge    string        `json:"charge" jsonschema:"what pays: a wallet, an escrow or a subscription"`
	When      []string      `json:"when,omitempty" jsonschema:"for whom and when the prices apply, such as at 16:30-00:30 UTC; all conditions must hold. The first tariff of a route whose conditions hold has the price of a call"`
	Model     string        `json:"model,omitempty" jsonschema:"the names of models, in which * matches any text; the first entry of a route that matches has the price"`
	Catalog   bool          `json:"catalog,omitempty" jsonschema:"whether the model is from the route's price catalog"`
	Prices    []TariffPrice `json:"prices" jsonschema:"prices of one class are added up, unless they differ in above, service or tool"`
	MaxOutput int64         `json:"max_output,omitempty" jsonschema:"how many output tokens an answer can have at most if its request sets no limit"`
	Plan      *TariffPlan   `json:"plan,omitempty" jsonschema:"the subscription that pays for the calls; the prices are for use beyond what it includes"`
	Cost      string        `json:"cost,omitempty" jsonschema:"where the provider states what a call costs, such as json usage.cost markup 20%; if an answer states it, that cost is charged instead of the prices"`
}

// TariffPrice is the price of units of a class.
type TariffPrice struct {
	Class   string          `json:"class" jsonschema:"what is counted, such as call, input, output or second"`
	Amount  decimal.Decimal `json:"amount" jsonschema:"in the ledger's currency"`
	Per     int64           `json:"per" jsonschema:"how many units the amount buys"`
	Unit    string          `json:"unit" jsonschema:"the unit, such as token or minute"`
	Above   int64           `json:"above,omitempty" jsonschema:"the price is for prompts of more tokens than this"`
	Service string          `json:"service,omitempty" jsonschema:"the price is for this service tier"`
	Tool    string          `json:"tool,omitempty" jsonschema:"the price is for tools of this name, in which * matches any text"`
	After   int64           `json:"after,omitempty" jsonschema:"the price is for what a caller uses after this many units in a period"`
	Each    string          `json:"each,omitempty" jsonschema:"if the price has tiers, the period: day, week or month, by the calendar in UTC"`
	Volume  bool            `json:"volume,omitempty" jsonschema:"if the price has tiers: true if all units of a call have the price of the tier that the use reaches with the call, false if each unit has the price of its own tier"`
}

// QuoteTier is the current price for the caller of a price with tiers.
type QuoteTier struct {
	Class  string          `json:"class"`
	Amount decimal.Decimal `json:"amount" jsonschema:"what the next units cost"`
	Per    int64           `json:"per" jsonschema:"how many units the amount buys"`
	Unit   string          `json:"unit"`
	Each   string          `json:"each" jsonschema:"the period in which use is counted: day, week or month, by the calendar in UTC"`
	Used   string          `json:"used" jsonschema:"what the caller has used in the period, in the class's own unit"`
}

// TariffPlan is a subscription that a route offers.
type TariffPlan struct {
	Name        string        `json:"name"`
	Amount      ledger.Amount `json:"amount" jsonschema:"what a period costs"`
	PeriodHours hours         `json:"period_hours,omitempty" jsonschema:"missing if periods are calendar months"`
	Period      string        `json:"period" jsonschema:"such as 168h, or 1mo for a calendar month"`
	Included    string        `json:"included,omitempty" jsonschema:"how many units a period includes; missing: no limit"`
	Unit        string        `json:"unit,omitempty"`
	Pool        ledger.Amount `json:"pool,omitzero" jsonschema:"what is locked for each period to pay for use beyond the included units"`
}

// PlanOf returns a plan as the list of tariffs shows it.
func PlanOf(p escrow.Plan) *TariffPlan {
	t := &TariffPlan{Name: p.Name, Amount: p.Price, PeriodHours: hours(p.Period), Period: p.Term().String(), Pool: p.Pool}
	if p.Included > 0 {
		t.Included, t.Unit = escrow.Units(p.Included), p.Unit
	}
	return t
}

// TariffQuery says which tariffs are wanted.
type TariffQuery struct {
	By    escrow.Actor // the caller; the zero Actor if no key was given
	Model string       // only the tariffs that now apply to calls of this model; empty: all
}

type tariffsIn struct {
	Model string `query:"model"`
	paging
}

type tariffsOut struct {
	Tariffs    []Tariff `json:"tariffs"`
	Currency   string   `json:"currency"`
	NextCursor *string  `json:"next_cursor"`
}

// QuoteOrder is a request whose price is to be estimated.
type QuoteOrder struct {
	Method string          `json:"method,omitempty" jsonschema:"missing: POST if there is a body, else GET"`
	Path   string          `json:"path" jsonschema:"a path of this host, or a whole URL of another host of this server"`
	Body   json.RawMessage `json:"body,omitempty" jsonschema:"the request's JSON, or its text as a string"`
	// Headers replace those of the request for the quote, which the quoted request has otherwise.
	Headers map[string]string `json:"headers,omitempty" jsonschema:"headers of the quoted request, if they differ from those of this one"`
}

// Quote is what a request would cost.
type Quote struct {
	Route      string         `json:"route"`
	Payee      string         `json:"payee"`
	Model      string         `json:"model,omitempty"`
	Estimate   ledger.Amount  `json:"estimate"`
	Most       *ledger.Amount `json:"most" jsonschema:"the most that the call can cost; null if there is no limit"`
	Later      bool           `json:"charged_later,omitzero" jsonschema:"the request asks for what comes later: estimate is held and given back, and the answer, or the results of the batch, are charged when they are fetched"`
	Owed       ledger.Amount  `json:"owed,omitzero" jsonschema:"what is missing of the price of an answer that the provider keeps in what the request names; it is charged before the call, besides estimate and most"`
	Cost       string         `json:"cost,omitempty" jsonschema:"where the provider states what a call costs, such as json usage.cost markup 20%; if an answer states it, that cost is charged instead of the prices"`
	Tiers      []QuoteTier    `json:"tiers,omitempty" jsonschema:"the current prices that depend on what the caller has used in a period; estimate and most are at the most expensive tier"`
	Credit     ledger.Amount  `json:"credit,omitzero" jsonschema:"the credit that the call would use before money, as far as it reaches"`
	Affordable bool           `json:"affordable" jsonschema:"whether the call could begin now: the credit and wallet, escrow or subscription that would pay has enough, and no limit is in the way"`
	Limit      string         `json:"limit,omitempty" jsonschema:"the limit of the caller or of its key that keeps the call from being affordable"`
	Currency   string         `json:"currency"`
}

func quoteRoutes() []route {
	return []route{
		get("/tariffs", "listTariffs", "What each metered route costs", listTariffs).open(),
		ask("/quote", "quote", "What a request to a metered route would cost", quote).open(),
	}
}

// listTariffs makes only the tariffs of its page, since a catalog has thousands.
func listTariffs(r *request, in *tariffsIn) (tariffsOut, error) {
	out := tariffsOut{Tariffs: []Tariff{}, Currency: r.book.Currency()}
	if r.server.o.Tariffs == nil {
		return out, nil
	}
	type listed struct {
		id   string
		make func() Tariff
	}
	var all []listed
	for id, make := range r.server.o.Tariffs(TariffQuery{By: r.by, Model: in.Model}) {
		all = append(all, listed{id, make})
	}
	page, at, err := pageOf(all, in.paging, func(l listed) string { return l.id })
	for _, l := range page {
		out.Tariffs = append(out.Tariffs, l.make())
	}
	out.NextCursor = next(r, at)
	return out, err
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
