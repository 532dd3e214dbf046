// Package api serves package [escrow] over REST and MCP. It decodes a request, authenticates the caller, calls the book, and encodes the
// answer. It contains no rules about money.
//
// [New] returns the handler of the paths /api/v1/*, /mcp, /openapi.json and /llms.txt; [Serves] reports whether a path is one of
// them. A caller that mounts the handler under a prefix strips it (http.StripPrefix), and names it in [Options], since answers
// name paths. A [Sender] delivers the book's events to webhooks. [WriteProblem] answers with an error, on metered routes too.
//
// The handler is a table of routes, one for each operation. The types that a route takes and answers are also what the OpenAPI
// description and the tools of MCP are made of.
package api

import (
	"context"
	"encoding/json"
	"iter"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"golang.org/x/sync/singleflight"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/cashier"
)

// Options are the options of [New]. All are optional.
type Options struct {
	// Prefix is the path under which the handler is mounted, such as "/gate". Empty means none.
	Prefix string
	// ProblemTypes is what the type of a problem begins with; see [Shop]. Default: the gateway's own pages.
	ProblemTypes string
	// Version is the version of the program, which /openapi.json and MCP state.
	Version string
	// Tariffs yields the tariff of each metered route, with an id. It makes the answer to GET /tariffs.
	Tariffs func(TariffQuery) iter.Seq2[string, func() Tariff]
	// Sold returns the metered routes of the host that a request is for. Everybody may read what it returns. Default: none are listed.
	Sold func(*http.Request) []Sold
	// Quote estimates what a request to a metered route would cost. Its error, such as a refusal, is sent to the caller.
	Quote func(ctx context.Context, by escrow.Actor, q QuoteOrder) (Quote, error)
	// Cashier takes payments by card. Default: there are none.
	Cashier *cashier.Cashier
	// Refunds has rails give deposits back. Default: agents that ask for that get a payout, which the operator pays.
	Refunds *cashier.Refunds
	// Price prices work that a payee reports, by the routes and plans of the configuration. Default: there are none.
	Price escrow.Pricing
	// Troubles returns why this server should get no traffic, besides what the book knows; see [Troubles]. Default: nothing.
	Troubles func() []string
	// Client returns the address of a request's client, for limits on registrations and wrong keys. Default: the host of RemoteAddr.
	Client func(*http.Request) string
	// Proxied reports whether a request came through a proxy that the operator trusts. On an address of this machine, requests to /mcp
	// with another host name are refused unless they did. Default: no request did.
	Proxied func(*http.Request) bool
	// Issuer is the operator, as invoices and statements name it.
	Issuer Issuer
	// Product computes what the items of invoices cost. Default: they have no product.
	Product Product
	// PrivateWebhooks allows webhooks at private addresses; see [SenderOptions].
	PrivateWebhooks bool
	// Logger gets the failures that are not shown to the caller. Default: slog.Default.
	Logger *slog.Logger
}

// server answers the API's requests.
type server struct {
	book   func() *escrow.Book
	o      Options
	routes []route
	mux    *http.ServeMux
	mcp    func() http.Handler
	ready  singleflight.Group // of those who ask whether the server is ready
}

const (
	base    = "/api/v1"
	maxBody = 64 << 10
)

// New returns the handler. book returns the book with the rules of the current configuration. While book returns nil, the handler answers
// with 503.
func New(book func() *escrow.Book, o Options) http.Handler {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Proxied == nil {
		o.Proxied = func(*http.Request) bool { return false }
	}
	s := &server{book: book, o: o, routes: allRoutes(), mux: http.NewServeMux()}
	for _, r := range s.routes {
		s.mux.HandleFunc(r.method+" "+base+r.path, func(w http.ResponseWriter, req *http.Request) { s.serve(w, req, r) })
	}
	if err := s.documents(); err != nil {
		panic(err) // can't happen: the description is made from types and constants, and a test makes it
	}
	s.mcp = sync.OnceValue(s.mcpHandler)
	s.mux.HandleFunc("/mcp", s.serveMCP)
	s.mux.HandleFunc("POST "+eventsPath, s.notify)
	return http.HandlerFunc(s.handle)
}

// Serves reports whether the handler serves a path, with any method. The prefix must be stripped from the path.
func Serves(path string) bool {
	switch path {
	case "/mcp", "/openapi.json", "/llms.txt", openAPIAt, eventsPath:
		return true
	}
	if !IsBelow(path) {
		return false
	}
	for _, method := range methods {
		r := http.Request{Method: method, URL: &url.URL{Path: path}}
		if _, pattern := paths().Handler(&r); pattern != "" {
			return true
		}
	}
	return false
}

// IsBelow reports whether a path is below the one that all routes of the API have in common. Providers use the same one, so what the API does
// not serve there may be served by others.
func IsBelow(path string) bool { return path == base || strings.HasPrefix(path, base+"/") }

// methods are those that routes have.
var methods = []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete}

// paths finds the route of a path.
var paths = sync.OnceValue(func() *http.ServeMux {
	mux := http.NewServeMux()
	for _, r := range allRoutes() {
		mux.HandleFunc(r.method+" "+base+r.path, func(http.ResponseWriter, *http.Request) {})
	}
	return mux
})

// NoSuchPath answers a request to a path that neither the API nor anything else serves.
func NoSuchPath(w http.ResponseWriter, r *http.Request, shop Shop) {
	allowAll(w.Header())
	if r.Method == http.MethodOptions {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	WriteProblem(w, &escrow.Refusal{Outcome: escrow.NotFound, Detail: "no such path; they are in " + shop.Prefix + openAPIAt}, shop, Plain)
}

func (s *server) handle(w http.ResponseWriter, r *http.Request) {
	allowAll(w.Header())
	if r.Method == http.MethodOptions {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if _, pattern := s.mux.Handler(r); pattern != "" {
		s.mux.ServeHTTP(w, r)
		return
	}
	if methods := s.methods(r); len(methods) > 0 {
		w.Header().Set("Allow", strings.Join(methods, ", "))
		WriteProblem(w, &escrow.Refusal{Outcome: MethodNotAllowed, Detail: r.Method + " is not one of " + strings.Join(methods, ", ")}, s.shop(), Plain)
		return
	}
	NoSuchPath(w, r, s.shop())
}

// methods returns the methods that the path of a request has.
func (s *server) methods(r *http.Request) (served []string) {
	for _, method := range methods {
		other := r.Clone(r.Context())
		other.Method = method
		if _, pattern := s.mux.Handler(other); pattern != "" {
			served = append(served, method)
		}
	}
	return served
}

// allowAll lets web pages of any origin call the API. That is safe, since the API takes keys and no cookies.
func allowAll(h http.Header) {
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Allow-Methods", "GET, POST, PUT, DELETE, OPTIONS")
	h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, Idempotency-Key, Mcp-Protocol-Version, Mcp-Session-Id, Last-Event-ID")
	h.Set("Access-Control-Expose-Headers", "Tallygate-Request, Tallygate-Charge, Tallygate-Units, Tallygate-Balance, Tallygate-Credit, Tallygate-Escrow, Tallygate-Subscription, Tallygate-Quality, Idempotency-Replayed, Retry-After, WWW-Authenticate, Mcp-Session-Id")
	h.Set("Access-Control-Max-Age", "86400")
}

// shop is what errors tell of this gateway.
func (s *server) shop() Shop {
	return Shop{Prefix: s.o.Prefix, Types: s.o.ProblemTypes, Book: s.book()}
}

// fail answers with an error. If the answer does not contain the error, fail logs it.
func (s *server) fail(w http.ResponseWriter, r *http.Request, err error) {
	switch asRefusal(err).Outcome {
	case InternalError, LedgerUnavailable:
		s.o.Logger.Error("the API failed to answer", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	WriteProblem(w, err, s.shop(), Plain)
}

func (s *server) answer(w http.ResponseWriter, status int, body []byte) {
	if body == nil {
		w.WriteHeader(status)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}

func encode(v any) ([]byte, error) {
	if v == nil {
		return nil, nil
	}
	return json.Marshal(v)
}
