package dashboard

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// object is an answer of the API, or a part of one. Its amounts are strings, as the API writes them, so no page changes a digit.
type object = map[string]any

// visit is one request for a page, by the holder of a key.
type visit struct {
	pages   *pages
	r       *http.Request
	key     string
	page    *page
	problem *problem
	Me      object // who the key belongs to
	secret  object // a key or a secret that was just made: this page shows it, and no other
	data    object // the answers that the page shows, by their names
	mark    string // of the reader's changes, from before the page asked for its data
}

// problem is what the API refuses, in its own words.
type problem struct {
	Status int    `json:"status"`
	Code   string `json:"code"`
	Title  string `json:"title"`
	Detail string `json:"detail"`
}

func (p *problem) Error() string { return p.Title + " " + p.Detail }

// fails notes why the page can't be shown, or why a form did nothing.
func (v *visit) fails(err error) {
	if !errors.As(err, &v.problem) {
		v.pages.o.Logger.Error("a page failed", "path", v.r.URL.Path, "error", err)
		v.problem = &problem{Status: http.StatusInternalServerError, Title: "Something went wrong here.", Detail: "The server's log says what."}
	}
}

// operator reports whether the key is the operator's.
func (v *visit) operator() bool { return v.Me["operator"] == true }

// call makes a request to the API in the reader's name. body may be nil; headers are pairs.
func (v *visit) call(method, path string, query url.Values, body object, headers ...string) (object, error) {
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	at := "/api/v1" + path
	if len(query) > 0 {
		at += "?" + query.Encode()
	}
	r, err := http.NewRequestWithContext(v.r.Context(), method, at, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	r.Host, r.RemoteAddr, r.TLS = v.r.Host, v.r.RemoteAddr, v.r.TLS
	if v.key != "" {
		r.Header.Set("Authorization", "Bearer "+v.key)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	var a answer
	v.pages.o.API.ServeHTTP(&a, r)
	return a.object()
}

// get puts an answer of the API into the page's data. A refusal is shown in the page's stead.
func (v *visit) get(name, path string, params ...string) {
	query := url.Values{}
	for i := 0; i+1 < len(params); i += 2 {
		if params[i+1] != "" {
			query.Set(params[i], params[i+1])
		}
	}
	found, err := v.call(http.MethodGet, path, query, nil)
	if err != nil {
		if v.problem == nil {
			v.fails(err)
		}
		return
	}
	v.data[name] = found
}

// param is a parameter of the page's address.
func (v *visit) param(name string) string { return v.r.URL.Query().Get(name) }

// answer keeps what the API answers.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (a *answer) Header() http.Header {
	if a.header == nil {
		a.header = make(http.Header)
	}
	return a.header
}

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

// Write implements http.ResponseWriter.
func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(p)
}

// object returns the answer, or its problem as an error.
func (a *answer) object() (object, error) {
	if a.status >= 400 {
		p := new(problem)
		if err := json.Unmarshal(a.body.Bytes(), p); err != nil || p.Status == 0 {
			return nil, fmt.Errorf("the API answered %d %q", a.status, a.body.String())
		}
		return nil, p
	}
	if len(bytes.TrimSpace(a.body.Bytes())) == 0 {
		return object{}, nil
	}
	return decodeObject(a.body.Bytes())
}

// decodeObject reads an object of JSON. Its numbers stay as they are written.
func decodeObject(text []byte) (out object, err error) {
	from := json.NewDecoder(bytes.NewReader(text))
	from.UseNumber()
	return out, from.Decode(&out)
}

// asObject returns a value as the API would write it.
func asObject(value any) (object, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	return decodeObject(text)
}

// escapePath returns the path of an operation with the values of a form for its parameters, such as /escrow/{id}/release.
func escapePath(path string, form url.Values) string {
	parts := strings.Split(path, "/")
	for i, part := range parts {
		if name, is := strings.CutPrefix(part, "{"); is {
			parts[i] = url.PathEscape(form.Get(strings.TrimSuffix(name, "}")))
		}
	}
	return strings.Join(parts, "/")
}
