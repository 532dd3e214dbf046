package api

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net"
	"net/http"

	"github.com/tallygate/tallygate/escrow"
)

const maxIdempotencyKey = 255 // bytes

// once runs op. With an Idempotency-Key it runs op only once: the same request again gets the stored part of the first answer. The keys of
// different callers are separate, so that two callers may use the same key.
func (r *request) once(rt route, body []byte, op func(*escrow.Tx) (shown any, kept []byte, err error)) (escrow.Answer[any], error) {
	answer, err := r.keyed(rt, body, op)
	var u unkept
	if errors.As(err, &u) {
		err = u.refusal
	}
	if err == nil && rt.after != nil {
		rt.after(r.server)
	}
	return answer, err
}

func (r *request) keyed(rt route, body []byte, op func(*escrow.Tx) (shown any, kept []byte, err error)) (escrow.Answer[any], error) {
	key := r.Header.Get("Idempotency-Key")
	if rt.method != http.MethodPost || key == "" {
		return escrow.Do(r.Context(), r.book, func(t *escrow.Tx) (answer escrow.Answer[any], err error) {
			answer.Result, _, err = op(t)
			return answer, err
		})
	}
	if len(key) > maxIdempotencyKey {
		return escrow.Answer[any]{}, &escrow.Refusal{Outcome: escrow.InvalidRequest, Fields: map[string]string{"field": "Idempotency-Key"}, Detail: "Idempotency-Key has at most 255 bytes"}
	}
	digest := requestDigest(r.Method, r.URL.Path, body)
	id := r.owner(digest)
	id.Key = key
	return escrow.Once(r.Context(), r.book, id, digest, op)
}

// owner separates the idempotency keys of different callers. A caller without an API key is identified by its address and its request, since
// two strangers behind one address must not get each other's answers.
func (r *request) owner(digest []byte) escrow.OnceID {
	switch {
	case r.by.Operator:
		return escrow.OnceID{Owner: "operator"}
	case r.by.Agent != "":
		return escrow.OnceID{Owner: "agent:" + r.by.Agent}
	default:
		sum := sha256.Sum256(append(digest, r.client()...))
		return escrow.OnceID{Owner: "anyone:" + hex.EncodeToString(sum[:16]), Crowd: "anyone"}
	}
}

// clientKey is the context key of the client of a request to MCP.
type clientKey struct{}

// client returns the address of a request's client.
func (r *request) client() string {
	if client, known := r.Context().Value(clientKey{}).(string); known {
		return client
	}
	if r.server.o.Client != nil {
		return r.server.o.Client(r.Request)
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// requestDigest returns the same digest for two requests with the same method, path and body. In a JSON body, white space and the order of
// names do not matter.
func requestDigest(method, path string, body []byte) []byte {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var content any
	if err := d.Decode(&content); err == nil {
		if canonical, err := json.Marshal(content); err == nil {
			body = canonical
		}
	}
	sum := sha256.New()
	sum.Write([]byte(method + "\x00" + path + "\x00"))
	sum.Write(body)
	return sum.Sum(nil)
}
