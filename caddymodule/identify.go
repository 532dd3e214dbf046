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

// callVar is the variable of a request with what is told of its call.
const callVar = "tallygate.call"

// told is what placeholders and the access log tell of a call. They are computed when they are read.
type told struct {
	gateway.Caller
	report *gateway.Report // nil until the call has ended
}

// begin gives the handlers below a meter placeholders that describe the call. If meters are nested, those of the innermost one count.
func begin(r *http.Request, caller gateway.Caller) {
	vars, ok := r.Context().Value(caddyhttp.VarsCtxKey).(map[string]any)
	if !ok {
		return
	}
	if of, ok := vars[callVar].(*told); ok {
		of.Caller = caller
		return
	}
	of := &told{Caller: caller}
	vars[callVar] = of
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Map(of.placeholder)
	}
}

// placeholder returns the value of a placeholder.
func (t *told) placeholder(key string) (any, bool) {
	name, ours := strings.CutPrefix(key, "tallygate.")
	if !ours {
		return nil, false
	}
	switch name {
	case "request":
		return t.Request, true
	case "payer":
		return t.Payer, true
	case "payee":
		return t.Payee, true
	case "key":
		return t.Key, true
	case "plan":
		return t.Plan, true
	case "tags":
		return t.TagText(), true
	case "charge", "units":
		return t.used(name)
	default:
		tag, is := strings.CutPrefix(name, "tags.")
		return t.Tags[tag], is
	}
}

// used returns the value of a placeholder that is there when the call has ended.
func (t *told) used(name string) (any, bool) {
	switch {
	case t.report == nil:
		return nil, false
	case name == "charge":
		return t.report.Charge, true
	default:
		return t.report.Units, true
	}
}
