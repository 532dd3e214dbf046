package meter

import (
	"net/url"
	"path"
	"strings"
)

// Resource is something that a provider keeps for its customer, and that later requests name by its id: a file, a response, a batch.
type Resource struct {
	// Kind is the collection of the provider's API that the resource is in, in lower case: "files", "chat/completions".
	Kind string
	// ID is the id within the collection. It is empty if a request names a resource by something that can't be an id.
	ID string
}

// Stored says what a call has to do with the resources that a provider keeps.
type Stored struct {
	// Uses are the resources that the request names: in its path, in its query and in its body.
	Uses []Resource
	// Makes says that the answer may tell of new resources, see [Usage.Made].
	Makes bool
	// Lists, if set, is the kind of resources of which the request asks for a list.
	Lists string
	// Tells, if set, is the kind of the one resource that the request reads. The answer may name others that were made from it, such as the
	// output file of a batch.
	Tells string
	// Unclear, if set, says why the request may name resources that are not among Uses.
	Unclear error
	// Deletes, if set, is the resource that the request deletes. It no longer exists if the answer is a success.
	Deletes *Resource
}

// MaxResourceID is how many bytes the id of a resource may have.
const MaxResourceID = 256

// NamedResource returns the resource of a kind that a text names. The text may be its id ("file-abc"), its path in the provider's API
// ("files/abc", "projects/p/locations/l/cachedContents/1"), or its URL there. ok is false if the text is the URL of something else. The ID
// of the resource is empty if the text has none that is possible.
func NamedResource(kind, text string) (r Resource, ok bool) {
	r.Kind = kind
	_, rest, isURL := strings.Cut(text, "://")
	switch {
	case isURL:
		rest = rest[:strings.IndexAny(rest+"?", "?#")]
		if plain, err := url.PathUnescape(rest); err == nil {
			rest = plain
		}
		parts := strings.Split(path.Clean(rest), "/")
		for i := 2; i+1 < len(parts); i++ {
			if strings.EqualFold(parts[i], kind) && isVersion(parts[i-1]) {
				r.ID = cleanID(parts[i+1])
				return r, true
			}
		}
		return r, false
	case strings.Contains(text, "/"):
		parts := strings.Split(text, "/")
		for i := len(parts) - 2; i >= 0; i-- {
			if strings.EqualFold(parts[i], kind) {
				r.ID = cleanID(parts[i+1])
				return r, true
			}
		}
	}
	r.ID = CheckID(text)
	return r, true
}

// cleanID is an id in a path, where a colon and a method may follow.
func cleanID(part string) string {
	id, _, _ := strings.Cut(part, ":")
	return CheckID(id)
}

// CheckID returns id. It returns an empty text instead if no resource can have that id: if it is longer than [MaxResourceID], or has characters
// other than the visible ones of ASCII.
func CheckID(id string) string {
	if len(id) > MaxResourceID || strings.ContainsFunc(id, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return ""
	}
	return id
}

// isVersion reports whether a part of a path is the version of an API, such as v1beta.
func isVersion(part string) bool {
	return len(part) > 1 && (part[0] == 'v' || part[0] == 'V') && '0' <= part[1] && part[1] <= '9'
}
