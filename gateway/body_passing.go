package gateway

import (
	"errors"
	"net/http"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// passing is an answer that costs nothing, or is charged by an inner meter. It passes as if there were no meter.
type passing struct {
	*response
	ours  *muffler // for an event stream; otherwise nil
	clean []byte   // what ours lets through
}

func (b *passing) write(p []byte) (int, error) {
	if b.ours == nil {
		return b.ResponseWriter.Write(p)
	}
	b.clean = b.ours.write(b.clean[:0], p)
	if len(b.clean) == 0 {
		return len(p), nil
	}
	if _, err := b.ResponseWriter.Write(b.clean); err != nil && !b.call.route.FinishUnheard {
		return 0, err
	}
	if cap(b.clean) > smallBody {
		b.clean = nil
	}
	return len(p), nil
}

func (b *passing) flush() error { return b.flushClient() }

func (b *passing) complete() any {
	if !b.call.hasYielded() {
		b.sendHeader()
		dropOwn(b.Header()) // trailers
	}
	return nil
}

func (b *passing) failed(err error) error    { return err }
func (b *passing) broken(p any) (any, error) { return p, nil }
func (b *passing) close()                    {}

// unreadable is an answer that is not passed on, because it is compressed in a way that can't be counted.
type unreadable struct{ *response }

func (b *unreadable) write([]byte) (int, error) { return 0, errCoding }
func (b *unreadable) flush() error              { return nil }
func (b *unreadable) complete() any             { return http.ErrAbortHandler }
func (b *unreadable) close()                    {}

func (b *unreadable) failed(err error) error {
	b.discard()
	return b.giveUp(err)
}

func (b *unreadable) broken(any) (any, error) { return nil, b.failed(badGateway(errCoding)) }

// refused replaces an answer by a refusal, because the handlers below the meter have changed the request into one that may have another
// price.
type refused struct {
	*response
	refusal *ledger.Refusal
	worked  bool // the provider has worked for the answer
	told    bool
}

var errRefused = errors.New("the answer does not go out")

func (b *refused) write([]byte) (int, error) { return 0, errRefused }
func (b *refused) flush() error              { return nil }
func (b *refused) complete() any             { b.tell(); return nil }
func (b *refused) failed(error) error        { b.tell(); return nil }
func (b *refused) broken(any) (any, error)   { b.tell(); return nil, nil }
func (b *refused) close()                    {}

func (b *refused) tell() {
	if b.told {
		return
	}
	b.told = true
	b.discard()
	if b.worked {
		b.call.withhold(b.ResponseWriter, b.refusal)
		return
	}
	b.call.cancel()
	b.call.route.logger().Warn("a request is refused: the configuration changes it behind its meter", "request", b.call.id, "payee", b.call.route.Payee, "reason", b.refusal.Detail)
	b.call.refuse(b.ResponseWriter, b.call.request, b.refusal)
}
