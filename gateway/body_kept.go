package gateway

import (
	"errors"
	"net/http"
	"sync"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/wire"
)

// kept is an answer that is held back completely until it is charged.
type kept struct {
	*counted
	bytes []byte
	room  *room     // of an answer whose length is known; otherwise nil
	whole bool      // held back although the handler flushes, because it is a single document
	flows *streamed // set when the answer became too long, or was flushed
	// scout reads an answer that goes on as it comes only after it has shown to be one; nil if it need not, or has. streams says that it then goes
	// on at once.
	scout   meter.Counter
	streams bool
}

func (c *counted) keep(whole bool) *kept {
	b := &kept{counted: c, whole: whole}
	if c.length > 0 && c.length <= smallBody {
		b.room = takeRoom(c.length)
		b.bytes = b.room.in[:0]
	}
	c.body = b
	return b
}

// room is memory for an answer that is held back: as it comes, and as it goes out. It is used again for other answers.
type room struct {
	in, out []byte
	of      *sync.Pool
}

// rooms are for answers of up to 8 KiB, and up to smallBody, so that a short answer does not take the room of a long one.
var rooms [2]sync.Pool

const shortAnswer = 8 << 10

func takeRoom(length int64) *room {
	of, size := &rooms[0], shortAnswer
	if length > shortAnswer {
		of, size = &rooms[1], smallBody
	}
	if r, ok := of.Get().(*room); ok {
		return r
	}
	return &room{make([]byte, 0, size), make([]byte, 0, size), of}
}

// close gives back the room. The answer has been sent or dropped.
func (b *kept) close() {
	b.counted.close()
	if b.room != nil {
		b.room.of.Put(b.room)
		b.room, b.bytes = nil, nil
	}
}

func (b *kept) write(p []byte) (int, error) { return b.accept(p, b.take) }

// mostUnseen is how many bytes are held back of an answer that has not shown to be one. Of an event that is longer than [wire.MaxEvent] the
// beginning shows it.
const mostUnseen = wire.MaxEvent + smallBody

// take takes the next decoded bytes of the body.
func (b *kept) take(p []byte) error {
	if b.flows != nil { // the rest of a piece that was being decoded
		return b.flows.take(p)
	}
	if b.shows(p) && b.streams {
		b.bytes = append(b.bytes, p...)
		return b.letGo()
	}
	n := len(b.bytes) + len(p)
	if b.scout != nil && n <= mostUnseen || b.call.mayHold(int64(n), int64(len(p))) {
		b.bytes = append(b.bytes, p...)
		return nil
	}
	if b.scout != nil {
		b.bytes = nil
		b.refuses(refuse(api.UsageUnknown, "what the provider sends does not look like an answer whose price could be computed"), true)
		return errRefused
	}
	if b.call.tellsInBody() {
		b.bytes = nil
		b.refuses(refuse(escrow.RateLimited, "what the answer costs stands in its body, and there is no room to hold that back until it is read; try again later", "retry_after", "1"), true)
		return errRefused
	}
	if err := b.letGo(); err != nil {
		return err
	}
	return b.flows.take(p)
}

// shows has the scout read the next bytes, and reports whether these show that the body is an answer.
func (b *kept) shows(p []byte) bool {
	if b.scout == nil {
		return false
	}
	b.scout.Feed(nil, p)
	if !b.scout.Recognised() {
		return false
	}
	b.scout = nil
	return true
}

// letGo turns a kept answer into a streamed one.
func (b *kept) letGo() error {
	if refusal := b.call.secureStream(b.Header(), b.status); refusal != nil {
		b.refuses(refusal, true)
		return errRefused
	}
	b.flows = b.stream()
	bytes := b.bytes
	b.bytes = nil
	return b.flows.take(bytes)
}

func (b *kept) flush() error {
	if b.whole || b.scout != nil {
		return nil
	}
	if err := b.letGo(); err != nil {
		return err
	}
	return b.flushClient()
}

// complete charges the answer and sends it, with its charge in its headers.
func (b *kept) complete() (cause any) {
	if !b.finishTaking(b.take) {
		panic(http.ErrAbortHandler)
	}
	if b.flows != nil {
		return b.flows.end()
	}
	c := b.call
	if c.clientGone() && !c.finishesUnheard() {
		c.cancel() // the client left before the first byte
		return http.ErrAbortHandler
	}
	out, err := b.count()
	if err != nil {
		return http.ErrAbortHandler
	}
	e := b.ending()
	if c.keeps() && e.cut == cutNone {
		e.sealed = c.seal(b.status, b.Header(), out)
	}
	end, err := c.settle(e)
	withheld, isWithheld := errors.AsType[*withheldError](err)
	switch {
	case isWithheld:
		b.discard()
		c.withhold(b.ResponseWriter, withheld.refusal)
		return nil
	case errors.Is(err, errAborted):
		return http.ErrAbortHandler
	case err != nil:
		b.discard()
		b.Header().Set(headerRequest, c.id)
		c.tell(b.ResponseWriter, asRefusal(err), nil)
		return nil
	}
	h := b.Header()
	c.writeReceipt(h, b.status) // a payment may have been settled only now
	c.writeCharge(h, end)
	keepUnstored(h)
	b.ResponseWriter.WriteHeader(b.status)
	if len(out) == 0 || len(b.bytes) == 0 {
		return nil
	}
	if _, err := b.ResponseWriter.Write(out); err != nil {
		b.room = nil // a server of HTTP/2 may still read what it could not write
		if !c.finishesUnheard() {
			return http.ErrAbortHandler
		}
	}
	return nil
}

// count counts the whole answer, and returns what goes to the client.
func (b *kept) count() (out []byte, err error) {
	if b.room != nil {
		out = b.room.out[:0]
	}
	if len(b.bytes) > 0 {
		if out, err = b.call.answer.whole(out, b.bytes); err != nil {
			return nil, err
		}
	}
	return append(out, b.call.answer.tail()...), nil
}

func (b *kept) failed(err error) error {
	b.discard()
	return b.giveUp(err)
}

func (b *kept) broken(p any) (cause any, err error) { return b.brokenUnseen(p) }
