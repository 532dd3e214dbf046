//go:build unix

package postgres_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	"github.com/tallygate/tallygate/caddymodule"
	"github.com/tallygate/tallygate/caddymodule/postgres"
	"github.com/tallygate/tallygate/escrow/ledger/postgres/pgtest"
	"github.com/tallygate/tallygate/internal/commandtest"
	_ "github.com/tallygate/tallygate/internal/steady"
)

func adapt(text string) ([]byte, error) {
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), nil)
	return config, err
}

// TestCaddyfile: what is written wrong is refused with the fix, and without the DSN, which may have a password in it.
func TestCaddyfile(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{"postgres", "takes one DSN, got 0 words"},
		{"postgres host=db user=shop password=geheim", "takes one DSN, got 3 words: write 'ledger postgres postgres://USER@HOST/DATABASE', and put a DSN of several words in quotes"},
		{"postgres postgres://shop:geheim@db:port/shop", "the DSN can't be read: expected postgres://USER@HOST:PORT/DATABASE"},
		{"postgres postgres://shop:geheim@db/shop {\n sync off\n}", `unexpected "sync": expected 'mode rows|log', 'synchronous_commit off|local' or 'lifetime DURATION'`},
		{"postgres postgres://shop:geheim@db/shop {\n mode fast\n}", "unexpected 'mode fast': expected 'rows' or 'log'"},
		{"postgres postgres://shop:geheim@db/shop {\n mode\n}", "'mode' takes one word, got 0"},
		{"postgres postgres://shop:geheim@db/shop {\n synchronous_commit on\n}", "unexpected 'synchronous_commit on': expected 'off' or 'local'"},
		{"postgres postgres://shop:geheim@db/shop {\n lifetime 1ms\n}", "unexpected 'lifetime 1ms': expected a duration of at least 1s, such as 10s"},
		{"postgres postgres://shop:geheim@db/shop {\n synchronous_commit\n}", "'synchronous_commit' takes one word, got 0"},
	} {
		_, err := adapt("{\n\ttallygate {\n\t\tledger " + c.line + "\n\t}\n}\n")
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: %v, want %q", c.line, err, c.want)
		}
	}
	config, err := adapt("{\n\ttallygate {\n\t\tledger postgres {env.DSN} {\n\t\t\tmode rows\n\t\t\tsynchronous_commit local\n\t\t}\n\t}\n}\n")
	if err != nil || !strings.Contains(string(config), `{"dsn":"{env.DSN}","mode":"rows","store":"postgres","synchronous_commit":"local"}`) {
		t.Errorf("the config is %s, %v", config, err)
	}
}

// TestProvision: an empty placeholder is refused; the key names the database, and no secret.
func TestProvision(t *testing.T) {
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	defer cancel()
	for dsn, want := range map[string]string{
		"{env.TALLYGATE_NO_SUCH}":      "has an empty DSN",
		"{env.TALLYGATE_DSN}":          "",
		"postgres://:geheim@db:x/shop": "the DSN can't be read",
	} {
		t.Setenv("TALLYGATE_DSN", "postgres://shop:geheim@db.internal:5433,other/shop?search_path=books")
		s := &postgres.Store{DSN: dsn}
		err := s.Provision(ctx)
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "geheim")) {
			t.Errorf("%s: %v, want %q", dsn, err, want)
		}
		if err == nil && s.Key() != "postgres db.internal:5433,other:5432/shop books" {
			t.Errorf("the key is %q", s.Key())
		}
	}
}

// TestGateway: a gateway on a database charges for a call. While the database is away it answers 503; afterwards it serves again, without a
// restart. After a restart it has the same books. No password is logged.
func TestGateway(t *testing.T) {
	server := pgtest.Start(t, "fsync=off")
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "found") }))
	defer upstream.Close()
	t.Setenv("TALLYGATE_DSN", server.New(t)+"&password=geheim")
	log := filepath.Join(t.TempDir(), "caddy.log")
	shop := start(t, log, upstream.URL)
	var made struct {
		Key string `json:"api_key"`
	}
	shop.ask("POST", "/api/v1/agents", "", `{"name":"ada"}`, http.StatusCreated, &made)
	shop.ask("POST", "/api/v1/faucet", made.Key, "", http.StatusOK, nil)
	shop.ask("GET", "/search", made.Key, "", http.StatusOK, nil)
	balance := func() string {
		var wallet struct{ Balance string }
		shop.ask("GET", "/api/v1/wallet", made.Key, "", http.StatusOK, &wallet)
		return wallet.Balance
	}
	if got := balance(); got != "0.75" {
		t.Errorf("after a call the wallet has %s", got)
	}
	server.Stop(syscall.SIGINT)
	shop.ask("GET", "/search", made.Key, "", http.StatusServiceUnavailable, nil)
	server.Run(t)
	for deadline := time.Now().Add(time.Minute); ; {
		status, text := shop.send("GET", "/search", made.Key, "")
		if status == http.StatusOK {
			break
		}
		if status != http.StatusServiceUnavailable || time.Now().After(deadline) {
			t.Fatalf("after the database came back: %d %s", status, text)
		}
	}
	if got := balance(); got != "0.5" {
		t.Errorf("after the database came back the wallet has %s", got)
	}
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	shop = start(t, log, upstream.URL)
	if got := balance(); got != "0.5" {
		t.Errorf("after a restart the wallet has %s", got)
	}
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(log)
	if err != nil || bytes.Contains(text, []byte("geheim")) || len(text) == 0 {
		t.Errorf("the log tells the password, or is empty: %d bytes, %v", len(text), err)
	}
}

type shop struct {
	t    *testing.T
	base string
}

func start(t *testing.T, log, upstream string) shop {
	t.Helper()
	address := commandtest.FreeAddress(t)
	config, err := adapt(fmt.Sprintf(`{
	admin off
	persist_config off
	auto_https off
	log {
		output file %s
		level DEBUG
	}
	tallygate {
		ledger postgres {env.TALLYGATE_DSN}
		registration open
		faucet 1.00
	}
}
http://%s {
	tallygate
	handle /search* {
		meter acme 0.25 per call
		reverse_proxy %s
	}
}
`, log, address, upstream))
	if err != nil {
		t.Fatal(err)
	}
	if err := caddy.Load(config, true); err != nil {
		t.Fatal(err)
	}
	return shop{t, "http://" + address}
}

// ask makes a request and decodes the answer.
func (s shop) ask(method, path, key, body string, status int, into any) {
	s.t.Helper()
	got, text := s.send(method, path, key, body)
	if got != status {
		s.t.Fatalf("%s %s: %d %s", method, path, got, text)
	}
	if into == nil {
		return
	}
	if err := json.Unmarshal(text, into); err != nil {
		s.t.Fatalf("%s %s: %v: %s", method, path, err, text)
	}
}

func (s shop) send(method, path, key, body string) (status int, text []byte) {
	s.t.Helper()
	request, err := http.NewRequest(method, s.base+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	if key != "" {
		request.Header.Set("Authorization", "Bearer "+key)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	text, _ = io.ReadAll(response.Body)
	return response.StatusCode, text
}

var _ caddymodule.StoreModule = (*postgres.Store)(nil)
