package caddymodule

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/bolt"
)

// BoltStore keeps the ledger in one bbolt file on this machine.
type BoltStore struct {
	// Path is the path of the file, relative to the folder in which the server runs. If there is no such file, it is created.
	// Default: tallygate/ledger.db in Caddy's data folder.
	Path string `json:"path,omitempty"`
}

// CaddyModule implements caddy.Module.
func (BoltStore) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "tallygate.stores.bolt", New: func() caddy.Module { return new(BoltStore) }}
}

// Provision computes the absolute path of the file.
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

// Key implements [StoreModule]. It contains the file's path.
func (s *BoltStore) Key() string { return "bolt " + s.Path }

// Open opens the file. If there is no such file, it creates one.
func (s *BoltStore) Open() (ledger.Store, error) {
	return bolt.Open(s.Path, bolt.Options{})
}

// OpenReadOnly implements [ReadOnlyOpener].
func (s *BoltStore) OpenReadOnly() (ledger.Store, error) {
	if _, err := os.Stat(s.Path); err != nil {
		return nil, err
	}
	return bolt.Open(s.Path, bolt.Options{ReadOnly: true})
}

// SetPlace implements [Placed]. The place is the path of a file.
func (s *BoltStore) SetPlace(path string) { s.Path = path }

// IsPlace implements [Placed]. Any text may be a file's path, so none certainly is.
func (*BoltStore) IsPlace(string) bool { return false }

// Interface guards
var (
	_ StoreModule           = (*BoltStore)(nil)
	_ Placed                = (*BoltStore)(nil)
	_ ReadOnlyOpener        = (*BoltStore)(nil)
	_ caddy.Provisioner     = (*BoltStore)(nil)
	_ caddyfile.Unmarshaler = (*BoltStore)(nil)
)
