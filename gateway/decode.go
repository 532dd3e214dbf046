package gateway

import (
	"compress/gzip"
	"errors"
	"io"
	"iter"
	"strings"
)

// decoder decodes a compressed body that is written to it piece by piece. It runs in step with whoever writes, never beside:
// what it has decoded of a piece is passed on before the piece is taken.
type decoder struct {
	next func() (out []byte, ok bool) // the next decoded bytes; nil where more input is needed
	stop func()
	in   []byte // not read yet
	over bool   // no more comes
	err  error
}

// newDecoder returns a decoder for a content coding; nil for one that is not known.
func newDecoder(coding string) *decoder {
	if !strings.EqualFold(coding, "gzip") && !strings.EqualFold(coding, "x-gzip") {
		return nil
	}
	d := new(decoder)
	d.next, d.stop = iter.Pull(func(yield func([]byte) bool) { d.err = decodeGzip(source{d, yield}, yield) })
	return d
}

var errDecoderStopped = errors.New("the response is given up")

func decodeGzip(from io.Reader, yield func([]byte) bool) error {
	z, err := gzip.NewReader(from)
	if err != nil {
		return err
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := z.Read(buf)
		if n > 0 && !yield(buf[:n]) {
			return errDecoderStopped
		}
		if err != nil {
			return err
		}
	}
}

// source is what a decoder reads. It waits for more by giving way to the writer.
type source struct {
	*decoder
	yield func([]byte) bool
}

func (s source) Read(p []byte) (int, error) {
	for len(s.in) == 0 {
		if s.over {
			return 0, io.EOF
		}
		if !s.yield(nil) {
			return 0, errDecoderStopped
		}
	}
	n := copy(p, s.in)
	s.in = s.in[n:]
	return n, nil
}

// write decodes p and passes on what comes of it.
func (d *decoder) write(p []byte, pass func([]byte) error) error {
	d.in = p
	for {
		out, ok := d.next()
		switch {
		case !ok:
			return d.err
		case out == nil:
			return nil
		}
		if err := pass(out); err != nil {
			return err
		}
	}
}

// end passes on what is left, and reports a body that ends too early.
func (d *decoder) end(pass func([]byte) error) error {
	d.over = true
	if err := d.write(nil, pass); err != io.EOF {
		return err
	}
	return nil
}

// close gives the decoder up. Closing none does nothing.
func (d *decoder) close() {
	if d != nil {
		d.stop()
	}
}
