package api

import (
	"encoding/json"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/tallygate/tallygate/escrow"
)

// A request may mean something by a name that its route does not have: that an escrow expires, that a list is of one payee only. If the
// name were ignored, the request would be answered as if it had not meant that. So it is refused, and the refusal says which names there are.

// onlyKnown refuses a query with names that a route does not have, or with two values of one name.
func onlyKnown(query url.Values, in reflect.Type) error {
	known := names(in, "query")
	var unknown []string
	for name, values := range query {
		switch {
		case name == opened:
		case !slices.Contains(known, name):
			unknown = append(unknown, name)
		case len(values) > 1:
			return invalid(name, "%s is given %d times: give it once", name, len(values))
		}
	}
	return refuseUnknown(unknown, known, "parameter", names(in, "json"))
}

// onlyKnownFields refuses an object with names that the type has no fields for. at is where the object is in the body: "", or "limits.0.".
// A null means that nothing is given, so its name does not matter.
func onlyKnownFields(object map[string]json.RawMessage, in reflect.Type, at string) error {
	known := names(in, "json")
	var unknown []string
	for name, value := range object {
		if !slices.Contains(known, name) && string(value) != "null" {
			unknown = append(unknown, name)
		}
	}
	if err := refuseUnknown(unknown, known, "field", names(in, "query")); err != nil {
		return within(at, err)
	}
	for _, field := range reflect.VisibleFields(in) {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if t := field.Type; t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct && object[name] != nil {
			var list []map[string]json.RawMessage
			_ = json.Unmarshal(object[name], &list) // what is no list of objects is refused when it is decoded
			for i, item := range list {
				if err := onlyKnownFields(item, t.Elem(), at+name+"."+strconv.Itoa(i)+"."); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// within says in a refusal which object of the body it is about.
func within(at string, err error) error {
	r := err.(*escrow.Refusal)
	r.Fields["field"] = at + r.Fields["field"]
	if at != "" {
		r.Detail = strings.TrimSuffix(at, ".") + ": " + r.Detail
	}
	return r
}

// refuseUnknown refuses the unknown names of what: parameters of the query, or fields of the body. elsewhere are the names of the other of
// the two.
func refuseUnknown(unknown, known []string, what string, elsewhere []string) error {
	if len(unknown) == 0 {
		return nil
	}
	slices.Sort(unknown)
	detail := fmt.Sprintf("there is no %s %s", what, strings.Join(unknown, ", "))
	if len(unknown) > 1 {
		detail = fmt.Sprintf("there are no %ss %s", what, strings.Join(unknown, ", "))
	}
	name := unknown[0]
	switch near := Nearest(name, known); {
	case slices.Contains(elsewhere, name) && what == "parameter":
		detail += fmt.Sprintf(": %s is a field of the body", name)
	case slices.Contains(elsewhere, name):
		detail += fmt.Sprintf(": %s is a parameter of the query", name)
	case near != "":
		detail += fmt.Sprintf(": did you mean %s?", near)
	}
	if len(known) == 0 {
		return invalid(name, "%.400s; this request has none", detail)
	}
	return invalid(name, "%.400s; this request has %s", detail, strings.Join(known, ", "))
}

// names returns the names that the fields of a type have in the tag of a kind.
func names(in reflect.Type, tag string) (names []string) {
	for _, field := range reflect.VisibleFields(in) {
		if name, _, _ := strings.Cut(field.Tag.Get(tag), ","); name != "" && name != "-" {
			names = append(names, name)
		}
	}
	return names
}

// Nearest returns the name that was most likely meant by a word: the same one in another spelling, or with up to two letters wrong.
func Nearest(word string, names []string) (near string) {
	plain := strings.NewReplacer("_", "", "-", "")
	word = strings.ToLower(plain.Replace(word))
	best := 3
	for _, name := range names {
		if d := distance(word, plain.Replace(name)); d < best && d < len(word) {
			near, best = name, d
		}
	}
	return near
}

// distance is how many letters must be changed, added or removed to make b of a (Levenshtein's distance), or 3 if that is clear from their lengths.
func distance(a, b string) int {
	if max(len(a), len(b)) > min(len(a), len(b))+2 {
		return 3
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := before
			if a[i] != b[j] {
				change++
			}
			before = row[j+1]
			row[j+1] = min(change, row[j]+1, before+1)
		}
	}
	return row[len(b)]
}
