package caddymodule

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/tallygate/tallygate/escrow"
)

// adminPath is where the admin endpoint serves the subcommands' tasks.
const adminPath = "/tallygate/"

// maxAdminBody bounds the arguments of a task, in bytes.
const maxAdminBody = 4 << 20

// adminAPI lets the subcommands work on the books of the running server: only one process can hold them.
//
//	GET  /tallygate/store       which store this server holds
//	POST /tallygate/ledger/verify, /tallygate/agents/add, ...
type adminAPI struct{}

// CaddyModule tells Caddy what this is.
func (adminAPI) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "admin.api.tallygate", New: func() caddy.Module { return new(adminAPI) }}
}

// Routes are served by Caddy's admin endpoint.
func (a *adminAPI) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{{Pattern: adminPath, Handler: caddy.AdminHandlerFunc(a.serve)}}
}

// heldStore is what GET /tallygate/store answers.
type heldStore struct {
	Store string `json:"store"`
}

func (a *adminAPI) serve(w http.ResponseWriter, r *http.Request) error {
	// The app is looked up for each request: after a failed reload, this module belongs to the config that failed.
	active, err := caddy.ActiveContext().AppIfConfigured("tallygate")
	if err != nil {
		return caddy.APIError{HTTPStatus: http.StatusNotFound, Err: errors.New("this server has no tallygate ledger")}
	}
	app := active.(*App)
	name := strings.TrimPrefix(r.URL.Path, adminPath)
	if name == "store" {
		w.Header().Set("Content-Type", "application/json")
		return json.NewEncoder(w).Encode(heldStore{Store: app.store.Key()})
	}
	task, ok := tasks[name]
	if !ok {
		return caddy.APIError{HTTPStatus: http.StatusNotFound, Err: errors.New("no such task: " + name)}
	}
	if r.Method != http.MethodPost {
		return caddy.APIError{HTTPStatus: http.StatusMethodNotAllowed, Err: errors.New(r.Method + ": expected POST")}
	}
	args, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxAdminBody))
	if err != nil {
		return caddy.APIError{HTTPStatus: http.StatusBadRequest, Err: err}
	}
	release, err := app.open(r.Context())
	if err != nil {
		return caddy.APIError{HTTPStatus: http.StatusServiceUnavailable, Err: err}
	}
	defer release()
	result := &lateHeader{ResponseWriter: w}
	err = task.run(r.Context(), bench{app.book, app.books.store}, args, result)
	switch {
	case err != nil && result.began:
		panic(http.ErrAbortHandler) // so that the command sees the result cut
	case err != nil:
		status := http.StatusInternalServerError
		var refusal *escrow.Refusal
		if errors.As(err, &refusal) {
			status = http.StatusUnprocessableEntity
		}
		return caddy.APIError{HTTPStatus: status, Err: err}
	}
	return nil
}

// lateHeader knows whether a task has begun to answer: before that, its error can still be told properly.
type lateHeader struct {
	http.ResponseWriter
	began bool
}

func (w *lateHeader) Write(p []byte) (int, error) {
	w.began = true
	return w.ResponseWriter.Write(p)
}

// Interface guards
var _ caddy.AdminRouter = (*adminAPI)(nil)
