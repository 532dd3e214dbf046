package dashboard

import (
	"encoding/csv"
	"net/http"
	"net/url"
	"strings"
)

// exported is how many charges a file has at most.
const exported = 10_000

// export answers with the reader's last charges as CSV, one page of the API after the other.
func (p *pages) export(w http.ResponseWriter, r *http.Request) {
	v := p.begin(w, r)
	if v == nil {
		return
	}
	columns := []string{"created_at", "request_id", "payer", "payee", "route", "model", "amount", "commission", "refunded", "currency", "status", "source", "escrow_id"}
	out := csv.NewWriter(w)
	query := url.Values{"limit": {"500"}}
	for n := 0; n < exported; {
		found, err := v.call(http.MethodGet, "/charges", query, nil)
		if err != nil && n == 0 {
			v.fails(err)
			p.fail(w, r, v.problem.Status, v.problem.Detail)
			return
		} else if err != nil {
			panic(http.ErrAbortHandler) // the file must not look whole
		}
		if n == 0 {
			w.Header().Set("Content-Type", "text/csv; charset=utf-8")
			w.Header().Set("Content-Disposition", `attachment; filename="charges.csv"`)
			_ = out.Write(columns)
		}
		charges, _ := found["charges"].([]any)
		for _, charge := range charges {
			row := make([]string, len(columns))
			for i, column := range columns {
				row[i] = cell(orEmpty(charge.(object)[column]))
			}
			_ = out.Write(row) // Flush and Error tell
		}
		out.Flush()
		next := orEmpty(found["next_cursor"])
		if n += len(charges); next == "" || len(charges) == 0 || out.Error() != nil {
			return
		}
		query = url.Values{"limit": {"500"}, "cursor": {next}}
	}
}

// cell returns a text as a cell that no spreadsheet takes for a formula.
func cell(text string) string {
	if text != "" && strings.ContainsRune("=+-@\t\r", rune(text[0])) {
		return "'" + text
	}
	return text
}
