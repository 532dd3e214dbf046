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

// adminPath is the path of the admin endpoint below which it serves the tasks of the subcommands.
const adminPath = "/tallygate/"

// maxAdminBody is the largest size of the arguments of a task, in bytes.
const maxAdminBody = 4 << 20

// adminAPI lets the subcommands work on the ledger of the running server, since only one process can have the ledger open.
//
//	GET  /tallygate/store       the store that this server has open
//	GET  /tallygate/ready       whether this server takes money and does what is due
//	POST /tallygate/ledger/verify, /tallygate/agents/add, ...
type adminAPI struct{}

// CaddyModule implements caddy.Module.
func (adminAPI) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "admin.api.tallygate", New: func() caddy.Module { return new(adminAPI) }}
}

// Routes returns the routes that Caddy's admin endpoint serves.
func (a *adminAPI) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{{Pattern: adminPath, Handler: caddy.AdminHandlerFunc(a.serve)}}
}

// heldStore is the answer to GET /tallygate/store.
type heldStore struct {
	Store string `json:"store"`
}

func (a *adminAPI) serve(w http.ResponseWriter, r *http.Request) error {
	// The app is looked up for each request. After a failed reload, this module belongs to the config that failed.
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
	if name == "ready" {
		if troubles := app.allTroubles(); len(troubles) > 0 {
			return caddy.APIError{HTTPStatus: http.StatusServiceUnavailable, Err: errors.New(strings.Join(troubles, "; "))}
		}
		_, err := io.WriteString(w, "ready\n")
		return err
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
	on := app.bench()
	if r.Header.Get("Accept") == progressType {
		return tellProgress(w, r, task, on, args)
	}
	result := &lateHeader{ResponseWriter: w}
	err = task.run(r.Context(), on, args, result)
	switch {
	case err != nil && result.began:
		panic(http.ErrAbortHandler) // so that the command notices that the result is incomplete
	case err != nil:
		status := http.StatusInternalServerError
		var refusal *escrow.Refusal
		if errors.As(err, &refusal) {
			status = http.StatusUnprocessableEntity
		}
		return caddy.APIError{HTTPStatus: status, Err: plainly(err)}
	}
	return nil
}

// lateHeader knows whether a task has begun to write its result. Before that, an error can still be answered with its status.
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
