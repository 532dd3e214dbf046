package escrow

import (
	"context"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"sync"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Receipts are signed with a key that belongs to the ledger. It is made for the first receipt, and stored in the ledger.

// signer keeps the key in memory once it was read.
type signer struct {
	mu  sync.Mutex
	key ed25519.PrivateKey
}

// signingKey returns the ledger's key.
func (b *Book) signingKey(ctx context.Context) (ed25519.PrivateKey, error) {
	s := b.process.signer
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.key != nil {
		return s.key, nil
	}
	seed, err := b.storedSeed()
	if err != nil {
		return nil, err
	}
	if seed == nil {
		seed, err = Do(ctx, b, (*Tx).makeSeed)
	}
	if err != nil {
		return nil, err
	}
	s.key = ed25519.NewKeyFromSeed(seed)
	return s.key, nil
}

// makeSeed makes the seed of the ledger's key, unless there is one.
func (t *Tx) makeSeed() (seed []byte, err error) {
	if _, err := load(t.ledger, signerTable.key(), &seed); err != nil || seed != nil {
		return seed, err
	}
	seed = make([]byte, ed25519.SeedSize)
	_, _ = rand.Read(seed) // never fails
	return seed, t.put(signerTable.key(), seed)
}

func (b *Book) storedSeed() (seed []byte, err error) {
	err = b.view(func(r ledger.Reader) error {
		_, err := load(r, signerTable.key(), &seed)
		return err
	})
	return seed, err
}

// ReceiptKey returns the public key that receipts are verified with, and its id.
func (b *Book) ReceiptKey(ctx context.Context) (public ed25519.PublicKey, id string, err error) {
	key, err := b.signingKey(ctx)
	if err != nil {
		return nil, "", err
	}
	public = key.Public().(ed25519.PublicKey)
	return public, keyID(public), nil
}

// IdentitySecret returns the secret with which an agent, as a payee, can tell that a request comes from this server, in the form of Standard
// Webhooks. It is made from the ledger's key, and is always the same.
func (b *Book) IdentitySecret(ctx context.Context, agent string) (string, error) {
	key, err := b.signingKey(ctx)
	if err != nil {
		return "", err
	}
	secret, err := hkdf.Key(sha256.New, key.Seed(), nil, "tallygate: who calls "+agent, 32)
	return "whsec_" + base64.StdEncoding.EncodeToString(secret), err
}

func keyID(public ed25519.PublicKey) string {
	sum := sha256.Sum256(public)
	return base64.RawURLEncoding.EncodeToString(sum[:12])
}

// Sign returns content, which is JSON, as a JWS in its compact form (RFC 7515), signed with Ed25519 (RFC 8037).
func (b *Book) Sign(ctx context.Context, content []byte) (string, error) {
	key, err := b.signingKey(ctx)
	if err != nil {
		return "", err
	}
	header, err := json.Marshal(map[string]string{"alg": "EdDSA", "kid": keyID(key.Public().(ed25519.PublicKey)), "typ": "tallygate-receipt"})
	if err != nil {
		return "", err
	}
	signed := base64.RawURLEncoding.EncodeToString(header) + "." + base64.RawURLEncoding.EncodeToString(content)
	return signed + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(key, []byte(signed))), nil
}

// SessionSecret returns the secret of 32 bytes that seals the sessions of the pages. It is made from the ledger's key, so it is the same in
// each process that has the ledger open, and after a restart.
func (b *Book) SessionSecret(ctx context.Context) ([]byte, error) {
	key, err := b.signingKey(ctx)
	if err != nil {
		return nil, err
	}
	return hkdf.Key(sha256.New, key.Seed(), nil, "tallygate: sessions of the pages", 32)
}
