package caddymodule

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tallygate/tallygate/escrow"
)

// priceReported prices work that a payee reports, by the meter of the named route or plan.
func (a *App) priceReported(o escrow.ReportOrder) (escrow.CallOrder, escrow.Settlement, error) {
	field, name, nameOf := "route", o.Route, func(m *Meter) string { return m.route.Name }
	if o.Plan != "" {
		field, name, nameOf = "plan", o.Plan, (*Meter).planName
	}
	var found *Meter
	var others []string
	for _, m := range a.meters {
		switch has := nameOf(m); {
		case m.Payee != o.Payee || has == "":
		case has != name:
			others = append(others, strconv.Quote(has))
		case found != nil && field == "route": // meters with the same plan have the same terms
			return escrow.CallOrder{}, escrow.Settlement{}, invalidField(field, "route %q: %q has two routes of that name, told apart by more than their paths: make one of them a named route", name, o.Payee)
		default:
			found = m
		}
	}
	if found != nil {
		return a.gateway.Reported(&found.route, o)
	}
	detail := ""
	if len(others) > 0 {
		slices.Sort(others)
		detail = "; it has " + strings.Join(slices.Compact(others), ", ")
	}
	return escrow.CallOrder{}, escrow.Settlement{}, invalidField(field, "%s %q: %q has none of that name%s", field, name, o.Payee, detail)
}

// planName returns the name of the plan that pays for calls to the meter; empty if none does.
func (m *Meter) planName() string {
	if m.plan == nil {
		return ""
	}
	return m.plan.Plan.Name
}

// invalidField refuses a request for one of its fields.
func invalidField(field, format string, args ...any) error {
	return &escrow.Refusal{Outcome: escrow.InvalidRequest, Detail: fmt.Sprintf(format, args...), Fields: map[string]string{"field": field}}
}
