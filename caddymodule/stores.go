package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// StoreModule is implemented by the modules of the namespace tallygate.stores. Such a module opens the store of the ledger.
type StoreModule interface {
	// Key identifies the store: two configs whose stores have the same key share one open ledger during a reload. It must say where the
	// store is, and must not contain anything that may change with a reload, such as options and secrets.
	Key() string
	// Open opens the store. It is called when the app starts, and never when a config is only validated.
	Open() (ledger.Store, error)
}

// Placed is implemented by stores that a command can name without a config, by their kind and a place: 'bolt FILE', 'postgres DSN'. The
// kind is the name of the module in the namespace tallygate.stores. So the commands know the stores that a build has, and no others.
type Placed interface {
	StoreModule
	// SetPlace sets where the store is. It is called before the module is provisioned.
	SetPlace(place string)
	// IsPlace reports whether a text is certainly a place of this kind, even if the kind is not named.
	IsPlace(text string) bool
}

// ReadOnlyOpener is implemented by stores that can be opened for reading only. Commands that change nothing open them so.
type ReadOnlyOpener interface {
	// OpenReadOnly opens an existing store for reading.
	OpenReadOnly() (ledger.Store, error)
}

func newPlaced(kind string) (Placed, error) {
	if !isGuest(storeKey, kind) {
		return nil, fmt.Errorf("unknown store %q: this build has %s", kind, orNone(guests(storeKey)))
	}
	info, err := caddy.GetModule(storeKey.namespace + "." + kind)
	if err != nil {
		return nil, err
	}
	store, ok := info.New().(Placed)
	if !ok {
		return nil, fmt.Errorf("a store of the kind %q can't be named by a place: write it in a config, and name that by --config", kind)
	}
	return store, nil
}

// storeOf returns the store of a kind at a place.
func storeOf(kind, place string) (StoreModule, error) {
	module, err := newPlaced(kind)
	if err != nil {
		return nil, err
	}
	module.SetPlace(place)
	raw, err := json.Marshal(module)
	if err != nil {
		return nil, err
	}
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	defer cancel()
	loaded, err := ctx.LoadModuleByID(storeKey.namespace+"."+kind, raw)
	if err != nil {
		return nil, err
	}
	return loaded.(StoreModule), nil
}

// storeAt returns the store at a place whose kind is not named. What no other kind of store takes is a file.
func storeAt(place string) (StoreModule, error) {
	for _, kind := range guests(storeKey) {
		if module, err := newPlaced(kind); err == nil && module.IsPlace(place) {
			return storeOf(kind, place)
		}
	}
	if strings.Contains(place, "://") { // it may have a password in it, so it is not repeated
		return nil, fmt.Errorf("the ledger is named by a URL that no store of this build takes: it has %s", orNone(guests(storeKey)))
	}
	path, err := filepath.Abs(place)
	return &BoltStore{Path: path}, err
}

// openToRead opens a store for reading.
func openToRead(store StoreModule) (ledger.Store, error) {
	opener, ok := store.(ReadOnlyOpener)
	if !ok {
		return nil, errors.New("a store of this kind can't be opened for reading only")
	}
	return opener.OpenReadOnly()
}
