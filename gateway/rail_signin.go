package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// SignInRail is a rail whose payers can prove who they are without paying, and so spend what is left of their credit without a key. Its
// Challenge tells callers how.
type SignInRail interface {
	Rail
	// SignIn removes the proof from the request, and checks it. url is that of the call, as its caller has written it. found is false if the
	// request has no proof. A refusal says what is wrong with it.
	SignIn(r *http.Request, url string, now time.Time) (s SignedIn, found bool, err error)
}

// SignedIn is a payer that has proved who it is. A proof serves one request.
type SignedIn struct {
	Payer  string // as in [Payable]
	ID     string // of the proof; a payer never uses it again
	Bound  bool   // the proof is for the path of the request alone
	Secret []byte // what only the payer knew
	// Receipt has what the rail says about this in an answer that is a success; it may be nil.
	Receipt http.Header
}

// dropPayments removes other payments and proofs from a request that has paid, since they are not for the provider.
func dropPayments(rails []Rail, r *http.Request) {
	for _, rail := range rails {
		_, _, _ = rail.Take(r)
		if rail, signs := rail.(SignInRail); signs {
			_, _, _ = rail.SignIn(r, "", time.Time{})
		}
	}
}

// signIn makes the payer that has signed in the payer of the call, if the request has a proof. A proof that is refused is as good as none, if
// the request has a key.
func (a *arrival) signIn() (found bool, refusal *ledger.Refusal) {
	for _, rail := range a.gateway.options.Rails {
		rail, signs := rail.(SignInRail)
		if !signs {
			continue
		}
		s, found, err := rail.SignIn(a.request, urlOf(a.request, a.gateway.options.Path(a.request)), a.gateway.book.Now())
		if !found || a.key != "" {
			continue
		}
		if err == nil {
			err = a.admitSigned(rail, s)
		} else if often := api.WrongKeys.Take(a.gateway.book.Claims(), a.gateway.options.Client(a.request)); often != nil {
			err = often
		}
		if err != nil {
			return false, asRefusal(err)
		}
		return true, nil
	}
	return false, nil
}

// admitSigned makes a payer that has signed in the payer of the call. A proof serves one request, as a payment does: it names the call, or,
// if the caller has named the call by an idempotency key, it is used up by that name.
func (a *arrival) admitSigned(rail Rail, s SignedIn) (err error) {
	agent := escrow.RailAgent(rail.Name(), s.Payer)
	_, exists, err := a.gateway.book.Agent(agent)
	if err != nil {
		return err
	}
	if !exists {
		return refuse(api.PaymentRequired, "nothing was paid yet by who has signed in: pay for this call, as the answer's header and body say")
	}
	if a.payer, err = a.gateway.book.Standing(escrow.Actor{Agent: agent}); err != nil {
		return err
	}
	a.goodReceipt = s.Receipt
	seen := a.printOf(s.Secret)
	a.key = hex.EncodeToString(seen)
	if a.terms.idempotencyKey == "" {
		a.terms.idempotencyKey = rail.Name() + ":" + s.Payer + ":" + s.ID
		if s.Bound { // idempotency keys are those of a path
			return nil
		}
	}
	use := sha256.Sum256(append(seen, a.terms.idempotencyKey...))
	id := escrow.OnceID{Owner: "signed:" + agent, Key: s.ID}
	_, err = escrow.Once(context.WithoutCancel(a.client), a.gateway.book, id, use[:], func(*escrow.Tx) (struct{}, []byte, error) { return struct{}{}, nil, nil })
	if refusal := (*ledger.Refusal)(nil); errors.As(err, &refusal) && refusal.Outcome == escrow.IdempotencyConflict {
		return refusePayment("this proof was used for another request: sign in anew", "used")
	}
	return err
}
