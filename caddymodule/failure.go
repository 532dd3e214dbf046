package caddymodule

import (
	"errors"
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/tallygate/tallygate/gateway"
)

// answerFailure answers for a provider's handlers that have failed before they answered. Such an error must not get to Caddy: it
// would be logged with the request as it came in, and so with the key, where that does not stand in Authorization. Sites
// with `handle_errors` answer it themselves (Caddy then logs it for debugging only), and so do errors that are the client's.
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
	gateway.WriteFailure(w, r, m.route.Logger, &gateway.Failure{Request: failure.Request, Status: status, Err: err})
	return nil
}
