package escrow

import (
	"crypto/rand"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
)

// ids makes identifiers that sort by time. Those of one process sort in the order in which they were made.
type ids struct {
	mu      sync.Mutex
	entropy *ulid.MonotonicEntropy
}

func newIDs() *ids { return &ids{entropy: ulid.Monotonic(rand.Reader, 0)} }

// next returns prefix and a ULID, such as "esc_01JDF5ZK3Q8X2M7V4T9B6N0RWC".
func (s *ids) next(prefix string, at time.Time) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	ms := uint64(max(at.UnixMilli(), 0))
	id, err := ulid.New(ms, s.entropy)
	if err != nil { // the randomness of this millisecond is used up: not in this universe, but it must not fail
		id = ulid.MustNew(ms, rand.Reader)
	}
	return prefix + id.String()
}

// NewMessageID returns an id for a message to a webhook that does not go through the outbox.
func (b *Book) NewMessageID() string { return b.process.ids.next("msg_", b.Now()) }

// NewRequestID returns a new id of a metered request, "req_" and a ULID.
func (b *Book) NewRequestID() string { return b.process.ids.next("req_", b.Now()) }
