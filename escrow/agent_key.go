package escrow

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"hash/crc32"
	"math/big"
	"strconv"
	"strings"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// A key looks like tg_<id>_<secret><checksum>: an id of ten characters, 43 characters with 256 random bits, and six characters with a CRC-32
// of everything before. By the checksum a mistyped key is recognised without a look-up.
const (
	keyPrefix   = "tg_"
	keyLength   = 63
	keyIDLength = 10
	keySum      = keyLength - 6 // where the checksum begins
)

// idInKey returns the id in a text that has the form of a key. Its checksum may be wrong.
func idInKey(text string) (id string, ok bool) {
	rest, ok := strings.CutPrefix(text, keyPrefix)
	if !ok || len(text) != keyLength || rest[keyIDLength] != '_' {
		return "", false
	}
	id = rest[:keyIDLength]
	return id, isBase62(id) && isBase62(rest[keyIDLength+1:])
}

func isBase62(text string) bool {
	for i := range len(text) {
		if c := text[i] | 0x20; (c < 'a' || c > 'z') && (text[i] < '0' || text[i] > '9') {
			return false
		}
	}
	return true
}

// Key describes a key, without the secret.
type Key struct {
	ID        string    `cbor:"1,keyasint"`
	Agent     string    `cbor:"2,keyasint"`
	Hash      [32]byte  `cbor:"3,keyasint" json:"-"` // of the whole key
	Name      string    `cbor:"4,keyasint,omitempty"`
	ReadOnly  bool      `cbor:"5,keyasint,omitempty"` // may look but move nothing
	Payees    []string  `cbor:"6,keyasint,omitempty"` // if not empty, the key can pay only these
	CreatedAt time.Time `cbor:"7,keyasint"`
	RevokedAt time.Time `cbor:"8,keyasint,omitzero"` // zero: it is valid

	ExpiresAt time.Time `cbor:"9,keyasint,omitzero"`   // zero: never
	Models    []string  `cbor:"10,keyasint,omitempty"` // if not empty, globs of the only models that the key may call
	Routes    []string  `cbor:"11,keyasint,omitempty"` // if not empty, globs of the only metered routes that the key may call
	Pace      Pace      `cbor:"12,keyasint,omitzero"`

	// After a rotation the key has another secret. The one before is valid until OldUntil.
	RotatedAt time.Time `cbor:"13,keyasint,omitzero"`
	OldHash   [32]byte  `cbor:"14,keyasint,omitzero" json:"-"`
	OldUntil  time.Time `cbor:"15,keyasint,omitzero"`
}

// KeyOrder is what a new key may do.
type KeyOrder struct {
	Name      string
	ReadOnly  bool
	Payees    []string
	Models    []string
	Routes    []string
	Pace      Pace
	ExpiresAt time.Time // zero: never
}

const (
	maxPayees = 100  // of one key; also its models, and its routes
	maxKeys   = 1000 // of one agent, revoked ones included
)

// HashKey returns the SHA-256 of a key, which is stored instead of the key. Keys have 256 random bits, so no slower hash is needed.
func HashKey(key string) [32]byte {
	var room [keyLength]byte // a key in it takes no memory of its own
	return sha256.Sum256(append(room[:0], key...))
}

// IsKey reports whether a text has the form of a key of this gateway, with a right checksum. It does not check whether the key is known.
func IsKey(text string) bool {
	_, ok := idInKey(text)
	return ok && hasChecksum(text)
}

// hasChecksum reports whether a text that has the form of a key ends in the right checksum.
func hasChecksum(key string) bool {
	sum := checksum(key[:keySum])
	return key[keySum:] == string(sum[:])
}

// HoldsKey reports whether a text contains a key.
func HoldsKey(text string) bool {
	for {
		i := strings.Index(text, keyPrefix)
		if i < 0 {
			return false
		}
		if text = text[i:]; len(text) >= keyLength && IsKey(text[:keyLength]) {
			return true
		}
		text = text[len(keyPrefix):]
	}
}

// IsOperatorKey reports whether a text is the operator's key, which has no form of its own.
func (b *Book) IsOperatorKey(text string) bool { return b.isOperator(HashKey(text)) }

func (b *Book) isOperator(hash [32]byte) bool {
	if b.rules.OperatorKeyHash == [32]byte{} {
		return false
	}
	return subtle.ConstantTimeCompare(hash[:], b.rules.OperatorKeyHash[:]) == 1
}

// Authenticate returns the agent, or the operator, to whom a key belongs. It takes one look-up. Refused with unauthorized; the detail says
// whether the key is mistyped, unknown or revoked.
func (b *Book) Authenticate(key string) (Actor, error) {
	if key == "" {
		return Actor{}, refuse(Unauthorized, nil, "no key was given: send it as 'Authorization: Bearer KEY'")
	}
	hash := HashKey(key)
	if b.isOperator(hash) {
		return Actor{Operator: true}, nil
	}
	id, ok := idInKey(key)
	if !ok {
		return Actor{}, refuse(Unauthorized, nil, "this is not the key of an agent of this gateway: they begin with tg_ and have 63 characters; %s", b.rules.operatorKey("nor is it the operator's"))
	}
	if !hasChecksum(key) {
		return Actor{}, refuse(Unauthorized, nil, "the key is mistyped or cut: its checksum does not fit")
	}
	record, err := b.process.keys.peek(b, keyTable.key(id))
	if err != nil {
		return Actor{}, err
	}
	if record == nil {
		record = new(Key) // which no secret belongs to
	}
	if err := record.check(hash, b.Now()); err != nil {
		return Actor{}, err
	}
	agent, err := b.process.agents.peek(b, agentTable.key(record.Agent))
	if err != nil {
		return Actor{}, err
	}
	by := Actor{
		Agent: record.Agent, Key: record.ID, ReadOnly: record.ReadOnly, Payees: record.Payees, Models: record.Models, Routes: record.Routes,
		Expires: !record.ExpiresAt.IsZero(), Pace: record.Pace,
	}
	if agent != nil {
		by = agent.bars(by)
	}
	return by, nil
}

// check refuses a secret that is not the key's, or no longer valid.
func (k *Key) check(hash [32]byte, now time.Time) error {
	is := subtle.ConstantTimeCompare(hash[:], k.Hash[:]) == 1
	was := k.OldHash != [32]byte{} && subtle.ConstantTimeCompare(hash[:], k.OldHash[:]) == 1
	switch {
	case !is && !was:
		return refuse(Unauthorized, nil, "the key is not known here")
	case !k.RevokedAt.IsZero():
		return refuse(Unauthorized, nil, "the key was revoked on %s", k.RevokedAt.Format(time.RFC3339))
	case was && !k.OldUntil.After(now):
		return refuse(Unauthorized, nil, "the key was replaced on %s; use the new one", k.RotatedAt.Format(time.RFC3339))
	case k.expired(now):
		return refuse(Unauthorized, nil, "the key expired on %s", k.ExpiresAt.Format(time.RFC3339))
	default:
		return nil
	}
}

func (k *Key) expired(now time.Time) bool { return !k.ExpiresAt.IsZero() && !k.ExpiresAt.After(now) }

// CreateKey makes a key for an agent and returns the key, which is not stored. The operator may make keys for any agent. An agent may make keys
// for itself, with a key that has no restrictions.
func (t *Tx) CreateKey(by Actor, agent string, o KeyOrder) (Key, string, error) {
	agent, err := t.actsFor(by, "agent_id", agent)
	if err != nil {
		return Key{}, "", err
	}
	if err := t.unbound(by, "can't make other keys"); err != nil {
		return Key{}, "", err
	}
	if keys, err := t.countUpTo(keyByAgent.under(agent), maxKeys); err != nil {
		return Key{}, "", err
	} else if keys >= maxKeys {
		return Key{}, "", refuse(InvalidStatus, map[string]string{"limit": strconv.Itoa(maxKeys)}, "an agent has at most %d keys, revoked ones included", maxKeys)
	}
	if err := t.checkKey(o, time.Time{}); err != nil {
		return Key{}, "", err
	}
	key, secret, err := t.addKey(agent, o)
	if err != nil {
		return Key{}, "", err
	}
	return key, secret, t.audit(by, "key.create", agent, key.ID)
}

func (t *Tx) addKey(agent string, o KeyOrder) (Key, string, error) {
	id, secret := newKey()
	key := Key{ID: id, Agent: agent, Hash: HashKey(secret), CreatedAt: t.Now()}
	key.set(o)
	t.ledger.Put(keyByAgent.key(agent, id), []byte{})
	return key, secret, t.putKey(key)
}

// RevokeKey ends a key: the next request with it is refused. What the key began stops too: nobody can debit under an allowance that it set,
// and its subscriptions do not renew. So the limits of a revoked key have nothing left to count. A subscription serves until its paid
// period ends.
func (t *Tx) RevokeKey(by Actor, agent, id string) error {
	agent, err := t.actsFor(by, "agent_id", agent)
	if err != nil {
		return err
	}
	key, err := t.key(agent, id)
	if err != nil {
		return err
	}
	if by.Key != id {
		if err := t.unbound(by, "can't revoke other keys"); err != nil {
			return err
		}
	}
	if !key.RevokedAt.IsZero() {
		return refuse(InvalidStatus, nil, "the key was revoked on %s", key.RevokedAt.Format(time.RFC3339))
	}
	key.RevokedAt = t.Now()
	if err := t.audit(by, "key.revoke", agent, id); err != nil {
		return err
	}
	return t.putKey(key)
}

func (t *Tx) putKey(key Key) error {
	t.changed(key.Agent)
	return t.put(keyTable.key(key.ID), key)
}

// stands reports whether what a key of an agent began goes on: it does unless the key was revoked or has expired, or the agent is suspended or
// closed. What the operator began has no key.
func stands(r ledger.Reader, agent, key string, now time.Time) (bool, error) {
	a, _, err := agentByID(r, agent)
	if err != nil || a.status() != "" {
		return false, err
	}
	var k Key
	if key == "" {
		return true, nil
	}
	_, err = load(r, keyTable.key(key), &k)
	return k.RevokedAt.IsZero() && !k.expired(now), err
}

// Keys lists the keys of an agent, revoked ones included.
func (b *Book) Keys(agent string) (keys []Key, err error) {
	err = b.view(func(r ledger.Reader) error {
		return r.Scan(keyByAgent.under(agent), func(index, _ []byte) (bool, error) {
			var key Key
			_, err := load(r, keyTable.key(keyByAgent.lastPart(index, agent)), &key)
			keys = append(keys, key)
			return true, err
		})
	})
	return keys, err
}

// newKey returns the id and the whole of a new key.
func newKey() (id, key string) {
	id = base62(randomBelow(62, 10), 10)
	return id, newKeyText(id)
}

// newKeyText returns the whole of a new key with that id.
func newKeyText(id string) string {
	key := keyPrefix + id + "_" + base62(randomBelow(2, 256), 43)
	sum := checksum(key)
	return key + string(sum[:])
}

// randomBelow returns a random number below base to the power of digits.
func randomBelow(base, digits int64) *big.Int {
	limit := new(big.Int).Exp(big.NewInt(base), big.NewInt(digits), nil)
	n, err := rand.Int(rand.Reader, limit)
	if err != nil {
		panic(err) // crypto/rand never fails: the runtime stops the process first
	}
	return n
}

// checksum returns six digits, in the alphabet of [big.Int.Text].
func checksum(text string) (sum [keyLength - keySum]byte) {
	const digits = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	rest := crc32.ChecksumIEEE([]byte(text))
	for i := len(sum) - 1; i >= 0; i-- {
		sum[i] = digits[rest%62]
		rest /= 62
	}
	return sum
}

func base62(n *big.Int, width int) string {
	text := n.Text(62)
	return strings.Repeat("0", width-len(text)) + text
}
