package gateway

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/wire"
)

// Over a WebSocket the client goes on asking, by messages that no request has. Where the price depends on what they say they are read on their
// way to the provider: the models that they name must have prices, and the dearest of all that are named is what the connection is charged
// at, unless an answer says that a dearer one has answered. What can't be metered is refused before it has gone on whole. As long as no model
// is named, the connection is one of the dearest model that there is.

// talk is what the client of a call says.
type talk struct {
	call    *admitted
	reader  *wire.Talk
	refused *ledger.Refusal // why no more of it goes on; the call's lock guards it
}

// errTalkRefused ends a connection whose client has asked for what is refused.
var errTalkRefused = errors.New("what the client asks for over the connection is refused")

// listen begins to read what the client says, where the price depends on that, or where it may name what is not the payer's.
func (a *admitted) listen() {
	if !a.call.Talks || !(a.separates() || a.tariff != nil && a.pay.costs()) {
		return
	}
	a.talk = &talk{call: a, reader: wire.NewTalk(a.call.TalksOf)}
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
	if refusal := a.mayName(told.Uses); refusal != nil {
		return refusal
	}
	if len(told.Models)+len(told.Tiers) == 0 || a.tariff == nil || !a.pay.costs() {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.told(told)
}

// separates reports whether what the call names must be the payer's.
func (a *admitted) separates() bool { return a.route.separates() && !a.route.Shadow }

// mayName refuses what is not the payer's, or not paid. What the provider has told of over this connection is the payer's.
func (a *admitted) mayName(uses []meter.Resource) *ledger.Refusal {
	if len(uses) == 0 || a.route.Shadow {
		return nil
	}
	noted, err := a.gateway.book.Noted(a.kept(uses))
	if err != nil {
		return asRefusal(err)
	}
	for i, r := range uses {
		switch {
		case len(noted[i].Owed) > 0:
			return refuse(escrow.InsufficientFunds, "an answer in "+strconv.Quote(r.ID)+" is not paid in full: pay it first, by reading it with a request", "resource", r.Kind+"/"+r.ID)
		case a.separates() && !a.owns(r, noted[i]) && !a.hasMade(r):
			return unknown(r)
		}
	}
	return nil
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
	return n, err
}
