package gateway

import (
	"slices"
	"strconv"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/meter"
)

// Some requests are not answered at once: the provider returns the name of the answer, and the caller fetches the answer when it is
// finished. The books record who asked for it before the caller gets the name ([escrow.LaterAnswer]). Only that agent may fetch the answer.
// It is charged then, once, at the prices that the model that it asked for had when it asked. If it fetches a part before the answer is finished, it pays for
// that part too. The price of a call, and of what the request itself asks for, is charged with the first request.

// findLater finds out whether the call fetches an answer that was asked for before, and what was asked for.
func (q *asked) findLater() *ledger.Refusal {
	if q.route.Shadow {
		return nil
	}
	if refusal := q.checkFollows(); refusal != nil {
		return refusal
	}
	if q.call.Of != "" {
		of, found, err := q.gateway.book.LaterAnswer(q.route.Payee, q.call.Of)
		if err != nil {
			return asRefusal(err)
		}
		if found && of.Payer != q.payer.Agent {
			return refuse(escrow.NotFound, "this agent has not asked for "+strconv.Quote(q.call.Of))
		}
		if found {
			q.asksOf(of.At)
		}
	}
	if q.call.Once != "" {
		charged, err := q.isCharged(q.id)
		if err != nil {
			return asRefusal(err)
		}
		if charged {
			q.call.Free, q.call.Once = true, ""
		}
		return nil
	}
	if q.call.Fetches == "" {
		return nil
	}
	return q.findFetched()
}

// findFetched finds the call whose answer this one fetches. If the answer is not charged yet, this call pays for it.
func (q *asked) findFetched() *ledger.Refusal {
	later, found, err := q.gateway.book.LaterAnswer(q.route.Payee, q.call.Fetches)
	switch {
	case err != nil:
		return asRefusal(err)
	case !found && q.call.Free: // the provider answered at once, and the answer was charged then
		q.call.Fetches = ""
		return nil
	case !found || later.Payer != q.payer.Agent:
		return refuse(escrow.NotFound, "this agent has not asked for the answer "+strconv.Quote(q.call.Fetches))
	}
	if q.call.Prepaid {
		q.call.Free, q.call.Fetches = true, ""
		return nil
	}
	id := onceID(later.Payee, later.Payer, later.Name)
	charged, err := q.isCharged(id)
	if err != nil {
		return asRefusal(err)
	}
	if charged {
		q.call.Free, q.call.Fetches = true, ""
		return nil
	}
	q.pricedAt(later.At)
	c := q.call
	c.Free, c.Model, c.Models, c.ServiceTier = false, later.Model, later.Models, later.ServiceTier
	c.InputTokens, c.InputOpen, c.MaxOutput, c.Choices = later.InputTokens, later.InputOpen, later.MaxOutput, later.Choices
	c.ContainerGB, c.Thinks, c.InputStored = later.ContainerGB, later.Thinks, later.Prompt
	q.id = id
	dropRange(q.request.Header) // a part of the answer would be taken for the whole
	return nil
}

// isCharged reports whether this agent was charged for a request id. A result that is charged once has an id that is made from its name,
// see onceID.
func (q *asked) isCharged(request string) (bool, error) {
	_, err := q.gateway.book.Charge(q.request.Context(), escrow.Actor{Agent: q.payer.Agent}, request)
	if refusal, ok := err.(*ledger.Refusal); ok && refusal.Outcome == escrow.NotFound {
		return false, nil
	}
	return err == nil, err
}

// paidResult reports whether this agent was charged for a result before, see [meter.Call.Paid].
func (q *asked) paidResult(result string) bool {
	paid, err := q.gateway.book.PaidResult(q.route.Payee, q.payer.Agent, result)
	return err == nil && paid // if the books can't be read, nothing can be charged either
}

// oneAtATime waits until no other call of this agent gets results of which each is charged once, so that none is charged twice. It returns a
// function that lets the next one go on.
func (q *asked) oneAtATime() (done func(), err error) {
	if q.call.Paid == nil {
		return func() {}, nil
	}
	of := escrow.Thing{Kind: escrow.ItemizedAnswer, Owner: q.payer.Agent, Name: q.route.Payee}
	claim, err := q.gateway.book.Claims().Await(q.request.Context(), 1, escrow.Bound{Of: of, Most: 1})
	if err != nil {
		return nil, err
	}
	return claim.End, nil
}

// checkFollows refuses a call that continues an answer that is not paid yet, because the new answer could repeat the unpaid one.
func (q *asked) checkFollows() *ledger.Refusal {
	for _, name := range q.call.Follows {
		later, found, err := q.gateway.book.LaterAnswer(q.route.Payee, name)
		if err != nil {
			return asRefusal(err)
		}
		if !found {
			continue
		}
		if later.Payer != q.payer.Agent {
			return refuse(escrow.NotFound, "this agent has not asked for the answer "+strconv.Quote(name))
		}
		charged, err := q.isCharged(onceID(later.Payee, later.Payer, later.Name))
		if err != nil {
			return asRefusal(err)
		}
		if !charged {
			return refuse(escrow.InvalidStatus, "the answer "+strconv.Quote(name)+", which this call builds on, is not paid yet: fetch it first")
		}
	}
	return nil
}

// checkLater refuses two sorts of calls: those whose answer the provider would send elsewhere, so that it can't be charged; and those that
// ask for a later answer as the work of a milestone.
func (q *asked) checkLater() *ledger.Refusal {
	switch field := q.call.Elsewhere; {
	case field != "" && !q.call.Free && q.rates != nil && !q.rates.OnlyCalls() && !q.rates.OnlyAsked():
		return refuse(escrow.InvalidRequest, field+": the answer would go elsewhere, past the meter, so it can't be charged: leave it out, and fetch the answer", "field", field)
	case q.call.Later != "" && q.terms.milestone != "":
		return refuse(escrow.InvalidRequest, "Tallygate-Milestone: the answer comes later: name the milestone when you fetch it", "field", "Tallygate-Milestone")
	default:
		return nil
	}
}

// once reports whether the result is charged only once, however often it is fetched.
func (q *asked) once() bool { return q.call.Once != "" || q.call.Fetches != "" }

// toCome returns the answers that can be fetched later. That is the answer that this call has asked for. Or they are answers of which the payer
// has paid only a part, while the provider keeps the whole: over a connection there may be several, also if it has ended as it should.
func (c *counting) toCome(usage meter.Usage, cut string) (later []escrow.LaterAnswer) {
	if c.route.Shadow {
		return nil
	}
	names := append(usage.Unfinished, usage.Later)
	if cut == cutFunds || cut != cutNone && usage.Pending {
		names = append(names, usage.Kept)
	}
	for _, name := range names {
		if name != "" && !slices.ContainsFunc(later, func(a escrow.LaterAnswer) bool { return a.Name == name }) {
			later = append(later, c.laterAnswer(name, usage))
		}
	}
	return later
}

// laterAnswer is the record of an answer. If only a part of it is fetched, and its usage is not, what was asked for tells what it has read.
func (c *counting) laterAnswer(name string, usage meter.Usage) escrow.LaterAnswer {
	prompt := usage.PromptTokens
	if c.call.Talks { // that is the sum of other answers' there
		prompt = c.call.Said.Tokens
	}
	return escrow.LaterAnswer{
		Name: name, API: c.call.API, Model: c.call.Model, Models: c.call.Models, ServiceTier: c.call.ServiceTier,
		InputTokens: c.call.InputTokens, InputOpen: c.call.InputOpen, MaxOutput: c.call.MaxOutput, Choices: c.call.Choices,
		ContainerGB: c.call.ContainerGB, Thinks: c.call.Thinks, Prompt: prompt, At: c.at,
	}
}

// paidBy reports whether these classes are charged, or count for the plan, and nothing else can cost anything.
func (q *asked) paidBy(classes ...meter.Class) bool {
	return q.rates.OnlyOf(classes...) && slices.ContainsFunc(classes, q.charges)
}

// ownUnits are the units of the provider's own, which its answers state.
func (r *Route) ownUnits() (classes []meter.Class) {
	for _, count := range r.Counts {
		classes = append(classes, count.Class)
	}
	return classes
}

// byAnswer reports whether the price of a job depends on what its answer states.
func (q *asked) byAnswer() bool {
	return !q.route.Shadow && len(q.call.Tells) > 0 && !q.call.Free && q.rates != nil && !q.rates.OnlyCalls()
}

// unstated refuses the answer of a job that states nothing that has a price: it is finished, or has output before it is.
func (c *counting) unstated(usage meter.Usage) *ledger.Refusal {
	switch {
	case !c.byAnswer() || usage.Cost != "":
		return nil
	case usage.Unstated:
		return refuse(api.UsageUnknown, "the job is not finished, and its answer shows output already, whose price is not known yet: fetch it when it is finished")
	case usage.Failed || usage.Pending || slices.ContainsFunc(c.rates.Charged(), func(class meter.Class) bool { return class != meter.Calls && usage.Units[class] > 0 }):
		return nil
	}
	return refuse(api.UsageUnknown, "the answer states none of the units that have a price, so its price can't be computed")
}

// charges reports whether units of a class have a price, or count for the plan.
func (q *asked) charges(class meter.Class) bool {
	plan, _ := q.route.Payment.(*Subscription)
	return q.rates.Uses(class) || plan.counts(class)
}

// unknown refuses a complete answer whose usage can't be known. It contains neither output nor usage nor an error, and no name by which an
// answer can be fetched; or what is charged is stated nowhere, or not as a number.
func (c *counting) unknown(usage meter.Usage) *ledger.Refusal {
	if refusal := c.unstated(usage); refusal != nil {
		return refusal
	}
	if usage.Later != "" || usage.Cost != "" || c.route.Shadow {
		return nil
	}
	tokens, seconds := c.rates.UsesTokens(), c.rates.Uses(meter.Second)
	timed := seconds && (usage.Length > 0 || usage.Units[meter.Second] > 0)
	switch {
	case tokens && (usage.Unanswered || usage.Unstated || c.mustShow && !c.counter.Recognised()) && !timed && !c.usesAnyAsked():
	case !tokens && seconds && c.call.Timed && !timed:
	case c.sent && !c.messages && c.paidBy(meter.Event) && usage.Units[meter.Event] == 0:
		return refuse(api.UsageUnknown, "the provider's answer is no stream of events, which are what is charged: what it costs can't be known")
	case usage.Uncounted && c.sent && c.paidBy(c.route.ownUnits()...) && !hasTokens(usage.Units):
		return refuse(api.UsageUnknown, "the provider's answer does not state what it is charged by: what it costs can't be known")
	case slices.ContainsFunc(usage.Unread, c.charges):
		return refuse(api.UsageUnknown, "the provider's answer does not state as a number what it is charged by: what it costs can't be known")
	default:
		return nil
	}
	return refuse(api.UsageUnknown, "the provider's answer contains neither output nor usage nor an error, so its price can't be computed")
}
