package caddymodule

import (
	"fmt"
	"path/filepath"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/bolt"
)

// StoreModule is a guest module in the namespace tallygate.stores: a way to open the store that the ledger stands on.
type StoreModule interface {
	// Key names the store: two configs whose stores have the same key share one open ledger during a reload. It says
	// where the books are, and nothing that may differ between two configs (options, secrets).
	Key() string
	// Open opens the store. It is called when the app starts, never while a config is only checked.
	Open() (ledger.Store, error)
}

// BoltStore keeps the ledger in one bbolt file on this machine.
type BoltStore struct {
	// Path of the file, relative to the folder that the server runs in. It is created where it does not exist.
	// Default: tallygate/ledger.db in Caddy's data folder.
	Path string `json:"path,omitempty"`
}

// CaddyModule tells Caddy what this is.
func (BoltStore) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "tallygate.stores.bolt", New: func() caddy.Module { return new(BoltStore) }}
}

// Provision finds the file's absolute path.
func (s *BoltStore) Provision(caddy.Context) error {
	if s.Path == "" {
		s.Path = filepath.Join(caddy.AppDataDir(), "tallygate", "ledger.db")
	}
	path, err := filepath.Abs(s.Path)
	if err != nil {
		return fmt.Errorf("finding the ledger file %q: %w", s.Path, err)
	}
	s.Path = path
	return nil
}

// UnmarshalCaddyfile reads
//
//	bolt [PATH]
func (s *BoltStore) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if d.NextArg() {
		s.Path = d.Val()
	}
	if d.NextArg() {
		return d.Errf("unexpected %q: expected 'ledger bolt [PATH]'", d.Val())
	}
	if d.NextBlock(d.Nesting()) {
		return d.Errf("unexpected %q: 'ledger bolt' takes no block", d.Val())
	}
	return nil
}

// Key is the file's path.
func (s *BoltStore) Key() string { return "bolt " + s.Path }

// Open opens the file, and creates it where it does not exist.
func (s *BoltStore) Open() (ledger.Store, error) {
	return bolt.Open(s.Path, bolt.Options{})
}

// Interface guards
var (
	_ StoreModule           = (*BoltStore)(nil)
	_ caddy.Provisioner     = (*BoltStore)(nil)
	_ caddyfile.Unmarshaler = (*BoltStore)(nil)
)
