package caddymodule_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

// lifecycle is held while a config is provisioned and started: Caddy keeps its default logger and certmagic's default storage for the
// whole process, and sets both without a lock of their own.
var lifecycle sync.Mutex

// processLog is the file of Caddy's default logger. Only Caddy's core and config adapters write there; modules write to the log of their own
// config.
var processLog string

// openProcess starts what Caddy has once in a process, so that the configs of many shops can run beside each other: the default logger,
// and a TLS app, without which the first shop that closes would take away the certificate cache of all others.
func openProcess() (closed func() error, err error) {
	dir, err := os.MkdirTemp("", "tallygate-tests-")
	if err != nil {
		return nil, err
	}
	processLog = filepath.Join(dir, "caddy.log")
	config := fmt.Sprintf(`{"admin":{"disabled":true,"config":{"persist":false}},"logging":%s,"apps":{"tls":{}}}`, processLogging())
	if err := caddy.Load([]byte(config), true); err != nil {
		return nil, err
	}
	return func() error {
		defer os.RemoveAll(dir)
		if err := caddy.Stop(); err != nil {
			return err
		}
		return checkForKeys(processLog)
	}, nil
}

func processLogging() string {
	return fmt.Sprintf(`{"logs":{"default":{"level":"DEBUG","writer":{"output":"file","filename":%q}}}}`, processLog)
}

// takeBackDefaultLogger makes the process's log Caddy's default again, after the config of a shop has replaced it.
func takeBackDefaultLogger() error {
	config := new(caddy.Config)
	if err := json.Unmarshal([]byte(processLogging()), &config.Logging); err != nil {
		return err
	}
	_, err := caddy.ProvisionContext(config)
	return err
}

// startConfig starts a config like caddy.Load, but does not stop an earlier config, and does not make it Caddy's active config. So any number of
// configs can run in one process. There is no admin endpoint; tests that need one run a process.
func startConfig(raw []byte) (stop func() error, err error) {
	lifecycle.Lock()
	defer lifecycle.Unlock()
	config := new(caddy.Config)
	if err := caddy.StrictUnmarshalJSON(raw, config); err != nil {
		return nil, err
	}
	// The only difference from ProvisionContext is that the apps are loaded in a context that can be cancelled here.
	apps := config.AppsRaw
	config.AppsRaw = nil
	base, err := caddy.ProvisionContext(config)
	if err != nil {
		return nil, err
	}
	ctx, cancel := caddy.NewContext(base)
	config.AppsRaw = apps
	if err := startApps(ctx, config); err != nil {
		cancel()
		return nil, err
	}
	stop = func() error {
		err := stopApps(ctx)
		cancel()
		return err
	}
	if err := takeBackDefaultLogger(); err != nil {
		_ = stop()
		return nil, err
	}
	return stop, nil
}

// startApps provisions the apps of a config and starts them in any order, as Caddy does.
func startApps(ctx caddy.Context, config *caddy.Config) error {
	var names []string
	for name := range config.AppsRaw {
		names = append(names, name)
	}
	for _, name := range names {
		if _, err := ctx.App(name); err != nil {
			return err
		}
	}
	started := make(map[string]caddy.App)
	for name, app := range loadedApps(ctx) {
		if err := app.Start(); err != nil {
			for _, other := range started {
				_ = other.Stop()
			}
			return fmt.Errorf("%s app module: start: %w", name, err)
		}
		started[name] = app
	}
	return nil
}

func stopApps(ctx caddy.Context) (err error) {
	for name, app := range loadedApps(ctx) {
		if stopErr := app.Stop(); stopErr != nil {
			err = fmt.Errorf("%s app module: stop: %w", name, stopErr)
		}
	}
	return err
}

// loadedApps returns the apps of a config, including those that other apps have loaded.
func loadedApps(ctx caddy.Context) map[string]caddy.App {
	apps := make(map[string]caddy.App)
	for _, module := range caddy.GetModules("") {
		if app, err := ctx.AppIfConfigured(string(module.ID)); err == nil {
			apps[string(module.ID)] = app.(caddy.App)
		}
	}
	return apps
}

// keysGiven are the keys of all agents of all shops in this process. No log may contain any of them.
var keysGiven = struct {
	sync.Mutex
	keys [][]byte
}{keys: [][]byte{[]byte(operatorKey)}}

func neverLog(key string) {
	keysGiven.Lock()
	defer keysGiven.Unlock()
	keysGiven.keys = append(keysGiven.keys, []byte(key))
}

// checkForKeys searches a log for keys, including those of other shops.
func checkForKeys(file string) error {
	logged, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	keysGiven.Lock()
	keys := slices.Clone(keysGiven.keys)
	keysGiven.Unlock()
	for _, key := range keys {
		if i := bytes.Index(logged, key); i >= 0 {
			return fmt.Errorf("a key was logged: ...%s", logged[max(0, i-500):min(len(logged), i+80)])
		}
	}
	return nil
}

// TestKeysAreFoundInLogs: the search at the end of each shop finds keys, even in the log of another shop.
func TestKeysAreFoundInLogs(t *testing.T) {
	t.Parallel()
	one := openShop(t, "", perCallSite, text("results"))
	key := one.agent("alice", "1")
	file := filepath.Join(t.TempDir(), "caddy.log")
	for text, found := range map[string]bool{"": false, `{"request":{"headers":{"X":["` + key + `"]}}}`: true, operatorKey: true} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := checkForKeys(file); (err != nil) != found {
			t.Errorf("in %q: %v", text, err)
		}
	}
	raw, err := os.ReadFile(one.log)
	if err != nil || !bytes.Contains(raw, []byte("/api/v1/agents")) && !bytes.Contains(raw, []byte("tallygate")) {
		t.Errorf("the shop's log is not written: %v %s", err, raw)
	}
}
