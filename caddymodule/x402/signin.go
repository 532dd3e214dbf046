package x402

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	"golang.org/x/crypto/sha3"

	"github.com/tallygate/tallygate/gateway"
)

// A payer signs in with a message of its wallet (EIP-4361, signed as EIP-191 says), for one URL and for five minutes. Wallets that are
// contracts can't, because their signatures can be checked only on the chain.
// https://github.com/coinbase/x402/blob/main/specs/extensions/sign-in-with-x.md
// https://eips.ethereum.org/EIPS/eip-4361
const (
	headerSignIn = "Sign-In-With-X"
	statement    = "Spend the prepaid credit of this address"
	signInFor    = 5 * time.Minute
	clockSkew    = 30 * time.Second // between the gateways of one shop
	timeForm     = "2006-01-02T15:04:05.000Z"
)

// signIn is the proof of a payer, as it comes in the header.
type signIn struct {
	Domain         string   `json:"domain"`
	Address        string   `json:"address"`
	Statement      *string  `json:"statement"`
	URI            string   `json:"uri"`
	Version        string   `json:"version"`
	ChainID        string   `json:"chainId"`
	Type           string   `json:"type"`
	Nonce          string   `json:"nonce"`
	IssuedAt       string   `json:"issuedAt"`
	ExpirationTime *string  `json:"expirationTime"`
	NotBefore      *string  `json:"notBefore"`
	RequestID      *string  `json:"requestId"`
	Resources      []string `json:"resources"`
	Signature      string   `json:"signature"`
}

// SignIn implements [gateway.SignInRail]. What was signed must be what an offer for this URL says.
func (r *Rail) SignIn(request *http.Request, url string, now time.Time) (s gateway.SignedIn, found bool, err error) {
	sent := request.Header.Values(headerSignIn)
	if len(sent) == 0 {
		return s, false, nil
	}
	request.Header.Del(headerSignIn)
	if len(sent) > 1 || len(sent[0]) > maxHeader {
		return s, true, refuse("invalid_siwx", "a request brings one proof of at most %d bytes", maxHeader)
	}
	var p signIn
	text, err := base64.StdEncoding.DecodeString(sent[0])
	if err == nil {
		err = json.Unmarshal(text, &p)
	}
	if err != nil {
		return s, true, refuse("invalid_siwx", "the header SIGN-IN-WITH-X is not JSON in Base64, as x402 has it")
	}
	if err := p.check(r.Network, url, now); err != nil {
		return s, true, err
	}
	return gateway.SignedIn{Payer: strings.ToLower(p.Address), ID: p.Nonce, Bound: true, Secret: []byte(sent[0])}, true, nil
}

func (p *signIn) check(network, url string, now time.Time) error {
	switch {
	case p.Version != "1" || p.Type != "eip191" || p.ChainID != network:
		return refuse("invalid_siwx_unsupported_chain", "the proof is of type %.20q on %.40q; it must be of type eip191 on %s", p.Type, p.ChainID, network)
	case !addressForm.MatchString(p.Address) || !signInNonce(p.Nonce) || !printable(p):
		return refuse("invalid_siwx", "the proof's address, nonce or texts have a wrong form")
	case !strings.EqualFold(p.Domain, hostOf(url)):
		return refuse("invalid_siwx_domain_mismatch", "the proof is for the domain %.100q; it must be for %s", p.Domain, hostOf(url))
	case p.URI != url:
		return refuse("invalid_siwx_uri_mismatch", "the proof is for %.200q; it must be for %s", p.URI, url)
	}
	issued, err := time.Parse(time.RFC3339, p.IssuedAt)
	if err != nil || issued.After(now.Add(clockSkew)) || now.Sub(issued) > signInFor {
		return refuse("invalid_siwx_issued_at", "the proof was made at %.40q; it must be from the last %s", p.IssuedAt, signInFor)
	}
	for _, bound := range []struct {
		at     *string
		before bool // the proof is not valid before it, otherwise not after it
	}{{p.ExpirationTime, false}, {p.NotBefore, true}} {
		if bound.at == nil {
			continue
		}
		at, err := time.Parse(time.RFC3339, *bound.at)
		if err != nil || bound.before && now.Before(at) || !bound.before && !now.Before(at) {
			return refuse("invalid_siwx_expired", "the proof is not valid at this time")
		}
	}
	if signer := signerOf(p.message(), p.Signature); !same(signer, p.Address) {
		return refuse("invalid_siwx_signature", "the proof is not signed by %s", p.Address)
	}
	return nil
}

// signInNonce reports whether a nonce has the form that EIP-4361 demands. Ours have 32 digits.
func signInNonce(nonce string) bool {
	return len(nonce) >= 8 && len(nonce) <= 64 && !strings.ContainsFunc(nonce, func(c rune) bool {
		return (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z')
	})
}

// printable reports whether no text of a proof has a line break, with which it could look like another message.
func printable(p *signIn) bool {
	texts := append([]string{p.Domain, p.URI, p.IssuedAt}, p.Resources...)
	for _, text := range []*string{p.Statement, p.ExpirationTime, p.NotBefore, p.RequestID} {
		if text != nil {
			texts = append(texts, *text)
		}
	}
	for _, text := range texts {
		if strings.ContainsAny(text, "\r\n") {
			return false
		}
	}
	return true
}

// message is the text that the payer has signed: https://eips.ethereum.org/EIPS/eip-4361#message-format
func (p *signIn) message() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s wants you to sign in with your Ethereum account:\n%s\n\n", p.Domain, checksummed(p.Address))
	if p.Statement != nil {
		fmt.Fprintf(&b, "%s\n", *p.Statement)
	}
	fmt.Fprintf(&b, "\nURI: %s\nVersion: %s\nChain ID: %s\nNonce: %s\nIssued At: %s", p.URI, p.Version, strings.TrimPrefix(p.ChainID, "eip155:"), p.Nonce, p.IssuedAt)
	for _, line := range []struct {
		name string
		text *string
	}{{"Expiration Time", p.ExpirationTime}, {"Not Before", p.NotBefore}, {"Request ID", p.RequestID}} {
		if line.text != nil {
			fmt.Fprintf(&b, "\n%s: %s", line.name, *line.text)
		}
	}
	if len(p.Resources) > 0 {
		b.WriteString("\nResources:")
	}
	for _, resource := range p.Resources {
		b.WriteString("\n- " + resource)
	}
	return b.String()
}

// signerOf returns the address whose key has signed a text, as EIP-191 says; empty if the signature has a wrong form.
func signerOf(text, signature string) string {
	raw, err := hex.DecodeString(strings.TrimPrefix(signature, "0x"))
	if err != nil || len(raw) != 65 {
		return ""
	}
	recovery := raw[64]
	if recovery < 27 { // some wallets write 0 and 1
		recovery += 27
	}
	digest := keccak([]byte(fmt.Sprintf("\x19Ethereum Signed Message:\n%d%s", len(text), text)))
	key, _, err := ecdsa.RecoverCompact(append([]byte{recovery}, raw[:64]...), digest)
	if err != nil {
		return ""
	}
	return addressOf(key)
}

func addressOf(key *secp256k1.PublicKey) string {
	return "0x" + hex.EncodeToString(keccak(key.SerializeUncompressed()[1:])[12:])
}

// checksummed writes an address with the capital letters that EIP-55 gives to it, in which messages have addresses.
func checksummed(address string) string {
	digits := []byte(strings.ToLower(strings.TrimPrefix(address, "0x")))
	sum := hex.EncodeToString(keccak(digits))
	for i, c := range digits {
		if c >= 'a' && sum[i] >= '8' {
			digits[i] = c - 'a' + 'A'
		}
	}
	return "0x" + string(digits)
}

func keccak(text []byte) []byte {
	hash := sha3.NewLegacyKeccak256()
	hash.Write(text)
	return hash.Sum(nil)
}
