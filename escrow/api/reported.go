package api

import (
	"encoding/json"
	"strings"

	"github.com/shopspring/decimal"

	"github.com/tallygate/tallygate/escrow"
)

// quantity is a number of units in a request, which may be a JSON string or number. It keeps the shortest decimal.
type quantity string

const maxQuantity = 1_000_000_000_000 // units

// UnmarshalJSON reads an exact decimal from zero, of millionths at the least.
func (q *quantity) UnmarshalJSON(text []byte) error {
	s := string(text)
	if strings.HasPrefix(s, `"`) {
		if err := json.Unmarshal(text, &s); err != nil {
			return err
		}
	}
	d, err := decimal.NewFromString(s)
	if err != nil || len(s) > 40 || d.Exponent() > 12 || d.Exponent() < -40 {
		return invalid("", "%.40q is not a number of units, such as 34 or 1.25", s)
	}
	if d.IsNegative() || d.GreaterThan(decimal.New(maxQuantity, 0)) || !d.Equal(d.Truncate(6)) {
		return invalid("", "%.40s: expected a number of units from 0 to %d, with at most six digits after the point", s, int64(maxQuantity))
	}
	*q = quantity(d.String())
	return nil
}

type reportIn struct {
	Payer       string              `json:"payer"`
	Payee       string              `json:"payee,omitempty" jsonschema:"who did the work; only the operator gives it"`
	Plan        string              `json:"plan,omitempty" jsonschema:"the plan that pays for the work; instead of route"`
	Route       string              `json:"route,omitempty" jsonschema:"the metered route with the prices of the work, as /tariffs names it; instead of plan"`
	Model       string              `json:"model,omitempty" jsonschema:"for a route whose prices depend on the model"`
	ServiceTier string              `json:"service_tier,omitempty" jsonschema:"for a route whose prices depend on the service tier"`
	Units       map[string]quantity `json:"units" jsonschema:"what was used, by the names that charges have: second, input, call, ... If the price depends on calls and none are given, it was one"`
	HoldID      string              `json:"hold_id,omitempty" jsonschema:"the hold that pays; missing: the payer's wallet, under its allowance, or its subscription to the plan"`
	Reference   string              `json:"reference" jsonschema:"your own id of the work; the same report again charges nothing"`
}

// reportedOut is the charge for reported work.
type reportedOut struct {
	chargeOut

	repeated bool
}

func (c reportedOut) replayed() bool { return c.repeated }

func reportCharge(r *request, t *escrow.Tx, in *reportIn) (reportedOut, error) {
	if (in.Plan == "") == (in.Route == "") {
		return reportedOut{}, invalid("route", "give either route, whose prices apply, or plan, which pays")
	}
	if len(in.Units) == 0 || len(in.Units) > 100 {
		return reportedOut{}, invalid("units", "units: what was used, such as {\"second\": 90}; from 1 to 100 names")
	}
	o := escrow.ReportOrder{
		Payer: in.Payer, Payee: in.Payee, Plan: in.Plan, Route: in.Route, Model: in.Model, ServiceTier: in.ServiceTier, Hold: in.HoldID,
		Reference: in.Reference, Units: map[string]string{},
	}
	for class, n := range in.Units {
		o.Units[class] = string(n)
	}
	price := r.server.o.Price
	if price == nil {
		price = func(escrow.ReportOrder) (escrow.CallOrder, escrow.Settlement, error) {
			return escrow.CallOrder{}, escrow.Settlement{}, &escrow.Refusal{Outcome: escrow.NotFound, Detail: "there are no metered routes here"}
		}
	}
	c, err := t.Report(r.by, o, price)
	return reportedOut{chargeAnswer(t.Currency(), r.by)(c.Charge), c.Repeated}, err
}
