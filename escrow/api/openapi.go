package api

import (
	"encoding/json"
	"net/http"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/jsonschema-go/jsonschema"
)

// object is a JSON object of the OpenAPI document.
type object map[string]any

// openAPI returns the description of the API in OpenAPI 3.1.
func (s *server) openAPI() (description, error) {
	routes, err := describedRoutes()
	return description{paths: routes.paths, fields: object{
		"openapi": "3.1.0",
		"info": object{
			"title": "Tallygate", "version": s.o.Version,
			"description": "Wallets, escrows and charges of agents. Amounts are decimal strings; requests may give them as numbers. " +
				"Errors are problems (RFC 9457) with a stable code. Every POST takes an Idempotency-Key.",
		},
		"servers":  []object{{"url": s.o.Prefix + base}},
		"security": []object{{"key": []string{}}},
		"components": object{
			"schemas":         routes.schemas,
			"securitySchemes": object{"key": object{"type": "http", "scheme": "bearer", "description": "an agent's key, tg_..., or the operator's"}},
		},
	}}, err
}

// describedRoutes returns what the description says of the routes: their paths, and the schemas that these refer to. Both are generated from
// the routes and their Go types, and are the same for all servers.
var describedRoutes = sync.OnceValues(func() (d struct {
	paths   map[string]json.RawMessage
	schemas json.RawMessage
}, err error) {
	routes := allRoutes()
	all := newSchemas(routes)
	paths := map[string]object{}
	for _, rt := range routes {
		if paths[rt.path] == nil {
			paths[rt.path] = object{}
		}
		paths[rt.path][strings.ToLower(rt.method)] = all.operation(rt)
	}
	d.paths = make(map[string]json.RawMessage)
	for path, item := range paths {
		if d.paths[path], err = json.Marshal(item); err != nil {
			return d, err
		}
	}
	all.components["Problem"] = problemSchema()
	d.schemas, err = json.Marshal(all.components)
	return d, err
})

var pathParameter = regexp.MustCompile(`\{(\w+)\}`)

func (s *schemas) operation(rt route) object {
	tag, _, _ := strings.Cut(strings.TrimPrefix(rt.path, "/"), "/")
	op := object{
		"operationId": rt.name, "summary": rt.summary, "tags": []string{tag}, "parameters": parameters(rt),
		"responses": object{
			strconv.Itoa(rt.status): s.response(rt),
			"default":               object{"description": "a refusal or failure", "content": object{"application/problem+json": object{"schema": object{"$ref": componentPath + "Problem"}}}},
		},
	}
	if rt.access == anyone {
		op["security"] = []object{{}, {"key": []string{}}}
	}
	if body := question(rt.in); body != nil && rt.method != http.MethodGet && rt.method != http.MethodDelete {
		op["requestBody"] = object{"required": len(body.Required) > 0, "content": object{"application/json": object{"schema": body}}}
	}
	return op
}

func (s *schemas) response(rt route) object {
	if rt.status == http.StatusNoContent {
		return object{"description": "done"}
	}
	content := object{"application/json": object{"schema": object{"$ref": s.refs[rt.out].Ref}}}
	if rt.out.Implements(reflect.TypeFor[papered]()) {
		content["text/csv"] = object{"schema": object{"type": "string"}}
		content["text/html"] = object{"schema": object{"type": "string"}}
	}
	return object{"description": "done", "content": content}
}

func parameters(rt route) []object {
	list := []object{}
	for _, name := range pathParameter.FindAllStringSubmatch(rt.path, -1) {
		list = append(list, object{"name": name[1], "in": "path", "required": true, "schema": object{"type": "string"}})
	}
	for _, field := range reflect.VisibleFields(rt.in) {
		if name := field.Tag.Get("query"); name != "" {
			list = append(list, object{"name": name, "in": "query", "schema": parameterSchema(field.Type)})
		}
	}
	if rt.method == http.MethodPost && rt.write != nil {
		list = append(list, object{"name": "Idempotency-Key", "in": "header", "schema": object{"type": "string", "maxLength": maxIdempotencyKey}})
	}
	return list
}

func parameterSchema(t reflect.Type) object {
	switch t {
	case reflect.TypeFor[int]():
		return object{"type": "integer", "minimum": 1}
	case reflect.TypeFor[bool]():
		return object{"type": "boolean"}
	case reflect.TypeFor[time.Time]():
		return object{"type": "string", "description": "a time such as 2026-11-24T12:00:00Z, or a day"}
	default:
		return object{"type": "string"}
	}
}

func problemSchema() *jsonschema.Schema {
	text := func(description string) *jsonschema.Schema {
		return &jsonschema.Schema{Type: "string", Description: description}
	}
	code := text("the kind of problem, which an agent may rely on")
	for _, c := range codes() {
		code.Enum = append(code.Enum, c)
	}
	return &jsonschema.Schema{
		Type: "object", Required: []string{"type", "title", "status", "code", "detail"},
		Properties: map[string]*jsonschema.Schema{
			"type": text("a URI reference that ends in the code: the page about the problem"), "title": text(""), "status": {Type: "integer"}, "code": code, "detail": text("what is wrong, in words"),
			"field": text("the field of the request that is wrong"), "required": text("the amount that is needed"), "available": text("the amount that is available"),
			"remaining": text("the amount that is left"), "currency": text(""), "payee": text(""), "retry_after": text("after how many seconds to try again"),
			"charge": text("none, or unknown if it is not known whether a charge took place"),
			"pay":    {Type: "array", Items: &jsonschema.Schema{Type: "object"}, Description: "the ways to fund a wallet"},
		},
	}
}
