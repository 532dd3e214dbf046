package escrow

import "time"

// maxPattern is how many bytes a glob of a key's models or routes may have.
const maxPattern = 256

// checkKey refuses a key that can't be as ordered. was is when the key expires so far.
func (t *Tx) checkKey(o KeyOrder, was time.Time) error {
	if err := checkText("name", o.Name); err != nil {
		return err
	}
	if len(o.Payees) > maxPayees {
		return invalid("payees", "payees: at most %d", maxPayees)
	}
	for _, payee := range o.Payees {
		if _, err := t.agent("payees", payee); err != nil {
			return err
		}
	}
	for field, globs := range map[string][]string{"models": o.Models, "routes": o.Routes} {
		if len(globs) > maxPayees {
			return invalid(field, "%s: at most %d", field, maxPayees)
		}
		for _, glob := range globs {
			if glob == "" || len(glob) > maxPattern {
				return invalid(field, "%s %.40q: a glob has 1 to %d bytes", field, glob, maxPattern)
			}
			if err := checkText(field, glob); err != nil {
				return err
			}
		}
	}
	if !o.ExpiresAt.IsZero() && !o.ExpiresAt.After(t.Now()) && !o.ExpiresAt.Equal(was) {
		return invalid("expires_at", "expires_at %s is past", o.ExpiresAt.Format(time.RFC3339))
	}
	return o.Pace.check()
}

func (k *Key) set(o KeyOrder) {
	k.Name, k.ReadOnly, k.Payees, k.Models, k.Routes, k.Pace, k.ExpiresAt = o.Name, o.ReadOnly, o.Payees, o.Models, o.Routes, o.Pace, o.ExpiresAt
}

// order is what the key may do.
func (k Key) order() KeyOrder {
	return KeyOrder{Name: k.Name, ReadOnly: k.ReadOnly, Payees: k.Payees, Models: k.Models, Routes: k.Routes, Pace: k.Pace, ExpiresAt: k.ExpiresAt}
}

// key returns a key of an agent. Refused with not_found if there is none.
func (t *Tx) key(agent, id string) (key Key, err error) {
	if len(id) != 10 {
		return Key{}, refuse(NotFound, nil, "no such key")
	}
	found, err := load(t.ledger, keyTable.key(id), &key)
	if err == nil && (!found || key.Agent != agent) {
		err = refuse(NotFound, nil, "no such key")
	}
	return key, err
}

// validKey returns a key that by may change: any key of the agent, by a key without restrictions or by the operator; or, if itself is true,
// also the very key that acts.
func (t *Tx) validKey(by Actor, agent, id string, itself bool, what string) (Key, error) {
	agent, err := t.actsFor(by, "agent_id", agent)
	if err != nil {
		return Key{}, err
	}
	key, err := t.key(agent, id)
	if err != nil {
		return Key{}, err
	}
	if !itself || by.Key != id {
		if err := t.unbound(by, what); err != nil {
			return Key{}, err
		}
	}
	if !key.RevokedAt.IsZero() {
		return Key{}, refuse(InvalidStatus, nil, "the key was revoked on %s", key.RevokedAt.Format(time.RFC3339))
	}
	return key, nil
}

// ChangeKey changes what a key may do. change gets what it may do now, and returns what it may do from now on. The operator names the agent; an
// agent needs a key without restrictions.
func (t *Tx) ChangeKey(by Actor, agent, id string, change func(KeyOrder) KeyOrder) (Key, error) {
	key, err := t.validKey(by, agent, id, false, "can't change keys")
	if err != nil {
		return Key{}, err
	}
	o := change(key.order())
	if err := t.checkKey(o, key.ExpiresAt); err != nil {
		return Key{}, err
	}
	key.set(o)
	if err := t.audit(by, "key.change", key.Agent, id); err != nil {
		return Key{}, err
	}
	return key, t.putKey(key)
}

// MaxOverlap is how long a replaced secret can stay valid.
const MaxOverlap = 30 * 24 * time.Hour

// RotateKey gives a key a new secret, which it returns. The secret before is valid for the overlap; one that was replaced earlier ends now. The
// key keeps its id, so its limits, its allowances and its subscriptions go on. A key may rotate itself.
func (t *Tx) RotateKey(by Actor, agent, id string, overlap time.Duration) (Key, string, error) {
	if overlap < 0 || overlap > MaxOverlap {
		return Key{}, "", invalid("overlap_hours", "overlap_hours: from 0 to %d", MaxOverlap/time.Hour)
	}
	key, err := t.validKey(by, agent, id, true, "can't rotate other keys")
	if err != nil {
		return Key{}, "", err
	}
	if key.expired(t.Now()) {
		return Key{}, "", refuse(InvalidStatus, nil, "the key expired on %s", key.ExpiresAt.Format(time.RFC3339))
	}
	secret := newKeyText(id)
	key.OldHash, key.OldUntil, key.RotatedAt = key.Hash, t.Now().Add(overlap), t.Now()
	key.Hash = HashKey(secret)
	if err := t.audit(by, "key.rotate", key.Agent, id); err != nil {
		return Key{}, "", err
	}
	return key, secret, t.putKey(key)
}
