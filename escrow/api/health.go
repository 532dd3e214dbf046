package api

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tallygate/tallygate/escrow"
)

// NotReady means that this gateway should get no traffic at the moment.
const NotReady escrow.Outcome = "not_ready"

type healthOut struct {
	Status  string `json:"status" jsonschema:"always ok"`
	Version string `json:"version,omitempty"`
}

type readyOut struct {
	Status string `json:"status" jsonschema:"always ready; otherwise the answer is a problem with status 503"`
}

// BehindAfter is how late the work that is due may be, such as releases and renewals, before a gateway is not ready.
const BehindAfter = 5 * time.Minute

func healthRoutes() []route {
	return []route{
		get("/health", "getHealth", "Whether the server answers", func(r *request, _ *none) (healthOut, error) {
			return healthOut{Status: "ok", Version: r.server.o.Version}, nil
		}).open().withoutBook(),
		get("/ready", "getReady", "Whether the server takes money and does what is due", func(r *request, _ *none) (readyOut, error) {
			// Anybody may ask this, as often as they like, so there is one look at the ledger for all who ask at the same time.
			asked, _, _ := r.server.ready.Do("", func() (any, error) { return Troubles(r.book), nil })
			trouble := slices.Clone(asked.([]string))
			if r.server.o.Troubles != nil {
				trouble = append(trouble, r.server.o.Troubles()...)
			}
			if len(trouble) > 0 {
				return readyOut{}, &escrow.Refusal{Outcome: NotReady, Detail: strings.Join(trouble, "; ")}
			}
			return readyOut{Status: "ready"}, nil
		}).open(),
	}
}

// Troubles returns why a book should get no traffic: it takes no money, or does not do in time what is due. The texts may be shown to anybody.
func Troubles(b *escrow.Book) (troubles []string) {
	if b.Ledger().Leasing() != nil { // it takes no operations, or can set no money aside
		return []string{"the ledger accepts no money"}
	}
	behind, err := b.Behind()
	if err != nil {
		return []string{"the ledger can't be read"}
	}
	if behind > BehindAfter {
		troubles = append(troubles, fmt.Sprintf("what is due, such as releases and renewals, is %s late", behind.Round(time.Second)))
	}
	return troubles
}
