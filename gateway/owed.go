package gateway

import (
	"context"
	"net/http"
	"slices"
	"strconv"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/meter"
)

// A provider keeps some answers where their caller reads them for nothing: in a conversation, in a thread, among the stored completions. How
// long the earlier parts of a conversation are is not in the request either. So two things are noted of such a resource. Its length, as the
// last answer stated it, is held for by the next call that names it. And what could not be charged of an answer is owed on the resource: the
// next call that names it pays that first, or is refused.

// grows reports whether a resource of a kind gets longer by each answer to a call that names it.
func grows(kind string) bool { return kind == "conversations" || kind == "threads" }

// continued are kinds of resources that are a part of the input of a call that names one, together with what was answered then.
var continued = []string{"conversations", "threads", "responses", "interactions", "cachedcontents"}

// findOwed takes over what is noted of the resources that the call names: how long they are, and what is owed on them. What is to be deleted
// need not be paid.
func (q *asked) findOwed(noted []escrow.Noted) *ledger.Refusal {
	for i, n := range noted {
		r := q.call.Stored.Uses[i]
		q.call.InputStored += n.Tokens
		if gone := q.call.Stored.Deletes; gone != nil && *gone == r {
			continue
		}
		for _, debt := range n.Owed {
			if debt.Payer != q.payer.Agent {
				return refuse(escrow.InvalidStatus, "an answer in "+strconv.Quote(r.ID)+" is not paid yet by the agent that asked for it", "resource", r.Kind+"/"+r.ID)
			}
			if !slices.Contains(q.owed, debt) {
				q.owed = append(q.owed, debt)
			}
		}
	}
	q.call.InputTokens += q.call.InputStored
	return nil
}

// sumOwed is what the call has to pay before it is made.
func (q *asked) sumOwed() (sum ledger.Amount) {
	for _, debt := range q.owed {
		sum = max(sum, sum+debt.Amount) // a sum above the largest amount is negative
	}
	return sum
}

// payOwed pays what is owed on the resources that the call names.
func (q *asked) payOwed() *ledger.Refusal {
	owed := q.sumOwed()
	if limit := q.terms.maxCharge; limit > 0 && owed > limit {
		return refuse(escrow.LimitExceeded, "what is owed on what the call names is "+owed.String()+", more than the call's limit of "+limit.String(),
			"owed", owed.String(), "limit", limit.String(), "currency", q.gateway.book.Currency())
	}
	for _, debt := range q.owed {
		if err := q.pay(debt); err != nil {
			return q.stillOwed(debt, asRefusal(err))
		}
	}
	return nil
}

// tellOwed states what was owed and is paid now, besides what the call itself costs.
func (q *asked) tellOwed(h http.Header) {
	if owed := q.sumOwed(); owed > 0 {
		h.Set(headerOwed, owed.String())
	}
}

// stillOwed tells why a debt could not be paid, and what is owed.
func (q *asked) stillOwed(debt escrow.Debt, why *ledger.Refusal) *ledger.Refusal {
	fields := []string{"owed", q.sumOwed().String(), "owed_for", debt.Request}
	for name, value := range why.Fields {
		fields = append(fields, name, value)
	}
	return refuse(why.Outcome, "the provider keeps an answer that is not paid in full, and that is to be paid first: "+why.Detail, fields...)
}

// pay pays a debt by a charge of its own. Of calls that do so at the same time, one pays.
func (q *asked) pay(debt escrow.Debt) error {
	ctx, book := context.WithoutCancel(q.request.Context()), q.gateway.book
	of, err := book.Charge(ctx, escrow.Actor{Agent: debt.Payer}, debt.Request)
	if err != nil {
		return err
	}
	order := escrow.CallOrder{
		Request: debt.ID(), By: q.payer, Payee: q.route.Payee, Route: of.Route, Pattern: of.Pattern, API: of.API, Model: of.Model, Tags: q.terms.tags,
	}
	q.fundDebt(&order, debt.Quota)
	order.Least, order.Most, order.Quota = debt.Amount, debt.Amount, debt.Quota
	auth, err := book.Authorise(ctx, order)
	if err != nil {
		return err
	}
	_, err = auth.Settle(ctx, escrow.Settlement{Amount: debt.Amount, Quota: debt.Quota, Source: of.Source, Cut: cutNone, HTTPStatus: of.HTTPStatus})
	return err
}

// fundDebt sets in the order for a debt where the money comes from. What a plan's quota did not cover is owed to the quota, or in money where
// the plan has overage.
func (q *asked) fundDebt(order *escrow.CallOrder, quota int64) {
	plan, ok := q.route.payment().(*Subscription)
	switch {
	case !ok:
		q.route.payment().order(q, order)
	case quota > 0:
		order.From, order.Plan, order.Over = escrow.FromSubscription, plan.Plan.Name, plan.over
	}
}

// noteStored sets in a settlement what is noted of the resources that the provider keeps: those that the call has made, how long those are that
// a later call may continue, and those in which an answer is that is not paid in full.
func (c *counting) noteStored(s *escrow.Settlement, usage meter.Usage) {
	if c.route.Shadow {
		return
	}
	kept := s.Cut == cutFunds && c.call.Stays && !usage.Suspect
	if kept {
		s.OwedOn, s.Later = c.kept(usage.Made), nil
	}
	if (s.Cut != cutFunds || s.Later != nil || kept) && c.stored().Makes { // else what is never paid for could be had from the provider's store
		s.Made = c.made(usage.Made, c.at)
	}
	if len(c.call.Stored.Uses)+len(s.Made) == 0 {
		return
	}
	length := escrow.Context{Tokens: defaultBatch.In(usage.Units).Ceil()}
	if c.call.API == "" { // the request has added something, or begun a conversation
		length.Tokens, length.Adds = c.call.InputTokens-c.call.InputStored, true
	}
	uses := c.kept(c.call.Stored.Uses)
	for _, r := range uses {
		length.Resource = r
		switch {
		case grows(r.Kind):
			s.Context = append(s.Context, length)
			if kept {
				s.OwedOn = append(s.OwedOn, r)
			}
		case r.Kind == "cachedcontents" && usage.Units[meter.Cached] > 0:
			s.Context = append(s.Context, escrow.Context{Resource: r, Tokens: usage.Units[meter.Cached].Ceil()})
		case r.Kind == "files" && len(uses) == 1: // what of the input is not in the body is in the file
			if n := usage.PromptTokens - (c.call.InputTokens - c.call.InputStored); n > 0 {
				s.Context = append(s.Context, escrow.Context{Resource: r, Tokens: n})
			}
		}
	}
	for _, r := range s.Made {
		if slices.Contains(continued, r.Kind) {
			length.Resource = r
			s.Context = append(s.Context, length)
		}
	}
}
