package api

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/csv"
	"html/template"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/tallygate/tallygate/escrow"
)

// paper is an answer that can also be a table for a spreadsheet, or a page to print.
type paper struct {
	Title, Period string
	Currency      string
	File          string // the name for saving it, without its ending
	Issuer        Issuer
	Parties       []party
	Head          []string
	Numbers       []int // columns that are numbers, which the program has written, so they are no formulas
	Rows, Sums    [][]string
	Notes         []string
}

type party struct{ Role, ID, Name string }

// papered is an answer that has a paper.
type papered interface{ paper() paper }

// The formats of papers.
const (
	formatJSON = "json"
	formatCSV  = "csv"
	formatHTML = "html"
)

//go:embed paper.html
var paperText string

//go:embed paper.css
var paperStyle string

var paperPage = template.Must(template.New("paper").Funcs(template.FuncMap{
	"month": monthName, "words": func(s string) string { return strings.ReplaceAll(s, "_", " ") },
}).Parse(paperText))

// paperPolicy lets a page have its own style and nothing else.
var paperPolicy = func() string {
	sum := sha256.Sum256([]byte(paperStyle))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}()

func (p *paper) add(row ...string) { p.Rows = append(p.Rows, slices.Clone(row)) }

// IsNumber reports whether a column has numbers.
func (p paper) IsNumber(column int) bool { return slices.Contains(p.Numbers, column) }

// Style returns the style of the page.
func (p paper) Style() template.CSS { return template.CSS(paperStyle) }

// csv returns the table for a spreadsheet, which takes no text of it for a formula.
func (p paper) csv() ([]byte, error) {
	var out bytes.Buffer
	w := csv.NewWriter(&out)
	lines := [][]string{append(slices.Clone(p.Head), "currency")}
	for _, row := range slices.Concat(p.Rows, p.Sums) {
		line := make([]string, 0, len(row)+1)
		for i, text := range row {
			if !p.IsNumber(i) {
				text = Cell(text)
			}
			line = append(line, text)
		}
		lines = append(lines, append(line, Cell(p.Currency)))
	}
	err := w.WriteAll(lines)
	return out.Bytes(), err
}

func (p paper) html() ([]byte, error) {
	var out bytes.Buffer
	err := paperPage.Execute(&out, p)
	return out.Bytes(), err
}

// Cell returns a text that others have chosen for a cell of a table: a spreadsheet does not take it for a formula.
func Cell(text string) string {
	if text != "" && strings.ContainsRune("=+-@\t\r\n", rune(text[0])) {
		return "'" + text
	}
	return text
}

// WritePaper returns an invoice in a format: csv or html.
func (v invoiceOut) WritePaper(format string) ([]byte, error) { return v.paper().in(format) }

// WritePaper returns a statement in a format: csv or html.
func (s statementOut) WritePaper(format string) ([]byte, error) { return s.paper().in(format) }

func (p paper) in(format string) ([]byte, error) {
	if format == formatHTML {
		return p.html()
	}
	return p.csv()
}

// paperFormat returns the format that a request asks for, by its parameter or by the first kind that it accepts.
func paperFormat(r *http.Request) (string, error) {
	switch format := r.URL.Query().Get("format"); format {
	case formatJSON, formatCSV, formatHTML:
		return format, nil
	case "":
	default:
		return "", &escrow.Refusal{Outcome: escrow.InvalidRequest, Detail: "format: expected json, csv or html", Fields: map[string]string{"field": "format"}}
	}
	for part := range strings.SplitSeq(strings.Join(r.Header.Values("Accept"), ","), ",") {
		switch kind, _, _ := mime.ParseMediaType(part); kind {
		case "application/json", "*/*":
			return formatJSON, nil
		case "text/csv":
			return formatCSV, nil
		case "text/html":
			return formatHTML, nil
		}
	}
	return formatJSON, nil
}

// tellPaper answers with a paper, unless the request asks for JSON.
func (s *server) tellPaper(w http.ResponseWriter, req *http.Request, rt route, p paper) (told bool) {
	w.Header().Add("Vary", "Accept")
	format, err := paperFormat(req)
	if err != nil {
		s.fail(w, req, err)
		return true
	}
	var text []byte
	h := http.Header{}
	switch format {
	case formatJSON:
		return false
	case formatCSV:
		text, err = p.csv()
		h.Set("Content-Type", "text/csv; charset=utf-8; header=present")
		h.Set("Content-Disposition", `attachment; filename="`+p.File+`.csv"`)
	default:
		text, err = p.html()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", paperPolicy)
		h.Set("Referrer-Policy", "no-referrer")
	}
	if err != nil {
		s.fail(w, req, err)
		return true
	}
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	for name, values := range h {
		w.Header()[name] = values
	}
	w.WriteHeader(rt.status)
	_, _ = w.Write(text)
	return true
}
