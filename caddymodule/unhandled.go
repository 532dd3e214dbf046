package caddymodule

import (
	"bufio"
	"cmp"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
)

// passOn lets the site's handlers answer. What none of them handles would be an empty 200: instead, the site's address answers with a page of
// what is sold here, the paths where programs look for that with documents, and other paths with 404.
func (h *Handler) passOn(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	method, path := r.Method, r.URL.Path // handlers may change them
	out := &begunWriter{ResponseWriterWrapper: caddyhttp.ResponseWriterWrapper{ResponseWriter: w}}
	if err := next.ServeHTTP(out, r); err != nil || out.begun {
		return err
	}
	if unhandled, _ := caddyhttp.GetVar(r.Context(), "unhandled").(bool); !unhandled {
		return nil
	}
	caddyhttp.SetVar(r.Context(), "unhandled", false)
	if below, is := strings.CutPrefix(path, h.Prefix); is && api.IsBelow(below) {
		api.NoSuchPath(w, r, api.Shop{Prefix: h.Prefix, Types: h.app.ProblemTypes})
		return nil
	}
	read := method == http.MethodGet || method == http.MethodHead
	if api.IsDocument(path) && (read || method == http.MethodOptions) {
		h.serveDocument(w, r, path)
		return nil
	}
	if home := h.Prefix + "/"; read && (path == home || path == h.Prefix) {
		return h.writeShop(w, r)
	}
	detail := "there is nothing at this path"
	if near := h.app.nearPath(path); near != "" {
		detail += ": did you mean " + near + "?"
	}
	api.WriteProblem(w, &escrow.Refusal{Outcome: escrow.NotFound, Detail: detail + "; what is sold is at " + h.Prefix + "/, and for programs at " + h.Prefix + "/api/v1/tariffs"}, api.Shop{Types: cmp.Or(h.app.ProblemTypes, h.Prefix+api.ProblemsPath)}, api.OpenAI)
	return nil
}

// begunWriter remembers whether an answer has begun.
type begunWriter struct {
	caddyhttp.ResponseWriterWrapper
	begun bool
}

func (w *begunWriter) WriteHeader(status int) {
	w.begun = w.begun || status >= 200 || status == http.StatusSwitchingProtocols
	w.ResponseWriterWrapper.WriteHeader(status)
}

func (w *begunWriter) Write(p []byte) (int, error) {
	w.begun = true
	return w.ResponseWriterWrapper.Write(p)
}

func (w *begunWriter) ReadFrom(from io.Reader) (int64, error) {
	w.begun = true
	return w.ResponseWriterWrapper.ReadFrom(from)
}

// FlushError sends what was written, which begins the answer.
func (w *begunWriter) FlushError() error {
	w.begun = true
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Hijack gives the connection to a handler.
func (w *begunWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.begun = true
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

// modelPaths are the beginnings of the paths below the base URL of a language model's API, which are asked for if the base URL has no /v1.
var modelPaths = []string{"chat", "completions", "responses", "embeddings", "messages", "models", "images", "audio", "files", "batches", "moderations", "realtime"}

// nearPath returns the path that was most likely meant by one that nothing answers: on a metered route, or in the API.
func (a *App) nearPath(path string) string {
	segments := strings.Split(strings.TrimPrefix(path, "/"), "/")
	var bases []string // of metered routes, without the slash at their end
	for _, m := range a.meters {
		for _, covered := range strings.Fields(m.route.Name) {
			base := strings.TrimSuffix(strings.TrimSuffix(covered, "*"), "/")
			if base != "" && !strings.ContainsAny(base, "*{") && !slices.Contains(bases, base) {
				bases = append(bases, base)
			}
		}
	}
	for _, base := range bases {
		if path == base { // the route is /v1/*, and the path /v1
			return base + "/"
		}
		if last := base[strings.LastIndex(base, "/")+1:]; strings.HasPrefix(last, "v") && slices.Contains(modelPaths, segments[0]) {
			return base + path
		}
	}
	if api.HasRoute("/" + strings.Join(segments, "/")) {
		return "/api/v1" + path
	}
	// The beginning of the path is misspelled: as many segments as a base has are compared with it.
	for _, base := range bases {
		n := strings.Count(base, "/")
		if len(segments) < n {
			continue
		}
		begin := "/" + strings.Join(segments[:n], "/")
		if api.Nearest(begin, []string{base}) != "" {
			return base + strings.TrimPrefix(path, begin)
		}
	}
	return ""
}
