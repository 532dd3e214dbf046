package caddymodule

import (
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/tallygate/tallygate/gateway"
)

// report sets the access log fields, the placeholders and the attributes of the span that describe a charge. The placeholders that describe the call are there since its
// beginning, see begin.
func report(r *http.Request, of gateway.Report) {
	describeSpan(r.Context(), of)
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Set("tallygate.charge", of.Charge)
		repl.Set("tallygate.units", of.Units)
	}
	if fields, ok := r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
		fields.Set(zap.String("tallygate_request", of.Request))
		fields.Set(zap.String("tallygate_payer", of.Payer))
		fields.Set(zap.String("tallygate_payee", of.Payee))
		fields.Set(zap.String("tallygate_charge", of.Charge))
		fields.Set(zap.String("tallygate_units", of.Units))
	}
}
