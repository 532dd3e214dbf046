package gateway

import (
	"slices"
	"strings"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/pricing"
)

// CallRate is how often each agent may call a route, or how many tokens its calls may use.
type CallRate struct {
	escrow.CallRate
	Model string // a glob of the models whose calls count; empty: all calls
}

// permit refuses a call that the caller's key may not make, or not now.
func (q *asked) permit() *ledger.Refusal {
	if q.route.Shadow {
		return nil
	}
	if err := q.payer.MayCall(); err != nil {
		return asRefusal(err)
	}
	if routes := q.payer.Routes; len(routes) > 0 && !anyMatches(routes, q.route.Name) {
		return refuse(escrow.Forbidden, "this key may not call the route "+q.route.Name, "route", q.route.Name)
	}
	if refusal := q.permitModels(); refusal != nil {
		return refusal
	}
	return q.pace()
}

// permitModels refuses models that the caller's key may not call. If the key may call only some models, it must be known which one a call is
// for. Other calls than those of models need a route that the key names.
func (q *asked) permitModels() *ledger.Refusal {
	if len(q.payer.Models) == 0 || q.free() {
		return nil
	}
	models := append([]string{q.call.Model}, q.call.Models...)
	switch {
	case q.call.Model == "" && len(q.call.Models) == 0 && q.call.API == "" && len(q.payer.Routes) > 0:
		return nil
	case q.call.Model == "" || q.call.AnyModel || q.call.Talks && q.tariff == nil:
		return refuse(escrow.Forbidden, "this key may call only some models, and it is not known for which one this call is; calls without a model need a key that names the route in its routes")
	}
	for _, model := range models {
		if !slices.ContainsFunc(q.payer.Models, func(glob string) bool { return matchesModel(glob, model) }) {
			return refuse(escrow.Forbidden, "this key may not call the model "+model, "model", model)
		}
	}
	return nil
}

func anyMatches(globs []string, name string) bool {
	return slices.ContainsFunc(globs, func(glob string) bool { return pricing.MatchExact(glob, name) })
}

// matchesModel reports whether a glob matches a model. Case does not matter, as in tariffs.
func matchesModel(glob, model string) bool {
	return pricing.MatchExact(strings.ToLower(glob), strings.ToLower(model))
}

// pace counts the call against the rates that apply to it. A call of an inner meter was counted by the outer one, except against the inner
// route's own rates.
func (q *asked) pace() *ledger.Refusal {
	var rates []escrow.CallRate
	for _, r := range q.route.CallRates {
		if r.Model != "" && !slices.ContainsFunc(append(q.call.Models, q.call.Model), func(model string) bool { return model != "" && matchesModel(r.Model, model) }) {
			continue
		}
		if r.Owner != "plan" { // a plan has its rates on all routes together
			r.Name = q.route.Name + "\x00" + r.Model + "\x00" + r.Name
		}
		r.Name = q.route.Payee + "\x00" + r.Name
		rates = append(rates, r.CallRate)
	}
	payer := q.payer
	if q.outer != nil {
		payer.Pace, payer.Agents, q.paced = escrow.Pace{}, escrow.Pace{}, q.outer.paced
	}
	paced, err := q.gateway.book.Pace(payer, rates)
	if err != nil {
		return asRefusal(err)
	}
	q.paced = q.paced.And(paced)
	return nil
}

// needsModel reports whether the request is read although its price does not depend on it: to know which model it asks for, or how many tokens it
// uses.
func (q *asked) needsModel() bool {
	return !q.route.Shadow && (len(q.payer.Models) > 0 || q.payer.Pace.Tokens > 0 || q.payer.Agents.Tokens > 0 ||
		slices.ContainsFunc(q.route.CallRates, func(r CallRate) bool { return r.Tokens || r.Model != "" }))
}
