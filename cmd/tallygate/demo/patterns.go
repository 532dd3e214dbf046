package demo

import (
	"fmt"
	"hash/fnv"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/tidwall/sjson"
)

// feedAPI serves GET /feed: headlines, for a flat rate.
func feedAPI() http.Handler {
	type item struct {
		Title string `json:"title"`
		URL   string `json:"url"`
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /feed", func(w http.ResponseWriter, _ *http.Request) {
		items := make([]item, len(corpus))
		for i, p := range corpus {
			items[i] = item{p.Title, p.URL}
		}
		answer(w, http.StatusOK, map[string][]item{"items": items})
	})
	return mux
}

const mostEvents = 100_000

// liveAPI serves GET /live[?events=N]: N server-sent events, 20 by default, each with the price of an invented good, and then [DONE].
func liveAPI(pace pace) http.Handler {
	type tick struct {
		Seq   int    `json:"seq"`
		Good  string `json:"good"`
		Price string `json:"price"`
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /live", func(w http.ResponseWriter, r *http.Request) {
		n, ok := count(r, "events", 20, mostEvents)
		if !ok {
			refuse(w, http.StatusBadRequest, fmt.Sprintf("events must be a whole number from 1 to %d", mostEvents))
			return
		}
		stream := startEvents(w)
		for seq := 1; seq <= n; seq++ {
			if seq > 1 && !pace.wait(r) {
				return
			}
			stream.send("tick", tick{seq, "tulips", fmt.Sprintf("%d.%02d", 10+seq%7, seq*37%100)})
		}
		stream.send("", "[DONE]")
	})
	return mux
}

// predictAPI serves GET /predict?symbol=NAME[&score=S]: up or down, with a score from 0 to 1. The score is in the header X-Score and in the body's
// "score". It depends on the symbol, unless the request sets it in order to try the tiers of a price by quality.
func predictAPI() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /predict", func(w http.ResponseWriter, r *http.Request) {
		symbol := r.URL.Query().Get("symbol")
		if symbol == "" {
			refuse(w, http.StatusBadRequest, "symbol is missing: ask with /predict?symbol=TULIP")
			return
		}
		digest := fnv.New32a()
		io.WriteString(digest, symbol)
		percent := int(digest.Sum32() % 101)
		if text := r.URL.Query().Get("score"); text != "" {
			var ok bool
			if percent, ok = percentOf(text); !ok {
				refuse(w, http.StatusBadRequest, "score must be a number from 0 to 1 with at most two decimals, such as 0.72")
				return
			}
		}
		direction := [...]string{"down", "up"}[digest.Sum32()/101%2]
		score := fmt.Sprintf("%d.%02d", percent/100, percent%100)
		w.Header().Set("X-Score", score)
		answer(w, http.StatusOK, map[string]string{"symbol": symbol, "prediction": direction, "score": score})
	})
	return mux
}

var hundredths = regexp.MustCompile(`^(0(\.\d{1,2})?|1(\.0{1,2})?)$`)

// percentOf reads a number from 0 to 1 with at most two decimals.
func percentOf(text string) (percent int, ok bool) {
	if !hundredths.MatchString(text) {
		return 0, false
	}
	whole, decimals, _ := strings.Cut(text, ".")
	percent, err := strconv.Atoi(whole + (decimals + "00")[:2])
	return percent, err == nil
}

var scored = regexp.MustCompile(`\\?"score\\?"\s*:\s*\\?"?([01](?:\.\d+)?)`)

const mostJudged = 1 << 20 // bytes

// judgeAPI serves POST /judge. It answers {"score": S} with the score that the judged answer contains, or 0 if it contains none. A score in
// what was asked does not count. A real judge would compute the score itself.
func judgeAPI() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /judge", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, mostJudged))
		if err != nil {
			refuse(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("more than %d bytes to judge", mostJudged))
			return
		}
		if answered, err := sjson.DeleteBytes(body, "request"); err == nil {
			body = answered
		}
		score := "0"
		if m := scored.FindSubmatch(body); m != nil {
			score = string(m[1])
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, "{\"score\":%s}\n", score)
	})
	return mux
}

// saasAPI serves GET /saas?text=TEXT: a small tool that counts.
func saasAPI() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /saas", func(w http.ResponseWriter, r *http.Request) {
		text := r.URL.Query().Get("text")
		answer(w, http.StatusOK, struct {
			Text       string `json:"text"`
			Words      int    `json:"words"`
			Characters int    `json:"characters"`
		}{text, len(strings.Fields(text)), len([]rune(text))})
	})
	return mux
}

const mostRows = 10_000

// rowsAPI serves GET /rows[?limit=N]: N rows of CSV, 250 by default, with their number in the header X-Row-Count.
func rowsAPI() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /rows", func(w http.ResponseWriter, r *http.Request) {
		n, ok := count(r, "limit", 250, mostRows)
		if !ok {
			refuse(w, http.StatusBadRequest, fmt.Sprintf("limit must be a whole number from 1 to %d", mostRows))
			return
		}
		w.Header().Set("Content-Type", "text/csv; charset=utf-8")
		w.Header().Set("X-Row-Count", strconv.Itoa(n))
		fmt.Fprintln(w, "day,station,rain_mm")
		for row := range n {
			fmt.Fprintf(w, "%d,demo-%d,%d\n", row/10+1, row%10+1, row*7%23)
		}
	})
	return mux
}
