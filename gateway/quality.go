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

// Quality makes the price of an answer depend on its quality: a judge gives a score, and the score decides how much of the price is paid.
type Quality struct {
	Judge Judge
	// Tiers are tried in their order, and the first that the score reaches decides. The last one accepts any score.
	Tiers []escrow.Tier
	// Unscored says what is paid for an answer without a score.
	Unscored Unscored
}

// Unscored is what happens to the price of an answer that has no score, or whose score is not a number.
type Unscored int

// The values of Unscored. The price is held until there is a score or the operator decides, or paid in full, or not paid at all.
const (
	UnscoredHold Unscored = iota
	UnscoredPay
	UnscoredRefund
)

// Judge scores the answers of a route. Implementations: [ScoreProbe], [HTTPJudge] and [PayerJudge]; other packages may add theirs.
type Judge interface {
	// ReadsBody reports whether the judge must see the bodies of answers, so that they must not be compressed.
	ReadsBody() bool
	// Watch is called for each answer that begins, and returns its watcher.
	Watch(Answer) Watcher
}

// Watcher watches one answer while it passes.
type Watcher interface {
	// Feed takes the next bytes of the decoded body. It must not keep p.
	Feed(p []byte)
	// Score is called once, when the answer is complete and before it is charged. price is the full price. An error says why there is no
	// score.
	Score(ctx context.Context, price func() (ledger.Amount, bool)) (Score, error)
}

// Answer is an answer to be judged, with its request.
type Answer struct {
	Request string // the id of the call
	Payer   string
	Payee   string
	Route   string
	Asked   *http.Request // the request as it was sent to the provider
	Body    []byte        // the body of the request, if it was read to price the call
	Call    *meter.Call
	Status  int
	Header  http.Header
}

// Score is what a judge says about an answer.
type Score struct {
	// Value is the score, as decimal text. Any other text means that there is no score.
	Value string
	// PayerWithin, if above 0, leaves the score to the payer, who has this long. A payer that gives no score pays in full.
	PayerWithin time.Duration
	// Later, if there is no score now, is what the judge needs to be asked again. It is stored with the held price.
	Later []byte
}

const paidInFull = 1_000_000 // parts per million

// undecidedFor is how long a judge may take to give a score. After that the operator decides.
const undecidedFor = 7 * 24 * time.Hour

// judge gets the quality of a complete answer before it is charged, or nil if nobody judges it. It asks the judge without the call's lock,
// so that the end of the process can settle the call.
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

// answerTo returns an answer to this call, for its judge.
func (a *admitted) answerTo(status int, h http.Header) Answer {
	return Answer{
		Request: a.id, Payer: a.payer.Agent, Payee: a.route.Payee, Route: a.route.Name, Asked: a.request, Body: a.body, Call: a.call, Status: status, Header: h,
	}
}

// verdict sets a header that states the quality: "score=0.93" or "held".
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

// ScoreProbe is a [Judge] that reads the score from the provider's own answer: a header, or a value in its JSON.
type ScoreProbe struct {
	Probe *probe.Probe
	Body  bool // the score is in the body
}

// ReadsBody implements [Judge].
func (p ScoreProbe) ReadsBody() bool { return p.Body }

// Watch implements [Judge].
func (p ScoreProbe) Watch(a Answer) Watcher {
	return &scoreReader{p.Probe.Reader(a.Call, a.Status, a.Header)}
}

type scoreReader struct{ *probe.Reader }

func (r *scoreReader) Score(context.Context, func() (ledger.Amount, bool)) (Score, error) {
	r.End()
	text, _ := r.Text()
	return Score{Value: text}, nil
}

// PayerJudge is a [Judge] that lets the agent that pays give the score, within a time.
type PayerJudge struct{ Within time.Duration }

// ReadsBody implements [Judge].
func (PayerJudge) ReadsBody() bool { return false }

// Watch implements [Judge].
func (p PayerJudge) Watch(Answer) Watcher { return byPayer(p) }

type byPayer PayerJudge

func (byPayer) Feed([]byte) {}

func (p byPayer) Score(context.Context, func() (ledger.Amount, bool)) (Score, error) {
	return Score{PayerWithin: p.Within}, nil
}
