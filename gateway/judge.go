package gateway

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// HTTPJudge is a [Judge] that is called over HTTP.
type HTTPJudge struct {
	URL string
	// Agent is the User-Agent of the questions. Default: "Tallygate-Judge".
	Agent string
}

// ReadsBody implements [Judge].
func (HTTPJudge) ReadsBody() bool { return true }

// Watch implements [Judge].
func (j HTTPJudge) Watch(a Answer) Watcher {
	return &httpWatcher{url: j.URL, agent: j.Agent, answer: a, contentType: a.Header.Get("Content-Type")}
}

// httpWatcher keeps the beginning of an answer for the judge.
type httpWatcher struct {
	url, agent  string
	answer      Answer
	contentType string
	body        []byte
	cut         bool // the answer has more than what is in body
}

func (w *httpWatcher) Feed(p []byte) {
	room := min(len(p), judgedResponseBytes-len(w.body))
	w.body = append(w.body, p[:room]...)
	w.cut = w.cut || room < len(p)
}

// Score asks the judge. If there is no score, Score returns the question with it, so that the judge can be asked again later.
func (w *httpWatcher) Score(ctx context.Context, price func() (ledger.Amount, bool)) (Score, error) {
	asked, err := json.Marshal(w.question(price))
	if err != nil {
		return Score{}, err
	}
	later, err := json.Marshal(laterQuestion{URL: w.url, Question: asked})
	if err != nil || len(later) > maxLater {
		later = nil
	}
	// The answer is complete, so it is judged even if its client is leaving.
	value, err := ask(context.WithoutCancel(ctx), w.url, w.agent, asked)
	if err != nil {
		return Score{Later: later}, fmt.Errorf("%s: %w", w.url, err)
	}
	if !isScore(value) {
		return Score{Later: later}, fmt.Errorf("%s answers %q, which is not a score", w.url, value)
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
		Request: judgedRequest{
			Method: a.Asked.Method, Path: a.Asked.URL.Path, Query: cutText([]byte(withoutKey(a.Asked.URL.RawQuery)), judgedRequestBytes), Body: cutText(a.Body, judgedRequestBytes),
		},
		Response: judgedResponse{Status: a.Status, ContentType: w.contentType, Body: cutText(w.body, judgedResponseBytes), Cut: w.cut},
	}
	if amount, ok := price(); ok {
		q.Price = amount.String()
	}
	return q
}

// withoutKey returns a query without the parameter in which clients put a provider's key. The caller's Tallygate key is not in it any more.
func withoutKey(query string) string {
	pairs := slices.DeleteFunc(strings.Split(query, "&"), func(pair string) bool {
		name, _, _ := strings.Cut(pair, "=")
		return unescaped(name) == "key"
	})
	return strings.Join(pairs, "&")
}

// question is what a judge gets, as JSON by POST. The judge answers with a number, or with a JSON object whose field `score` is a number.
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
	Query  string `json:"query,omitempty"` // as it was asked, but without a key; at most 16 KiB
	Body   string `json:"body,omitempty"`  // only if it was read to price the call; at most 16 KiB
}

type judgedResponse struct {
	Status      int    `json:"status"`
	ContentType string `json:"content_type,omitempty"`
	Body        string `json:"body"` // at most 32 KiB
	Cut         bool   `json:"cut,omitempty"`
}

const (
	judgedRequestBytes  = 16 << 10
	judgedResponseBytes = 32 << 10
	judgeTimeout        = 10 * time.Second
	maxScore            = 4 << 10  // bytes of a judge's answer
	maxLater            = 64 << 10 // bytes of a question that the ledger stores
)

// laterQuestion is a question that will be asked later. The ledger stores it with the open decision.
type laterQuestion struct {
	URL      string          `json:"url"`
	Question json.RawMessage `json:"question"`
}

// judgeClient calls the judges. It follows no redirect, since only the operator may say where a judge is.
var judgeClient = &http.Client{
	Timeout:       judgeTimeout,
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// cutText returns the beginning of a body as text.
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
func ask(ctx context.Context, url, agent string, question []byte) (score string, err error) {
	ctx, cancel := context.WithTimeout(ctx, judgeTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(question))
	if err != nil {
		return "", err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", cmp.Or(agent, "Tallygate-Judge"))
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

// readScore reads a number, or the number `score` of a JSON object. It keeps the digits as text, since scores are compared as decimals.
func readScore(body []byte) (string, error) {
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	var answer any
	if err := decoder.Decode(&answer); err != nil {
		return "", fmt.Errorf("the judge's answer is not JSON: %w", err)
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
		return "", fmt.Errorf("the judge's answer is neither a number nor an object with a number 'score'")
	}
}

const (
	heldPage      = 100 // open decisions that are read at a time
	judgesAtOnce  = 16  // questions that are asked at the same time
	judgeFailures = 8   // failures of one judge in a round, after which it is not asked again in that round
)

// Rejudge asks again for scores that judges over HTTP have not given, in rounds. A judge that fails several times is not asked again in the
// same round, so that it does not delay questions to other judges. The next round begins after the requests that failed, so that these do
// not delay other requests to the same judge. The zero value is ready to use.
type Rejudge struct {
	// Agent is the User-Agent of the questions. Default: "Tallygate-Judge".
	Agent string

	mu    sync.Mutex
	left  map[string]string // by a judge's URL: the request after which the next round begins
	fails map[string]int    // by a judge's URL: its failures in this round
}

// Round asks for each missing score, and decides the prices that were held for it. It leaves out prices that a payer or the operator
// decides.
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
				if !judgeAgain(ctx, book, decision, later, j.Agent, logger) {
					j.failed(later.URL, decision.RequestID)
				}
				return nil
			})
		}
	}
	_ = asking.Wait() // failures were logged
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

// end makes the next round begin at the start for each judge that was asked about all its requests.
func (j *Rejudge) end() {
	j.mu.Lock()
	defer j.mu.Unlock()
	for url := range j.left {
		if j.fails[url] < judgeFailures {
			delete(j.left, url)
		}
	}
}

// judgeAgain asks a judge again, and decides if it answers. It returns false if the judge does not answer.
func judgeAgain(ctx context.Context, book *escrow.Book, decision escrow.Decision, later laterQuestion, agent string, logger *slog.Logger) (answers bool) {
	work, err := book.Claims().Take(ctx, 1, escrow.Bound{Of: escrow.Thing{Kind: escrow.Work, Name: "judge " + decision.RequestID}, Left: decision.Waits})
	if err != nil {
		return true // another worker is asking at this moment
	}
	defer work.End()
	score, err := ask(ctx, later.URL, agent, later.Question)
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
