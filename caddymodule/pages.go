package caddymodule

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/dustin/go-humanize"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/dashboard"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/gateway"
)

// dashboardOptions gives the pages what they show besides the answers of the API, which operations serves.
func (h *Handler) dashboardOptions(operations http.Handler, logger *slog.Logger) dashboard.Options {
	return dashboard.Options{
		API:    operations,
		Prefix: h.Prefix,
		Secret: func(ctx context.Context) ([]byte, error) { return h.app.book.SessionSecret(ctx) },
		Explain: func(ctx context.Context, id string) (any, error) {
			return explainOnPage(ctx, h.app.bench(), id)
		},
		Books: func(ctx context.Context) (any, error) { return h.app.stand(ctx) },
		Shop:  func(r *http.Request) (dashboard.Shop, error) { return h.shop(r), nil },
		Serve: serveAgain,
		Watch: func(ctx context.Context, agent, since string) (*escrow.Watch, error) {
			return h.app.book.Watch(ctx, agent, since)
		},
		Mark:     func(agent string) string { return h.app.book.Mark(agent) },
		Stopping: h.stopping,
		Logger:   logger,
	}
}

// serveAgain serves a request that a page makes, as the server of the page serves those of clients: with all handlers and with the access log.
func serveAgain(w http.ResponseWriter, r *http.Request) {
	server, ok := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok {
		http.Error(w, "calls are made by the server that serves the routes", http.StatusNotImplemented)
		return
	}
	server.ServeHTTP(w, r)
}

// bench is what tasks work on, in this server.
func (a *App) bench() bench {
	return bench{Book: a.book, store: a.books.store, cards: a.cards, giving: a.giving}
}

// stand is the state of the books, as the operator's first page shows it.
type stand struct {
	stat
	Troubles []string    `json:"troubles"`
	Size     string      `json:"size,omitempty"` // of the ledger's file, for people
	Behind   int64       `json:"behind_seconds"`
	Commit   *lastCommit `json:"last_commit,omitempty"`
	Commits  *commits    `json:"commits,omitempty"`
	Verified *verifiedAt `json:"verified,omitempty"`
}

// commits are how long the commits of this process took.
type commits struct {
	Count uint64 `json:"count"`
	Half  string `json:"half"` // the time within which half of them were done
	Most  string `json:"most"` // and 99 of 100
}

// commitTimes returns how long the commits of this process took; nil if there were none.
func commitTimes() *commits {
	show := func(d time.Duration) string {
		if d < 0 {
			return "longer than 5s"
		}
		return d.String()
	}
	count, half, most := gateway.CommitTimes()
	if count == 0 {
		return nil
	}
	return &commits{count, show(half), show(most)}
}

// lastCommit is how long the ledger's store took for the last group of operations.
type lastCommit struct {
	Operations int     `json:"operations"`
	MS         float64 `json:"ms"`
}

// verifiedAt is the result of a verification of the books in this process.
type verifiedAt struct {
	verified
	At time.Time `json:"at"`
}

// verifications are the last ones, by ledger.
var verifications sync.Map

// noteVerified remembers the result of a verification for as long as the ledger is open.
func noteVerified(l *ledger.Ledger, v verified) { verifications.Store(l, &verifiedAt{v, l.Now()}) }

// stand returns the state of the books. It reads nothing that grows with them.
func (a *App) stand(ctx context.Context) (stand, error) {
	on := a.bench()
	s, err := statLedger(ctx, on, struct{}{})
	if err != nil {
		return stand{}, err
	}
	out := stand{stat: s, Troubles: append(api.Troubles(a.book), a.troubles()...)}
	if s.Bytes > 0 {
		out.Size = humanize.IBytes(uint64(s.Bytes))
	}
	out.Commits = commitTimes()
	if behind, err := a.book.Behind(); err == nil {
		out.Behind = int64(behind.Seconds())
	}
	if store, ok := on.store.(interface{ LastCommit() (int, time.Duration) }); ok {
		if operations, took := store.LastCommit(); operations > 0 {
			out.Commit = &lastCommit{operations, float64(took.Microseconds()) / 1000}
		}
	}
	if last, found := verifications.Load(on.Ledger()); found {
		out.Verified = last.(*verifiedAt)
	}
	return out, nil
}
