package escrow_test

import (
	"strings"
	"testing"

	"github.com/tallygate/tallygate/escrow"
)

func newAgentKey(t *testing.T, s *shop, id string) string {
	t.Helper()
	secret, err := do(s, func(tx *escrow.Tx) (string, error) {
		_, _, secret, err := tx.CreateAgent(escrow.Actor{}, escrow.AgentOrder{ID: id})
		return secret, err
	})
	must(t, err)
	return secret
}

func TestKeysTellMistypedFromUnknown(t *testing.T) {
	s := newShop(t, defaultRules())
	key := newAgentKey(t, s, "alice")
	who, err := s.Authenticate(key)
	must(t, err)
	if who.Agent != "alice" || who.Operator || who.Key == "" || !escrow.IsKey(key) {
		t.Fatalf("%+v", who)
	}
	op, err := s.Authenticate(operatorKey)
	must(t, err)
	if !op.Operator || op.Agent != "" {
		t.Fatalf("%+v", op)
	}
	for i := len("tg_"); i < len(key); i++ { // each single mistake is seen, whatever it is
		other := "x"
		if key[i] == 'x' {
			other = "y"
		}
		if key[i] == '_' {
			continue
		}
		wrong := key[:i] + other + key[i+1:]
		r := refused(t, authError(s, wrong), escrow.Unauthorized)
		if !strings.Contains(r.Detail, "mistyped") || escrow.IsKey(wrong) {
			t.Fatalf("%s: %s", wrong, r.Detail)
		}
	}
	other := newShop(t, defaultRules())
	if r := refused(t, authError(other, key), escrow.Unauthorized); !strings.Contains(r.Detail, "not known") {
		t.Errorf("a key of another gateway: %s", r.Detail)
	}
	for _, text := range []string{"", "sk-proj-abc", key + "0", key[:len(key)-1], " " + key, strings.ToUpper(key), strings.Repeat("tg_", 10000)} {
		refused(t, authError(s, text), escrow.Unauthorized)
	}
	closed := s.With(escrow.Rules{})
	if _, err := closed.Authenticate(operatorKey); !escrow.IsRefusal(err, escrow.Unauthorized) {
		t.Errorf("without an operator's key: %v", err)
	}
	if _, err := closed.Authenticate(""); !escrow.IsRefusal(err, escrow.Unauthorized) {
		t.Errorf("without a key: %v", err)
	}
}

func authError(s *shop, key string) error { _, err := s.Authenticate(key); return err }

func FuzzAuthenticate(f *testing.F) {
	s := newShop(f, defaultRules())
	f.Add("tg_aaaaaaaaaa_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")
	f.Add(operatorKey + " ")
	f.Fuzz(func(t *testing.T, key string) {
		if who, err := s.Authenticate(key); err == nil && key != operatorKey {
			t.Fatalf("%q is let in as %+v", key, who)
		}
	})
}

func TestReserve(t *testing.T) {
	s := newShop(t, defaultRules())
	must(t, s.Reserve(t.Context(), "acme"))
	must(t, s.Reserve(t.Context(), "acme"))
	refused(t, s.run(func(tx *escrow.Tx) error {
		_, _, _, err := tx.CreateAgent(escrow.Actor{}, escrow.AgentOrder{ID: "acme"})
		return err
	}), escrow.AlreadyExists)
	newAgentKey(t, s, "squatter")
	err := s.Reserve(t.Context(), "squatter")
	if err == nil || !strings.Contains(err.Error(), "--adopt") {
		t.Fatalf("a payee that registered itself: %v", err)
	}
	_, err = do(s, func(tx *escrow.Tx) (escrow.Agent, error) { return tx.Adopt(operator, "squatter") })
	must(t, err)
	must(t, s.Reserve(t.Context(), "squatter"))
	if err := s.Reserve(t.Context(), "no such/name"); err == nil {
		t.Fatal("a payee with a slash")
	}
	must(t, s.run(func(tx *escrow.Tx) error { _, _, err := tx.CreateKey(operator, "acme", escrow.KeyOrder{}); return err }))
}

// TestKeyForm: what is no key is told from a mistyped one by its form.
func TestKeyForm(t *testing.T) {
	s := newShop(t, defaultRules())
	key := newAgentKey(t, s, "alice")
	for _, wrong := range []string{
		key[:len(key)-1], key + "0", "TG_" + key[3:], "tg-" + key[3:], key[:13] + "-" + key[14:],
		key[:5] + "_" + key[6:], key[:20] + "@" + key[21:], key[:20] + "[" + key[21:], key[:20] + "`" + key[21:], key[:20] + "{" + key[21:],
		key[:20] + "/" + key[21:], key[:20] + ":" + key[21:], key[:20] + "\x10" + key[21:], key[:20] + "é" + key[22:],
	} {
		if r := refused(t, authError(s, wrong), escrow.Unauthorized); !strings.Contains(r.Detail, "not the key of an agent") || escrow.IsKey(wrong) {
			t.Errorf("%q: %s", wrong, r.Detail)
		}
	}
}

// TestWhatIsRememberedIsCurrent: a key and an agent that are changed between two calls are seen as changed.
func TestWhatIsRememberedIsCurrent(t *testing.T) {
	s := newShop(t, defaultRules())
	key := newAgentKey(t, s, "alice")
	who, err := s.Authenticate(key)
	must(t, err)
	_, err = do(s, func(tx *escrow.Tx) (escrow.Agent, error) {
		return tx.Suspend(escrow.Actor{Operator: true}, "alice", "a test")
	})
	must(t, err)
	again, err := s.Authenticate(key)
	must(t, err)
	if who.Barred != "" || again.Barred != "suspended" {
		t.Errorf("barred %q, then %q", who.Barred, again.Barred)
	}
	_, err = do(s, func(tx *escrow.Tx) (struct{}, error) {
		return struct{}{}, tx.RevokeKey(escrow.Actor{Operator: true}, "alice", who.Key)
	})
	must(t, err)
	refused(t, authError(s, key), escrow.Unauthorized)
}
