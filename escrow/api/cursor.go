package api

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"slices"

	"github.com/tallygate/tallygate/escrow"
)

// cursor says where a list goes on. It has the filter that the list was asked for with, so that the next page is of the same list.
type cursor struct {
	Filter string `json:"f,omitempty"` // the query, without limit and cursor
	Before []byte `json:"b"`           // the place
}

// paging are the parameters that all lists have.
type paging struct {
	Limit  int   `query:"limit"`
	Cursor place `query:"cursor"`
}

// place is where a list goes on, as the book names it.
type place string

func (p paging) page() escrow.Page { return escrow.Page{Before: string(p.Cursor), Limit: p.Limit} }

// opened is the name under which openCursor puts the place into the query.
const opened = "\x00place"

// openCursor puts the filter and the place of the query's cursor into the query. A filter that stands beside the cursor must be the
// same.
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
		return invalid("cursor", "cursor: not one that a list here has answered")
	}
	for name := range query {
		if name != "cursor" && name != "limit" && query.Get(name) != filter.Get(name) {
			return invalid("cursor", "cursor: its list was asked for with %s %q, not %.80q", name, filter.Get(name), query.Get(name))
		}
	}
	for name := range filter {
		query.Set(name, filter.Get(name))
	}
	query.Set(opened, string(c.Before))
	return nil
}

// pageOf cuts a page out of a list that is short enough to be read whole. The id of a page's last item is the place where the list
// goes on.
func pageOf[T any](list []T, p paging, id func(T) string) (page []T, at string, err error) {
	if p.Cursor != "" {
		last := slices.IndexFunc(list, func(item T) bool { return id(item) == string(p.Cursor) })
		if last < 0 {
			return nil, "", invalid("cursor", "cursor: what it stood at is gone; begin anew")
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

// next makes the cursor of the page after this one. It is nil at the list's end.
func next(r *request, place string) *string {
	if place == "" {
		return nil
	}
	filter := r.URL.Query()
	_ = openCursor(filter) // no error: it was opened when the request was decoded
	for _, name := range []string{"cursor", "limit", opened} {
		filter.Del(name)
	}
	raw, err := json.Marshal(cursor{Filter: filter.Encode(), Before: []byte(place)})
	if err != nil {
		panic(err) // it has two plain fields
	}
	text := base64.RawURLEncoding.EncodeToString(raw)
	return &text
}
