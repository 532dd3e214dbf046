package caddymodule

import (
	"bytes"
	"io"
	"net/http"
	"sync"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// bodies bounds the memory of the request bodies that are kept at once: of all calls, and of one agent's.
type bodies struct {
	most int64

	mu      sync.Mutex
	kept    int64
	byAgent map[string]int64
}

// agentsPart is the part of all room that one agent's bodies may take, as a divisor.
const agentsPart = 2

func newBodies(most int64) *bodies { return &bodies{most: most, byAgent: make(map[string]int64)} }

// take makes room for n more bytes of an agent's, or reports false.
func (b *bodies) take(agent string, n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.kept+n > b.most || b.byAgent[agent]+n > b.most/agentsPart {
		return false
	}
	b.kept += n
	b.byAgent[agent] += n
	return true
}

// give gives n bytes back.
func (b *bodies) give(agent string, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.kept -= n
	if b.byAgent[agent] -= n; b.byAgent[agent] <= 0 {
		delete(b.byAgent, agent)
	}
}

// defaultBodies is the room for all request bodies, in bytes, where the config says nothing.
const defaultBodies = 128 << 20

const (
	firstRead = 4 << 10  // bytes that room is made for where a body's length is not announced
	mostAhead = 64 << 10 // bytes that room is made for where a body's length is announced
)

// readBody reads the request's body, as far as the meter reads one. A body that is too large is as it was afterwards. Room for it is
// taken as it comes, not as it is announced, and given back by giveRoom.
func (c *call) readBody(r *http.Request) ([]byte, *ledger.Refusal) {
	limit := c.meter.MaxBody
	beyond := func() *ledger.Refusal {
		return refuse(tooLarge, "the request body has more bytes than are read to price it", "limit", formatInt(limit))
	}
	if r.ContentLength > limit {
		return nil, beyond()
	}
	var body []byte
	for {
		var ok bool
		if body, ok = c.grow(body, r.ContentLength); !ok {
			return nil, refuse(escrow.RateLimited, "there is no room for this request body at the moment; try again later", "retry_after", "1")
		}
		n, err := r.Body.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		switch {
		case int64(len(body)) > limit:
			r.Body = struct {
				io.Reader
				io.Closer
			}{io.MultiReader(bytes.NewReader(body), r.Body), r.Body}
			return nil, beyond()
		case err == io.EOF:
			_ = r.Body.Close()
			return body, nil
		case err != nil:
			return nil, refuse(invalidRequest, "reading the request body: "+err.Error())
		}
	}
}

// grow makes room for more of a body whose length is announced, or -1, where it is full. One byte more than announced shows the end.
func (c *call) grow(body []byte, announced int64) ([]byte, bool) {
	if len(body) < cap(body) {
		return body, true
	}
	size := int64(2 * cap(body))
	switch {
	case announced >= int64(cap(body)):
		size = min(max(2*size, mostAhead), announced+1)
	case size == 0:
		size = firstRead
	}
	size = min(size, c.meter.MaxBody+1)
	more := size - int64(cap(body))
	if !c.meter.app.bodies.take(c.payer.Agent, more) {
		return body, false
	}
	c.room += more
	return append(make([]byte, 0, size), body...), true
}

// giveRoom gives the room of the request's body back: the call has ended.
func (c *call) giveRoom() {
	if c.room > 0 {
		c.meter.app.bodies.give(c.payer.Agent, c.room)
		c.room = 0
	}
}
