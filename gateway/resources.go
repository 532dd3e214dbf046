package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tidwall/gjson"
	"github.com/tidwall/sjson"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/formats"
	"github.com/tallygate/tallygate/pricing"
)

// A provider keeps files, responses, threads and the like for its one customer, who is all payers. So each belongs to the payer that made it: the
// books note that when the call is charged. A request that names what is not its payer's is refused before it goes on, and a list is cut down to
// what is.

// Shared says which of the resources that a provider keeps all payers may use: those that nobody made here, and what is offered to all.
type Shared struct {
	all   bool
	globs []sharedGlob
}

type sharedGlob struct{ kind, id string } // kind is empty for all

// SharedWords are the words of `shared`, for messages.
const SharedWords = "expected * for all, none, ids such as file-abc* or COLLECTION/ID such as vector_stores/*"

// ParseShared reads which resources are shared: "*", "none", or globs of ids, each of which may have a collection and a slash before it. In a
// glob * stands for any characters, and ? for one.
func ParseShared(words []string) (*Shared, error) {
	s := new(Shared)
	for _, word := range words {
		kind, id := "", word
		if i := strings.LastIndexByte(word, '/'); i >= 0 {
			kind, id = strings.ToLower(word[:i]), word[i+1:]
			if !slices.Contains(formats.Kinds, kind) {
				return nil, fmt.Errorf("shared %s: unknown collection %q: expected one of %s", word, word[:i], strings.Join(formats.Kinds, ", "))
			}
		}
		switch {
		case id == "" || strings.ContainsFunc(id, func(c rune) bool { return c <= ' ' || c > '~' }) || len(id) > meter.MaxResourceID:
			return nil, fmt.Errorf("shared %q: %s", word, SharedWords)
		case word == "none" && len(words) > 1:
			return nil, errors.New("shared none: expected nothing else beside it")
		case word == "*":
			s.all = true
		case word != "none":
			s.globs = append(s.globs, sharedGlob{kind, id})
		}
	}
	if len(words) == 0 {
		return nil, errors.New("shared: " + SharedWords)
	}
	return s, nil
}

func (s *Shared) has(r meter.Resource) bool {
	return s != nil && (s.all || r.ID != "" && slices.ContainsFunc(s.globs, func(g sharedGlob) bool {
		return (g.kind == "" || g.kind == r.Kind) && pricing.MatchExact(g.id, r.ID)
	}))
}

// separates reports whether the route keeps its payers' resources apart: where it reads requests, as long as not all is shared.
func (r *Route) separates() bool {
	if r.Shared != nil {
		return !r.Shared.all
	}
	return r.Tariff != nil || r.Rates != nil && r.Rates.UsesTokens()
}

// MayRepeat reports whether the handlers below the route may have to serve a request more than once: if it asks for a list.
func (r *Route) MayRepeat() bool { return r.separates() }

// stored is what the call has to do with resources; nothing where the route does not keep payers apart. In shadow mode a list goes out as it is.
func (q *asked) stored() (s meter.Stored) {
	if q.call == nil || !q.route.separates() {
		return s
	}
	s = q.call.Stored
	if q.route.Shadow {
		s.Lists = ""
	}
	return s
}

// looksInto reports whether the answer is read for resources.
func (q *asked) looksInto() bool {
	s := q.stored()
	return s.Makes || s.Lists != "" || s.Tells != ""
}

// isPayersOwn reports whether the answer is of resources that others may not see.
func (q *asked) isPayersOwn() bool {
	s := q.stored()
	return len(s.Uses) > 0 || s.Lists != ""
}

// checkOwned refuses a request that names a resource which is not its payer's. The refusal is the same whether the resource is another's or is
// not there at all.
func (q *asked) checkOwned() *ledger.Refusal {
	stored := q.stored()
	if ambiguous := (*meter.AmbiguousError)(nil); errors.As(stored.Unclear, &ambiguous) {
		return refuse(api.AmbiguousRequest, ambiguous.Error(), "field", ambiguous.Field)
	} else if stored.Unclear != nil {
		return refuse(escrow.InvalidRequest, stored.Unclear.Error())
	}
	if len(q.call.Stored.Uses) == 0 {
		return nil
	}
	noted, err := q.gateway.book.Noted(q.kept(q.call.Stored.Uses))
	if err != nil {
		return asRefusal(err)
	}
	for i, r := range stored.Uses {
		if q.owns(r, noted[i]) {
			q.asksOf(noted[i].Asked)
			continue
		}
		if !q.route.Shadow {
			return unknown(r)
		}
		q.wouldRefuse(unknown(r))
		break
	}
	if q.route.Shadow {
		return nil
	}
	return q.findOwed(noted)
}

func unknown(r meter.Resource) *ledger.Refusal {
	return refuse(api.UnknownResource, "there is no "+strconv.Quote(r.ID)+" in "+r.Kind+" that is yours: one belongs to the agent that made it through this route; the provider can share others by `shared "+r.Kind+"/...`",
		"resource", r.Kind+"/"+r.ID)
}

// owns reports whether the payer may use a resource: it is its own, or shared.
func (q *asked) owns(r meter.Resource, noted escrow.Noted) bool {
	return noted.Owner != "" && noted.Owner == q.payer.Agent || q.route.Shared.has(r)
}

// mayRead reports which resources of a list the payer may read: those that are its own, or shared, and of which nothing is owed. It returns what is
// noted of all of them.
func (q *asked) mayRead(resources []meter.Resource) (readable []bool, noted []escrow.Noted, err error) {
	if noted, err = q.gateway.book.Noted(q.kept(resources)); err != nil {
		return nil, nil, err
	}
	readable = make([]bool, len(resources))
	for i, r := range resources {
		readable[i] = q.owns(r, noted[i]) && len(noted[i].Owed) == 0
	}
	return readable, noted, nil
}

// kept are resources as the books know them: kept by the provider of the route's payee.
func (q *asked) kept(resources []meter.Resource) []escrow.Resource {
	kept := make([]escrow.Resource, 0, len(resources))
	for _, r := range resources {
		kept = append(kept, escrow.Resource{Payee: q.route.Payee, Kind: r.Kind, ID: r.ID})
	}
	return kept
}

// made are the resources that become the payer's, with the time at which they were asked for. What is shared does not, as it may be older than the
// call. A meter around this one asks for them, too.
func (a *admitted) made(resources []meter.Resource, asked time.Time) (made []escrow.Resource) {
	if len(resources) == 0 {
		return nil
	}
	for call := a; call != nil; call = call.outer {
		if !call.route.separates() {
			continue
		}
		for _, r := range call.kept(resources) {
			if !call.route.Shared.has(meter.Resource{Kind: r.Kind, ID: r.ID}) {
				r.Asked = asked
				made = append(made, r)
			}
		}
	}
	return made
}

// own notes what becomes the payer's of a call that is not charged. It returns when that is durable.
func (a *admitted) own(made []escrow.Resource) error {
	if len(made) == 0 {
		return nil
	}
	return a.inBooks(func(tx *escrow.Tx) error { return tx.Own(a.payer.Agent, made...) })
}

// deleted forgets the resource that the call has deleted. Where that fails it stays the payer's, though it is gone.
func (a *admitted) deleted(r meter.Resource) {
	if err := a.inBooks(func(tx *escrow.Tx) error {
		return tx.Disown(a.payer.Agent, a.made([]meter.Resource{r}, time.Time{})...)
	}); err != nil {
		a.route.logger().Error("forgetting a resource that was deleted", "request", a.id, "kind", r.Kind, "error", err)
	}
}

func (a *admitted) inBooks(op func(*escrow.Tx) error) error {
	_, err := escrow.Do(context.WithoutCancel(a.request.Context()), a.gateway.book, func(tx *escrow.Tx) (struct{}, error) { return struct{}{}, op(tx) })
	return err
}

// sifts reports whether an answer that has this status must be read whole before it goes out: to cut a list down to what is the payer's, or to note
// what it tells of. What a charged call makes is noted as it is charged.
func (w *response) sifts() bool {
	c := w.call
	if c.hasYielded() || w.status/100 != 2 || w.status == http.StatusNoContent || c.request.Method == http.MethodHead || w.leavesHTTP() {
		return false
	}
	stored := c.stored()
	charged := c.pay.costs() && c.route.charged(w.status)
	return stored.Lists != "" || c.byAnswer() && len(c.call.Strip) > 0 || (stored.Tells != "" || stored.Makes && !charged) && !isEventStream(w.Header())
}

// maxCame bounds how many resources one list tells of.
const maxCame = 256

// maxSifted is how many bytes an answer may have that is read whole.
const maxSifted = 4 << 20

// sifted is an answer that is read whole, cut down to what is the payer's, and then goes on as if it had come so.
type sifted struct {
	*response
	bytes   []byte
	refusal *ledger.Refusal
}

var errSifted = errors.New("the answer can't be cut down to what is the caller's")

func (b *sifted) write(p []byte) (int, error) {
	size := int64(len(b.bytes) + len(p))
	switch {
	case b.refusal != nil:
		return 0, errSifted
	case size > maxSifted && b.call.stored().Lists == "": // what it tells of belongs to nobody
		return len(p), b.goOn(append(b.bytes, p...))
	case size > maxSifted:
		b.refusal = refuse(escrow.InvalidRequest, "the list is too long to be cut down to what is yours: ask for fewer at a time, such as ?limit=100")
		return 0, errSifted
	case size > smallBody && !b.call.takeRoom(int64(len(p)), size):
		b.refusal = refuse(escrow.RateLimited, "there is no room for this answer at the moment; try again later", "retry_after", "1")
		return 0, errSifted
	}
	b.bytes = append(b.bytes, p...)
	return len(p), nil
}

func (b *sifted) flush() error { return nil }

func (b *sifted) complete() any {
	body, refusal := b.sift()
	if refusal != nil {
		b.refusal = refusal
	}
	if b.refusal != nil {
		b.refuse()
		return nil
	}
	h := b.Header()
	if b.pages != nil && b.pages.cut {
		h.Set(headerListComplete, "false")
	}
	if length := contentLength(h); length >= 0 && length != int64(len(b.bytes)) {
		panic(http.ErrAbortHandler) // it has come in part
	}
	if len(body) != len(b.bytes) {
		h.Del("Etag")
		h.Del("Content-Md5")
		h.Del("Digest")
		h.Del("Content-Digest")
		h.Del("Repr-Digest")
		if h.Get("Content-Length") != "" {
			h.Set("Content-Length", strconv.Itoa(len(body)))
		}
	}
	if err := b.goOn(body); err != nil {
		return http.ErrAbortHandler
	}
	return b.response.body.complete()
}

// goOn lets the answer go on as if it had come so.
func (b *sifted) goOn(body []byte) error {
	w := b.response
	w.body = nil
	w.open()
	b.bytes = nil
	_, err := w.body.write(body)
	return err
}

// sift returns the answer as it may go out, when what it tells of is noted.
func (b *sifted) sift() ([]byte, *ledger.Refusal) {
	if b.refusal != nil {
		return nil, b.refusal
	}
	c := b.call
	stored := c.stored()
	if compressed(b.Header()) {
		if stored.Lists == "" && !c.byAnswer() {
			return b.bytes, nil
		}
		return nil, refuse(api.UpstreamFailed, errCoding.Error(), "charge", "none")
	}
	var told []escrow.Resource
	body := b.bytes
	switch {
	case stored.Lists != "":
		list, err := formats.ReadList(stored.Lists, body)
		if err != nil {
			return nil, refuse(escrow.InvalidRequest, "this list can't be cut down to what is yours, so it does not go out: ask for what you have made by its id")
		}
		kept, noted, err := c.mayRead(list.Resources)
		if err != nil {
			return nil, asRefusal(err)
		}
		body = list.Keep(kept)
		for i, is := range kept {
			if is && len(told) < maxCame {
				told = append(told, c.made(list.Told(stored.Lists, i), noted[i].Asked)...)
			}
		}
	case stored.Makes:
		told = c.made(formats.Made(c.call, b.status, b.Header(), body), c.at)
	default:
		told = c.made(formats.Told(stored.Tells, body), c.at)
	}
	if c.byAnswer() {
		for _, field := range c.call.Strip {
			if gjson.GetBytes(body, field).Exists() {
				body, _ = sjson.DeleteBytes(body, field) // if it can't be deleted, the answer is refused when it is counted
			}
		}
	}
	if err := c.own(c.unnoted(told)); err != nil {
		return nil, asRefusal(err)
	}
	return body, nil
}

// unnoted are those of some resources that are nobody's yet.
func (a *admitted) unnoted(candidates []escrow.Resource) (made []escrow.Resource) {
	noted, err := a.gateway.book.Noted(candidates)
	if err != nil {
		return candidates // they are looked at once more
	}
	for i, n := range noted {
		if n.Owner == "" {
			made = append(made, candidates[i])
		}
	}
	return made
}

// refuse answers in place of an answer that does not go out. Nothing is charged.
func (b *sifted) refuse() {
	b.call.cancel()
	b.discard()
	b.Header().Set(headerRequest, b.call.id)
	b.call.tell(b.ResponseWriter, b.refusal, nil)
}

func (b *sifted) failed(err error) error {
	if b.refusal != nil {
		b.refuse()
		return nil
	}
	b.discard()
	return b.giveUp(err)
}

func (b *sifted) broken(p any) (cause any, err error) {
	if b.refusal != nil {
		b.refuse()
		return nil, nil
	}
	return b.brokenUnseen(p)
}

func (b *sifted) close() {}
