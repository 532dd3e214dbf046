package api

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
)

// Sold is a metered route, as programs find it that look for what they can pay for.
type Sold struct {
	Path    string           // as a matcher has it, such as /v1/*
	Methods []string         // that callers are likely to use, in lower case
	Offers  []map[string]any // how a call can be paid without an account, as x-payment-info has it; nil if it can't
	Tariffs []Tariff
	More    bool // there are more tariffs
}

// openAPIAt is the path below the API's own at which the description of the API is always served.
const openAPIAt = base + "/openapi.json"

// x402At is where clients of x402 look for what is sold.
// https://datatracker.ietf.org/doc/draft-hawkins-x402-dns-discovery/
const x402At = "/.well-known/x402"

// IsDocument reports whether programs look at a path of an origin for what is sold there, and how it is paid. The site may have documents of
// its own at these paths.
func IsDocument(path string) bool {
	return path == "/openapi.json" || path == "/llms.txt" || path == x402At
}

// forMinutes lets caches keep what is sold.
// https://github.com/tempoxyz/mpp-specs/blob/f9506cd/specs/extensions/draft-payment-discovery-00.md#caching
const forMinutes = "public, max-age=300"

// documents adds the documents to what is served. They tell what everybody may know: routes, prices, ways to pay.
func (s *server) documents() error {
	own, err := s.openAPI()
	if err != nil {
		return err
	}
	described := func(w http.ResponseWriter, r *http.Request) { writeDocument(w, own.with(s.sold(r), s.o.Prefix)) }
	s.mux.HandleFunc("GET /openapi.json", described)
	s.mux.HandleFunc("GET "+openAPIAt, described)
	s.mux.HandleFunc("GET /llms.txt", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", forMinutes)
		_, _ = io.WriteString(w, s.llmsText(s.sold(r)))
	})
	s.mux.HandleFunc("GET "+x402At, s.serveX402)
	return nil
}

func writeDocument(w http.ResponseWriter, document any) {
	text, err := json.Marshal(document)
	if err != nil {
		panic(err) // can't happen: it is made from types and constants, and a test makes it
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", forMinutes)
	_, _ = w.Write(text)
}

func (s *server) sold(r *http.Request) []Sold {
	if s.o.Sold == nil {
		return nil
	}
	return s.o.Sold(r)
}

// serveX402 lists what can be paid by x402. Its URLs are those of routes; a path below one that ends in a slash is sold too.
func (s *server) serveX402(w http.ResponseWriter, r *http.Request) {
	origin, resources := Origin(r, s.o.Proxied(r)), []object{}
	for _, sold := range s.sold(r) {
		accepts := offersOf(sold, "x402")
		if len(accepts) == 0 {
			continue
		}
		for _, method := range sold.Methods {
			resources = append(resources, object{
				"url": origin + strings.TrimRight(sold.Path, "*"), "method": strings.ToUpper(method), "description": priceText(sold), "accepts": accepts,
			})
		}
	}
	if len(resources) == 0 {
		NoSuchPath(w, r, s.shop())
		return
	}
	writeDocument(w, object{
		"x402Version": 2, "kind": "resource-server", "name": "Tallygate", "resources": resources, "docs": origin + s.o.Prefix + "/llms.txt",
		"description": "Metered routes. What is paid is prepaid credit: a call is charged by what it used, and the rest pays for later calls.",
	})
}

// offersOf returns the offers of a method.
func offersOf(sold Sold, method string) (offers []map[string]any) {
	for _, offer := range sold.Offers {
		if offer["method"] == method {
			offers = append(offers, offer)
		}
	}
	return offers
}

// description is the description of an API in OpenAPI.
type description struct {
	fields object
	paths  map[string]json.RawMessage
}

// with adds the metered routes. A route whose path the API has too, below its own base, is left out: it is in the list of tariffs.
func (d description) with(routes []Sold, prefix string) object {
	all, paths := object{}, make(map[string]any, len(d.paths)+len(routes))
	for name, value := range d.fields {
		all[name] = value
	}
	for path, item := range d.paths {
		paths[path] = item
	}
	for _, sold := range routes {
		path, item := sold.item()
		if _, taken := paths[path]; !taken {
			paths[path] = item
		}
	}
	all["paths"] = paths
	all["x-service-info"] = object{"docs": object{"homepage": prefix + "/", "llms": prefix + "/llms.txt", "apiReference": prefix + openAPIAt}}
	return all
}

var wildcard = regexp.MustCompile(`\*`)

// item returns a metered route as a path of OpenAPI.
func (sold Sold) item() (path string, item object) {
	parameters := []object{}
	path = wildcard.ReplaceAllStringFunc(sold.Path, func(string) string {
		name := "path"
		if n := len(parameters); n > 0 {
			name = fmt.Sprint("path", n+1)
		}
		parameters = append(parameters, object{"name": name, "in": "path", "required": true, "schema": object{"type": "string"}})
		return "{" + name + "}"
	})
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	// The prices are those of GET /tariffs, so that a program can compute what a call costs.
	prices := object{"tariffs": sold.Tariffs}
	if sold.More {
		prices["more"] = base + "/tariffs"
	}
	item = object{"servers": []object{{"url": "/"}}}
	for _, method := range sold.Methods {
		operation := object{
			"summary": "a metered call", "description": priceText(sold), "tags": []string{"metered"}, "parameters": parameters, "x-prices": prices,
			"responses": object{"200": object{"description": "the provider's answer"}, "402": object{"description": "Payment Required"}},
		}
		if len(sold.Offers) > 0 {
			operation["x-payment-info"] = object{"offers": sold.Offers}
			operation["security"] = []object{{}, {"key": []string{}}}
		}
		if method != "get" {
			operation["requestBody"] = object{"content": object{"application/json": object{"schema": object{"type": "object"}}}}
		}
		item[method] = operation
	}
	return path, item
}

// Several returns the word of a unit for more than one of it. Measures such as MiB have one word for both, and so have names such as rows.
func Several(unit string) string {
	switch {
	case strings.HasSuffix(unit, "s"), strings.HasSuffix(unit, "B"):
		return unit
	case strings.HasSuffix(unit, "search"):
		return unit + "es"
	default:
		return unit + "s"
	}
}

// priceText says in words what a route costs, as far as a line can.
func priceText(sold Sold) string {
	if len(sold.Tariffs) == 0 || len(sold.Tariffs[0].Prices) == 0 {
		return "A metered call; its price is in the list of tariffs."
	}
	p := sold.Tariffs[0].Prices[0]
	per := p.Unit
	if p.Per != 1 {
		per = fmt.Sprint(p.Per, " ", Several(p.Unit))
	}
	text := "A metered call of " + sold.Tariffs[0].Payee + ": " + p.Amount.String() + " per " + per
	if len(sold.Tariffs) > 1 || len(sold.Tariffs[0].Prices) > 1 || sold.More {
		text += ", and other prices"
	}
	return text + "."
}
