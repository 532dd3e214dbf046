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

// The answer to a call with an Idempotency-Key can be stored, so that a caller that has lost the answer can get it again for free. Answers
// are stored in the ledger, encrypted with a key that is derived from the caller's own key. That key is not stored, so only a call with the
// same key can read the answer.

// keeps reports whether the answer is stored for its caller.
func (q *asked) keeps() bool {
	return q.route.Keep != nil && q.terms.idempotencyKey != "" && q.key != "" && !q.route.Shadow && q.terms.milestone == ""
}

// mayHold reports whether n bytes of an answer may be held back until the answer is complete. more of them come now.
func (q *asked) mayHold(n, more int64) bool {
	if n <= smallBody {
		return true
	}
	return (q.keeps() && n <= q.route.Keep.Size || q.tellsInBody()) && q.takeRoom(more, n)
}

// seal encrypts an answer to be stored, in the form of HTTP. It returns nil if the answer is too long.
func (q *asked) seal(status int, h http.Header, body []byte) []byte {
	h = h.Clone()
	dropOwn(h)
	for _, receipt := range []http.Header{q.receipt, q.goodReceipt} { // among it is the key of a new agent
		for name := range receipt {
			h.Del(name)
		}
	}
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

// sealing returns a cipher whose key is derived from the caller's own key.
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

// replay is a stored answer that is given again.
type replay struct {
	answer *http.Response
	charge escrow.Charge // the charge of the first call
}

// keptAnswer returns the stored answer of an earlier call with the same idempotency key. found is false if there is none, or if it was
// encrypted with another key of the agent.
func (q *asked) keptAnswer(request string) (kept replay, found bool) {
	if !q.keeps() || request == "" {
		return replay{}, false
	}
	book := q.gateway.book
	charge, err := book.Charge(q.request.Context(), q.payer, request)
	if err != nil || book.Now().Sub(charge.CreatedAt) > q.route.Keep.For {
		return replay{}, false
	}
	sealed, found, err := book.KeptAnswer(q.payer.Agent, q.onceKey)
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

// write gives the answer again. It costs nothing now; its headers state what it cost the first time.
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
