package gateway

import (
	"cmp"
	"fmt"
	"net/http"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// Identity finds out who makes a call. Implementations: the caller's Tallygate key, which is the default of a route, and in package
// caddymodule a placeholder that an earlier handler has filled in.
type Identity interface {
	// Identify returns the caller. key is the key that was in the request, which has been removed from the request; it is empty if there was
	// none. If the error is a [*escrow.Refusal], the caller gets that refusal.
	Identify(r *http.Request, key string) (escrow.Actor, error)
}

// noKey is the refusal of a caller without a key.
const noKey = "no key: send your Tallygate key as 'Authorization: Bearer KEY', or where your client puts its provider key (x-api-key, x-goog-api-key, api-key), or as Tallygate-Key"

// byKey identifies callers by their Tallygate keys. It limits clients that try many wrong keys.
type byKey struct {
	*Gateway
	hint string // what is wrong with the form of the Authorization header, if no key was found
}

func (g byKey) Identify(r *http.Request, key string) (escrow.Actor, error) {
	if key == "" && len(g.options.Rails) > 0 {
		return escrow.Actor{}, refuse(api.PaymentRequired, "pay for this call, as the answer's header and body say; or send a key: "+cmp.Or(g.hint, noKey))
	}
	if key == "" {
		return escrow.Actor{}, refuse(escrow.Unauthorized, cmp.Or(g.hint, noKey))
	}
	payer, err := g.book.Authenticate(key)
	if escrow.IsRefusal(err, escrow.Unauthorized) {
		if often := api.WrongKeys.Take(g.book.Claims(), g.options.Client(r)); often != nil {
			return escrow.Actor{}, often
		}
	}
	return payer, err
}

// identify finds the agent that pays. An inner meter uses the caller that the outer meter has found, unless it has an identity of its own.
func (a *arrival) identify() *ledger.Refusal {
	identity := a.route.Identity
	if identity == nil {
		if a.outer != nil && a.outer.payer.Agent != "" {
			a.payer = a.outer.payer
			return nil
		}
		if paid, refusal := a.redeem(); paid || refusal != nil {
			return refusal
		}
		if a.key == "" {
			if paid, refusal := a.redeemTool(); paid || refusal != nil {
				return refusal
			}
			if a.passesFree() {
				refusal := a.boundFree()
				a.passes = refusal == nil
				return refusal
			}
		}
		identity = byKey{a.gateway, a.hint}
	}
	payer, err := identity.Identify(a.request, a.key)
	if err != nil {
		return asRefusal(err)
	}
	if payer.Key == "" && payer.Agent != "" { // identified by something else than a key
		if payer, err = a.gateway.book.Standing(payer); err != nil {
			return asRefusal(err)
		}
	}
	a.payer = payer
	if a.route.Identity != nil {
		if !a.route.Shadow {
			return a.admitAgent()
		}
		return nil
	}
	_, refusal := a.redeemTool() // a caller with a key may pay too
	return refusal
}

// admitAgent refuses, or makes, a caller that the route's identity has found and that is no agent of the books.
func (a *arrival) admitAgent() *ledger.Refusal {
	id := a.payer.Agent
	_, found, err := a.gateway.book.Agent(id)
	switch {
	case err != nil:
		return asRefusal(err)
	case found || a.payer.Operator:
		return nil
	case !a.route.MakesAgents:
		return refuse(escrow.Unauthorized, fmt.Sprintf("there is no agent %q: make it (tallygate agents add %[1]s), or write agent_auto into the meter, which makes agents at their first call", id), "agent_id", id)
	}
	_, err = escrow.Do(a.request.Context(), a.gateway.book, func(tx *escrow.Tx) (escrow.Agent, error) { return tx.Admit(id) })
	if err != nil {
		return asRefusal(err)
	}
	return nil
}
