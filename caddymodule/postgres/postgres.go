// Package postgres is a Caddy module for a ledger in a PostgreSQL database. Import it for its side effects, in a Caddy build that has
// package caddymodule. This Caddyfile uses it:
//
//	{
//		tallygate {
//			ledger postgres {env.TALLYGATE_DSN}
//		}
//	}
//
// Several gateways may serve on one database: see docs/scale-out.md.
package postgres

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/tallygate/tallygate/caddymodule"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/postgres"
)

func init() { caddy.RegisterModule(Store{}) }

// Store keeps the ledger in a PostgreSQL database.
type Store struct {
	// DSN names the database, as a URL (postgres://USER@HOST:PORT/DATABASE) or as a list of words (host=HOST dbname=DATABASE user=USER).
	// Write it as a placeholder, such as {env.TALLYGATE_DSN}, if it has a password in it. A password may also be in the environment
	// variable PGPASSWORD or in the file ~/.pgpass.
	DSN string `json:"dsn"`
	// SynchronousCommit is a setting of the database to accept although the server may then lose commits that it has confirmed: "off" or
	// "local". Without it such a database is refused at start.
	SynchronousCommit string `json:"synchronous_commit,omitempty"`

	// Mode is how the records of a commit are written: "rows" with the commit, or "log" a moment later, which is faster. The default is "log".
	// It can be changed at any restart.
	Mode postgres.Mode `json:"mode,omitempty"`

	// Lifetime is how long a gateway shows no sign of life until the others take it for dead: they settle its calls, and free what it had set
	// aside. It must be the same for all gateways on a database. Default: 10s.
	Lifetime caddy.Duration `json:"lifetime,omitempty"`

	dsn    string // without placeholders
	where  string
	logger *slog.Logger
}

// CaddyModule implements caddy.Module.
func (Store) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "tallygate.stores.postgres", New: func() caddy.Module { return new(Store) }}
}

// Provision reads the DSN.
func (s *Store) Provision(ctx caddy.Context) (err error) {
	s.logger = ctx.Slogger()
	s.dsn = caddy.NewReplacer().ReplaceAll(s.DSN, "")
	if strings.TrimSpace(s.dsn) == "" {
		return errors.New("'ledger postgres' has an empty DSN: set the environment variable that it names, or write postgres://USER@HOST/DATABASE")
	}
	if s.where, err = postgres.Where(s.dsn); err != nil {
		return fmt.Errorf("'ledger postgres': %w", err)
	}
	if err := checkMode(s.Mode); err != nil {
		return err
	}
	return checkSynchronousCommit(s.SynchronousCommit)
}

func checkMode(mode postgres.Mode) error {
	switch mode {
	case "", postgres.Rows, postgres.Log:
		return nil
	default:
		return fmt.Errorf("unexpected 'mode %s': expected 'rows' or 'log'", mode)
	}
}

func checkSynchronousCommit(setting string) error {
	switch setting {
	case "", "off", "local":
		return nil
	default:
		return fmt.Errorf("unexpected 'synchronous_commit %s': expected 'off' or 'local', the settings that are refused otherwise", setting)
	}
}

// UnmarshalCaddyfile reads
//
//	postgres DSN {
//		mode rows|log
//		synchronous_commit off|local
//		lifetime DURATION
//	}
func (s *Store) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	args := d.RemainingArgs()
	if len(args) != 1 {
		return d.Errf("'ledger postgres' takes one DSN, got %d words: write 'ledger postgres postgres://USER@HOST/DATABASE', and put a DSN of several words in quotes", len(args))
	}
	s.DSN = args[0]
	if !strings.Contains(s.DSN, "{") { // a placeholder can be read only when the server starts
		if _, err := postgres.Where(s.DSN); err != nil {
			return d.Errf("'ledger postgres': %v", err)
		}
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if err := s.unmarshalOption(d); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) unmarshalOption(d *caddyfile.Dispenser) error {
	option := d.Val()
	words := d.RemainingArgs()
	if len(words) != 1 {
		return d.Errf("'%s' takes one word, got %d", option, len(words))
	}
	var err error
	switch option {
	case "mode":
		s.Mode = postgres.Mode(words[0])
		err = checkMode(s.Mode)
	case "synchronous_commit":
		s.SynchronousCommit = words[0]
		err = checkSynchronousCommit(words[0])
	case "lifetime":
		var lifetime time.Duration
		if lifetime, err = caddy.ParseDuration(words[0]); err != nil || lifetime < time.Second {
			err = fmt.Errorf("unexpected 'lifetime %s': expected a duration of at least 1s, such as 10s", words[0])
		}
		s.Lifetime = caddy.Duration(lifetime)
	default:
		return d.Errf("unexpected %q: expected 'mode rows|log', 'synchronous_commit off|local' or 'lifetime DURATION'", option)
	}
	if err != nil {
		return d.Err(err.Error())
	}
	return nil
}

// SetPlace implements [caddymodule.Placed]. The place is a DSN. The mode is Rows: a command that writes much, such as a copy, would have it
// written twice otherwise.
func (s *Store) SetPlace(dsn string) { s.DSN, s.Mode = dsn, postgres.Rows }

// IsPlace implements [caddymodule.Placed]. A DSN that is a URL is of this store.
func (*Store) IsPlace(text string) bool {
	return strings.HasPrefix(text, "postgres://") || strings.HasPrefix(text, "postgresql://")
}

// OpenReadOnly implements [caddymodule.ReadOnlyOpener]. It works beside running gateways, and on a standby.
func (s *Store) OpenReadOnly() (ledger.Store, error) {
	return postgres.Open(s.dsn, postgres.Options{ReadOnly: true, Logger: s.logger})
}

// Key implements [caddymodule.StoreModule]. It names the database, without user and password.
func (s *Store) Key() string { return "postgres " + s.where }

// Open opens the ledger in the database. It makes the tables if there are none.
func (s *Store) Open() (ledger.Store, error) {
	return postgres.Open(s.dsn, postgres.Options{Mode: s.Mode, SynchronousCommit: s.SynchronousCommit, Lifetime: time.Duration(s.Lifetime), Logger: s.logger})
}

// Interface guards
var (
	_ caddymodule.StoreModule    = (*Store)(nil)
	_ caddymodule.Placed         = (*Store)(nil)
	_ caddymodule.ReadOnlyOpener = (*Store)(nil)
	_ caddy.Provisioner          = (*Store)(nil)
	_ caddyfile.Unmarshaler      = (*Store)(nil)
)
