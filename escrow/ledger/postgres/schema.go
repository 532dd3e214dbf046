package postgres

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"time"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

//go:embed migrations/*.sql
var migrations embed.FS

// migrate brings the tables to the schema that this program knows. Several processes may do this at the same time: one of them takes a
// lease in the table goose_lock, and the others wait.
func (s *Store) migrate() error {
	db := stdlib.OpenDBFromPool(s.pool)
	defer db.Close()
	folder, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	locker, err := lock.NewPostgresTableLocker(lock.WithTableLockTimeout(100*time.Millisecond, 600), lock.WithTableLogger(s.options.Logger))
	if err != nil {
		return err
	}
	steps, err := goose.NewProvider(goose.DialectPostgres, db, folder, goose.WithLocker(locker), goose.WithSlog(s.options.Logger))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if pending, err := steps.HasPending(ctx); err == nil && !pending {
		return nil
	}
	if _, err := steps.Up(ctx); err != nil {
		return fmt.Errorf("making the tables: %w", err)
	}
	return nil
}
