package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// HTTPJudge asks a judge over HTTP.
type HTTPJudge struct{ URL string }

// ReadsBody is [Judge]'s.
func (HTTPJudge) ReadsBody() bool { return true }

// Watch is [Judge]'s.
func (j HTTPJudge) Watch(a Answer) Watcher {
	return &httpWatcher{url: j.URL, answer: a, contentType: a.Header.Get("Content-Type")}
}

// httpWatcher keeps the beginning of an answer for the judge.
type httpWatcher struct {
	url         string
	answer      Answer
	contentType string
	body        []byte
	cut         bool // the answer has more than body
}

func (w *httpWatcher) Feed(p []byte) {
	room := min(len(p), judgedResponseBytes-len(w.body))
	w.body = append(w.body, p[:room]...)
	w.cut = w.cut || room < len(p)
}

// Score asks the judge. What it was asked comes with the score: where that is none, the judge is asked again later.
func (w *httpWatcher) Score(ctx context.Context, price func() (ledger.Amount, bool)) (Score, error) {
	asked, err := json.Marshal(w.question(price))
	if err != nil {
		return Score{}, err
	}
	later, err := json.Marshal(laterQuestion{URL: w.url, Question: asked})
	if err != nil || len(later) > maxLater {
		later = nil
	}
	// The answer is complete: it is judged although its client may be leaving.
	value, err := ask(context.WithoutCancel(ctx), w.url, asked)
	if err != nil {
		return Score{Later: later}, fmt.Errorf("%s: %w", w.url, err)
	}
	if !isScore(value) {
		return Score{Later: later}, fmt.Errorf("%s answers %q, which is no score", w.url, value)
	}
	return Score{Value: value}, nil
}

// isScore reports whether a text is a number that can be compared with tiers.
func isScore(text string) bool {
	_, ok := escrow.Judge([]escrow.Tier{{}}, text)
	return ok
}

func (w *httpWatcher) question(price func() (ledger.Amount, bool)) question {
	a := w.answer
	q := question{
		RequestID: a.Request, Payer: a.Payer, Payee: a.Payee, Route: a.Route,
		Request:  judgedRequest{Method: a.Asked.Method, Path: a.Asked.URL.Path, Body: cutText(a.Body, judgedRequestBytes)},
		Response: judgedResponse{Status: a.Status, ContentType: w.contentType, Body: cutText(w.body, judgedResponseBytes), Cut: w.cut},
	}
	if amount, ok := price(); ok {
		q.Price = amount.String()
	}
	return q
}

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
	maxScore            = 4 << 10  // bytes of a judge's answer
	maxLater            = 64 << 10 // bytes of a question that the ledger keeps
)

// laterQuestion is a question that is asked later: what the ledger keeps of an open decision.
type laterQuestion struct {
	URL      string          `json:"url"`
	Question json.RawMessage `json:"question"`
}

// judgeClient asks the judges. It follows no redirect: the operator says where a judge is.
var judgeClient = &http.Client{
	Timeout:       judgeTimeout,
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
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
	response, err := judgeClient.Do(r)
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

const (
	heldPage      = 100 // open decisions that are read at a time
	judgesAtOnce  = 16  // questions that are asked at once
	judgeFailures = 8   // of one judge, after which it is asked no more in a round
)

// Rejudge asks once more for the scores that judges over HTTP still owe, in rounds. A judge that fails several times is asked no more in a
// round, so that other judges' questions do not wait for it; the next round goes on behind those that failed, so that they keep no others
// of that judge waiting. The zero value is ready.
type Rejudge struct {
	mu    sync.Mutex
	left  map[string]string // by a judge's URL: the request behind which the next round goes on
	fails map[string]int    // by a judge's URL, in this round
}

// Round asks for each score that is owed, and decides the prices that were held for it. Prices that a payer or the operator decides are left
// alone.
func (j *Rejudge) Round(ctx context.Context, book *escrow.Book, logger *slog.Logger) {
	j.begin()
	var asking errgroup.Group
	asking.SetLimit(judgesAtOnce)
	for after := ""; ctx.Err() == nil; {
		open, err := book.OpenDecisions(ctx, after, heldPage)
		if err != nil || len(open) == 0 {
			break
		}
		for _, decision := range open {
			after = decision.RequestID
			var later laterQuestion
			if len(decision.Judge) == 0 || json.Unmarshal(decision.Judge, &later) != nil || !j.asks(later.URL, after) {
				continue
			}
			asking.Go(func() error {
				if !judgeAgain(ctx, book, decision, later, logger) {
					j.failed(later.URL, decision.RequestID)
				}
				return nil
			})
		}
	}
	_ = asking.Wait() // what fails is told to the logger
	j.end()
}

func (j *Rejudge) begin() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.fails = map[string]int{}
	if j.left == nil {
		j.left = map[string]string{}
	}
}

// asks reports whether a judge is asked about a request in this round.
func (j *Rejudge) asks(url, request string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.fails[url] < judgeFailures && request > j.left[url]
}

func (j *Rejudge) failed(url, request string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.fails[url]++; j.fails[url] == judgeFailures {
		j.left[url] = max(j.left[url], request)
	}
}

// end has the next round begin anew for each judge that was asked about all.
func (j *Rejudge) end() {
	j.mu.Lock()
	defer j.mu.Unlock()
	for url := range j.left {
		if j.fails[url] < judgeFailures {
			delete(j.left, url)
		}
	}
}

// judgeAgain asks a judge once more, and decides if it answers. It returns false where the judge does not.
func judgeAgain(ctx context.Context, book *escrow.Book, decision escrow.Decision, later laterQuestion, logger *slog.Logger) (answers bool) {
	work, err := book.Claims().Take(ctx, 1, escrow.Bound{Of: escrow.Thing{Kind: escrow.Work, Name: "judge " + decision.RequestID}, Most: 1})
	if err != nil {
		return true // another worker asks at this moment
	}
	defer work.End()
	score, err := ask(ctx, later.URL, later.Question)
	if err != nil {
		logger.Debug("the judge still gives no score", "request", decision.RequestID, "error", err)
		return false
	}
	verdict, ok := escrow.Judge(decision.Tiers, score)
	if !ok {
		return true
	}
	_, err = escrow.Do(ctx, book, func(tx *escrow.Tx) (escrow.Charge, error) { return tx.Decide(decision.RequestID, verdict, score) })
	if err != nil && !escrow.IsRefusal(err, escrow.InvalidStatus) {
		logger.Error("deciding a held charge", "request", decision.RequestID, "error", err)
	}
	return true
}
