package gateway

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// Rail is a way to pay at the metered route itself, for callers without money in their wallet or without an account. A payment is booked
// into the wallet of the agent that stands for its payer, and the call is charged from that wallet like any other.
//
// A rail only speaks with the network outside. The gateway keeps the books: it writes a verified payment down before it has the rail settle
// it, books what was settled, and asks again for what is not known.
type Rail interface {
	// Name returns the rail's name. Together with a payment's id it identifies the payment in the books.
	Name() string
	// Challenge tells a caller that was refused how it can pay: in the header of the refusal, and in members of its problem object.
	Challenge(need Need, h http.Header) (members map[string]any)
	// Take removes a payment from the request, and reads it without asking anybody. found is false if the request has no payment of this
	// rail. If the error is a [*escrow.Refusal], the caller gets that refusal.
	Take(r *http.Request) (p Payable, found bool, err error)
	// Verify finds out whether a payment could be settled now. A refusal says why not.
	Verify(ctx context.Context, p Payable) error
	// Settle makes the money of a payment the operator's, and returns the id that the network outside has given to this. The same payment may
	// come again, also with nothing but its id and its proof; it must not move money twice. A refusal means that this did not move money, and
	// will not; if it wraps [ErrNotMade], no earlier try has or will either. Any other error means that it is not known.
	Settle(ctx context.Context, p Payable) (outside string, err error)
	// Receipt tells the caller, in the header of the answer, that its payment was taken.
	Receipt(p Payable, outside string, h http.Header)
}

// Offerer is a rail that says before any call how it is paid, to programs that look for what is sold here.
type Offerer interface {
	// Offers returns the ways to pay, as the extension x-payment-info of OpenAPI has them: each with method, intent, amount, currency, and what
	// else the rail's clients need. Everybody may read them.
	Offers() []map[string]any
}

// Need is what a refused call needs.
type Need struct {
	URL      string        // of the call, as its caller has written it
	Required ledger.Amount // the least that the call needs; 0 if that is not known
	Refusal  string        // why the call was refused
	At       time.Time
	Payer    string // who has just paid on this rail, as in [Payable], if what it has paid does not reach; empty if nobody has
}

// ErrNotMade is in the refusal of a rail that is certain that a payment was not made, and will not be, whatever was tried before.
var ErrNotMade = errors.New("the payment was not made")

// Payable is a payment that a request has brought.
type Payable struct {
	ID     string // never used again on this rail
	Payer  string // the agent RAIL:PAYER stands for the payer
	Amount ledger.Amount
	Name   string    // the payer's own name for what it pays; it pays for a name once. Empty if it gave none
	Proof  []byte    // all that the rail needs to verify and settle it, also later
	Secret []byte    // what only the payer knew, as far as it can be told: a payment that comes again must have the same
	Ends   time.Time // after this it can't be settled
	// Nameless says that the rail can't tell one payer from another, so that Payer was made for this payment. If the request also has the key
	// of an agent that an earlier payment on this rail has made, that agent is the payer.
	Nameless bool
	At       time.Time // when it was booked; known to Receipt only
	OnlyGood bool      // the receipt may stand only in an answer that is a success
	UpTo     bool      // Amount is the most that may be settled, see [UpToRail]
}

const (
	// railTimeout is how long a rail may take to settle a payment. Networks settle within seconds.
	railTimeout = time.Minute
	// verifyTimeout is how long a rail may take to verify a payment.
	verifyTimeout = 10 * time.Second
	// againFor is how long after its end a payment that was booked may come again with its request. Everybody can read payments on a chain, so the
	// time is short.
	againFor = 10 * time.Minute
	// lostAfter is how long after its end a payment is asked for.
	lostAfter = 10 * time.Minute
)

// short are the outcomes for which a payment would help.
var short = map[ledger.Outcome]bool{
	escrow.InsufficientFunds: true, escrow.EscrowRequired: true, escrow.SubscriptionRequired: true,
	api.PaymentRequired: true, api.PaymentRefused: true,
}

// challenge offers the rails to a caller that was refused for lack of money, and returns the members that they add to the problem.
func (a *arrival) challenge(h http.Header, refusal *ledger.Refusal) map[string]any {
	if !a.offersRails(refusal) {
		return nil
	}
	need := a.need(refusal)
	members := make(map[string]any)
	for _, rail := range a.gateway.options.Rails {
		need.Payer, _ = strings.CutPrefix(a.paidAs, escrow.RailAgent(rail.Name(), ""))
		if need.Payer == a.paidAs {
			need.Payer = "" // it has paid on another rail, or nobody has
		}
		maps.Copy(members, rail.Challenge(need, h))
	}
	return members
}

// offersRails reports whether a caller that was refused could pay by a rail.
func (a *arrival) offersRails(refusal *ledger.Refusal) bool {
	return len(a.gateway.options.Rails) > 0 && short[refusal.Outcome] && a.route.Identity == nil && a.outer == nil
}

// need returns what a call that was refused needs.
func (a *arrival) need(refusal *ledger.Refusal) Need {
	need := Need{URL: urlOf(a.request, a.gateway.options.Path(a.request)), Refusal: refusal.Detail, At: a.gateway.book.Now()}
	need.Required, _ = ledger.ParseAmount(refusal.Fields["required"])
	return need
}

func urlOf(r *http.Request, path string) string {
	scheme := "https"
	if r.TLS == nil {
		scheme = "http"
	}
	return scheme + "://" + r.Host + path
}

// redeem takes the payment from the request, if there is one, and makes its payer the payer of the call.
func (a *arrival) redeem() (paid bool, refusal *ledger.Refusal) {
	if a.route.Shadow {
		return false, nil
	}
	for _, rail := range a.gateway.options.Rails {
		p, found, err := rail.Take(a.request)
		if err == nil && found {
			err = a.accept(rail, p)
		}
		if err != nil {
			return false, asRefusal(err)
		}
		if found {
			dropPayments(a.gateway.options.Rails, a.request)
			return true, nil
		}
	}
	return a.signIn()
}

// accept collects a payment. A payment serves one request: it names the call as an idempotency key does, so that the call is charged once
// however often it comes. On many rails everybody can read the payments that were made, so a payment that was booked before is worth
// something only to who sends the same request again, with the same secret.
func (a *arrival) accept(rail Rail, p Payable) error {
	payer, err := a.payerOf(rail, p)
	if err != nil {
		return err
	}
	payment := escrow.RailPayment{
		Rail: rail.Name(), ID: p.ID, Agent: payer.Agent, Amount: p.Amount, Proof: p.Proof, Request: a.printOf(p.Secret), Ends: p.Ends, Name: p.Name,
	}
	if after, is := rail.(UpToRail); is && p.UpTo {
		if made, err := a.promises(after, p, payment); made || err != nil {
			return err
		}
	}
	// A payment that has begun is booked even if its caller is leaving.
	done, err, _ := a.gateway.collecting.Do(payment.Rail+"\x00"+payment.ID, func() (any, error) {
		return a.gateway.collect(context.WithoutCancel(a.client), rail, p, payment)
	})
	if err != nil {
		return a.notPaid(payment, err)
	}
	booked := done.(collected)
	if booked.Agent != payment.Agent || subtle.ConstantTimeCompare(booked.Request, payment.Request) != 1 {
		return refusePayment("the payment was made for another request", "used")
	}
	if !booked.now && a.gateway.book.Now().After(booked.Ends.Add(againFor)) {
		return refusePayment("the payment was made, but its time is over: use the key of the agent for what is left of it", "expired")
	}
	if a.payer, err = a.gateway.book.Standing(payer); err != nil {
		return err
	}
	if payer.Key == "" {
		a.paidAs = payer.Agent
	}
	p.At, p.Amount = booked.At, booked.Amount
	a.thank(rail, p, booked.Outside)
	a.nameBy(payment)
	return a.giveKey(booked)
}

// nameBy names the call by the payment that it came with.
func (a *arrival) nameBy(payment escrow.RailPayment) {
	a.key, a.terms.idempotencyKey = hex.EncodeToString(payment.Request), payment.Rail+":"+payment.ID
}

// giveKey puts the key of a payer's agent into the answer to its first payment.
func (a *arrival) giveKey(booked collected) error {
	if !booked.now {
		return nil
	}
	key, err := escrow.Do(context.WithoutCancel(a.client), a.gateway.book, func(tx *escrow.Tx) (string, error) { return tx.FirstKey(booked.Agent) })
	if err == nil && key != "" {
		a.receipt.Set("Authorization", "Bearer "+key) // Caddy's logs show no header of this name
	}
	return err
}

// payerOf returns the agent that stands for the payer of a payment.
func (a *arrival) payerOf(rail Rail, p Payable) (escrow.Actor, error) {
	if p.Nameless && a.key != "" {
		holder, err := byKey{Gateway: a.gateway}.Identify(a.request, a.key)
		if err != nil || strings.HasPrefix(holder.Agent, escrow.RailAgent(rail.Name(), "")) {
			return holder, err
		}
	}
	return escrow.Actor{Agent: escrow.RailAgent(rail.Name(), p.Payer)}, nil
}

// thank has the rail write its receipt, for the answer.
func (a *arrival) thank(rail Rail, p Payable, outside string) {
	a.receipt, a.goodReceipt = make(http.Header), make(http.Header)
	if p.OnlyGood {
		rail.Receipt(p, outside, a.goodReceipt)
	} else {
		rail.Receipt(p, outside, a.receipt)
	}
}

// writeReceipt writes the receipt into the header of an answer of the provider, instead of what the provider says by these names.
func (a *arrival) writeReceipt(h http.Header, status int) {
	maps.Copy(h, a.receipt)
	for name, values := range a.goodReceipt {
		delete(h, name)
		if status/100 == 2 {
			h[name] = values
		}
	}
}

// notPaid returns the refusal of a payment that was not made. It limits clients that try many wrong payments.
func (a *arrival) notPaid(payment escrow.RailPayment, err error) error {
	switch asRefusal(err).Outcome {
	case api.PaymentRefused:
		if often := api.WrongKeys.Take(a.gateway.book.Claims(), a.gateway.options.Client(a.request)); often != nil {
			return often
		}
	case api.RailUnavailable:
		a.route.logger().Error("a payment rail does not answer", "rail", payment.Rail, "payment", payment.ID, "error", err)
	}
	return err
}

// printOf returns a digest of what a payment, or another proof that has this secret, must come with to be taken again.
func (a *arrival) printOf(secret []byte) []byte {
	sum := sha256.New()
	for _, part := range []string{a.request.Method, a.request.Host, a.gateway.options.Path(a.request), a.request.URL.RawQuery, string(secret)} {
		fmt.Fprintf(sum, "%d %s", len(part), part)
	}
	return sum.Sum(nil)
}

func refusePayment(detail, reason string) *ledger.Refusal {
	return refuse(api.PaymentRefused, detail, "reason", reason)
}

// collected is a payment that is in the books.
type collected struct {
	escrow.RailPayment
	now bool // it was booked for this request
}

// collect makes sure that a payment is booked. If it is not in the books, it is verified before anything is written.
func (g *Gateway) collect(ctx context.Context, rail Rail, p Payable, payment escrow.RailPayment) (collected, error) {
	noted, found, err := g.book.RailPayment(payment.Rail, payment.ID)
	switch {
	case err != nil:
		return collected{}, err
	case found && !noted.Pending:
		return collected{RailPayment: noted}, nil
	case found:
		if p.UpTo { // the price of the call is in what was noted
			p.Proof, p.Amount = noted.Proof, noted.Amount
		}
		return g.settle(ctx, rail, p, noted, true)
	}
	if err := g.book.CheckPaymentName(payment); err != nil {
		return collected{}, err
	}
	if err := g.verify(ctx, rail, p); err != nil {
		return collected{}, err
	}
	return g.begin(ctx, rail, p, payment)
}

// begin writes a verified payment down, and settles it.
func (g *Gateway) begin(ctx context.Context, rail Rail, p Payable, payment escrow.RailPayment) (collected, error) {
	type begun struct {
		escrow.RailPayment
		first bool
	}
	b, err := escrow.Do(ctx, g.book, func(tx *escrow.Tx) (begun, error) {
		noted, first, err := tx.BeginFunding(payment)
		return begun{noted, first}, err
	})
	if err != nil {
		return collected{}, err
	}
	if !b.first && !b.Pending {
		return collected{RailPayment: b.RailPayment}, nil
	}
	if p.UpTo {
		p.Proof, p.Amount = b.Proof, b.Amount
	}
	return g.settle(ctx, rail, p, b.RailPayment, !b.first)
}

func (g *Gateway) verify(ctx context.Context, rail Rail, p Payable) error {
	if !p.Ends.After(g.book.Now()) {
		return refusePayment("the payment has expired", "expired")
	}
	ctx, cancel := context.WithTimeout(ctx, verifyTimeout)
	defer cancel()
	err := rail.Verify(ctx, p)
	if refusal := (*ledger.Refusal)(nil); err == nil || errors.As(err, &refusal) {
		return err
	}
	return noAnswer(err, "none", "the payment can't be verified at the moment, so nothing was paid; try again later")
}

// noAnswer refuses a call because a rail does not answer. paid is what is known about the payment: "none" or "unknown".
func noAnswer(cause error, paid, detail string) error {
	return fmt.Errorf("%w (%w)", refuse(api.RailUnavailable, detail, "paid", paid, "retry_after", "5"), cause)
}

// settle settles a payment that is written down, and books it. asked says whether the rail was told to settle it before: then a refusal may
// only mean that it was settled at that time.
func (g *Gateway) settle(ctx context.Context, rail Rail, p Payable, payment escrow.RailPayment, asked bool) (collected, error) {
	if payment.Lost {
		return collected{}, refuse(api.RailUnavailable, "it is not known whether this payment was made; ask the operator", "paid", "unknown")
	}
	settling, cancel := context.WithTimeout(ctx, railTimeout)
	defer cancel()
	outside, err := rail.Settle(settling, p)
	if refusal := (*ledger.Refusal)(nil); errors.As(err, &refusal) && (!asked || errors.Is(err, ErrNotMade)) {
		_, dropped := escrow.Do(ctx, g.book, func(tx *escrow.Tx) (struct{}, error) {
			return struct{}{}, tx.DropFunding(payment.Rail, payment.ID)
		})
		return collected{}, errors.Join(err, dropped)
	}
	if err != nil {
		return collected{}, noAnswer(err, "unknown", "it is not known yet whether the payment was made: send the same request with the same payment again; it is not paid twice")
	}
	payment.Outside = outside
	return escrow.Do(ctx, g.book, func(tx *escrow.Tx) (collected, error) {
		booked, first, err := tx.Fund(payment)
		return collected{booked, first}, err
	})
}

// pendingAtOnce is how many payments one round of [Gateway.CollectPending] asks for.
const pendingAtOnce = 100

// CollectPending asks for the payments of which it is not known whether they were made, and books those that were. It gives up a payment
// some time after it has ended, and tells the operator.
func (g *Gateway) CollectPending(ctx context.Context, logger *slog.Logger) error {
	pending, err := g.book.PendingPayments(pendingAtOnce)
	for _, payment := range pending {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if g.book.Now().Sub(payment.At) < g.railPatience {
			continue // a request waits for it
		}
		failed := g.collectAgain(ctx, payment)
		if failed == nil {
			logger.Info("a payment was made whose outcome was not known", "rail", payment.Rail, "payment", payment.ID, "agent", payment.Agent, "amount", payment.Amount.String())
			continue
		}
		if errors.Is(failed, ErrNotMade) {
			logger.Info("a payment was not made whose outcome was not known", "rail", payment.Rail, "payment", payment.ID, "reason", failed)
			continue
		}
		logger.Warn("it is still not known whether a payment was made", "rail", payment.Rail, "payment", payment.ID, "error", failed)
		if ctx.Err() != nil || g.book.Now().Before(payment.Ends.Add(lostAfter)) {
			continue
		}
		_, lost := escrow.Do(ctx, g.book, func(tx *escrow.Tx) (struct{}, error) {
			return struct{}{}, tx.LoseFunding(payment.Rail, payment.ID)
		})
		logger.Error("it will not become known whether a payment was made: look it up outside; if it was, book it by a deposit", "rail", payment.Rail,
			"payment", payment.ID, "agent", payment.Agent, "amount", payment.Amount.String())
		err = errors.Join(err, lost)
	}
	return err
}

func (g *Gateway) collectAgain(ctx context.Context, payment escrow.RailPayment) error {
	i := slices.IndexFunc(g.options.Rails, func(rail Rail) bool { return rail.Name() == payment.Rail })
	if i < 0 {
		return errors.New("its rail is no longer configured")
	}
	p := Payable{ID: payment.ID, Payer: strings.TrimPrefix(payment.Agent, escrow.RailAgent(payment.Rail, "")), Amount: payment.Amount, Proof: payment.Proof, Ends: payment.Ends}
	_, err, _ := g.collecting.Do(payment.Rail+"\x00"+payment.ID, func() (any, error) {
		return g.settle(ctx, g.options.Rails[i], p, payment, true)
	})
	return err
}
