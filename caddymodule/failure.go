package caddymodule

import (
	"errors"
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/tallygate/tallygate/gateway"
)

// answerFailure answers a request if the provider's handlers failed before they answered. Caddy must not get such an error: it would log
// the request with all headers but Authorization, and so perhaps the caller's key. There are two exceptions: errors of the client
// (below 500), and sites with `handle_errors`, where Caddy logs errors at the debug level only.
func (m *Meter) answerFailure(w http.ResponseWriter, r *http.Request, failure *gateway.Failure) error {
	err := failure.Err
	if failure.Status != 0 {
		err = caddyhttp.Error(failure.Status, err)
	}
	status := http.StatusInternalServerError
	var failed caddyhttp.HandlerError
	if errors.As(err, &failed) {
		status = failed.StatusCode
	}
	server, _ := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if status < http.StatusInternalServerError || server != nil && server.Errors != nil && len(server.Errors.Routes) > 0 {
		return err
	}
	if m.route.Shadow { // as Caddy itself answers
		m.logger.Error("the provider failed", zap.String("request", failure.Request), zap.Int("status", status), zap.Error(err))
		w.WriteHeader(status)
		return nil
	}
	gateway.WriteFailure(w, r, m.app.problemTypes(), m.route.Logger, &gateway.Failure{Request: failure.Request, Status: status, Err: err})
	return nil
}
