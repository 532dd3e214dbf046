package gateway

import (
	"compress/gzip"
	"errors"
	"io"
	"iter"
	"strings"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

// decoder decodes a compressed body that is written to it piece by piece. It needs no goroutine of its own: write returns after everything
// that the piece contains was decoded and passed on.
type decoder struct {
	next func() (out []byte, ok bool) // returns the next decoded bytes; nil if it needs more input
	stop func()
	in   []byte // not read yet
	over bool   // no more input will come
	err  error
}

// newDecoder returns a decoder for a content coding, or nil if the coding is not known.
func newDecoder(coding string) *decoder {
	open := openers[strings.ToLower(coding)]
	if open == nil {
		return nil
	}
	d := new(decoder)
	d.next, d.stop = iter.Pull(func(yield func([]byte) bool) { d.err = decodeAll(open, source{d, yield}, yield) })
	return d
}

// openers make the readers of content codings. None of them reads more of its input than it needs for the next bytes, or starts a goroutine.
var openers = map[string]func(io.Reader) (io.ReadCloser, error){
	"gzip":   openGzip,
	"x-gzip": openGzip,
	"br":     func(from io.Reader) (io.ReadCloser, error) { return io.NopCloser(brotli.NewReader(from)), nil }, // its window is at most 16 MiB
	"zstd": func(from io.Reader) (io.ReadCloser, error) {
		z, err := zstd.NewReader(from, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxZstdWindow))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	},
}

// maxZstdWindow is the largest window that an answer may have: https://www.rfc-editor.org/rfc/rfc9659
const maxZstdWindow = 8 << 20

func openGzip(from io.Reader) (io.ReadCloser, error) { return gzip.NewReader(from) }

var errDecoderStopped = errors.New("the response is given up")

func decodeAll(open func(io.Reader) (io.ReadCloser, error), from io.Reader, yield func([]byte) bool) error {
	z, err := open(from)
	if err != nil {
		return err
	}
	defer z.Close()
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

// source is the input of a decoder. When it is empty, it hands control back to the writer.
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

// write decodes p and passes the result on.
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

// end passes on the rest, and reports whether the body ended too early.
func (d *decoder) end(pass func([]byte) error) error {
	d.over = true
	if err := d.write(nil, pass); err != io.EOF {
		return err
	}
	return nil
}

// close ends the decoder. Closing a nil decoder does nothing.
func (d *decoder) close() {
	if d != nil {
		d.stop()
	}
}
