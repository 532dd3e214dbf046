package gateway

import (
	"context"
	"maps"
	"net/http"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// withheldError is a complete answer that does not go out, since its whole price can't be charged.
type withheldError struct{ refusal *ledger.Refusal }

// Error is the refusal's.
func (e *withheldError) Error() string { return e.refusal.Error() }

// withhold answers in place of an answer that does not go out. Nothing is charged; the payee is told by an event.
func (a *admitted) withhold(w http.ResponseWriter, refusal *ledger.Refusal) {
	a.cancel()
	metrics.withheld.WithLabelValues(a.route.Payee, string(refusal.Outcome)).Inc()
	_ = api.Withheld.Take(a.gateway.book.Claims(), a.payer.Agent)
	a.route.logger().Warn("an answer is withheld: its whole price can't be charged", "request", a.id, "payer", a.payer.Agent, "payee", a.route.Payee, "code", string(refusal.Outcome))
	call := escrow.WithheldCall{
		Request: a.id, Payer: a.payer.Agent, Payee: a.route.Payee, Route: a.route.Name, Reason: refusal.Outcome,
	}
	_, err := escrow.Do(context.WithoutCancel(a.request.Context()), a.gateway.book, func(tx *escrow.Tx) (struct{}, error) { return struct{}{}, tx.Withheld(call) })
	if err != nil {
		a.route.logger().Error("telling the payee of an answer that was withheld", "request", a.id, "error", err)
	}
	told := &ledger.Refusal{Outcome: refusal.Outcome, Detail: "the answer is withheld, and nothing is charged: " + refusal.Detail, Fields: map[string]string{"withheld": "true", "charge": "0"}}
	maps.Copy(told.Fields, refusal.Fields)
	w.Header().Set(headerRequest, a.id)
	WriteProblem(w, told)
}
