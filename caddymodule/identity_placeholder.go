package caddymodule

import (
	"errors"
	"net/http"

	"github.com/caddyserver/caddy/v2"

	"github.com/tallygate/tallygate/escrow"
)

// placeholderIdentity identifies callers by a placeholder, such as {http.auth.user.id}, whose value a handler before the meter has set.
type placeholderIdentity string

// Identify implements [gateway.Identity].
func (p placeholderIdentity) Identify(r *http.Request, _ string) (escrow.Actor, error) {
	repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	agent := repl.ReplaceAll(string(p), "")
	unknown := func(detail string) error { return &escrow.Refusal{Outcome: escrow.Unauthorized, Detail: detail} }
	if agent == "" {
		return escrow.Actor{}, unknown("no agent: " + string(p) + " is empty")
	}
	var refusal *escrow.Refusal
	if errors.As(escrow.CheckAgentID("agent", agent), &refusal) {
		return escrow.Actor{}, unknown(string(p) + ": " + refusal.Detail)
	}
	return escrow.Actor{Agent: agent}, nil
}
