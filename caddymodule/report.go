package caddymodule

import (
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/tallygate/tallygate/gateway"
)

// report sets the access log fields and the placeholders that describe a charge.
func report(r *http.Request, of gateway.Report) {
	facts := []struct{ name, value string }{
		{"request", of.Request}, {"payer", of.Payer}, {"payee", of.Payee}, {"charge", of.Charge}, {"units", of.Units},
	}
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		for _, fact := range facts {
			repl.Set("tallygate."+fact.name, fact.value)
		}
	}
	if fields, ok := r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
		for _, fact := range facts {
			fields.Set(zap.String("tallygate_"+fact.name, fact.value))
		}
	}
}
