package gateway_test

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/gateway"
)

// TestQuestionsThatFailKeepNoOthersWaiting: a judge that fails on many questions is asked a limited number of them in a round, and later
// rounds get to the questions that it answers.
func TestQuestionsThatFailKeepNoOthersWaiting(t *testing.T) {
	t.Parallel()
	const bad, good = 60, 5
	var down atomic.Bool
	var asked atomic.Int64
	judge := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		question, _ := io.ReadAll(r.Body)
		if down.Load() || strings.Contains(string(question), "poison") {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		_, _ = io.WriteString(w, "1")
	}))
	defer judge.Close()
	answer := "poison"
	s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{
		Rates: rates(t, "0.01 per call"),
		Quality: &gateway.Quality{
			Judge: gateway.HTTPJudge{URL: judge.URL}, Tiers: []escrow.Tier{{AtLeast: "0.5", Verdict: escrow.Verdict{Share: 1_000_000}}}, Unscored: gateway.UnscoredHold,
		},
	}, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, answer) })
	down.Store(true)
	for i := range bad + good {
		if i == bad {
			answer = "an answer"
		}
		response, _ := s.get()
		want(t, "quality", response.Header.Get("Tallygate-Quality"), "held")
	}
	down.Store(false)
	var judging gateway.Rejudge
	for round := range 10 {
		asked.Store(0)
		judging.Round(t.Context(), s.book, slog.New(slog.DiscardHandler))
		if n := asked.Load(); n > 8+16+good {
			t.Errorf("round %d asks %d questions of a judge that fails", round, n)
		}
	}
	open, err := s.book.OpenDecisions(t.Context(), "", 1000)
	must(t, err)
	want(t, "decisions that are still open", fmt.Sprint(len(open)), fmt.Sprint(bad))
}
