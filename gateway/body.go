package gateway

import (
	"bytes"
	"io"
	"strconv"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// AgentsPart is the part of all room that the bodies of one agent may take, as a divisor.
const AgentsPart = 2

// DefaultMaxBodies is the room for all request bodies, in bytes, where the options do not say.
const DefaultMaxBodies = 128 << 20

const (
	firstRead = 4 << 10  // bytes that room is made for where a body's length is not announced
	mostAhead = 64 << 10 // bytes that room is made for where a body's length is announced
)

// readBody reads the request's body, as far as the route reads one, into a.body. A body that is too large stays on the request as it
// was. Room is taken as the body comes, not as its length is announced, and given back by giveRoom.
func (a *arrival) readBody() *ledger.Refusal {
	r, limit := a.request, a.route.maxBody()
	beyond := func() *ledger.Refusal {
		return refuse(api.RequestTooLarge, "the request body has more bytes than are read to price it", "limit", strconv.FormatInt(limit, 10))
	}
	if r.ContentLength > limit {
		return beyond()
	}
	var body []byte
	for {
		var ok bool
		if body, ok = a.grow(body, r.ContentLength); !ok {
			return refuse(escrow.RateLimited, "there is no room for this request body at the moment; try again later", "retry_after", "1")
		}
		n, err := r.Body.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		switch {
		case int64(len(body)) > limit:
			r.Body = struct {
				io.Reader
				io.Closer
			}{io.MultiReader(bytes.NewReader(body), r.Body), r.Body}
			return beyond()
		case err == io.EOF:
			_ = r.Body.Close()
			a.body = body
			return nil
		case err != nil:
			return refuse(escrow.InvalidRequest, "reading the request body: "+err.Error())
		}
	}
}

// grow makes room for more of a body that has filled what it has. announced is its length, -1 where that is not known: one byte
// more than it shows the end.
func (a *arrival) grow(body []byte, announced int64) ([]byte, bool) {
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
	size = min(size, a.route.maxBody()+1)
	if !a.takeRoom(size - int64(cap(body))) {
		return body, false
	}
	return append(make([]byte, 0, size), body...), true
}

// takeRoom takes room for n more bytes of the call, or reports false where there is none: for all calls, or for one agent's.
func (a *arrival) takeRoom(n int64) bool {
	if a.room != nil {
		return a.room.Extend(n) == nil
	}
	most := a.gateway.options.MaxBodies
	room, err := a.gateway.book.Claims().Take(a.client, n,
		escrow.Bound{Of: escrow.Thing{Kind: escrow.RequestBody, Owner: a.payer.Agent}, Most: most / AgentsPart},
		escrow.Bound{Of: escrow.Thing{Kind: escrow.RequestBody}, Most: most})
	if err != nil {
		return false
	}
	a.room = room
	return true
}

// giveRoom gives the room of the call's bodies back: the call has ended.
func (a *arrival) giveRoom() {
	if a.room != nil {
		a.room.End()
	}
}
