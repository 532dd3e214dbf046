package api

import (
	"net/netip"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/tallygate/tallygate/escrow"
)

// Throttle bounds how often one client does what costs it nothing: registers, claims the faucet, tries keys (a valid key is let in
// however many wrong ones came from its address). Clients of this machine are not bounded: they are the operator's own, or come through a
// proxy that the configuration must name for clients to be told apart.
type Throttle struct {
	every time.Duration // one more after so long
	burst int           // so many at once

	mu      sync.Mutex
	clients map[string]*rate.Limiter
}

const maxClients = 10_000 // remembered at once

func newThrottle(every time.Duration, burst int) *Throttle {
	return &Throttle{every: every, burst: burst, clients: map[string]*rate.Limiter{}}
}

// NewKeyThrottle bounds wrong keys. All that take keys share one: the handler, by [Options], and metered routes.
func NewKeyThrottle() *Throttle { return newThrottle(2*time.Second, 30) }

// Take counts one more of a client, named by its address, or refuses it with rate_limited (retry_after).
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

// limiter is that of a client, nil for one of this machine. An IPv6 client is its network: it has as many addresses as it likes.
func (t *Throttle) limiter(client string) *rate.Limiter {
	if at, err := netip.ParseAddr(client); err == nil {
		if at = at.Unmap(); at.IsLoopback() {
			return nil
		}
		if at.Is6() {
			network, _ := at.Prefix(64) // 64 bits are within any such address
			client = network.String()
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.clients[client]
	if l == nil {
		if len(t.clients) >= maxClients {
			clear(t.clients) // whoever makes so many up forgets itself and all others
		}
		l = rate.NewLimiter(rate.Every(t.every), t.burst)
		t.clients[client] = l
	}
	return l
}
