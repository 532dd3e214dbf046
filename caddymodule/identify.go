package caddymodule

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/tallygate/tallygate/gateway"
)

// The words of identify, which says what a provider is told about callers.
const (
	tellUpstream = "upstream"
	tellSigned   = "upstream signed"
	tellNone     = "none"
)

func checkIdentify(words string) error {
	switch words {
	case "", tellUpstream, tellSigned, tellNone:
		return nil
	default:
		return fmt.Errorf("unknown identify %q: expected 'upstream', 'upstream signed' or 'none'", words)
	}
}

// unmarshalIdentify reads
//
//	identify upstream [signed] | none
func unmarshalIdentify(d *caddyfile.Dispenser, into *string) error {
	*into = strings.Join(d.RemainingArgs(), " ")
	if *into == "" || checkIdentify(*into) != nil {
		return d.Errf("unexpected 'identify %s': expected 'identify upstream', 'identify upstream signed' or 'identify none'", *into)
	}
	return nil
}

// identifyCallers makes the routes tell their providers who calls. The secrets are those of the ledger, which is open.
func (a *App) identifyCallers() error {
	for _, m := range a.meters {
		switch cmp.Or(m.Identify, a.Identify) {
		case tellUpstream:
			m.route.Identify = new(gateway.Identification)
		case tellSigned:
			secret, err := a.book.IdentitySecret(context.Background(), m.Payee)
			if err != nil {
				return fmt.Errorf("identify upstream signed: the secret of %s: %w", m.Payee, err)
			}
			if m.route.Identify, err = gateway.Identifies(secret); err != nil {
				return err
			}
		}
	}
	return nil
}

// callerVar is the variable of a request with its caller.
const callerVar = "tallygate.caller"

// begin gives the handlers below a meter placeholders that describe the call. If meters are nested, those of the innermost one count.
func begin(r *http.Request, caller gateway.Caller) {
	if known, ok := caddyhttp.GetVar(r.Context(), callerVar).(*gateway.Caller); ok {
		*known = caller
		return
	}
	repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return
	}
	known := &caller
	caddyhttp.SetVar(r.Context(), callerVar, known)
	repl.Map(func(key string) (any, bool) {
		name, ours := strings.CutPrefix(key, "tallygate.")
		if !ours {
			return nil, false
		}
		switch name {
		case "request":
			return known.Request, true
		case "payer":
			return known.Payer, true
		case "payee":
			return known.Payee, true
		case "key":
			return known.Key, true
		case "plan":
			return known.Plan, true
		case "tags":
			return known.TagText(), true
		default:
			tag, is := strings.CutPrefix(name, "tags.")
			return known.Tags[tag], is
		}
	})
}
