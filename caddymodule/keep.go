package caddymodule

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"

	"github.com/tallygate/tallygate/escrow"
)

// KeepResponses lets who has lost the answer to a call with an Idempotency-Key on its way have it again, for nothing, by making the
// call again. Answers are kept in the ledger's store, sealed by a key that is derived from the caller's own, which is not kept: only a call
// with that key opens them. Event streams, and answers that are longer, are not kept.
//
// It costs disk: each answer is written twice on its way (to the journal, and from there to its place) and takes its size until its
// idempotency key is forgotten, a day later; at most 1 GiB in all and 64 MiB of one agent, beyond which answers are not kept.
// An answer that is to be kept goes out when it is whole.
type KeepResponses struct {
	// Size is the most bytes that a kept answer may have, its header included; at most 16 MiB.
	Size int64 `json:"size"`
	// For is how long an answer is given again; at most 24h.
	For caddy.Duration `json:"for"`
}

const mostKept = 16 << 20 // bytes of one answer

func (k *KeepResponses) check() error {
	if k.Size < 1 || k.Size > mostKept {
		return fmt.Errorf("keep_responses: expected a size up to 16MiB, such as 1MiB")
	}
	if k.For <= 0 || time.Duration(k.For) > escrow.KeptFor {
		return fmt.Errorf("keep_responses: expected a time up to 24h, as long as an Idempotency-Key is remembered")
	}
	return nil
}

// unmarshalKeepResponses reads
//
//	keep_responses SIZE for D
func unmarshalKeepResponses(d *caddyfile.Dispenser) (*KeepResponses, error) {
	args := d.RemainingArgs()
	if len(args) != 3 || args[1] != "for" {
		return nil, d.Errf("unexpected 'keep_responses %s': expected 'keep_responses SIZE for D', such as 'keep_responses 1MiB for 24h'", strings.Join(args, " "))
	}
	k := new(KeepResponses)
	digits, factor := args[0], int64(1)
	for unit, bytes := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20} {
		if s, ok := strings.CutSuffix(args[0], unit); ok {
			digits, factor = s, bytes
		}
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil {
		return nil, d.Errf("unexpected %q: expected a number of bytes, KiB or MiB, such as 1MiB", args[0])
	}
	lasts, err := caddy.ParseDuration(args[2])
	if err != nil {
		return nil, d.Errf("unexpected %q: expected a duration such as 24h", args[2])
	}
	k.Size, k.For = int64(n)*factor, caddy.Duration(lasts)
	return k, atLine(d, k.check())
}

// keeps reports whether the answer is kept for its caller.
func (c *call) keeps() bool {
	return c.meter.KeepResponses != nil && c.terms.idempotencyKey != "" && c.key != "" && !c.unpaid
}

// mayHold reports whether n bytes of an answer may be held back until it is whole, of which more come now.
func (c *call) mayHold(n, more int) bool {
	switch {
	case n <= smallBody:
		return true
	case !c.keeps() || int64(n) > c.meter.KeepResponses.Size:
		return false
	case !c.meter.app.bodies.take(c.payer.Agent, int64(more)):
		return false
	}
	c.room += int64(more)
	return true
}

// seal makes an answer ready to be kept; nil where it is too long. It is written as HTTP has it.
func (c *call) seal(status int, h http.Header, body []byte) []byte {
	h = h.Clone()
	dropOwn(h)
	h.Del("Trailer")
	answer := http.Response{
		StatusCode: status, ProtoMajor: 1, ProtoMinor: 1, Header: h, ContentLength: int64(len(body)), Body: io.NopCloser(bytes.NewReader(body)),
	}
	var plain bytes.Buffer
	if err := answer.Write(&plain); err != nil || int64(plain.Len()) > c.meter.KeepResponses.Size {
		return nil
	}
	lock, err := c.sealing()
	if err != nil {
		c.logger.Error("sealing an answer", zap.Error(err))
		return nil
	}
	return lock.Seal(nil, nil, plain.Bytes(), []byte(c.terms.idempotencyKey))
}

// sealing is a cipher by a key that only the caller's own key makes.
func (c *call) sealing() (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, []byte(c.key), nil, "tallygate: answers kept for "+c.payer.Agent, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// again is the answer that was kept of an earlier call under the same idempotency key, and its charge; nil where there is none, or
// another key of the agent's has sealed it.
func (c *call) again(request string) (answer *http.Response, charge escrow.Charge) {
	charge, err := c.book.Charge(c.payer, request)
	if request == "" || err != nil || c.book.Now().Sub(charge.CreatedAt) > time.Duration(c.meter.KeepResponses.For) {
		return nil, charge
	}
	sealed, found, err := c.book.KeptAnswer(c.payer.Agent, c.terms.idempotencyKey)
	if err != nil || !found {
		return nil, charge
	}
	lock, err := c.sealing()
	if err != nil {
		return nil, charge
	}
	plain, err := lock.Open(nil, nil, sealed, []byte(c.terms.idempotencyKey))
	if err != nil {
		return nil, charge
	}
	answer, err = http.ReadResponse(bufio.NewReader(bytes.NewReader(plain)), nil)
	if err != nil {
		return nil, charge
	}
	return answer, charge
}

// writeAgain gives a kept answer once more. It costs nothing: what it has cost stands in it.
func (c *call) writeAgain(w http.ResponseWriter) error {
	answer, charge := c.kept, c.charge
	defer answer.Body.Close()
	h := w.Header()
	for name, values := range answer.Header {
		h[name] = values
	}
	if answer.ContentLength > 0 {
		h.Set("Content-Length", formatInt(answer.ContentLength))
	}
	h.Set("Idempotency-Replayed", "true")
	h.Set(headerRequest, charge.RequestID)
	h.Set(headerCharge, charge.Amount.String())
	h.Set(headerUnits, unitsOf(charge))
	w.WriteHeader(answer.StatusCode)
	_, err := io.Copy(w, answer.Body)
	return err
}
