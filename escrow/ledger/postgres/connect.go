package postgres

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tallygate/tallygate/escrow/ledger"
)

const (
	roundTrip = 10 * time.Second // after which a server that does not answer counts as away
	dialling  = 5 * time.Second
)

// ErrDSN is returned for a DSN that can't be read.
var ErrDSN = errors.New("the DSN can't be read: expected postgres://USER@HOST:PORT/DATABASE, or words such as 'host=HOST dbname=DATABASE user=USER'")

// parse reads a DSN. Its error says nothing about the DSN, which may have a password in it.
func parse(dsn string) (*pgxpool.Config, error) {
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil || strings.TrimSpace(dsn) == "" {
		return nil, ErrDSN
	}
	config.ConnConfig.ConnectTimeout = dialling
	if _, is := config.ConnConfig.RuntimeParams["application_name"]; !is {
		config.ConnConfig.RuntimeParams["application_name"] = "tallygate"
	}
	// Whatever isolation the database has by default, it is no error if two flushes change the same row.
	config.ConnConfig.RuntimeParams["default_transaction_isolation"] = "read committed"
	if !strings.Contains(dsn, "pool_max_conns") {
		config.MaxConns = 16
	}
	return config, nil
}

// Where names the database of a DSN, without user and password: two DSNs of the same place name the same ledger.
func Where(dsn string) (string, error) {
	config, err := parse(dsn)
	if err != nil {
		return "", err
	}
	return place(config), nil
}

func place(config *pgxpool.Config) string {
	c := config.ConnConfig
	hosts := []string{fmt.Sprintf("%s:%d", c.Host, c.Port)}
	for _, f := range c.Fallbacks {
		if host := fmt.Sprintf("%s:%d", f.Host, f.Port); host != hosts[len(hosts)-1] {
			hosts = append(hosts, host)
		}
	}
	where := strings.Join(hosts, ",") + "/" + c.Database
	if path := c.RuntimeParams["search_path"]; path != "" {
		where += " " + path
	}
	return where
}

// connect connects the writer. It tries again until patience is over, if that may help.
func (s *Store) connect(patience time.Duration) error {
	deadline := time.Now().Add(patience)
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, time.Second/2) {
		err := s.tryConnect()
		if err == nil || !mayPass(err) || time.Now().Add(pause).After(deadline) {
			return err
		}
		time.Sleep(pause)
	}
}

func (s *Store) tryConnect() error {
	ctx, cancel := context.WithTimeout(context.Background(), roundTrip)
	defer cancel()
	config := s.config.ConnConfig.Copy()
	// Another process waits for the lock while this one has it. If this one stops there, the server ends its transaction.
	config.RuntimeParams["idle_in_transaction_session_timeout"] = "1000"
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return withoutSecrets(err)
	}
	var synchronous string
	var standby bool
	b := new(pgx.Batch)
	b.Queue("select current_setting('synchronous_commit'), pg_is_in_recovery()").QueryRow(func(row pgx.Row) error {
		return row.Scan(&synchronous, &standby)
	})
	err = conn.SendBatch(ctx, b).Close()
	switch {
	case err != nil:
	case standby:
		err = errStandby
	case (synchronous == "off" || synchronous == "local") && synchronous != s.options.SynchronousCommit:
		err = fmt.Errorf("%w: synchronous_commit is %s, with which the server may lose commits that it has confirmed: 'alter role NAME set synchronous_commit = on', or accept the loss by naming the setting", errSetting, synchronous)
	}
	if err != nil {
		_ = conn.Close(ctx)
		return err
	}
	s.writer.conn, s.writer.id = conn, 1+rand.Int64N(1<<62)
	return nil
}

// errSetting is returned for a setting of the server that puts the ledger at risk.
var errSetting = errors.New("a setting of the database is not safe for a ledger")

var errStandby = errors.New("the server is a standby, which takes no writes: name the primary in the DSN, or several hosts and target_session_attrs=read-write")

// withoutSecrets takes the user and the DSN out of an error of connecting. What remains is the reason.
func withoutSecrets(err error) error {
	var failed *pgconn.ConnectError
	if errors.As(err, &failed) {
		return fmt.Errorf("connecting: %w", failed.Unwrap())
	}
	return err
}

// drop closes the writer's connection, and with it a transaction.
func (s *Store) drop() {
	w := &s.writer
	if w.conn != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = w.conn.Close(ctx)
	}
	w.conn, w.locked = nil, false
	w.pages = nil
}

// mayPass reports whether trying again may help after an error.
func mayPass(err error) bool {
	var refused *pgconn.PgError
	switch {
	case errors.Is(err, errStandby): // a failover may be under way
		return true
	case errors.Is(err, ledger.ErrCorrupt), errors.Is(err, ErrLost):
		return false
	case errors.As(err, &refused):
		switch refused.Code {
		case "40001", "40P01": // serialization failure, deadlock
			return true
		case "25P03", "57P01", "57P02", "57P03", "53300", "25006": // idle for too long, shut down, crashed, starting, too many, read-only
			return true
		}
		return strings.HasPrefix(refused.Code, "08")
	default:
		return !errors.Is(err, errSetting)
	}
}
