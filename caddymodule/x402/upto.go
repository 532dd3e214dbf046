package x402

import (
	"context"
	"encoding/json"
	"fmt"
	"math/big"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/gateway"
)

// The scheme upto on EVM: the payer permits a transfer of at most an amount (Permit2), and the facilitator that the payer names settles the part
// that it is asked for. https://github.com/coinbase/x402/blob/dd927a26/specs/schemes/upto/scheme_upto_evm.md

// proxyUpTo is the contract that settles such permits. It has the same address on all chains.
const proxyUpTo = "0x4020A4f3b7b90ccA423B9fabCc0CE57C6C240002"

// permit is what a payer has signed (Permit2, with the witness of the scheme).
type permit struct {
	Permitted struct {
		Token  string `json:"token"`
		Amount string `json:"amount"`
	} `json:"permitted"`
	From     string `json:"from"`
	Spender  string `json:"spender"`
	Nonce    string `json:"nonce"`
	Deadline string `json:"deadline"`
	Witness  struct {
		To          string `json:"to"`
		Facilitator string `json:"facilitator"`
		ValidAfter  string `json:"validAfter"`
	} `json:"witness"`
}

// requirementsUpTo returns what a payment of at most a number of units must be. settles is the address of the facilitator.
func (r *Rail) requirementsUpTo(units, settles string) requirements {
	need := r.requirementsFor(2, units)
	need.Scheme = upTo
	need.Extra["assetTransferMethod"], need.Extra["facilitatorAddress"] = "permit2", settles
	return need
}

var nonceOfPermit = regexp.MustCompile(`^(0x[0-9a-fA-F]{1,64}|0|[1-9][0-9]{0,77})$`)

// readUpTo checks a payment of the scheme upto, as read does.
func (r *Rail) readUpTo(p payment) (paid gateway.Payable, err error) {
	a := p.Payload.Permit
	if a == nil {
		return paid, refuse("invalid_payload", "the payment has no permit2Authorization")
	}
	if !addressForm.MatchString(a.From) || !addressForm.MatchString(a.Witness.Facilitator) || !nonceOfPermit.MatchString(a.Nonce) ||
		!signatureForm.MatchString(p.Payload.Signature) || len(p.Payload.Signature) > maxSignature {
		return paid, refuse("invalid_payload", "the payment's sender, facilitator, nonce or signature has a wrong form")
	}
	for _, number := range []string{a.Permitted.Amount, a.Deadline, a.Witness.ValidAfter} {
		if !numberForm.MatchString(number) {
			return paid, refuse("invalid_payload", "the payment has %.100q where a number is expected, as a text", number)
		}
	}
	switch {
	case !same(a.Spender, proxyUpTo):
		return paid, refuse("invalid_permit2_spender", "the payment may be spent by %.100s; it must be by %s", a.Spender, proxyUpTo)
	case !same(a.Witness.To, r.PayTo):
		return paid, refuse("invalid_recipient", "the payment is to %.100s; it must be to %s", a.Witness.To, r.PayTo)
	case !same(a.Permitted.Token, r.Asset):
		return paid, refuse("invalid_asset", "the payment is in the asset %.100q; it must be in %s", a.Permitted.Token, r.Asset)
	}
	amount, err := r.amountOf(p, a.Permitted.Amount)
	if err != nil {
		return paid, err
	}
	ends, err := endOf(a.Deadline)
	if err != nil {
		return paid, err
	}
	// A number can be written in several ways, and is the same payment.
	nonce, ok := new(big.Int).SetString(a.Nonce, 0)
	if !ok || nonce.BitLen() > 256 {
		return paid, refuse("invalid_payload", "the payment's nonce has more than 256 bits")
	}
	sent := *a
	sent.Nonce = nonce.String()
	need := r.requirementsUpTo(a.Permitted.Amount, a.Witness.Facilitator)
	kept := order{Version: 2, Payment: payment{Version: 2, Accepted: &need, Payload: signed{Signature: p.Payload.Signature, Permit: &sent}}, Requirements: need}
	name, err := p.identifier()
	if err != nil {
		return paid, err
	}
	proof, err := json.Marshal(kept)
	return gateway.Payable{
		ID: strings.ToLower(a.From) + ":permit2:" + nonce.String(), Payer: strings.ToLower(a.From), Amount: amount, Name: name, Proof: proof, Ends: ends, UpTo: true,
	}, err
}

// UpTo implements [gateway.UpToRail].
func (r *Rail) UpTo(p gateway.Payable, amount ledger.Amount) (gateway.Payable, error) {
	var kept order
	if err := json.Unmarshal(p.Proof, &kept); err != nil {
		return p, fmt.Errorf("reading a payment's proof: %w", err)
	}
	units := amount.Minor(r.decimal)
	part, exactly := ledger.FromMinor(units, r.decimal)
	if !exactly || part > p.Amount {
		return p, refuse("invalid_amount", "the call costs %s, and the payment authorises %s", amount, p.Amount)
	}
	kept.Requirements.Amount = units.String()
	proof, err := json.Marshal(kept)
	p.Amount, p.Proof = part, proof
	return p, err
}

const (
	// supportedFor is how long it is remembered what the facilitator supports.
	supportedFor = 10 * time.Minute
	// supportedAgain is how long after a failure the facilitator is asked anew.
	supportedAgain = 10 * time.Second
	// supportedTimeout is how long the facilitator may take to say it.
	supportedTimeout = 10 * time.Second
)

// supported is what a facilitator says of the scheme upto. It is asked in the background, so that no caller waits; until it has answered, the
// scheme is not offered.
type supported struct {
	client  facilitator
	network string

	mu      sync.Mutex
	asking  bool
	again   time.Time // when it is asked again
	address string    // of who settles; empty if the scheme is not supported
}

// settler returns the address that payers must name as their facilitator. known is false if the scheme is not to be offered.
func (s *supported) settler(now time.Time) (address string, known bool) {
	if s == nil {
		return "", false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.asking && !now.Before(s.again) {
		s.asking = true
		go s.ask()
	}
	return s.address, s.address != ""
}

// refresh asks in the background, before the first caller comes.
func (s *supported) refresh() { s.settler(time.Now()) }

func (s *supported) ask() {
	ctx, cancel := context.WithTimeout(context.Background(), supportedTimeout)
	defer cancel()
	var found struct {
		Kinds []struct {
			Version int    `json:"x402Version"`
			Scheme  string `json:"scheme"`
			Network string `json:"network"`
			Extra   struct {
				Address string `json:"facilitatorAddress"`
			} `json:"extra"`
		} `json:"kinds"`
	}
	err := s.client.ask(ctx, "supported", nil, &found)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asking = false
	if err != nil {
		s.again = time.Now().Add(supportedAgain)
		return
	}
	s.again, s.address = time.Now().Add(supportedFor), ""
	for _, kind := range found.Kinds {
		if kind.Version == 2 && kind.Scheme == upTo && kind.Network == s.network && addressForm.MatchString(kind.Extra.Address) {
			s.address = kind.Extra.Address
			return
		}
	}
}
