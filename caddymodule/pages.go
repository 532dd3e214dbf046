package caddymodule

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/dashboard"
	"github.com/tallygate/tallygate/escrow/ledger"
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
		Books:  func(ctx context.Context) (any, error) { return h.app.stand(ctx) },
		Shop:   func(r *http.Request) (dashboard.Shop, error) { return h.shop(r), nil },
		Logger: logger,
	}
}

// bench is what tasks work on, in this server.
func (a *App) bench() bench { return bench{Book: a.book, store: a.books.store, cards: a.cards} }

// stand is the state of the books, as the operator's first page shows it.
type stand struct {
	stat
	Troubles []string    `json:"troubles"`
	Behind   int64       `json:"behind_seconds"`
	Verified *verifiedAt `json:"verified,omitempty"`
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
	if behind, err := a.book.Behind(); err == nil {
		out.Behind = int64(behind.Seconds())
	}
	if last, found := verifications.Load(on.Ledger()); found {
		out.Verified = last.(*verifiedAt)
	}
	return out, nil
}
