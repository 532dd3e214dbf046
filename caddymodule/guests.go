package caddymodule

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/tallygate/tallygate/escrow/cashier"
	"github.com/tallygate/tallygate/gateway"
)

// Guests are Caddy modules of other packages that a build adds to our namespaces: stores, identities, judges, rails and cashiers. They
// implement [StoreModule], [gateway.Identity], [gateway.Judge], [gateway.Rail] or [cashier.Service].

// guestKey is one of our namespaces, with the JSON key that names a module in it.
type guestKey struct{ namespace, name string }

var (
	storeKey    = guestKey{"tallygate.stores", "store"}
	identityKey = guestKey{"tallygate.identity", "identity"}
	judgeKey    = guestKey{"tallygate.quality", "judge"}
	railKey     = guestKey{"tallygate.rails", "rail"}
	cashierKey  = guestKey{"tallygate.cashiers", "cashier"}
)

// guests returns the names of the modules that this build has in a namespace.
func guests(key guestKey) (names []string) {
	for _, info := range caddy.GetModules(key.namespace) {
		names = append(names, info.ID.Name())
	}
	return names
}

func isGuest(key guestKey, name string) bool { return slices.Contains(guests(key), name) }

// unmarshalGuest reads a module from the arguments and the block after a subdirective. what and means describe the module in errors.
func unmarshalGuest[T any](d *caddyfile.Dispenser, what string, key guestKey, means string) (json.RawMessage, error) {
	word := d.Val()
	if !d.NextArg() {
		return nil, d.Errf("'%s' needs a %s: this build has %s", word, what, orNone(guests(key)))
	}
	name := d.Val()
	if !isGuest(key, name) {
		return nil, d.Errf("unknown %s %q: this build has %s", what, name, orNone(guests(key)))
	}
	module, err := caddyfile.UnmarshalModule(d, key.namespace+"."+name)
	if err != nil {
		return nil, err
	}
	if _, ok := module.(T); !ok {
		return nil, d.Errf("%q is not %s: %T", name, means, module)
	}
	return caddyconfig.JSONModuleObject(module, key.name, name, nil), nil
}

// lineOf returns the line at which d is, without the block after it.
func lineOf(d *caddyfile.Dispenser) *caddyfile.Dispenser {
	tokens := append([]caddyfile.Token{d.Token()}, d.RemainingArgsAsTokens()...)
	line := caddyfile.NewDispenser(tokens)
	line.Next()
	return line
}

// loadGuest loads the module of a config field. It returns nil if the field is empty.
func loadGuest[T any](ctx caddy.Context, config any, field string, raw json.RawMessage) (guest T, err error) {
	if raw == nil {
		return guest, nil
	}
	module, err := ctx.LoadModule(config, field)
	if err != nil {
		return guest, err
	}
	guest, ok := module.(T)
	if !ok {
		return guest, fmt.Errorf("%s: a module of type %T can't be used here", field, module)
	}
	return guest, nil
}

// loadGuests loads the modules of a meter: its identity and its judge.
func (m *Meter) loadGuests(ctx caddy.Context) (err error) {
	if m.route.Identity, err = loadGuest[gateway.Identity](ctx, m, "IdentityRaw", m.IdentityRaw); err != nil {
		return fmt.Errorf("loading the identity: %w", err)
	}
	if m.Quality == nil {
		return nil
	}
	if m.Quality.guest, err = loadGuest[gateway.Judge](ctx, m.Quality, "JudgeRaw", m.Quality.JudgeRaw); err != nil {
		return fmt.Errorf("loading the judge: %w", err)
	}
	return nil
}

func loadRails(ctx caddy.Context, a *App) (rails []gateway.Rail, err error) {
	if a.RailsRaw == nil {
		return nil, nil
	}
	loaded, err := ctx.LoadModule(a, "RailsRaw")
	if err != nil {
		return nil, fmt.Errorf("loading the rails: %w", err)
	}
	for _, module := range loaded.([]any) {
		rail, ok := module.(gateway.Rail)
		if !ok {
			return nil, fmt.Errorf("loading the rails: %T is not a rail", module)
		}
		rails = append(rails, rail)
	}
	return rails, nil
}

// loadCashier returns the cashier of the config, or nil if it has none.
func loadCashier(ctx caddy.Context, a *App) (*cashier.Cashier, error) {
	if a.CashierRaw == nil {
		return nil, nil
	}
	service, err := loadGuest[cashier.Service](ctx, a, "CashierRaw", a.CashierRaw)
	if err != nil {
		return nil, fmt.Errorf("loading the cashier: %w", err)
	}
	return &cashier.Cashier{Service: service, Book: a.openBook, Logger: ctx.Slogger()}, nil
}

// refunds returns what gives deposits back: the rails and the cashier that can.
func (a *App) refunds(logger *slog.Logger) *cashier.Refunds {
	var can []cashier.Refunder
	for _, rail := range a.rails {
		if r, is := rail.(cashier.Refunder); is {
			can = append(can, r)
		}
	}
	if a.cards != nil {
		if r, is := a.cards.Service.(cashier.Refunder); is {
			can = append(can, r)
		}
	}
	return cashier.NewRefunds(can, a.openBook, logger)
}
