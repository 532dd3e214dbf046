package gateway

import (
	"net/http"
	"net/url"
	"slices"

	"github.com/tallygate/tallygate/meter/formats"
)

// A list is cut down to what is its payer's. The official clients take a page without any element for the end of the list. So such a page does
// not go out as long as the provider has more: the next page is asked for instead.

// maxPages bounds how many pages of a list one request may bring the provider to make.
const maxPages = 10

// headerListComplete says that a list may go on, though the answer says that it ends.
const headerListComplete = "Tallygate-List-Complete"

// pages are those of a list that a call asks for.
type pages struct {
	method string      // of the request, before handlers changed it
	url    url.URL     // the same
	header http.Header // the same
	asked  int         // how many pages came without anything of the payer's
	cut    bool        // there are more, which are not asked for
}

// listed prepares a call that asks for a list; it returns nil for any other.
func (a *admitted) listed() *pages {
	if a.stored().Lists == "" || len(a.body) > 0 || a.hasYielded() {
		return nil
	}
	return &pages{method: a.request.Method, url: *a.request.URL, header: a.request.Header.Clone()}
}

// turns changes the request so that it asks for the next page, if the page that has come has nothing of the payer's and there are more.
func (w *response) turns() bool {
	b, ok := w.body.(*sifted)
	if !ok || w.pages == nil || b.refusal != nil || compressed(b.Header()) {
		return false
	}
	c := w.call
	list, err := formats.ReadList(c.stored().Lists, b.bytes)
	if err != nil {
		return false
	}
	usable, _, err := c.mayRead(list.Resources)
	if err != nil || slices.Contains(usable, true) {
		return false
	}
	query, more := list.Next(w.pages.url.RawQuery, w.pages.header.Get("Anthropic-Version") != "" || c.stored().Lists == "messages/batches")
	if !more || c.clientGone() {
		return false
	}
	if w.pages.asked++; w.pages.asked == maxPages {
		w.pages.cut = true
		return false
	}
	r := c.request
	w.pages.url.RawQuery = query
	r.Method, *r.URL = w.pages.method, w.pages.url
	r.RequestURI = r.URL.RequestURI()
	r.Header = w.pages.header.Clone()
	call, err := c.inspect(r, nil)
	if err != nil {
		return false
	}
	c.judge(call) // the provider's own cursor is no resource that the caller names
	w.discard()
	w.body, w.status = nil, 0
	return true
}
