package caddymodule

import (
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/gateway"
)

// discoveryFirst serves the documents before the site's own handlers. By default they are served where the site has none.
const discoveryFirst = "first"

// ownsDocument reports whether a request for a document of what is sold is answered without asking the site: below the API's own prefix, or if
// the operator has said so.
func (h *Handler) ownsDocument(r *http.Request) bool {
	path, below := strings.CutPrefix(r.URL.Path, h.Prefix)
	return h.Prefix != "" && below && api.IsDocument(path) || h.app.Discovery == discoveryFirst && api.IsDocument(r.URL.Path)
}

// serveDocument answers a request for a document of what is sold. path is the request's own; handlers may have changed the one in it.
func (h *Handler) serveDocument(w http.ResponseWriter, r *http.Request, path string) {
	release, err := h.app.open(r.Context())
	if err != nil {
		gateway.WriteProblem(w, r, h.app.problemTypes(), gateway.Unavailable("none"))
		return
	}
	defer release()
	r = r.Clone(r.Context())
	r.URL.Path = path
	if below, is := strings.CutPrefix(path, h.Prefix); is && api.IsDocument(below) {
		r.URL.Path = below
	}
	h.operations.ServeHTTP(w, r)
}

// sold lists the metered routes of the host that a request is for, each of its paths once. It leaves out what only some callers may know, or
// what is free.
func (a *App) sold(r *http.Request) (routes []api.Sold) {
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	var offers []map[string]any
	for _, rail := range a.rails {
		if offering, ok := rail.(gateway.Offerer); ok {
			offers = append(offers, offering.Offers()...)
		}
	}
	for _, m := range a.meters {
		if m.route.Shadow || !m.isOn(host) {
			continue
		}
		sold := m.sold()
		if m.route.Identity == nil {
			sold.Offers = offers
		}
		for _, path := range m.paths {
			if sold.Path = path; !slices.ContainsFunc(routes, func(other api.Sold) bool { return other.Path == path }) {
				routes = append(routes, sold)
			}
		}
	}
	return routes
}

// isOn reports whether the meter is on a host.
func (m *Meter) isOn(host string) bool {
	for _, name := range strings.Fields(m.host) {
		suffix, wild := strings.CutPrefix(name, "*")
		if strings.EqualFold(name, host) || wild && strings.HasSuffix(strings.ToLower(host), strings.ToLower(suffix)) {
			return true
		}
	}
	return m.host == ""
}

// sold returns what the meter's route costs, as everybody may know it.
func (m *Meter) sold() (sold api.Sold) {
	// What has models or tools is asked for in a body.
	if sold.Methods = []string{"post"}; m.route.Tariff == nil {
		sold.Methods = []string{"get", "post"}
	}
	for _, make := range m.tariffs(api.TariffQuery{}) {
		if sold.More = len(sold.Tariffs) == shownTariffs; sold.More {
			break
		}
		sold.Tariffs = append(sold.Tariffs, make())
	}
	return sold
}

// pathsOf returns the paths of a place, for the documents of what is sold. A place without paths has all that no other place has.
func pathsOf(at location) []string {
	if len(at.paths) == 0 {
		return []string{"/*"}
	}
	return at.paths
}
