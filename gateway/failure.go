package gateway

import (
	"log/slog"
	"net/http"

	"github.com/tallygate/tallygate/escrow/api"
)

// Failure is the error of [Gateway.Serve] if a provider's handlers failed before they answered. Nothing is charged. The header
// Tallygate-Request is set already.
type Failure struct {
	Request string // the id of the call
	// Status is the HTTP status for the failure. 0 means that the handlers' own error has the status, if anything does.
	Status int
	Err    error
}

// Error returns the text of the handlers' own error.
func (f *Failure) Error() string { return f.Err.Error() }

// Unwrap returns the handlers' own error.
func (f *Failure) Unwrap() error { return f.Err }

// badGateway is the failure of an answer that can't be passed on, although the handlers have not failed.
func badGateway(err error) error { return &Failure{Status: http.StatusBadGateway, Err: err} }

// WriteFailure answers for handlers that have failed. The answer is a problem that says that nothing was charged. types is
// what the problem's type begins with.
func WriteFailure(w http.ResponseWriter, r *http.Request, types string, logger *slog.Logger, f *Failure) {
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
	WriteProblem(w, r, types, refuse(outcome, detail, "charge", "none"))
}
