package gateway

import (
	"context"
	"maps"
	"net/http"
	"strconv"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// withheldError is the error for a complete answer that is not passed on, because its whole price can't be charged.
type withheldError struct{ refusal *ledger.Refusal }

// Error returns the text of the refusal.
func (e *withheldError) Error() string { return e.refusal.Error() }

// withheldRate is how often answers to one agent may be withheld, since the provider works for nothing each time.
var withheldRate = escrow.Rate{Every: 2 * time.Second, Burst: 30}

func withheldFrom(agent string) escrow.Thing {
	return escrow.Thing{Kind: escrow.WithheldAnswer, Owner: agent}
}

// mayBeWithheld refuses a call of an agent whose answers were withheld too often.
func (q *asked) mayBeWithheld() *ledger.Refusal {
	wait := q.gateway.book.Claims().Wait(withheldFrom(q.payer.Agent), withheldRate)
	if wait <= 0 {
		return nil
	}
	seconds := int64((wait + time.Second - 1) / time.Second)
	return refuse(escrow.RateLimited, "too many answers to this agent were withheld", "retry_after", strconv.FormatInt(seconds, 10))
}

// withhold sends a refusal instead of an answer that is withheld. Nothing is charged, unless the provider keeps the answer where its caller can
// read it: then it is charged as far as the money goes, and the rest is owed. The payee is told by an event.
func (a *admitted) withhold(w http.ResponseWriter, refusal *ledger.Refusal) {
	charge, charged := "0", "nothing is charged"
	var owed ledger.Amount
	if a.call.Stays && refusal.Outcome != api.UsageUnknown && a.answers() {
		if end, err := a.settle(ending{cut: cutFunds}); err == nil && end.charge.RequestID != "" {
			charge, charged = end.amount, "since the provider keeps it, it is charged as far as the money goes, and the rest before it can be read"
			owed = end.charge.Owed
		}
	}
	a.cancel()
	metrics.withheld.WithLabelValues(a.route.Payee, string(refusal.Outcome)).Inc()
	a.gateway.book.Claims().Pass(withheldFrom(a.payer.Agent), withheldRate)
	a.route.logger().Warn("an answer is withheld", "request", a.id, "payer", a.payer.Agent, "payee", a.route.Payee, "code", string(refusal.Outcome), "reason", refusal.Detail)
	call := escrow.WithheldCall{
		Request: a.id, Payer: a.payer.Agent, Payee: a.route.Payee, Route: a.route.Name, Reason: refusal.Outcome,
	}
	_, err := escrow.Do(context.WithoutCancel(a.request.Context()), a.gateway.book, func(tx *escrow.Tx) (struct{}, error) { return struct{}{}, tx.Withheld(call) })
	if err != nil {
		a.route.logger().Error("telling the payee of an answer that was withheld", "request", a.id, "error", err)
	}
	told := &ledger.Refusal{Outcome: refusal.Outcome, Detail: "the answer is withheld, and " + charged + ": " + refusal.Detail, Fields: map[string]string{"withheld": "true", "charge": charge}}
	maps.Copy(told.Fields, refusal.Fields)
	if owed > 0 {
		told.Fields["owed"] = owed.String()
	}
	w.Header().Set(headerRequest, a.id)
	a.tell(w, told, nil)
}
