package gateway

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// forSmall is the part of all room for bodies, as a divisor, that only the beginnings of bodies may take, as far as they are read on credit:
// it is there for small requests when large bodies have filled the rest.
const forSmall = 8

// forLarge is the room, of so many bytes in all, that large bodies may take.
func forLarge(maxBodies int64) int64 { return maxBodies - maxBodies/forSmall }

// RoomOfAgent is how many bytes the bodies of one agent may take, of so many in all, where no other agent has any. Where others have some
// it is less: half of what is then left, so that also many agents together leave room for the next one.
func RoomOfAgent(maxBodies int64) int64 { return forLarge(maxBodies) / (escrow.SharePart + 1) }

// DefaultMaxBodies is the room for all request bodies, in bytes, where the options do not say.
const DefaultMaxBodies = 128 << 20

const (
	firstRead = 4 << 10  // bytes that room is made for where a body's length is not announced
	mostAhead = 64 << 10 // bytes that room is made for where a body's length is announced
	onCredit  = 16 << 10 // bytes that are read for a caller who can pay nothing: what it asks for may be free
)

// A body must come at this speed, in bytes a second, after a first grace: what comes more slowly loses its room.
const (
	slowest   = 16 << 10
	bodyGrace = 20 * time.Second
)

// readBody reads the request's body, as far as the route reads one, into a.body. A body that is too large stays on the request as it
// was. Room is taken as the body comes, not as its length is announced, and given back by giveRoom.
func (a *arrival) readBody() (refused *ledger.Refusal) {
	r, limit := a.request, a.route.maxBody()
	beyond := func() *ledger.Refusal {
		return refuse(api.RequestTooLarge, "the request body has more bytes than are read to price it", "limit", strconv.FormatInt(limit, 10))
	}
	if r.ContentLength > limit {
		return beyond()
	}
	defer func() {
		if refused == nil {
			a.allow(0)
		} else {
			a.cutOff = r.ProtoMajor == 1
		}
	}()
	var body []byte
	for {
		var refusal *ledger.Refusal
		if body, refusal = a.grow(body, r.ContentLength); refusal != nil {
			return refusal
		}
		a.allow(a.gateway.bodyGrace + time.Duration(len(body)/slowest)*time.Second)
		n, err := r.Body.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return refuse(api.RequestTimeout, "the request body came too slowly: after "+a.gateway.bodyGrace.String()+" at least 16 KiB a second must come")
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
func (a *arrival) grow(body []byte, announced int64) ([]byte, *ledger.Refusal) {
	if len(body) < cap(body) {
		return body, nil
	}
	size := int64(2 * cap(body))
	switch {
	case announced >= int64(cap(body)):
		size = min(max(2*size, mostAhead), announced+1)
	case size == 0:
		size = firstRead
	}
	size = min(size, a.route.maxBody()+1)
	if size > onCredit && cap(body) <= onCredit {
		if refusal := a.refusePenniless(); refusal != nil {
			return body, refusal
		}
	}
	if !a.takeRoom(size-int64(cap(body)), size) {
		return body, refuse(escrow.RateLimited, "there is no room for this request body at the moment; try again later", "retry_after", "1")
	}
	return append(make([]byte, 0, size), body...), nil
}

// refusePenniless refuses a large body of a caller who can pay nothing: it would take the room of those who can.
func (a *arrival) refusePenniless() *ledger.Refusal {
	if a.route.Shadow {
		return nil
	}
	book := a.gateway.book
	penniless, err := book.Penniless(a.client, a.payer.Agent, a.route.Payee)
	if err != nil {
		return asRefusal(err)
	}
	if !penniless {
		return nil
	}
	return refuse(escrow.InsufficientFunds, "a request body of this size is read only for a caller who can pay something, and this wallet is empty",
		"available", "0", "currency", book.Currency(), "payee", a.route.Payee)
}

// allow lets the client send for so long from the beginning of its request; 0: for as long as the server lets it.
func (a *arrival) allow(d time.Duration) {
	if a.deadline == nil {
		return
	}
	at := time.Time{}
	if d > 0 {
		at = a.began.Add(d)
	}
	_ = a.deadline(at) // a connection that knows no deadlines has the server's
}

// takeRoom takes room for n more bytes of the call, which make size of them, or reports false where there is none: for all calls, or for one
// agent's.
func (a *arrival) takeRoom(n, size int64) bool {
	most, room := a.gateway.options.MaxBodies, &a.smallRoom
	if size > onCredit {
		most, room = forLarge(most), &a.room
	}
	if *room != nil {
		return (*room).Extend(n) == nil
	}
	claim, err := a.gateway.book.Claims().Take(a.client, n,
		escrow.Bound{Of: escrow.Thing{Kind: escrow.RequestBody, Owner: a.payer.Agent}, Share: true},
		escrow.Bound{Of: escrow.Thing{Kind: escrow.RequestBody}, Most: most})
	if err != nil {
		return false
	}
	*room = claim
	return true
}

// giveRoom gives the room of the call's bodies back: the call has ended.
func (a *arrival) giveRoom() {
	for _, room := range []escrow.Claim{a.smallRoom, a.room} {
		if room != nil {
			room.End()
		}
	}
}
