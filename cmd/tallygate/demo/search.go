package demo

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// page is a document of the search provider's corpus, and a result.
type page struct {
	Title   string `json:"title"`
	URL     string `json:"url"`
	Snippet string `json:"snippet"`
}

var corpus = []page{
	{"Owls that see in the dark", "https://demo.invalid/owls", "An owl turns its head, not its eyes. It hears a mouse under snow."},
	{"How bees find home", "https://demo.invalid/bees", "Bees read the sun, remember landmarks, and dance the way to each other."},
	{"A short history of coins", "https://demo.invalid/coins", "Coins were weighed before they were counted, and cut before they were stamped."},
	{"Why ledgers have two sides", "https://demo.invalid/ledgers", "What one account gives another takes, so the sum is always zero."},
	{"Growing tomatoes in a window", "https://demo.invalid/tomatoes", "Six hours of light, a deep pot, and a stick to lean on."},
	{"The tides, hour by hour", "https://demo.invalid/tides", "The moon pulls the sea twice a day; the sun helps at full and new moon."},
	{"Tally sticks", "https://demo.invalid/tally", "A notched stick, split in two: each side kept a half, and the halves had to match."},
	{"What night trains are for", "https://demo.invalid/trains", "You fall asleep in one city, wake in another, and pay for one bed."},
}

// searchAPI serves GET /search?q=WORDS[&limit=N]: the pages that contain one of the words, best first.
func searchAPI() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /search", func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query().Get("q")
		if strings.TrimSpace(query) == "" {
			refuse(w, http.StatusBadRequest, "q is missing: ask with /search?q=owls")
			return
		}
		limit, ok := count(r, "limit", 3, len(corpus))
		if !ok {
			refuse(w, http.StatusBadRequest, "limit must be a whole number from 1 to "+strconv.Itoa(len(corpus)))
			return
		}
		found := search(query)
		answer(w, http.StatusOK, struct {
			Query   string `json:"query"`
			Results []page `json:"results"`
		}{query, found[:min(limit, len(found))]})
	})
	return mux
}

// search ranks a page by how many of the query's words it contains. Pages of one rank keep their order in the corpus.
func search(query string) []page {
	words := strings.Fields(strings.ToLower(query))
	rank := func(p page) (n int) {
		text := strings.ToLower(p.Title + " " + p.Snippet)
		for _, word := range words {
			if strings.Contains(text, word) {
				n++
			}
		}
		return n
	}
	found := slices.DeleteFunc(slices.Clone(corpus), func(p page) bool { return rank(p) == 0 })
	slices.SortStableFunc(found, func(a, b page) int { return cmp.Compare(rank(b), rank(a)) })
	return found
}

// count reads a whole number from 1 to most from the query. If the query has none, count returns otherwise.
func count(r *http.Request, name string, otherwise, most int) (n int, ok bool) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return otherwise, true
	}
	n, err := strconv.Atoi(text)
	return n, err == nil && n >= 1 && n <= most
}
