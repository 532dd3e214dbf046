package caddymodule

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"go.uber.org/zap"

	"github.com/tallygate/tallygate/escrow"
)

// question is what a judge is asked, as JSON by POST. It answers with a number, or with JSON that has a number `score`.
type question struct {
	RequestID string         `json:"request_id"`
	Payer     string         `json:"payer"`
	Payee     string         `json:"payee"`
	Route     string         `json:"route"`
	Price     string         `json:"price"`
	Request   judgedRequest  `json:"request"`
	Response  judgedResponse `json:"response"`
}

type judgedRequest struct {
	Method string `json:"method"`
	Path   string `json:"path"`
	Body   string `json:"body,omitempty"` // where it was read to price the call, cut at 16 KiB
}

type judgedResponse struct {
	Status      int    `json:"status"`
	ContentType string `json:"content_type,omitempty"`
	Body        string `json:"body"` // cut at 32 KiB
	Cut         bool   `json:"cut,omitempty"`
}

const (
	judgedRequestBytes  = 16 << 10
	judgedResponseBytes = 32 << 10
	judgeTimeout        = 10 * time.Second
	maxScore            = 4 << 10
)

// kept is a question that is asked later: what the ledger keeps of an open decision.
type kept struct {
	URL      string          `json:"url"`
	Question json.RawMessage `json:"question"`
}

// judges asks the judges. It follows no redirect: where a judge is, the operator says.
var judges = &http.Client{
	Timeout:       judgeTimeout,
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// askJudge asks the judge of a complete answer. A judge that is down, or answers rubbish, is asked again later, unless
// on_error says otherwise.
func (q *Quality) askJudge(ctx context.Context, c *call) *escrow.Quality {
	asked, err := json.Marshal(c.question())
	if err != nil {
		return q.scored(c, "")
	}
	// The answer is complete: it is judged although its client may be leaving.
	score, err := ask(context.WithoutCancel(ctx), q.At, asked)
	if err == nil {
		if verdict, ok := escrow.Judge(q.tiers, score); ok {
			return &escrow.Quality{Verdict: verdict, Score: score}
		}
		err = fmt.Errorf("the judge answers %q, which is no score", score)
	}
	c.logger.Warn("the judge gives no score", zap.String("request", c.id), zap.String("judge", q.At), zap.String("on_error", q.OnError), zap.Error(err))
	if q.OnError != errorHold {
		return q.scored(c, "")
	}
	later, err := json.Marshal(kept{URL: q.At, Question: asked})
	if err != nil || len(later) > maxKeptQuestion {
		later = nil
	}
	return q.held(c, later)
}

// maxKeptQuestion is how many bytes of a question the ledger keeps.
const maxKeptQuestion = 64 << 10

// question is what the judge is asked of a complete answer.
func (c *call) question() question {
	c.mu.Lock() // the end of the process may settle the call meanwhile
	defer c.mu.Unlock()
	q := question{
		RequestID: c.id, Payer: c.payer.Agent, Payee: c.meter.Payee, Route: c.meter.route,
		Request:  judgedRequest{Method: c.request.Method, Path: c.request.URL.Path, Body: cutText(c.original, judgedRequestBytes)},
		Response: judgedResponse{Status: c.status, ContentType: c.contentType, Body: cutText(c.copied, judgedResponseBytes), Cut: c.copiedCut},
	}
	if c.counter != nil && c.rates != nil {
		usage := c.counter.Usage(true)
		if usage.Units != nil {
			c.addSeconds(usage.Units)
		}
		if bill, err := c.bill(usage, false); err == nil {
			q.Price = bill.amount.String()
		}
	}
	return q
}

// cutText is the beginning of a body as text.
func cutText(body []byte, limit int) string {
	if len(body) > limit {
		body = body[:limit]
	}
	if utf8.Valid(body) {
		return string(body)
	}
	return strings.ToValidUTF8(string(body), "\uFFFD")
}

// ask posts a question and reads the score.
func ask(ctx context.Context, url string, question []byte) (score string, err error) {
	ctx, cancel := context.WithTimeout(ctx, judgeTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(question))
	if err != nil {
		return "", err
	}
	r.Header.Set("Content-Type", "application/json")
	response, err := judges.Do(r)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxScore))
	if err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("the judge answers %s", response.Status)
	}
	return readScore(body)
}

// readScore reads a number, or the number `score` of a JSON object, as it is written: scores are compared as decimals.
func readScore(body []byte) (string, error) {
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	var answer any
	if err := decoder.Decode(&answer); err != nil {
		return "", fmt.Errorf("the judge answers no JSON: %w", err)
	}
	if object, ok := answer.(map[string]any); ok {
		answer = object["score"]
	}
	switch score := answer.(type) {
	case json.Number:
		return score.String(), nil
	case string:
		return score, nil
	default:
		return "", fmt.Errorf("the judge answers no number, and no object with a number 'score'")
	}
}

// heldPage bounds how many open decisions are read at a time.
const heldPage = 100

// judgeHeld asks again for the decisions that a judge still owes. Those that a payer or the operator decides it leaves alone.
func judgeHeld(ctx context.Context, book *escrow.Book, logger *zap.Logger) {
	for after := ""; ctx.Err() == nil; {
		open, err := book.OpenDecisions(ctx, after, heldPage)
		if err != nil || len(open) == 0 {
			return
		}
		for _, decision := range open {
			after = decision.RequestID
			var k kept
			if len(decision.Judge) == 0 || json.Unmarshal(decision.Judge, &k) != nil {
				continue
			}
			score, err := ask(ctx, k.URL, k.Question)
			if err != nil {
				logger.Debug("the judge still gives no score", zap.String("request", decision.RequestID), zap.Error(err))
				continue
			}
			verdict, ok := escrow.Judge(decision.Tiers, score)
			if !ok {
				continue
			}
			_, err = escrow.Do(ctx, book, func(tx *escrow.Tx) (escrow.Charge, error) { return tx.Decide(decision.RequestID, verdict, score) })
			if err != nil && !escrow.IsRefusal(err, escrow.InvalidStatus) {
				logger.Error("deciding a held charge", zap.String("request", decision.RequestID), zap.Error(err))
			}
		}
	}
}
