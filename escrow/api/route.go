package api

import (
	"errors"
	"net/http"
	"reflect"
	"strings"

	"github.com/tallygate/tallygate/escrow"
)

// access says who may call a route at all; who may do what is the book's rule.
type access int

const (
	anyone       access = iota // a key is looked at if there is one
	keyHolder                  // an agent or the operator
	operatorOnly               // the operator
)

// route is one operation of the API: what it is called, takes, and answers. OpenAPI is made from it too.
type route struct {
	method, path  string // the path below /api/v1, as http.ServeMux has it
	name, summary string
	access        access
	in, out       reflect.Type
	status        int
	throttle      *Throttle // how often one client may; nil: as often as it likes
	read          func(r *request, in any) (any, error)
	write         func(r *request, t *escrow.Tx, in any) (any, error) // one atomic operation
}

// request is one call of a route, by REST or by MCP.
type request struct {
	*http.Request
	server *server
	book   *escrow.Book
	by     escrow.Actor
}

// none is the answer of routes that have none.
type none struct{}

// get makes a route that reads. In's fields are parameters: `path:"id"`, `query:"limit"`.
func get[In, Out any](path, name, summary string, read func(r *request, in *In) (Out, error)) route {
	return route{
		method: http.MethodGet, path: path, name: name, summary: summary, access: keyHolder, status: http.StatusOK,
		in: reflect.TypeFor[In](), out: reflect.TypeFor[Out](),
		read: func(r *request, in any) (any, error) { return read(r, in.(*In)) },
	}
}

// ask makes a route that reads by POST, since what it asks does not fit a URL.
func ask[In, Out any](path, name, summary string, read func(r *request, in *In) (Out, error)) route {
	r := get(path, name, summary, read)
	r.method = http.MethodPost
	return r
}

// post makes a route that changes the books in one operation. In's fields are parameters, as with get, and, with a json name,
// those of the body; those without omitempty are required.
func post[In, Out any](path, name, summary string, write func(r *request, t *escrow.Tx, in *In) (Out, error)) route {
	return route{
		method: http.MethodPost, path: path, name: name, summary: summary, access: keyHolder, status: http.StatusOK,
		in: reflect.TypeFor[In](), out: reflect.TypeFor[Out](),
		write: func(r *request, t *escrow.Tx, in any) (any, error) { return write(r, t, in.(*In)) },
	}
}

// put is post with another method.
func put[In, Out any](path, name, summary string, write func(r *request, t *escrow.Tx, in *In) (Out, error)) route {
	r := post(path, name, summary, write)
	r.method = http.MethodPut
	return r
}

// del makes a route that takes something away and answers nothing.
func del[In any](path, name, summary string, write func(r *request, t *escrow.Tx, in *In) error) route {
	r := post(path, name, summary, func(r *request, t *escrow.Tx, in *In) (none, error) { return none{}, write(r, t, in) })
	r.method, r.status = http.MethodDelete, http.StatusNoContent
	return r
}

// creates makes the route answer 201.
func (r route) creates() route { r.status = http.StatusCreated; return r }

// open lets those without a key call the route.
func (r route) open() route { r.access = anyone; return r }

// throttled bounds how often one client may call the route.
func (r route) throttled(by Throttle) route { r.throttle = &by; return r }

// operators keeps all but the operator out.
func (r route) operators() route { r.access = operatorOnly; return r }

// serve answers one request.
func (s *server) serve(w http.ResponseWriter, req *http.Request, rt route) {
	r, err := s.request(req, rt.access)
	if err != nil {
		s.fail(w, req, err)
		return
	}
	in := reflect.New(rt.in).Interface()
	body, err := decode(w, req, in)
	if err != nil {
		s.fail(w, req, err)
		return
	}
	if rt.throttle != nil {
		if err := rt.throttle.Take(r.book.Claims(), r.client()); err != nil && !r.by.Operator {
			s.fail(w, req, err)
			return
		}
	}
	if rt.write != nil {
		s.write(w, r, rt, in, body)
		return
	}
	out, err := rt.read(r, in)
	if err != nil {
		s.fail(w, req, err)
		return
	}
	text, err := encode(out)
	if err != nil {
		s.fail(w, req, err)
		return
	}
	s.answer(w, rt.status, text)
}

// request finds out who asks, and refuses those who may not.
func (s *server) request(req *http.Request, need access) (*request, error) {
	r := &request{Request: req, server: s, book: s.book()}
	if r.book == nil {
		return nil, &escrow.Refusal{Outcome: ledgerUnavailable, Detail: "the gateway is starting", Fields: map[string]string{"charge": "none"}}
	}
	key, given := bearer(req)
	if !given && need == anyone {
		return r, nil
	}
	var err error
	if r.by, err = r.book.Authenticate(key); err != nil {
		if key != "" && escrow.IsRefusal(err, escrow.Unauthorized) {
			if often := WrongKeys.Take(r.book.Claims(), r.client()); often != nil {
				return nil, often
			}
		}
		return nil, err
	}
	if need == operatorOnly && !r.by.Operator {
		return nil, &escrow.Refusal{Outcome: escrow.Forbidden, Detail: "this is the operator's"}
	}
	return r, nil
}

// bearer is the key of a request: Authorization: Bearer KEY.
func bearer(req *http.Request) (key string, given bool) {
	header := req.Header.Get("Authorization")
	if header == "" {
		return "", false
	}
	scheme, key, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", true
	}
	return strings.TrimSpace(key), true
}

// secretive is an answer with a part that is shown once and kept nowhere.
type secretive interface{ withoutSecret() any }

// write runs a route that changes the books, once per idempotency key.
func (s *server) write(w http.ResponseWriter, r *request, rt route, in any, body []byte) {
	answer, err := r.once(rt, body, func(t *escrow.Tx) (shown any, kept []byte, err error) {
		if shown, err = rt.write(r, t, in); err != nil {
			return nil, nil, passing(err)
		}
		if secret, ok := shown.(secretive); ok {
			kept, err = encode(secret.withoutSecret())
		} else {
			kept, err = encode(shown)
		}
		return shown, kept, err
	})
	if err != nil {
		s.fail(w, r.Request, err)
		return
	}
	text := answer.Kept
	if answer.Replayed {
		w.Header().Set("Idempotency-Replayed", "true")
	} else if text, err = encode(answer.Result); err != nil {
		s.fail(w, r.Request, err)
		return
	}
	if rt.status == http.StatusNoContent {
		text = nil
	}
	s.answer(w, rt.status, text)
}

// unkept is a refusal that an idempotency key does not keep, since the same request may well succeed later.
type unkept struct{ refusal *escrow.Refusal }

func (u unkept) Error() string { return u.refusal.Error() }

// passing hides from the ledger, which keeps all refusals, those that are not to be kept: 401, 402 and 429.
func passing(err error) error {
	var r *escrow.Refusal
	if errors.As(err, &r) {
		switch asRefusal(r).Outcome {
		case escrow.Unauthorized, escrow.InsufficientFunds, escrow.EscrowRequired, escrow.SubscriptionRequired, escrow.LimitExceeded, escrow.RateLimited:
			return unkept{r}
		}
	}
	return err
}
