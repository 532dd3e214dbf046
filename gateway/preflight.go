package gateway

import (
	"net/http"
	"slices"
	"strings"
)

// isPreflight reports whether a browser asks, before a request of a page of another origin, whether it may send that. It never has a key.
// https://fetch.spec.whatwg.org/#cors-preflight-request
func isPreflight(r *http.Request) bool {
	h := r.Header
	return r.Method == http.MethodOptions && h.Get("Origin") != "" && h.Get("Access-Control-Request-Method") != "" && h.Get("Upgrade") == ""
}

// passPreflight has the upstream answer a preflight, free of charge and without a key. So that nothing else is to be had this way, neither a
// body goes there, nor any of the answer but its status and what it says of origins.
func (g *Gateway) passPreflight(w http.ResponseWriter, r *http.Request, next Handler) error {
	takeKey(r)
	dropOwn(r.Header)
	dropHTTPUpgrade(r.Header)
	for _, name := range methodOverrides {
		r.Header.Del(name)
	}
	r.Body, r.ContentLength, r.TransferEncoding, r.Trailer = http.NoBody, 0, nil, nil
	r.Header.Del("Content-Length")
	r.Header.Del("Trailer")
	// Our headers are none of the upstream's business, and it might refuse what it does not know.
	asked := strings.Split(strings.Join(r.Header.Values("Access-Control-Request-Headers"), ","), ",")
	asked = slices.DeleteFunc(asked, func(name string) bool { return isOwn(strings.TrimSpace(name)) })
	r.Header.Del("Access-Control-Request-Headers")
	if list := strings.Join(asked, ","); list != "" {
		r.Header.Set("Access-Control-Request-Headers", list)
	}
	if err := next.ServeHTTP(&preflight{w: w, header: w.Header().Clone()}, r); err != nil {
		return &Failure{Request: g.book.NewRequestID(), Err: err}
	}
	return nil
}

// preflight is what goes to the client of the answer to one. It has no way to the connection.
type preflight struct {
	w      http.ResponseWriter
	header http.Header // as the upstream has it
	wrote  bool
}

func (p *preflight) Header() http.Header { return p.header }

func (p *preflight) WriteHeader(status int) {
	if p.wrote || status < 200 {
		return
	}
	p.wrote = true
	h := p.w.Header()
	for name, values := range p.header {
		if strings.HasPrefix(name, "Access-Control-") || name == "Vary" {
			h[name] = values
		}
	}
	if h.Get(allowOrigin) != "" {
		h.Add("Access-Control-Allow-Headers", strings.Join(termHeaders, ", "))
	}
	p.w.WriteHeader(status)
}

func (p *preflight) Write(b []byte) (int, error) {
	p.WriteHeader(http.StatusOK)
	return len(b), nil
}

// FlushError does nothing: there is nothing to flush.
func (p *preflight) FlushError() error { return nil }

const allowOrigin = "Access-Control-Allow-Origin"

// termHeaders are the request headers that a page may need for a metered call, beside those that its provider takes.
var termHeaders = []string{"Tallygate-Key", "Tallygate-Escrow", "Tallygate-Milestone", "Tallygate-Max-Charge", "Tallygate-Tag", "Idempotency-Key"}

// openRefusal lets the page that has sent a request read why it was refused: that says nothing which its key does not open.
func openRefusal(h http.Header, r *http.Request) {
	if r.Header.Get("Origin") != "" && h.Get(allowOrigin) == "" {
		h.Set(allowOrigin, "*")
	}
	exposeOwn(h)
}

// exposeOwn lets pages of other origins, if they may read an answer at all, read our headers in it.
func exposeOwn(h http.Header) {
	if h.Get(allowOrigin) != "" {
		h.Add("Access-Control-Expose-Headers", strings.Join(append([]string{headerRequest}, chargeHeaders...), ", "))
	}
}

// Interface guards
var _ http.ResponseWriter = (*preflight)(nil)
