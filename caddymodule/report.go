package caddymodule

import (
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/tallygate/tallygate/gateway"
)

// report sets the access log fields, the placeholders and the attributes of the span that describe a charge. The placeholders that describe the call are there since its
// beginning, see begin.
func report(r *http.Request, report gateway.Report) {
	describeSpan(r.Context(), report)
	if of, ok := caddyhttp.GetVar(r.Context(), callVar).(*told); ok {
		of.report = &report
	}
	if fields, ok := r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
		fields.Set(zap.Field{Key: "tallygate", Type: zapcore.InlineMarshalerType, Interface: logged{&report}})
	}
}

// logged is a report in the access log. It is one field for Caddy, which is cheaper, and five in the log.
type logged struct{ *gateway.Report }

func (l logged) MarshalLogObject(e zapcore.ObjectEncoder) error {
	e.AddString("tallygate_request", l.Request)
	e.AddString("tallygate_payer", l.Payer)
	e.AddString("tallygate_payee", l.Payee)
	e.AddString("tallygate_charge", l.Charge)
	e.AddString("tallygate_units", l.Units)
	return nil
}
