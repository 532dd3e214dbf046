package dashboard

import (
	"bytes"
	_ "embed"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
	"unicode"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/parser"
	"github.com/yuin/goldmark/text"
	"github.com/yuin/goldmark/util"

	"github.com/tallygate/tallygate/docs"
	"github.com/tallygate/tallygate/escrow/api"
)

// The paths of the guide, below the prefix of the gateway.
const (
	guidePath   = "/dashboard/docs/"
	problemsDoc = "problems" // the page that has a section for each problem
)

// source is where the guide's links to files that are not its pages lead.
const source = "https://github.com/tallygate/tallygate/blob/main/"

//go:embed guide.html
var guideText string

var guidePage = template.Must(template.New("guide").Parse(guideText))

// sheet is a page of the guide, or a part of one: as Markdown, and as a page of HTML.
type sheet struct {
	markdown []byte
	html     []byte
}

// WriteGuide answers a request for a page of the guide: below /dashboard/docs/, or the section of a problem below /problems/. Browsers
// get HTML; clients that do not ask for HTML, such as agents, get Markdown. at is the request's path without the gateway's prefix.
// WriteGuide reports whether there is such a page; if not, it has written nothing.
func WriteGuide(w http.ResponseWriter, r *http.Request, at string) bool {
	if !strings.HasPrefix(at, guidePath) && !strings.HasPrefix(at, api.ProblemsPath) {
		return false // calls of metered routes come here too: the pages are made when somebody reads them
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	if name, is := strings.CutPrefix(at, guidePath); is && strings.HasSuffix(name, pictures) {
		return writePicture(w, name)
	}
	page, ok := sheets()[at]
	if !ok {
		return false
	}
	h := w.Header()
	h.Set("Vary", "Accept")
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Content-Type-Options", "nosniff")
	if !strings.Contains(r.Header.Get("Accept"), "text/html") {
		h.Set("Content-Type", "text/markdown; charset=utf-8")
		_, _ = w.Write(page.markdown)
		return true
	}
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", policy)
	h.Set("Referrer-Policy", "no-referrer")
	_, _ = w.Write(page.html)
	return true
}

// pictures is how the names of the guide's pictures end.
const pictures = ".webp"

func writePicture(w http.ResponseWriter, name string) bool {
	picture, err := docs.Pages.ReadFile(name)
	if err != nil {
		return false
	}
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Type", "image/webp")
	_, _ = w.Write(picture)
	return true
}

// sheets returns the pages of the guide by their paths.
var sheets = sync.OnceValue(func() map[string]sheet {
	all := make(map[string]sheet)
	files, err := fs.Glob(docs.Pages, "*.md")
	if err != nil {
		panic(err) // can't happen: the pattern is good
	}
	inFolders, err := fs.Glob(docs.Pages, "*/*.md")
	if err != nil {
		panic(err) // likewise
	}
	for _, file := range append(files, inFolders...) {
		markdown, err := docs.Pages.ReadFile(file)
		if err != nil {
			panic(err) // can't happen: the file is embedded
		}
		name := pageName(file)
		all[guidePath+name] = newSheet(markdown, strings.Repeat("../", strings.Count(name, "/")), name)
		if name != problemsDoc {
			continue
		}
		all[api.ProblemsPath] = newSheet(markdown, ".."+guidePath, name)
		for code, section := range sections(markdown) {
			all[api.ProblemsPath+code] = newSheet(section, ".."+guidePath, name)
		}
	}
	return all
})

// pageName returns the name of a file's page, which is its path below the guide's. The README of a folder is the page of the folder.
func pageName(file string) string {
	name := strings.TrimSuffix(file, ".md")
	if path.Base(name) == "README" {
		return strings.TrimSuffix(name, "README")
	}
	return name
}

// sections returns the sections of a page by their headings. Each is a page of its own: its heading is one of the first level.
func sections(markdown []byte) map[string][]byte {
	const mark = "\n## "
	found := make(map[string][]byte)
	for _, section := range bytes.Split(markdown, []byte(mark))[1:] {
		heading, _, _ := bytes.Cut(section, []byte("\n"))
		found[string(heading)] = append([]byte("# "), section...)
	}
	return found
}

// newSheet makes a sheet of a text from the page of this name. guide is the relative address of the guide from where the sheet is shown.
func newSheet(markdown []byte, guide, name string) sheet {
	title := ""
	links := parser.WithASTTransformers(util.Prioritized(linker{guide, name, &title}, 100))
	md := goldmark.New(goldmark.WithExtensions(extension.Table), goldmark.WithParserOptions(parser.WithAutoHeadingID(), links))
	var body, page bytes.Buffer
	if err := md.Convert(markdown, &body, parser.WithContext(parser.NewContext(parser.WithIDs(make(anchors))))); err != nil {
		panic(err) // can't happen: a buffer takes everything, and every text is Markdown
	}
	home := guide
	if home == "" {
		home = "./"
	}
	// The text is the program's own, and goldmark leaves out HTML that is written in it.
	shown := map[string]any{"Title": title, "Home": home, "Style": template.CSS(style), "Body": template.HTML(body.String())}
	if err := guidePage.Execute(&page, shown); err != nil {
		panic(err) // can't happen: the template is tested with all pages
	}
	return sheet{markdown: markdown, html: page.Bytes()}
}

// anchors makes the ids of a page's headings as GitHub does, which shows the same pages: each letter in lower case, spaces as hyphens, and
// no other signs but hyphens and underscores. The values are how often an id was made.
type anchors map[string]int

// Generate implements parser.IDs.
func (a anchors) Generate(heading []byte, _ ast.NodeKind) []byte {
	id := strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-', r == '_', unicode.IsLetter(r), unicode.IsDigit(r):
			return unicode.ToLower(r)
		default:
			return -1
		}
	}, strings.TrimSpace(string(heading)))
	before := a[id]
	a[id]++
	if before > 0 {
		id += "-" + strconv.Itoa(before)
	}
	return []byte(id)
}

// Put implements parser.IDs.
func (a anchors) Put(id []byte) { a[string(id)]++ }

// linker makes links that hold in the repository hold on the gateway too.
type linker struct {
	guide string // the relative address of the guide from the page that is shown
	name  string // the page of the guide that the text is from: pageName
	title *string
}

// Transform implements parser.ASTTransformer. It also notes the first heading as the title.
func (l linker) Transform(page *ast.Document, reader text.Reader, _ parser.Context) {
	_ = ast.Walk(page, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		switch n := n.(type) {
		case *ast.Heading:
			if *l.title == "" {
				*l.title = string(n.Lines().Value(reader.Source()))
			}
		case *ast.Link:
			if entering {
				n.Destination = []byte(l.link(string(n.Destination)))
			}
		case *ast.Image:
			if entering {
				n.Destination = []byte(l.link(string(n.Destination)))
			}
		}
		return ast.WalkContinue, nil
	})
}

// link returns the address on the gateway for one in the repository, which is relative to the folder of the page.
func (l linker) link(to string) string {
	if strings.Contains(to, "://") {
		return to
	}
	if fragment, within := strings.CutPrefix(to, "#"); within {
		if l.name == problemsDoc && l.guide != "" { // a section alone: the other sections are pages of their own
			return fragment
		}
		return to
	}
	file, fragment, _ := strings.Cut(to, "#")
	if fragment != "" {
		fragment = "#" + fragment
	}
	file = path.Join(path.Dir(l.name), file)
	if _, err := docs.Pages.Open(file); err == nil && strings.HasSuffix(file, pictures) {
		return l.guide + file
	}
	if _, err := docs.Pages.Open(file); err != nil || !strings.HasSuffix(file, ".md") {
		if above, is := strings.CutPrefix(file, "../"); is {
			return source + above + fragment
		}
		return source + "docs/" + file + fragment
	}
	if file == "README.md" {
		return l.guide + "./" + fragment
	}
	return l.guide + pageName(file) + fragment
}
