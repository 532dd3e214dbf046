package gateway_test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/gateway"
)

// paged is a provider whose list has many files, page by page, of which few were made here.
type paged struct {
	files  []string
	token  string // the field that leads to the next page; empty: its last id does
	cursor string // the parameter in which that is sent
	asked  []string
}

func (p *paged) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if r.Method == http.MethodPost {
		id := "own-" + strconv.Itoa(len(p.files))
		p.files = append(p.files, id)
		_, _ = fmt.Fprintf(w, `{"id": %q}`, id)
		return
	}
	query := r.URL.Query()
	p.asked = append(p.asked, r.URL.RequestURI())
	limit, from := 20, 0
	if n, err := strconv.Atoi(query.Get("limit")); err == nil {
		limit = n
	}
	if at := query.Get(p.cursor); at != "" && p.token != "" {
		from, _ = strconv.Atoi(at)
	} else if at != "" {
		for i, id := range p.files {
			if id == at {
				from = i + 1
			}
		}
	}
	to := min(len(p.files), from+limit)
	var elements []string
	for _, id := range p.files[from:to] {
		elements = append(elements, fmt.Sprintf(`{"id": %q}`, id))
	}
	next := ""
	if p.token != "" && to < len(p.files) {
		next = fmt.Sprintf(`, %q: "%d"`, p.token, to)
	} else if p.token == "" {
		next = fmt.Sprintf(`, "has_more": %t`, to < len(p.files))
	}
	_, _ = fmt.Fprintf(w, `{"data": [%s]%s}`, strings.Join(elements, ", "), next)
}

// TestAPageOfOthersDoesNotEndAList: the official clients stop at a page without any element. So pages that have only what others made are
// skipped. The number of pages that one request brings the provider to make is bounded, and the answer says where that has cut the list.
func TestAPageOfOthersDoesNotEndAList(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, path, header, token, cursor string
		others                            int // before the caller's two
		query                             string
		ids                               string
		asked                             int
		more, complete                    string
	}{
		{"at once", "/v1/files", "", "", "after", 0, "", "own-0 own-1", 1, "false", ""},
		{"OpenAI", "/v1/files", "", "", "after", 150, "", "own-150 own-151", 3, "false", ""},
		{"OpenAI, with a limit", "/v1/files", "", "", "after", 50, "?limit=10", "own-50 own-51", 6, "false", ""},
		{"OpenAI, one by one", "/v1/files", "", "", "after", 3, "?limit=1", "own-3", 4, "true", ""},
		{"OpenAI, too many", "/v1/files", "", "", "after", 2000, "", "", 10, "false", "false"},
		{"OpenAI, backwards", "/v1/files", "", "", "after", 50, "?before=", "", 1, "false", ""},
		{"Anthropic", "/v1/files", "2023-06-01", "", "after_id", 150, "", "own-150 own-151", 3, "false", ""},
		{"Anthropic's batches", "/v1/messages/batches", "", "", "after_id", 50, "", "own-50 own-51", 2, "false", ""},
		{"Gemini", "/v1beta/files", "", "nextPageToken", "pageToken", 50, "", "own-50 own-51", 3, "", ""},
		{"Cohere", "/v1/finetuning/finetuned-models", "", "next_page_token", "page_token", 50, "?page_size=20", "own-50 own-51", 3, "", ""},
		{"Gemini, too many", "/v1beta/files", "", "nextPageToken", "pageToken", 500, "", "", 10, "", "false"},
	} {
		provider := &paged{token: test.token, cursor: test.cursor}
		for i := range test.others {
			provider.files = append(provider.files, "other-"+strconv.Itoa(i))
		}
		s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{Rates: rates(t, "0.0001 per call"), Shared: shared(t, "none")}, provider.ServeHTTP)
		for range 2 {
			if test.path == "/v1/finetuning/finetuned-models" {
				provider.files = append(provider.files, "own-"+strconv.Itoa(len(provider.files)))
				must(t, s.do(func(tx *escrow.Tx) error {
					return tx.Own("alice", escrow.Resource{Payee: "acme", Kind: "finetuning/finetuned-models", ID: provider.files[len(provider.files)-1]})
				}))
				continue
			}
			s.call(s.key, "POST", test.path, "{}", "Content-Type", "application/json")
		}
		var headers []string
		if test.header != "" {
			headers = []string{"Anthropic-Version", test.header}
		}
		response, body := s.call(s.key, "GET", test.path+test.query, "", headers...)
		var ids []string
		for _, id := range gjson.Get(body, "data.#.id").Array() {
			ids = append(ids, id.Str)
		}
		if got := strings.Join(ids, " "); response.StatusCode != 200 || got != test.ids || len(provider.asked) != test.asked || gjson.Get(body, "has_more").Raw != test.more ||
			response.Header.Get("Tallygate-List-Complete") != test.complete {
			t.Errorf("%s: %d %s, complete %q; the provider was asked %q", test.name, response.StatusCode, body, response.Header.Get("Tallygate-List-Complete"), provider.asked)
		}
	}
}
