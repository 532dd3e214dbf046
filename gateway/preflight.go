package gateway

import (
	"net/http"
	"slices"
	"strings"
)

// isPreflight reports whether a request is a browser's question whether a page of another origin may send a request. It never has a key.
// https://fetch.spec.whatwg.org/#cors-preflight-request
func isPreflight(r *http.Request) bool {
	h := r.Header
	return r.Method == http.MethodOptions && h.Get("Origin") != "" && h.Get("Access-Control-Request-Method") != "" && h.Get("Upgrade") == ""
}

// passPreflight lets the upstream answer a preflight, without a key and without a charge. So that nobody gets anything else for free in
// this way, the upstream gets no body, and only its status and its headers about origins are passed on.
func (g *Gateway) passPreflight(w http.ResponseWriter, r *http.Request, next Handler) error {
	takeKey(r, nil)
	dropOwn(r.Header)
	dropHTTPUpgrade(r.Header)
	for _, name := range methodOverrides {
		r.Header.Del(name)
	}
	r.Body, r.ContentLength, r.TransferEncoding, r.Trailer = http.NoBody, 0, nil, nil
	r.Header.Del("Content-Length")
	r.Header.Del("Trailer")
	// Tallygate's headers are not for the upstream, which might refuse headers that it does not know.
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

// preflight passes on the answer to a preflight. It gives no access to the connection.
type preflight struct {
	w      http.ResponseWriter
	header http.Header // the upstream's header
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

// FlushError does nothing, since nothing is buffered.
func (p *preflight) FlushError() error { return nil }

const allowOrigin = "Access-Control-Allow-Origin"

// termHeaders are the request headers that a page may need for a metered call, besides those of its provider.
var termHeaders = []string{"Tallygate-Key", "Tallygate-Escrow", "Tallygate-Milestone", "Tallygate-Max-Charge", "Tallygate-Tag", "Idempotency-Key"}

// openRefusal lets the page that sent a request read why it was refused. A refusal tells nothing that the key of the request could not
// read.
func openRefusal(h http.Header, r *http.Request) {
	if r.Header.Get("Origin") != "" && h.Get(allowOrigin) == "" {
		h.Set(allowOrigin, "*")
	}
	exposeOwn(h)
}

// exposeOwn lets pages of other origins read Tallygate's headers in an answer, if they may read the answer at all.
func exposeOwn(h http.Header) {
	if valueOf(h, allowOrigin) != "" {
		h.Add("Access-Control-Expose-Headers", strings.Join(append([]string{headerRequest, headerOwed}, chargeHeaders...), ", "))
	}
}

// Interface guards
var _ http.ResponseWriter = (*preflight)(nil)
