package gateway

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/pricing"
)

// settled is a call that is over. It was charged, or costs nothing, or the ledger has failed and nobody knows.
type settled struct {
	charge  escrow.Charge   // zero if the call costs nothing
	amount  string          // of the charge, as text
	units   string          // the same
	quality *escrow.Quality // the quality of a complete answer; nil if nobody judges it
	err     error           // why charging failed
}

func settledBy(charge escrow.Charge, quality *escrow.Quality, err error) *settled {
	return &settled{charge: charge, amount: charge.Amount.String(), units: unitsOf(charge), quality: quality, err: err}
}

// costless is a call that costs nothing.
func costless() *settled { return settledBy(escrow.Charge{}, nil, nil) }

// What cut an answer short, as the values of a charge's `cut`.
const (
	cutNone     = "none"
	cutClient   = "client"
	cutUpstream = "upstream"
	cutFunds    = "funds"
)

// ending is how an answer ended.
type ending struct {
	cut     string
	failed  bool            // all of it has come, but says that the call has failed: the call itself is not charged
	quality *escrow.Quality // of a complete answer
	sealed  []byte          // the encrypted answer, if it is to be stored
}

var (
	errAborted   = errors.New("the server is stopping")
	errSettled   = errors.New("the response is charged already")
	errExhausted = errors.New("the money for this call has run out")
	errLeft      = errors.New("the client has left")
	errCoding    = errors.New("the upstream's response is compressed in a way that can't be counted")
)

// charge charges the answer, with the call locked. It is called once, except after it has refused a complete answer for lack of money or
// because of a limit.
func (c *counting) charge(e ending) (*settled, *ledger.Refusal) {
	auth := c.pay.authorisation()
	if e.cut != cutNone && !c.sent && c.status != http.StatusSwitchingProtocols || e.cut == cutUpstream && c.once() {
		auth.Cancel()
		return costless(), nil
	}
	usage := c.counter.Usage(e.cut == cutNone || e.failed)
	part := e.cut != cutNone && c.once()
	if e.cut == cutNone {
		switch {
		case c.byAnswer() && usage.Unstated:
			return nil, c.unstated(usage)
		case c.call.Fetches != "" && usage.Unanswered: // the answer is not finished yet
			auth.Cancel()
			return costless(), nil
		case (c.call.Once != "" || c.call.Itemized) && !usage.Unstated && !hasTokens(usage.Units):
			part = true // there are no results yet
		case c.once() && usage.Pending:
			part = true
		default:
			if refusal := c.unknown(usage); refusal != nil {
				return nil, refusal
			}
		}
	}
	settlement := c.settlement(e, usage)
	if e.cut == cutNone && !c.route.FinishUnpaid {
		if refusal := c.pay.secure(settlement); refusal != nil {
			return nil, refusal
		}
	}
	if part {
		if e.cut == cutNone && settlement.Amount == 0 && settlement.Price == nil {
			auth.Cancel()
			return costless(), nil
		}
		return c.settlePart(*settlement), nil
	}
	began := time.Now()
	charge, err := auth.Settle(context.WithoutCancel(c.request.Context()), *settlement)
	metrics.settle.Observe(time.Since(began).Seconds())
	if err != nil {
		c.gateway.book.Abandon(c.abandoned(c.sent))
		c.route.logger().Error("charging", "request", c.id, "error", err)
	} else {
		c.gateway.countCharge(charge)
	}
	c.paced.Used(c.tokens)
	return settledBy(charge, settlement.Quality, err), nil
}

// hasTokens reports whether units contains anything besides the classes that every answer has.
func hasTokens(units meter.Units) bool {
	for class, n := range units {
		if n > 0 && !everyAnswerHas(class) {
			return true
		}
	}
	return false
}

// tokensOf is how many tokens a usage has, in whole tokens.
func tokensOf(units meter.Units) (sum int64) {
	for class, n := range units {
		if pricing.IsToken(class) {
			sum += int64(n) / int64(meter.Whole(1))
		}
	}
	return sum
}

// settlement is the settlement of the answer: what it used, as counted, and what that costs.
func (c *counting) settlement(e ending, counted meter.Usage) *escrow.Settlement {
	usage, paid := c.used(e, counted)
	c.tokens = tokensOf(usage.Units)
	bill, err := c.bill(usage, e.cut != cutNone, nil)
	s := &escrow.Settlement{
		Amount:     bill.amount,
		Units:      bill.units,
		UnitPrices: bill.prices,
		Cost:       bill.cost,
		Markup:     bill.markup,
		Model:      usage.Model,
		Source:     string(usage.Source),
		Cut:        e.cut,
		Suspect:    usage.Suspect || err != nil || slices.ContainsFunc(usage.Unread, c.charges),
		HTTPStatus: c.status,
		Duration:   time.Since(c.began),
	}
	if s.Model == "" && c.call.Talks { // the order had none
		s.Model = c.call.Model
	}
	most := c.route.MaxCharge // the provider's own limit: no answer costs more
	if e.cut != cutNone {
		most = c.limit
	}
	s.Later = c.toCome(usage, e.cut)
	if c.noteStored(s, usage); s.OwedOn != nil { // what the caller's limit leaves is owed
		s.Limit, most = c.limit, c.route.MaxCharge
	}
	if most > 0 && s.Amount > most {
		s.Amount = most
		s.Suspect = s.Suspect || bill.cost != ""
	}
	if bill.tiered && bill.cost == "" && c.payment().charges() {
		c.priceTiers(s, usage, e.cut != cutNone, most)
	}
	if e.cut == cutNone {
		s.Quality, s.Answer, s.Results, s.Paid = e.quality, e.sealed, usage.Results, paid
	}
	c.pay.complete(s, usage.Units)
	if usage.Suspect {
		c.pay.clamp(s)
	}
	return s
}

// used is the final usage of the answer, and until when the containers that it charges for are paid then.
func (c *counting) used(e ending, usage meter.Usage) (_ meter.Usage, paid map[escrow.Thing]escrow.Paid) {
	cut := e.cut
	if cut == cutFunds && c.delivered != nil {
		usage = *c.delivered
	}
	if usage.Units == nil {
		usage.Units = make(meter.Units)
	}
	if e.failed {
		delete(usage.Units, meter.Calls)
	}
	if cut == cutClient {
		c.addUnseen(&usage)
	}
	if usage.Later != "" { // the rest is charged when the answer is fetched
		usage = meter.Usage{Source: meter.Stated, Later: usage.Later, PromptTokens: usage.PromptTokens, Made: usage.Made, Units: meter.Units{meter.Calls: usage.Units[meter.Calls]}}
	}
	if c.addSeconds(usage.Units, usage.Length) {
		usage.Source = meter.Estimated
	}
	if cut == cutClient || cut == cutFunds {
		// The provider has answered. It is paid in full although the client did not wait for the end.
		usage.Units[meter.Calls] = meter.Whole(1)
	}
	if cut != cutUpstream {
		paid = c.chargeContainers(&usage)
		c.addAsked(usage.Units)
	}
	if c.call.Fetches != "" {
		delete(usage.Units, meter.Calls) // the call was charged when the answer was asked for
	}
	return usage, paid
}

// addUnseen raises the usage of an answer that its client has cut, so that hanging up is not cheaper than reading to the end. If the model
// may have hidden reasoning, and its usage has not come, the call counts as if it had used the largest output that it could have had. So does
// each of the answers over a connection that were cut, beside those whose usage has come.
func (c *counting) addUnseen(usage *meter.Usage) {
	stated := usage.Source != meter.Estimated || c.call.Talks && usage.Open == 0
	shown := usage.Units[meter.Reasoning] > 0 && usage.Settled == 0 && !meter.ShowsSummaries(c.call.Model) && !meter.ShowsSummaries(usage.Model)
	thinks := c.call.Thinks || meter.ThinksUnseen(c.call.Model) || meter.ThinksUnseen(usage.Model)
	if stated || shown || !thinks || c.call.InputOnly || c.call.API == "" || !c.rates.UsesTokens() {
		return
	}
	most := c.maxOutput()
	if most == 0 {
		most = DefaultMaxOutput * max(1, c.call.Choices)
	}
	most *= max(1, usage.Open)
	rest := usage.Settled + meter.Whole(most) - usage.Units[meter.Reasoning] - usage.Units[meter.AudioOutput] - usage.Units[meter.ImageOutput]
	usage.Units[meter.Output] = max(usage.Units[meter.Output], rest)
}

// settlePart charges what was sent of a result that is charged once, before it is complete. The part gets a charge with an id of its own,
// so that the part is not free, and the whole result is still charged later.
func (c *counting) settlePart(settlement escrow.Settlement) *settled {
	ctx, id := context.WithoutCancel(c.request.Context()), c.gateway.book.NewRequestID()
	auth := c.pay.authorisation()
	if !auth.Rename(id) { // its draw has failed, or it has ended: the ledger is away
		c.route.logger().Error("a part of a result can't be charged", "request", c.id, "error", auth.Err())
		return costless()
	}
	charge, err := auth.Settle(ctx, settlement)
	if err != nil {
		c.route.logger().Error("charging a part of a result", "request", c.id, "error", err)
	} else {
		c.gateway.countCharge(charge)
	}
	c.paced.Used(c.tokens)
	return settledBy(charge, nil, err)
}
