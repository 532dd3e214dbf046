package gateway

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/probe"
)

// Quality pays an answer by what it is worth: a judge scores it, and the score decides how much of the price is paid.
type Quality struct {
	Judge Judge
	// Tiers are tried in their order; the first that the score reaches decides. The last one takes any score.
	Tiers []escrow.Tier
	// Unscored says what an answer without a score is paid.
	Unscored Unscored
}

// Unscored is what happens to the price of an answer that has no score, or something else in its place.
type Unscored int

// The price is held until there is a score or the operator decides, paid in full, or not paid at all.
const (
	UnscoredHold Unscored = iota
	UnscoredPay
	UnscoredRefund
)

// Judge scores the answers of a route. Implementations: [ScoreProbe], [HTTPJudge] and [PayerJudge]; other packages may add theirs.
type Judge interface {
	// ReadsBody reports whether the judge needs to see the bodies of answers, so that they must not be compressed.
	ReadsBody() bool
	// Watch is told of each answer that begins, and returns what watches it.
	Watch(Answer) Watcher
}

// Watcher sees one answer go by.
type Watcher interface {
	// Feed takes the next bytes of the decoded body. It must not keep p.
	Feed(p []byte)
	// Score is called once, when the answer is complete and before it is charged. price is what it costs if it is paid in full. An error
	// says why there is no score.
	Score(ctx context.Context, price func() (ledger.Amount, bool)) (Score, error)
}

// Answer is an answer to be judged, and what was asked.
type Answer struct {
	Request string // the call's id
	Payer   string
	Payee   string
	Route   string
	Asked   *http.Request // as it went on to the provider
	Body    []byte        // of the request, where it was read to price the call
	Call    *meter.Call
	Status  int
	Header  http.Header
}

// Score is what a judge says of an answer.
type Score struct {
	// Value is the score, as decimal text. Anything else is no score.
	Value string
	// PayerWithin, above 0, leaves the score to the payer, who has this long: silence pays in full.
	PayerWithin time.Duration
	// Later is what the judge can be asked with at another time, where it gives no score now; it is kept with the held price.
	Later []byte
}

const paidInFull = 1_000_000 // parts per million

// undecidedFor is how long a judge that gives no score may take until it does; then the operator decides.
const undecidedFor = 7 * 24 * time.Hour

// judge finds out what a complete answer is worth, before it is charged; nil where nobody judges it. A judge is asked without the call's
// lock, so that the end of the process can settle the call.
func (c *counting) judge() *escrow.Quality {
	if c.watcher == nil {
		return nil
	}
	q := c.route.Quality
	score, err := c.watcher.Score(c.request.Context(), c.price)
	now := c.gateway.book.Now()
	if score.PayerWithin > 0 {
		return &escrow.Quality{Hold: true, Decision: &escrow.Decision{
			DecideBy: now.Add(score.PayerWithin), AtEnd: escrow.Verdict{Share: paidInFull}, Tiers: q.Tiers, ByPayer: true,
		}}
	}
	value := strings.TrimSpace(score.Value)
	if verdict, ok := escrow.Judge(q.Tiers, value); ok {
		return &escrow.Quality{Verdict: verdict, Score: value}
	}
	if err != nil {
		c.route.logger().Warn("the judge gives no score", "request", c.id, "error", err)
	}
	switch q.Unscored {
	case UnscoredPay:
		return &escrow.Quality{Verdict: escrow.Verdict{Share: paidInFull}}
	case UnscoredRefund:
		return &escrow.Quality{}
	default:
		return &escrow.Quality{Hold: true, Decision: &escrow.Decision{
			DecideBy: now.Add(undecidedFor), Tiers: q.Tiers, Judge: score.Later, AtEnd: escrow.Verdict{Dispute: true},
		}}
	}
}

// answerTo is an answer to this call, for its judge.
func (a *admitted) answerTo(status int, h http.Header) Answer {
	return Answer{
		Request: a.id, Payer: a.payer.Agent, Payee: a.route.Payee, Route: a.route.Name, Asked: a.request, Body: a.body, Call: a.call, Status: status, Header: h,
	}
}

// verdict tells in a header what the answer was found worth: "score=0.93" or "held".
func (s *settled) verdict() string {
	switch q := s.quality; {
	case q == nil:
		return ""
	case q.Hold:
		return "held"
	case q.Verdict.Dispute:
		return "disputed; score=" + q.Score
	case q.Score == "":
		return "unscored"
	default:
		return "score=" + q.Score
	}
}

// ScoreProbe reads the score from the provider's own answer: a header, or a value in its JSON.
type ScoreProbe struct {
	Probe *probe.Probe
	Body  bool // the score stands in the body
}

// ReadsBody is [Judge]'s.
func (p ScoreProbe) ReadsBody() bool { return p.Body }

// Watch is [Judge]'s.
func (p ScoreProbe) Watch(a Answer) Watcher {
	return &scoreReader{p.Probe.Reader(a.Call, a.Status, a.Header)}
}

type scoreReader struct{ *probe.Reader }

func (r *scoreReader) Score(context.Context, func() (ledger.Amount, bool)) (Score, error) {
	r.End()
	text, _ := r.Text()
	return Score{Value: text}, nil
}

// PayerJudge lets the agent that paid say what the answer is worth, within a time.
type PayerJudge struct{ Within time.Duration }

// ReadsBody is [Judge]'s.
func (PayerJudge) ReadsBody() bool { return false }

// Watch is [Judge]'s.
func (p PayerJudge) Watch(Answer) Watcher { return byPayer(p) }

type byPayer PayerJudge

func (byPayer) Feed([]byte) {}

func (p byPayer) Score(context.Context, func() (ledger.Amount, bool)) (Score, error) {
	return Score{PayerWithin: p.Within}, nil
}
