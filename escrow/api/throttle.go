package api

import (
	"net/netip"
	"strconv"
	"time"

	"github.com/tallygate/tallygate/escrow"
)

// Throttle limits how often one client may do things that cost it nothing: register, claim from the faucet, try a wrong key. A valid key is
// accepted however many wrong keys came from its address. Clients at loopback are not limited. They belong to the operator, or come through a
// proxy on this machine; the configuration must name such a proxy, so that its clients can be told apart.
type Throttle struct {
	kind escrow.Kind
	rate escrow.Rate
}

// WrongKeys limits wrong keys. The API and metered routes count them together.
var WrongKeys = Throttle{escrow.WrongKey, escrow.Rate{Every: 2 * time.Second, Burst: 30}}

// FreeMessages limits messages to servers of tools that cost nothing and come without a key. A client without money needs a few of them before
// it can pay: the opening of a session, and the list of tools.
var FreeMessages = Throttle{escrow.FreeMessage, escrow.Rate{Every: time.Second, Burst: 60}}

var (
	registrations = Throttle{escrow.Registration, escrow.Rate{Every: 10 * time.Second, Burst: 30}}
	faucetClaims  = Throttle{escrow.FaucetClaim, escrow.Rate{Every: time.Minute, Burst: 10}}
)

// Take counts one more attempt of a client, which is identified by its address. If there were too many, it returns a [escrow.Refusal] with
// rate_limited and the field retry_after.
func (t Throttle) Take(claims escrow.Claims, client string) error {
	name, bounded := clientName(client)
	if !bounded {
		return nil
	}
	wait := claims.Pass(escrow.Thing{Kind: t.kind, Owner: name}, t.rate)
	if wait <= 0 {
		return nil
	}
	return tooOften(wait)
}

func tooOften(wait time.Duration) error {
	seconds := int64((wait + time.Second - 1) / time.Second)
	return &escrow.Refusal{
		Outcome: escrow.RateLimited, Detail: "too many attempts from this address", Fields: map[string]string{"retry_after": strconv.FormatInt(seconds, 10)},
	}
}

// clientName returns a name for a client. A client at loopback is not limited (bounded is false). All IPv6 addresses of one /64 network count as
// one client, since a client can use any of them.
func clientName(client string) (name string, bounded bool) {
	at, err := netip.ParseAddr(client)
	if err != nil {
		return client, true
	}
	if at = at.Unmap(); at.IsLoopback() {
		return "", false
	}
	if at.Is6() {
		network, _ := at.Prefix(64) // no error: an IPv6 address has more than 64 bits
		return network.String(), true
	}
	return client, true
}
