package gateway

import (
	"cmp"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/wire"
)

// Over a WebSocket the client goes on asking, by messages that no request has. Where the price depends on what they say they are read on their
// way to the provider: the models that they name must have prices, and the dearest of all that are named is what the connection is charged
// at, unless an answer says that a dearer one has answered. What can't be metered is refused before it has gone on whole. As long as no model
// is named, the connection is one of the dearest model that there is.
//
// What the client says is also what an answer reads. Where tokens are charged it is counted, so that an answer whose usage does not come is not
// had for its output alone.

// talk is what the client of a call says.
type talk struct {
	call    *admitted
	reader  *wire.Talk
	stored  int64           // tokens of what it has named that the provider keeps
	refused *ledger.Refusal // why no more of it goes on; the call's lock guards it
	endedBy string          // who has ended the connection, as the value of a charge's `cut`; the call's lock guards it
	moved   chan struct{}   // gets a value when there is news of an answer
	until   time.Time       // how long an answer is awaited; zero until the client has left
}

// errTalkRefused ends a connection whose client has asked for what is refused.
var errTalkRefused = errors.New("what the client asks for over the connection is refused")

// listen begins to read what the client says, where the price depends on that, or where it may name what is not the payer's.
func (a *admitted) listen() {
	if !a.call.Talks || !(a.separates() || a.pay.costs() && (a.tariff != nil || a.rates.UsesTokens() || a.charges(meter.Output))) {
		return
	}
	a.talk = &talk{call: a, reader: wire.NewTalk(a.call.TalksOf, a.call.Model), moved: make(chan struct{}, 1)}
	if a.request.Method == http.MethodConnect && a.request.Body != nil {
		a.request.Body = &talked{a.request.Body, a.talk}
	}
}

// hear reads what the client says next. It may go on, unless there is an error.
func (t *talk) hear(p []byte) error {
	a := t.call
	if a.hasYielded() {
		return nil
	}
	refusal := t.refused // written by this goroutine alone
	if refusal == nil {
		refusal = t.judge(p)
	}
	switch {
	case refusal == nil:
		return nil
	case a.route.Shadow:
		a.wouldRefuse(refusal)
		return nil
	}
	a.mu.Lock()
	t.refused = refusal
	a.mu.Unlock()
	return errTalkRefused
}

func (t *talk) judge(p []byte) *ledger.Refusal {
	a := t.call
	told, err := t.reader.Read(p)
	if err != nil {
		return unreadableRequest(err)
	}
	if a.call.Follows = told.Follows; len(told.Follows) > 0 && !a.route.Shadow {
		if refusal := a.checkFollows(); refusal != nil {
			return refusal
		}
	}
	stored, refusal := a.mayName(told.Uses)
	if refusal != nil {
		return refusal
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	t.stored += stored
	a.call.Said = meter.Said{Tokens: told.Said.Tokens + t.stored, Sound: told.Said.Sound}
	a.call.Thinks = a.call.Thinks || told.Thinks
	if len(told.Models)+len(told.Tiers) == 0 || a.tariff == nil || !a.pay.costs() {
		return nil
	}
	return a.told(told)
}

// leave is called when the client has ended the connection. It returns when the provider may hear of it: if an answer has begun whose usage has not
// come, that is awaited, as it is for a stream.
func (t *talk) leave() {
	a := t.call
	t.ended(cutClient)
	if !a.readsOn {
		return
	}
	if t.until.IsZero() {
		t.until = time.Now().Add(a.gateway.hangUpGrace)
	}
	patience := time.NewTimer(time.Until(t.until))
	defer patience.Stop()
	for a.isAnswering() {
		select {
		case <-t.moved:
		case <-patience.C:
			return
		}
	}
}

// ended notes who has ended the connection. The first counts.
func (t *talk) ended(by string) {
	if t == nil {
		return
	}
	t.call.mu.Lock()
	t.endedBy = cmp.Or(t.endedBy, by)
	t.call.mu.Unlock()
	t.news()
}

// news wakes what awaits an answer.
func (t *talk) news() {
	if t == nil {
		return
	}
	select {
	case t.moved <- struct{}{}:
	default:
	}
}

// isAnswering reports whether an answer over the connection has begun whose usage may still come.
func (a *admitted) isAnswering() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.talk != nil && a.end == nil && !a.aborted && a.answer != nil && a.talk.endedBy != cutUpstream && a.answer.counter.Usage(false).Open > 0
}

// cutTalk returns who has cut an answer over the connection, if one has begun whose usage has not come.
func (a *admitted) cutTalk() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.talk == nil || a.end != nil || a.answer.counter.Usage(false).Open == 0:
		return cutNone
	case a.talk.endedBy == "" && a.clientGone():
		return cutClient
	}
	return cmp.Or(a.talk.endedBy, cutUpstream)
}

// separates reports whether what the call names must be the payer's.
func (a *admitted) separates() bool { return a.route.separates() && !a.route.Shadow }

// mayName refuses what is not the payer's, or not paid. What the provider has told of over this connection is the payer's. It returns how many
// tokens are stored in what is named.
func (a *admitted) mayName(uses []meter.Resource) (stored int64, refusal *ledger.Refusal) {
	if len(uses) == 0 || a.route.Shadow {
		return 0, nil
	}
	noted, err := a.gateway.book.Noted(a.kept(uses))
	if err != nil {
		return 0, asRefusal(err)
	}
	for i, r := range uses {
		stored += noted[i].Tokens
		switch {
		case len(noted[i].Owed) > 0:
			return 0, refuse(escrow.InsufficientFunds, "an answer in "+strconv.Quote(r.ID)+" is not paid in full: pay it first, by reading it with a request", "resource", r.Kind+"/"+r.ID)
		case a.separates() && !a.owns(r, noted[i]) && !a.hasMade(r):
			return 0, unknown(r)
		}
	}
	return stored, nil
}

// hasMade reports whether the provider has told that it keeps a resource of this call.
func (a *admitted) hasMade(r meter.Resource) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.answer != nil && slices.Contains(a.answer.counter.Usage(false).Made, r)
}

// told finds the prices of what the client has named. The first model that it names is what the call asks for: the least that it costs
// is held before the provider hears of it. The call is locked.
func (a *admitted) told(told wire.Told) *ledger.Refusal {
	if a.end != nil {
		return asRefusal(errSettled)
	}
	c, first := a.call, a.call.Model == ""
	for _, model := range told.Models {
		switch {
		case model == c.Model || slices.Contains(c.Models, model):
		case c.Model == "":
			c.Model = model
		case len(c.Models) == maxTold:
			return unreadableRequest(&meter.AmbiguousError{Field: "model", Reason: "too many models are named on one connection"})
		default:
			c.Models = append(c.Models, model)
		}
	}
	for _, tier := range append(told.Tiers, c.ServiceTier) {
		c.ServiceTier = tier
		if refusal := a.findRates(); refusal != nil {
			return refusal
		}
	}
	pay, ok := a.pay.(*prepaid)
	if !ok || !first || c.Model == "" {
		return nil
	}
	least := a.bounds().least
	if a.limit > 0 {
		least = min(least, a.limit)
	}
	if err := pay.auth.Extend(least); err != nil {
		return asRefusal(err)
	}
	pay.covered = max(pay.covered, pay.auth.Total())
	return nil
}

// maxTold is how many models one connection can name beside the first.
const maxTold = 64

func (a *admitted) talkIsRefused() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.talk != nil && a.talk.refused != nil
}

// talked is what comes from the client through a tunnel that a CONNECT has opened.
type talked struct {
	io.ReadCloser
	talk *talk
}

func (b *talked) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if refused := b.talk.hear(p[:n]); refused != nil {
		return 0, refused
	}
	if err != nil || b.talk.reader.Closed() {
		b.talk.leave()
	}
	return n, err
}
