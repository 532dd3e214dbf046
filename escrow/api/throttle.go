package api

import (
	"net/netip"
	"strconv"
	"time"

	"github.com/tallygate/tallygate/escrow"
)

// Throttle bounds how often one client does what costs it nothing: register, claim the faucet, try a wrong key. A right key is let
// in however many wrong ones came from its address. Clients at loopback are not bounded: they are the operator's own, or come
// through a proxy on this machine, which the configuration must name for its clients to be told apart.
type Throttle struct {
	kind escrow.Kind
	rate escrow.Rate
}

// WrongKeys bounds wrong keys. All that take keys count them together: the API and metered routes.
var WrongKeys = Throttle{escrow.WrongKey, escrow.Rate{Every: 2 * time.Second, Burst: 30}}

var (
	registrations = Throttle{escrow.Registration, escrow.Rate{Every: 10 * time.Second, Burst: 30}}
	faucetClaims  = Throttle{escrow.FaucetClaim, escrow.Rate{Every: time.Minute, Burst: 10}}
)

// Take counts one more of a client, named by its address, or refuses it with rate_limited (retry_after).
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
		Outcome: escrow.RateLimited, Detail: "too often from this address", Fields: map[string]string{"retry_after": strconv.FormatInt(seconds, 10)},
	}
}

// clientName tells a client from others; one at loopback is not bounded. IPv6 clients of one network are one client, since a client has as
// many addresses there as it likes.
func clientName(client string) (name string, bounded bool) {
	at, err := netip.ParseAddr(client)
	if err != nil {
		return client, true
	}
	if at = at.Unmap(); at.IsLoopback() {
		return "", false
	}
	if at.Is6() {
		network, _ := at.Prefix(64) // 64 bits are within any such address
		return network.String(), true
	}
	return client, true
}
