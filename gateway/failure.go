package gateway

import (
	"log/slog"
	"net/http"

	"github.com/tallygate/tallygate/escrow/api"
)

// Failure is returned by [Gateway.Serve] where a provider's handlers have failed before they answered: nothing is charged. The header
// Tallygate-Request is set already.
type Failure struct {
	Request string // the call's id
	// Status is the HTTP status that says what failed. 0: the handlers' own error says it, if anything does.
	Status int
	Err    error
}

// Error is the handlers' own error.
func (f *Failure) Error() string { return f.Err.Error() }

// Unwrap returns the handlers' own error.
func (f *Failure) Unwrap() error { return f.Err }

// badGateway is the failure of an answer that can't go on, although the handlers have not failed.
func badGateway(err error) error { return &Failure{Status: http.StatusBadGateway, Err: err} }

// WriteFailure answers for handlers that have failed, with a problem that says what was charged: nothing.
func WriteFailure(w http.ResponseWriter, r *http.Request, logger *slog.Logger, f *Failure) {
	logger.Error("the provider failed", "request", f.Request, "status", f.Status, "error", f.Err)
	outcome, detail := api.InternalError, "something went wrong here, and was logged"
	switch f.Status {
	case http.StatusBadGateway:
		outcome, detail = api.UpstreamFailed, "the provider can't be reached, or broke off; nothing is charged"
	case http.StatusServiceUnavailable:
		outcome, detail = api.UpstreamUnavailable, "the provider takes no requests at the moment; nothing is charged"
	case http.StatusGatewayTimeout:
		outcome, detail = api.UpstreamTimeout, "the provider has not answered in time; nothing is charged"
	}
	w.Header().Set(headerRequest, f.Request)
	WriteProblem(w, r, refuse(outcome, detail, "charge", "none"))
}
