package api

import (
	"errors"
	"net/http"
	"reflect"
	"strings"

	"github.com/tallygate/tallygate/escrow"
)

// access says who may call a route at all. The book decides what the caller may do there.
type access int

const (
	anyone       access = iota // callers without a key too; but if there is a key, it must be valid
	keyHolder                  // agents and the operator
	operatorOnly               // only the operator
)

// route is one operation of the API: its name, what it takes, and what it answers. The OpenAPI description is generated from the routes.
type route struct {
	method, path  string // the path is below /api/v1, as http.ServeMux writes it
	name, summary string
	access        access
	in, out       reflect.Type
	status        int
	bookless      bool      // it answers while the ledger is not open, too
	throttle      *Throttle // limits how often one client may call it; nil for no limit
	read          func(r *request, in any) (any, error)
	write         func(r *request, t *escrow.Tx, in any) (any, error) // one atomic operation; set instead of read
	after         func(s *server)                                     // what follows a write that is committed; nil: nothing
}

// request is one call of a route, over REST or MCP.
type request struct {
	*http.Request
	server *server
	book   *escrow.Book
	by     escrow.Actor
}

// none is the type for a route that takes nothing or answers nothing.
type none struct{}

// byID are the parameters of a route for one thing.
type byID struct {
	ID string `path:"id"`
}

// ofAgent are the parameters of a route for an agent's things. The operator names the agent.
type ofAgent struct {
	AgentID string `query:"agent_id"`
}

// ofAgentByID are the parameters of a route for one of an agent's things.
type ofAgentByID struct {
	ID      string `path:"id"`
	AgentID string `query:"agent_id"`
}

// get makes a route that reads. The fields of In are its parameters: `path:"id"`, `query:"limit"`.
func get[In, Out any](path, name, summary string, read func(r *request, in *In) (Out, error)) route {
	return route{
		method: http.MethodGet, path: path, name: name, summary: summary, access: keyHolder, status: http.StatusOK,
		in: reflect.TypeFor[In](), out: reflect.TypeFor[Out](),
		read: func(r *request, in any) (any, error) { return read(r, in.(*In)) },
	}
}

// ask makes a route that only reads, but is a POST because its parameters do not fit into a URL.
func ask[In, Out any](path, name, summary string, read func(r *request, in *In) (Out, error)) route {
	r := get(path, name, summary, read)
	r.method = http.MethodPost
	return r
}

// post makes a route that changes the books in one operation. The fields of In are parameters, as in get, or, if they have a json
// name, fields of the body. A field of the body without omitempty is required.
func post[In, Out any](path, name, summary string, write func(r *request, t *escrow.Tx, in *In) (Out, error)) route {
	return route{
		method: http.MethodPost, path: path, name: name, summary: summary, access: keyHolder, status: http.StatusOK,
		in: reflect.TypeFor[In](), out: reflect.TypeFor[Out](),
		write: func(r *request, t *escrow.Tx, in any) (any, error) { return write(r, t, in.(*In)) },
	}
}

// put makes a route as post does, with the method PUT.
func put[In, Out any](path, name, summary string, write func(r *request, t *escrow.Tx, in *In) (Out, error)) route {
	r := post(path, name, summary, write)
	r.method = http.MethodPut
	return r
}

// del makes a route that deletes something and answers nothing.
func del[In any](path, name, summary string, write func(r *request, t *escrow.Tx, in *In) error) route {
	r := post(path, name, summary, func(r *request, t *escrow.Tx, in *In) (none, error) { return none{}, write(r, t, in) })
	r.method, r.status = http.MethodDelete, http.StatusNoContent
	return r
}

// creates makes the route answer with 201.
func (r route) creates() route { r.status = http.StatusCreated; return r }

// then has something done after each write that is committed.
func (r route) then(after func(s *server)) route { r.after = after; return r }

// open allows callers without a key.
func (r route) open() route { r.access = anyone; return r }

// withoutBook lets the route answer while the ledger is not open. Its request has no book then.
func (r route) withoutBook() route { r.bookless = true; return r }

// throttled limits how often one client may call the route.
func (r route) throttled(by Throttle) route { r.throttle = &by; return r }

// operators allows only the operator to call the route.
func (r route) operators() route { r.access = operatorOnly; return r }

// serve answers one request.
func (s *server) serve(w http.ResponseWriter, req *http.Request, rt route) {
	if rt.bookless {
		out, err := rt.read(&request{Request: req, server: s}, reflect.New(rt.in).Interface())
		s.tell(w, req, rt, out, err)
		return
	}
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
	s.tell(w, req, rt, out, err)
}

// tell answers with what a route that reads has found.
func (s *server) tell(w http.ResponseWriter, req *http.Request, rt route, out any, err error) {
	if err != nil {
		s.fail(w, req, err)
		return
	}
	if p, is := out.(papered); is && s.tellPaper(w, req, rt, p.paper()) {
		return
	}
	text, err := encode(out)
	if err != nil {
		s.fail(w, req, err)
		return
	}
	s.answer(w, rt.status, text)
}

// request authenticates the caller, and refuses callers without the access that need says.
func (s *server) request(req *http.Request, need access) (*request, error) {
	r := &request{Request: req, server: s, book: s.book()}
	if r.book == nil {
		return nil, &escrow.Refusal{Outcome: LedgerUnavailable, Detail: "the gateway is starting", Fields: map[string]string{"charge": "none"}}
	}
	key, given := bearer(req)
	if need == anyone && (!given || key == "" && !isBearer(req)) { // another scheme is for a handler before this one
		return r, nil
	}
	if hint := BearerHint(req.Header.Get("Authorization")); hint != "" {
		return nil, &escrow.Refusal{Outcome: escrow.Unauthorized, Detail: hint}
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
		return nil, r.book.OnlyOperator("do this")
	}
	return r, nil
}

// BearerHint returns what is wrong with the form of an Authorization header, or an empty text if nothing is.
func BearerHint(header string) string {
	scheme, rest, _ := strings.Cut(strings.TrimSpace(header), " ")
	switch {
	case header == "" || strings.EqualFold(scheme, "Bearer") && strings.TrimSpace(rest) != "":
		return ""
	case strings.EqualFold(scheme, "Bearer"):
		return "Authorization has no key after the word Bearer: send 'Authorization: Bearer KEY'"
	case rest == "":
		return "Authorization has no word Bearer before the key: send 'Authorization: Bearer KEY'"
	default:
		return "Authorization has another scheme than Bearer: send 'Authorization: Bearer KEY'"
	}
}

// bearer returns the key of a request, from Authorization: Bearer KEY. given is true if there is such a header, even if its key is empty.
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

func isBearer(req *http.Request) bool {
	scheme, _, _ := strings.Cut(req.Header.Get("Authorization"), " ")
	return strings.EqualFold(scheme, "Bearer")
}

// secretive is an answer with a secret, which is shown once and not stored.
type secretive interface{ withoutSecret() any }

// replaying is an answer that may be the answer to an earlier request, without an idempotency key.
type replaying interface{ replayed() bool }

// write runs a route that changes the books. With an idempotency key it runs only once.
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
	if again, ok := answer.Result.(replaying); ok && again.replayed() {
		w.Header().Set("Idempotency-Replayed", "true")
	}
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

// unkept is a refusal that is not stored under an idempotency key, since the same request may succeed later.
type unkept struct{ refusal *escrow.Refusal }

func (u unkept) Error() string { return u.refusal.Error() }

// passing wraps refusals with 401, 402 and 429 in another type. These must not be stored, but the ledger stores every *Refusal.
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
