package api

import (
	"net/netip"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/tallygate/tallygate/escrow"
)

// Throttle bounds how often one client does what costs it nothing: register, claim the faucet, try a wrong key. A right key is let
// in however many wrong ones came from its address. Clients at loopback are not bounded: they are the operator's own, or come
// through a proxy on this machine, which the configuration must name for its clients to be told apart.
type Throttle struct {
	every time.Duration // after this long, a client may once more
	burst int           // a client may this many times at once

	mu      sync.Mutex
	clients map[string]*rate.Limiter
}

const maxClients = 10_000 // that are remembered at once

func newThrottle(every time.Duration, burst int) *Throttle {
	return &Throttle{every: every, burst: burst, clients: map[string]*rate.Limiter{}}
}

// NewKeyThrottle returns a Throttle for wrong keys: 30 at once, and one more every 2 seconds. The handler (by [Options]) and metered
// routes should share one.
func NewKeyThrottle() *Throttle { return newThrottle(2*time.Second, 30) }

// Take counts one act of a client, which is named by its address, or returns a refusal, rate_limited with retry_after.
func (t *Throttle) Take(client string) error {
	l := t.limiter(client)
	if l == nil {
		return nil
	}
	now := time.Now()
	reservation := l.ReserveN(now, 1)
	wait := reservation.DelayFrom(now)
	if wait <= 0 {
		return nil
	}
	reservation.CancelAt(now)
	return tooOften(wait)
}

// Spent refuses a client that [Throttle.Take] would refuse now, and counts nothing.
func (t *Throttle) Spent(client string) error {
	if l := t.limiter(client); l != nil && l.Tokens() < 1 {
		return tooOften(t.every)
	}
	return nil
}

func tooOften(wait time.Duration) error {
	seconds := int64((wait + time.Second - 1) / time.Second)
	return &escrow.Refusal{
		Outcome: escrow.RateLimited, Detail: "too often from this address", Fields: map[string]string{"retry_after": strconv.FormatInt(seconds, 10)},
	}
}

// limiter returns the limiter of a client, nil for one at loopback. IPv6 clients of one network share a limiter, since a client has
// as many addresses there as it likes.
func (t *Throttle) limiter(client string) *rate.Limiter {
	if at, err := netip.ParseAddr(client); err == nil {
		if at = at.Unmap(); at.IsLoopback() {
			return nil
		}
		if at.Is6() {
			network, _ := at.Prefix(64) // no error: any such address has 64 bits
			client = network.String()
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.clients[client]
	if l == nil {
		if len(t.clients) >= maxClients {
			clear(t.clients) // all clients begin anew
		}
		l = rate.NewLimiter(rate.Every(t.every), t.burst)
		t.clients[client] = l
	}
	return l
}
