package api

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"slices"

	"github.com/tallygate/tallygate/escrow"
)

// cursor says where the next page of a list begins. It contains the filter of the list, so that the next page belongs to the same list.
type cursor struct {
	Filter string `json:"f,omitempty"` // the query, without limit and cursor
	Before []byte `json:"b"`           // the place of the next page
}

// paging are the parameters that all lists have.
type paging struct {
	Limit  int   `query:"limit"`
	Cursor place `query:"cursor"`
}

// place is where the next page of a list begins, as the book names it.
type place string

func (p paging) page() escrow.Page { return escrow.Page{Before: string(p.Cursor), Limit: p.Limit} }

// opened is the name of the query parameter in which openCursor puts the place.
const opened = "\x00place"

// openCursor adds the filter and the place in the query's cursor to the query. If the query also has a filter itself, it must be the same.
func openCursor(query url.Values) error {
	text := query.Get("cursor")
	if text == "" {
		return nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(text)
	var c cursor
	if err == nil {
		err = json.Unmarshal(raw, &c)
	}
	filter, err2 := url.ParseQuery(c.Filter)
	if err != nil || err2 != nil || len(c.Before) == 0 {
		return invalid("cursor", "cursor: not a cursor from an answer of this API")
	}
	for name := range query {
		if name != "cursor" && name != "limit" && query.Get(name) != filter.Get(name) {
			return invalid("cursor", "cursor: it belongs to a list with %s %q, not %.80q", name, filter.Get(name), query.Get(name))
		}
	}
	for name := range filter {
		query.Set(name, filter.Get(name))
	}
	query.Set(opened, string(c.Before))
	return nil
}

// pageOf returns one page of a list that is short enough to be read completely. The id of a page's last item is the place of the next page.
func pageOf[T any](list []T, p paging, id func(T) string) (page []T, at string, err error) {
	if p.Cursor != "" {
		last := slices.IndexFunc(list, func(item T) bool { return id(item) == string(p.Cursor) })
		if last < 0 {
			return nil, "", invalid("cursor", "cursor: its place in the list is gone; begin again without a cursor")
		}
		list = list[last+1:]
	}
	limit := min(p.Limit, escrow.MaxPage)
	if limit == 0 {
		limit = escrow.DefaultPage
	}
	if len(list) <= limit {
		return list, "", nil
	}
	return list[:limit], id(list[limit-1]), nil
}

// next returns the cursor of the page after this one, or nil at the end of the list.
func next(r *request, place string) *string {
	if place == "" {
		return nil
	}
	filter := r.URL.Query()
	_ = openCursor(filter) // no error: the cursor was opened before, when the request was decoded
	for _, name := range []string{"cursor", "limit", opened} {
		filter.Del(name)
	}
	raw, err := json.Marshal(cursor{Filter: filter.Encode(), Before: []byte(place)})
	if err != nil {
		panic(err) // can't happen: a cursor has two plain fields
	}
	text := base64.RawURLEncoding.EncodeToString(raw)
	return &text
}
