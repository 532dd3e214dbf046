package gateway

import (
	"strconv"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/meter"
)

// Some answers don't come with their request. The provider names the answer, and it is fetched when it is finished. Who asked for it stands
// in the books before the name goes out ([escrow.LaterAnswer]). Whoever fetches it must be the same agent, and is charged then, once, at the
// prices of the model that was asked for; what comes before it is finished is charged as a part. What the request itself asks for, and the
// call, are charged when it is asked for.

// findLater finds out whether the call fetches an answer that was asked for before, and what was asked.
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
	later, found, err := q.gateway.book.LaterAnswer(q.route.Payee, q.call.Fetches)
	switch {
	case err != nil:
		return asRefusal(err)
	case !found && q.call.Free: // it came at once, and was charged then
		q.call.Fetches = ""
		return nil
	case !found || later.Payer != q.payer.Agent:
		return refuse(escrow.NotFound, "this agent has not asked for the answer "+strconv.Quote(q.call.Fetches))
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
	c := q.call
	c.Free, c.Model, c.Models, c.ServiceTier = false, later.Model, later.Models, later.ServiceTier
	c.InputTokens, c.InputOpen, c.MaxOutput, c.Choices = later.InputTokens, later.InputOpen, later.MaxOutput, later.Choices
	c.ContainerGB = later.ContainerGB
	q.id = id
	q.request.Header.Del("Range") // a part of it would pass for the whole
	q.request.Header.Del("If-Range")
	return nil
}

// isCharged reports whether this agent has been charged for what is charged once, by the id of the request that it has then.
func (q *asked) isCharged(request string) (bool, error) {
	_, err := q.gateway.book.Charge(q.request.Context(), escrow.Actor{Agent: q.payer.Agent}, request)
	if refusal, ok := err.(*ledger.Refusal); ok && refusal.Outcome == escrow.NotFound {
		return false, nil
	}
	return err == nil, err
}

// checkFollows refuses a call that builds on an answer which nobody has paid: it would bring what that says, as a part of its input.
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

// checkLater refuses a call whose answer could not be charged, since it would go elsewhere, and one that does the work of a milestone
// with an answer that is not there yet.
func (q *asked) checkLater() *ledger.Refusal {
	switch field := q.call.Elsewhere; {
	case field != "" && !q.call.Free && q.rates != nil && !q.rates.OnlyCalls() && !q.rates.OnlyAsked():
		return refuse(escrow.InvalidRequest, field+": the answer would go elsewhere, past the meter, so that it can't be charged: leave it out, and fetch the answer", "field", field)
	case q.call.Later != "" && q.terms.milestone != "":
		return refuse(escrow.InvalidRequest, "Tallygate-Milestone: the answer comes later: name the milestone when you fetch it", "field", "Tallygate-Milestone")
	default:
		return nil
	}
}

// once reports whether the answer is charged once, however often it is fetched.
func (q *asked) once() bool { return q.call.Once != "" || q.call.Fetches != "" }

// toCome is the answer that is still to come: that to a call which has asked for one, or that of which the payer has paid a part, and which the
// provider keeps whole. nil: there is none.
func (c *counting) toCome(usage meter.Usage, cut string) *escrow.LaterAnswer {
	name := usage.Later
	if cut == cutFunds || cut != cutNone && usage.Pending {
		name = usage.Kept
	}
	if name == "" || c.route.Shadow {
		return nil
	}
	return &escrow.LaterAnswer{
		Name: name, API: c.call.API, Model: c.call.Model, Models: c.call.Models, ServiceTier: c.call.ServiceTier,
		InputTokens: c.call.InputTokens, InputOpen: c.call.InputOpen, MaxOutput: c.call.MaxOutput, Choices: c.call.Choices,
		ContainerGB: c.call.ContainerGB,
	}
}

// unknown refuses a complete answer of which it can't be known what it used: it holds neither output nor usage nor an error, and nothing by
// which it could be fetched; or seconds of audio are what is charged, and nothing tells how many.
func (c *counting) unknown(usage meter.Usage) *ledger.Refusal {
	if usage.Later != "" || usage.Cost != "" || c.route.Shadow {
		return nil
	}
	tokens, seconds := c.rates.UsesTokens(), c.rates.Uses(meter.Second)
	timed := seconds && (usage.Length > 0 || usage.Units[meter.Second] > 0)
	switch {
	case tokens && usage.Unanswered && !timed:
	case !tokens && seconds && c.call.Timed && !timed:
	default:
		return nil
	}
	return refuse(api.UsageUnknown, "the provider's answer holds neither output nor usage nor an error: what it costs can't be known")
}
