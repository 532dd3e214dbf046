package dashboard

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"log/slog"
	"net/http"
	"strings"
	"sync"

	"github.com/tallygate/tallygate/escrow"
)

// Options are what the pages for agents and the operator need from the server around them.
type Options struct {
	// API answers the requests of package api, without a prefix. The pages have no other way to the books, so its rules are theirs.
	API http.Handler
	// Prefix is the path below which the API and the pages are mounted. Empty means none.
	Prefix string
	// Secret returns the secret that session cookies are sealed with. It fails while the ledger is not open.
	Secret func(ctx context.Context) ([]byte, error)
	// Explain returns how a charge came about. It is called for charges that the reader may see.
	Explain func(ctx context.Context, requestID string) (any, error)
	// Books returns the state of the ledger, for the operator alone.
	Books func(ctx context.Context) (any, error)
	// Shop returns what is sold, as the reader of a request reaches it.
	Shop func(r *http.Request) (Shop, error)
	// Serve answers a request as if a client had sent it to the server that the pages are on, with all its handlers.
	Serve http.HandlerFunc
	// Watch returns a watch of an agent's changes, or of all agents' for an empty one; see [escrow.Book.Watch].
	Watch func(ctx context.Context, agent, since string) (*escrow.Watch, error)
	// Mark returns the mark of an agent's changes, see [escrow.Book.Mark].
	Mark func(agent string) string
	// Stopping is closed when the server begins to shut down, which would wait for open streams. Nil: it never does.
	Stopping <-chan struct{}
	// Logger gets the failures that the reader is not told about. Default: slog.Default.
	Logger *slog.Logger
}

// pages answers the requests below /dashboard.
type pages struct {
	o     Options
	base  string // the path of the first page
	mux   *http.ServeMux
	cross *http.CrossOriginProtection

	streams openStreams
}

// Root is the path of the pages, below the prefix of the gateway.
const Root = "/dashboard"

// Serves reports whether the handler of [New] serves a path, without the prefix. The guide is not among them.
func Serves(path string) bool { return path == Root || strings.HasPrefix(path, Root+"/") }

// New returns the handler of the pages for agents and the operator. Requests have the whole path, with the prefix.
func New(o Options) http.Handler {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	p := &pages{o: o, base: o.Prefix + Root, mux: http.NewServeMux(), cross: http.NewCrossOriginProtection()}
	p.mux.HandleFunc("GET "+p.base+"/static/{name}", p.static)
	p.mux.HandleFunc("GET "+p.base+"/login", p.askLogin)
	p.mux.HandleFunc("POST "+p.base+"/login", p.login)
	p.mux.HandleFunc("POST "+p.base+"/logout", p.logout)
	p.mux.HandleFunc("POST "+p.base+"/register", p.register)
	p.mux.HandleFunc("GET "+p.base+"/export.csv", p.export)
	p.mux.HandleFunc("GET "+p.base+"/events", p.stream)
	p.mux.HandleFunc("POST "+p.base+"/call", p.call)
	p.mux.HandleFunc("POST "+p.base+"/rehearse", p.rehearse)
	p.mux.HandleFunc("POST "+p.base+"/do/{action}", p.act)
	p.mux.HandleFunc("GET "+p.base+"/{$}", func(w http.ResponseWriter, r *http.Request) { p.home(w, r) })
	for _, page := range allPages {
		p.mux.HandleFunc("GET "+p.base+"/"+page.path, func(w http.ResponseWriter, r *http.Request) { p.show(w, r, page) })
	}
	return http.HandlerFunc(p.serve)
}

// security is what the pages may load: their own files, and nothing of another origin or within a page.
const security = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

func (p *pages) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", security)
	h.Set("X-Content-Type-Options", "nosniff")
	// With no-referrer, browsers would send forms with the origin null.
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	if r.URL.Path == p.base {
		http.Redirect(w, r, p.base+"/", http.StatusSeeOther)
		return
	}
	if err := p.cross.Check(r); err != nil {
		p.fail(w, r, http.StatusForbidden, "This form was sent from another site, so nothing was done.")
		return
	}
	if _, pattern := p.mux.Handler(r); pattern == "" {
		p.fail(w, r, http.StatusNotFound, "There is no such page.")
		return
	}
	p.mux.ServeHTTP(w, r)
}

//go:embed static
var files embed.FS

// asset is a file that pages load.
type asset struct {
	kind    string
	content []byte
	version string // changes with the content, so that browsers may keep the file
}

var assets = sync.OnceValue(func() map[string]asset {
	all := make(map[string]asset)
	for name, kind := range map[string]string{
		"dashboard.css": "text/css; charset=utf-8", "uplot.css": "text/css; charset=utf-8", "dashboard.js": "text/javascript; charset=utf-8",
		"htmx.js": "text/javascript; charset=utf-8", "uplot.js": "text/javascript; charset=utf-8",
	} {
		content, err := files.ReadFile("static/" + name)
		if err != nil {
			panic(err) // can't happen: the files are embedded
		}
		sum := sha256.Sum256(content)
		all[name] = asset{kind, content, hex.EncodeToString(sum[:6])}
	}
	return all
})

func (p *pages) static(w http.ResponseWriter, r *http.Request) {
	file, found := assets()[r.PathValue("name")]
	if !found {
		p.fail(w, r, http.StatusNotFound, "There is no such file.")
		return
	}
	w.Header().Set("Content-Type", file.kind)
	if r.URL.Query().Get("v") == file.version {
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	_, _ = w.Write(file.content)
}
