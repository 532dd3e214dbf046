package gateway

import (
	"crypto/rand"
	"net/http"
)

// Handlers below a meter may make an answer out of other answers of the same server, to which they send requests inside the process, such as
// Caddy's httpInclude. Such a request has the header of the request that is served, and a context of its own. It belongs to the call that
// makes it, so the meters on its way charge nothing.

// headerWithin carries the word by which a meter knows the requests of a call that is running. It never leaves the process.
const headerWithin = "Tallygate-Within"

// include gives the handlers below the call the word for their own requests.
func (a *admitted) include() {
	if !a.route.Includes {
		return
	}
	a.within = rand.Text()
	a.gateway.within.Store(a.within, a.id)
	a.request.Header[headerWithin] = []string{a.within}
}

// endInclude makes the word void.
func (a *admitted) endInclude() {
	if a.within != "" {
		a.gateway.within.Delete(a.within)
	}
}

// isIncluded reports whether a request was sent by handlers below a running call. Requests from outside have a server in their context.
func (g *Gateway) isIncluded(r *http.Request) bool {
	word := r.Header[headerWithin]
	if len(word) != 1 || r.Context().Value(http.ServerContextKey) != nil {
		return false
	}
	_, runs := g.within.Load(word[0])
	return runs
}
