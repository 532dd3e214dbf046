package caddymodule

import (
	"errors"
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// answerFailure answers for a provider's handlers that have failed before they answered. Such an error must not get to Caddy: it
// would be logged with the request as it came in, and so with the key, where that does not stand in Authorization. Sites
// with `handle_errors` answer it themselves (Caddy then logs it for debugging only), and so do errors that are the client's.
func answerFailure(w http.ResponseWriter, r *http.Request, id string, err error, logger *zap.Logger) error {
	status := http.StatusInternalServerError
	var failed caddyhttp.HandlerError
	if errors.As(err, &failed) {
		status = failed.StatusCode
	}
	server, _ := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if status < http.StatusInternalServerError || server != nil && server.Errors != nil && len(server.Errors.Routes) > 0 {
		return err
	}
	logger.Error("the provider failed", zap.String("request", id), zap.Int("status", status), zap.Error(err))
	outcome, detail := ledger.Outcome("internal"), "something went wrong here, and was logged"
	switch status {
	case http.StatusBadGateway:
		outcome, detail = "upstream_failed", "the provider can't be reached, or broke off; nothing is charged"
	case http.StatusServiceUnavailable:
		outcome, detail = "upstream_unavailable", "the provider takes no requests at the moment; nothing is charged"
	case http.StatusGatewayTimeout:
		outcome, detail = "upstream_timeout", "the provider has not answered in time; nothing is charged"
	}
	w.Header().Set(headerRequest, id)
	writeProblem(w, refuse(outcome, detail, "charge", "none"))
	return nil
}
