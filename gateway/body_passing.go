package gateway

import "net/http"

// passing is an answer that costs nothing, or is charged by a meter further in: it goes by as if no meter were there.
type passing struct {
	*response
	ours  *muffler // of an event stream; else nil
	clean []byte   // what it lets pass
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

// unreadable is an answer that does not go out, since it comes compressed in a way that can't be counted.
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
