package dashboard

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

//go:embed templates
var templateFiles embed.FS

// templates are the pages' texts. Each page defines "main" in a set of its own. They are read for the first page, since commands show none.
var templates = sync.OnceValue(func() map[string]*template.Template {
	sets := make(map[string]*template.Template)
	common := template.Must(template.New("layout.html").Funcs(template.FuncMap{
		"time": showTime, "pick": pick,
		"words":    func(text any) string { s, _ := text.(string); return strings.ReplaceAll(s, "_", " ") },
		"statuses": func() []string { return chargeStatuses }, "args": args, "list": func(values ...string) []string { return values },
		"text": func(v any) string { return fmt.Sprint(v) },
	}).Parse(snippets))
	common = template.Must(common.ParseFS(templateFiles, "templates/layout.html"))
	names, err := templateFiles.ReadDir("templates")
	if err != nil {
		panic(err) // can't happen: the folder is embedded
	}
	for _, file := range names {
		if name := strings.TrimSuffix(file.Name(), ".html"); name != "layout" {
			set := template.Must(common.Clone())
			sets[name] = template.Must(set.ParseFS(templateFiles, "templates/"+file.Name()))
		}
	}
	return sets
})

// showTime shows a time of the API in UTC. A script puts it into the reader's zone.
func showTime(at any) template.HTML {
	text, _ := at.(string)
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return ""
	}
	t = t.UTC()
	return template.HTML(`<time datetime="` + t.Format(time.RFC3339) + `">` + t.Format("2006-01-02 15:04:05 UTC") + `</time>`)
}

// shown is what the templates of tables get.
type shown struct {
	view
	X             any // the answer
	Title         string
	By, Sum, Word string // of sums: their group, their field in the answer, and its heading
	Chart         bool
}

// OfAgents reports whether the sums are grouped by agents.
func (s shown) OfAgents() bool {
	return slices.Contains([]string{"payer", "payee", "provider", "customer"}, strings.ToLower(s.By))
}

func args(v view, x any, title string, more ...any) shown {
	s := shown{view: v, X: x, Title: title}
	if len(more) == 4 {
		s.By, s.Sum, s.Word, s.Chart = fmt.Sprint(more[0]), more[1].(string), more[2].(string), more[3].(bool)
	}
	return s
}

// pick returns a value within an object, by the names on the way; nil if there is none.
func pick(from any, names ...string) any {
	for _, name := range names {
		found, _ := from.(object)
		from = found[name]
	}
	return from
}

// view is what the templates see.
type view struct {
	*visit
	Base     string // the address of the pages
	Here     string // the address of this page, with its query
	At       string // the same without it
	Title    string
	Nav      []link
	Operator bool
	Problem  *problem
	Secret   object
	Done     string
	D        object // the answers that the page shows
	Live     bool
	Mark     string            // see [Options.Mark]
	Version  map[string]string // of the files
}

type link struct {
	To, Title string
	Current   bool
}

// Form begins a form that asks for an action. It has the pairs as hidden fields, its page, and an idempotency key.
func (v view) Form(action string, pairs ...any) (template.HTML, error) {
	if _, found := actions[action]; !found {
		panic("no action " + action) // can't happen: all pages are tested
	}
	var b strings.Builder
	b.WriteString(`<form method="post" action="` + template.HTMLEscapeString(v.Base+"/do/"+action) + `">`)
	hidden := func(name, value string) {
		b.WriteString(`<input type="hidden" name="` + name + `" value="` + template.HTMLEscapeString(value) + `">`)
	}
	hidden("back", strings.TrimPrefix(v.Here, v.Base))
	hidden("nonce", nonce())
	for i := 0; i+1 < len(pairs); i += 2 {
		hidden(pairs[i].(string), orEmpty(pairs[i+1]))
	}
	return template.HTML(b.String()), nil
}

// Older is the address of a list's next page.
func (v view) Older(list any) string { return v.older(list) }

// Param is a parameter of the page's address.
func (v view) Param(name string) string { return v.param(name) }

// WebhookID is the id in the page's address.
func (v view) WebhookID() string { return v.r.PathValue("id") }

// Mine reports whether an id is the reader's.
func (v view) Mine(id any) bool { return id != nil && id == v.Me["agent_id"] }

// Party names an agent: the reader is "you", and the operator gets a link to the agent's page.
func (v view) Party(id any) template.HTML {
	name, _ := id.(string)
	switch text := template.HTMLEscapeString(name); {
	case name == "":
		return ""
	case v.Mine(id):
		return "you"
	case v.Operator:
		return template.HTML(`<a href="` + template.HTMLEscapeString(v.Base+"/agents/"+url.PathEscape(name)) + `">` + text + `</a>`)
	default:
		return template.HTML(text)
	}
}

// Session reports whether the reader has a session.
func (v view) Session() bool { return v.Me != nil }

// Login is where the login form sends its reader then.
func (v view) Login() string { return v.param("next") + v.r.PostForm.Get("next") }

// render answers with a page.
func (p *pages) render(w http.ResponseWriter, status int, v *visit) {
	query := v.r.URL.Query()
	done := actions[query.Get("done")].done
	query.Del("done")
	here := url.URL{Path: v.r.URL.Path, RawQuery: query.Encode()}
	shown := view{
		visit: v, Base: p.base, Here: here.RequestURI(), At: here.Path, Title: v.page.title, Operator: v.operator(), Problem: v.problem, Secret: v.secret, Done: done,
		D: v.data, Live: v.isLive(), Mark: v.mark, Version: make(map[string]string),
	}
	for name, file := range assets() {
		shown.Version[name] = file.version
	}
	if v.Me != nil {
		for _, page := range v.navigation() {
			shown.Nav = append(shown.Nav, link{To: p.base + "/" + page.path, Title: page.title, Current: page == v.page})
		}
	}
	p.write(w, status, shown, v.page.name)
}

func (p *pages) write(w http.ResponseWriter, status int, shown view, name string) {
	var text bytes.Buffer
	if err := templates()[name].ExecuteTemplate(&text, "layout.html", shown); err != nil {
		p.o.Logger.Error("a page can't be shown", "page", name, "error", err)
		http.Error(w, "this page can't be shown", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(text.Bytes())
}

var problemPage = &page{title: "This did not work", name: "problem"}

// fail answers with a page that says why there is no other.
func (p *pages) fail(w http.ResponseWriter, r *http.Request, status int, detail string) {
	p.render(w, status, &visit{pages: p, r: r, page: problemPage, problem: &problem{Status: status, Title: http.StatusText(status) + ".", Detail: detail}})
}
