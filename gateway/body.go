package gateway

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// forSmall is the part of the whole room, as a divisor, that is reserved for the first onCredit bytes of bodies. So there is room for small
// requests even when large bodies have filled the rest.
const forSmall = 8

// forLarge is the room for large bodies, of a total in bytes.
func forLarge(maxBodies int64) int64 { return maxBodies - maxBodies/forSmall }

// RoomOfAgent is how many bytes the bodies of one agent may take, of a total in bytes, while no other agent has any. If others have some,
// an agent may take half of what they leave, so that many agents together still leave room for the next one.
func RoomOfAgent(maxBodies int64) int64 { return forLarge(maxBodies) / (escrow.SharePart + 1) }

// DefaultMaxBodies is the room for all request bodies, in bytes, if the options do not set it.
const DefaultMaxBodies = 128 << 20

const (
	firstRead = 4 << 10  // bytes for which room is taken first if a body has no stated length
	mostAhead = 64 << 10 // bytes for which room is taken in advance if a body has a stated length
	onCredit  = 16 << 10 // bytes that are read for a caller without money, because the call may be free
)

// The slowest speed of a body, in bytes a second, after a first grace. A slower body is refused.
const (
	slowest   = 16 << 10
	bodyGrace = 20 * time.Second
)

// readBody reads the request's body into a.body, up to what the route reads. A body that is too large stays unread on the request. Room is
// taken as the body arrives, not for its stated length, and is given back by giveRoom.
func (a *arrival) readBody() (refused *ledger.Refusal) {
	r, limit := a.request, a.route.maxBody()
	beyond := func() *ledger.Refusal {
		return refuse(api.RequestTooLarge, "the request body is longer than this route reads", "limit", strconv.FormatInt(limit, 10))
	}
	if r.ContentLength > limit {
		return beyond()
	}
	allow := a.patience()
	defer func() {
		if refused == nil {
			allow(0)
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
		allow(a.gateway.bodyGrace + time.Duration(len(body)/slowest)*time.Second)
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

// grow makes more room for a body that has filled its room. announced is its stated length, or -1. The room has one byte more than the
// stated length, so that the end is found.
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

// refusePenniless refuses a large body of a caller without money, which would take room from callers who can pay.
func (a *arrival) refusePenniless() *ledger.Refusal {
	if a.route.Shadow || a.promise.open() {
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
	return refuse(escrow.InsufficientFunds, "a request body of this size is read only if the caller has some money, and this wallet is empty",
		"available", "0", "currency", book.Currency(), "payee", a.route.Payee)
}

// patience returns what sets how long the client may send, from the beginning of its request. 0 means as long as the server allows.
func (a *arrival) patience() (allow func(d time.Duration)) {
	server, _ := a.request.Context().Value(http.ServerContextKey).(*http.Server)
	if a.writer == nil || server != nil && server.ReadTimeout != 0 { // the operator has set a timeout
		return func(time.Duration) {}
	}
	client := http.NewResponseController(a.writer)
	return func(d time.Duration) {
		at := time.Time{}
		if d > 0 {
			at = a.began.Add(d)
		}
		_ = client.SetReadDeadline(at) // a connection without deadlines keeps the server's
	}
}

// takeRoom takes room for n more bytes of a body that will then have size bytes. It returns false if there is no room for all calls, or for
// this agent.
func (a *arrival) takeRoom(n, size int64) bool {
	most, room := a.gateway.options.MaxBodies, &a.smallRoom
	if size > onCredit {
		most, room = forLarge(most), &a.room
	}
	if *room != nil {
		return (*room).Extend(n) == nil
	}
	owner := a.payer.Agent
	if owner == "" { // a quote without a key, or a caller in shadow mode
		owner = "client " + a.gateway.options.Client(a.request) // no agent's id has a space
	}
	claim, err := a.gateway.book.Claims().Take(a.client, n,
		escrow.Bound{Of: escrow.Thing{Kind: escrow.RequestBody, Owner: owner}, Share: true},
		escrow.Bound{Of: escrow.Thing{Kind: escrow.RequestBody}, Most: most})
	if err != nil {
		return false
	}
	*room = claim
	return true
}

// giveRoom gives the room of the call's bodies back: the call has ended.
func (a *arrival) giveRoom() {
	a.promise.end()
	for _, room := range []escrow.Claim{a.smallRoom, a.room} {
		if room != nil {
			room.End()
		}
	}
}
