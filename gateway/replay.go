package gateway

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"io"
	"net/http"
	"strconv"

	"github.com/tallygate/tallygate/escrow"
)

// An answer to a call with an Idempotency-Key can be kept, so that a caller that has lost it on its way has it again, for nothing. Answers are
// kept in the ledger's store, sealed by a key that is derived from the caller's own, which is not kept: only a call with that key opens
// them.

// keeps reports whether the answer is kept for its caller.
func (q *asked) keeps() bool {
	return q.route.Keep != nil && q.terms.idempotencyKey != "" && q.key != "" && !q.route.Shadow && q.terms.milestone == ""
}

// mayHold reports whether n bytes of an answer may be held back until it is whole, of which more come now.
func (q *asked) mayHold(n, more int64) bool {
	if n <= smallBody {
		return true
	}
	return (q.keeps() && n <= q.route.Keep.Size || q.tellsInBody()) && q.takeRoom(more, n)
}

// seal makes an answer ready to be kept; nil where it is too long. It is written as HTTP has it.
func (q *asked) seal(status int, h http.Header, body []byte) []byte {
	h = h.Clone()
	dropOwn(h)
	h.Del("Trailer")
	answer := http.Response{
		StatusCode: status, ProtoMajor: 1, ProtoMinor: 1, Header: h, ContentLength: int64(len(body)), Body: io.NopCloser(bytes.NewReader(body)),
	}
	var plain bytes.Buffer
	if err := answer.Write(&plain); err != nil || int64(plain.Len()) > q.route.Keep.Size {
		return nil
	}
	lock, err := q.sealing()
	if err != nil {
		q.route.logger().Error("sealing an answer", "error", err)
		return nil
	}
	return lock.Seal(nil, nil, plain.Bytes(), []byte(q.terms.idempotencyKey))
}

// sealing is a cipher by a key that only the caller's own key makes.
func (q *asked) sealing() (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, []byte(q.key), nil, "tallygate: answers kept for "+q.payer.Agent, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// replay is a kept answer, to be given again.
type replay struct {
	answer *http.Response
	charge escrow.Charge // of the call that it answered
}

// keptAnswer is the answer that was kept of an earlier call under the same idempotency key. found is false where there is none, or where
// another key of the agent's has sealed it.
func (q *asked) keptAnswer(request string) (kept replay, found bool) {
	if !q.keeps() || request == "" {
		return replay{}, false
	}
	book := q.gateway.book
	charge, err := book.Charge(q.request.Context(), q.payer, request)
	if err != nil || book.Now().Sub(charge.CreatedAt) > q.route.Keep.For {
		return replay{}, false
	}
	sealed, found, err := book.KeptAnswer(q.payer.Agent, q.terms.idempotencyKey)
	if err != nil || !found {
		return replay{}, false
	}
	lock, err := q.sealing()
	if err != nil {
		return replay{}, false
	}
	plain, err := lock.Open(nil, nil, sealed, []byte(q.terms.idempotencyKey))
	if err != nil {
		return replay{}, false
	}
	answer, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(plain)), nil)
	return replay{answer, charge}, err == nil
}

// write gives the answer once more. It costs nothing: what it has cost stands in its headers.
func (k replay) write(w http.ResponseWriter) error {
	defer k.answer.Body.Close()
	h := w.Header()
	for name, values := range k.answer.Header {
		h[name] = values
	}
	if k.answer.ContentLength > 0 {
		h.Set("Content-Length", strconv.FormatInt(k.answer.ContentLength, 10))
	}
	h.Set("Idempotency-Replayed", "true")
	h.Set(headerRequest, k.charge.RequestID)
	h.Set(headerCharge, k.charge.Amount.String())
	h.Set(headerUnits, unitsOf(k.charge))
	w.WriteHeader(k.answer.StatusCode)
	_, err := io.Copy(w, k.answer.Body)
	return err
}
