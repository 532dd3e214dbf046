package api_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/tallygate/tallygate/escrow/api"
)

// contract is /openapi.json as a client reads it.
type contract struct {
	Paths map[string]map[string]struct {
		OperationID string `json:"operationId"`
		Responses   map[string]struct {
			Content map[string]struct{ Schema json.RawMessage }
		}
		RequestBody struct {
			Content map[string]struct{ Schema json.RawMessage }
		}
	}
	Components struct{ Schemas map[string]json.RawMessage }

	paths map[string]*regexp.Regexp // what each of Paths matches
	mu    sync.Mutex
	seen  map[string]bool // operation and status that an answer was validated for
	cache map[string]*jsonschema.Resolved
}

var theContract contract

// TestMain checks, after all tests, that each operation was called and its answers were validated.
func TestMain(m *testing.M) {
	g := api.New(nil, api.Options{})
	must2(json.Unmarshal(openAPIOf(g), &theContract))
	theContract.seen, theContract.cache = map[string]bool{}, map[string]*jsonschema.Resolved{}
	theContract.paths = map[string]*regexp.Regexp{}
	for template := range theContract.Paths {
		theContract.paths[template] = templateRegexp(template)
	}
	code := m.Run()
	if missing := theContract.missing(); code == 0 && flag.Lookup("test.run").Value.String() == "" && len(missing) > 0 {
		fmt.Println("FAIL: no test has had these answers of the contract:", strings.Join(missing, ", "))
		code = 1
	}
	os.Exit(code)
}

// missing returns the operations for which no test had a success, or no test had a refusal.
func (c *contract) missing() (missing []string) {
	for _, operations := range c.Paths {
		for _, operation := range operations {
			for status := range operation.Responses {
				if name := operation.OperationID + " " + status; !c.seen[name] && name != "getHealth default" { // which never fails
					missing = append(missing, name)
				}
			}
		}
	}
	slices.Sort(missing)
	return missing
}

func must2(err error) {
	if err != nil {
		panic(err)
	}
}

// validate checks an answer of the API against what the contract says about it.
func (c *contract) validate(method, path string, a answer) error {
	path, _, _ = strings.Cut(strings.TrimPrefix(path, "/api/v1"), "?")
	for template, operations := range c.Paths {
		operation, known := operations[strings.ToLower(method)]
		if !known || !c.paths[template].MatchString(path) || strings.HasPrefix(template, "/agents/{id}") && strings.HasPrefix(path, "/agents/me") {
			continue
		}
		status := fmt.Sprint(a.status)
		response, known := operation.Responses[status]
		kind := "application/json"
		if !known {
			status, response, kind = "default", operation.Responses["default"], "application/problem+json"
			if a.status < 400 {
				return fmt.Errorf("status %d is not in the contract", a.status)
			}
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.seen[operation.OperationID+" "+status] = true
		content, known := response.Content[kind]
		if !known {
			if a.text != "" {
				return fmt.Errorf("an answer without content has %q", a.text)
			}
			return nil
		}
		got := a.header.Get("Content-Type")
		if plain, _, _ := strings.Cut(got, ";"); plain == "text/csv" || plain == "text/html" {
			if _, known := response.Content[plain]; known {
				return nil
			}
		}
		if got != kind {
			return fmt.Errorf("its type is %q, the contract says %q", got, kind)
		}
		resolved, err := c.resolve(operation.OperationID+status, content.Schema, status != "default")
		if err != nil {
			return err
		}
		var plain any
		if err := json.Unmarshal([]byte(a.text), &plain); err != nil {
			return err
		}
		return resolved.Validate(plain)
	}
	return nil // not one of the API's paths
}

func templateRegexp(template string) *regexp.Regexp {
	return regexp.MustCompile("^" + regexp.MustCompile(`\{\w+\}`).ReplaceAllString(template, "[^/]+") + "$")
}

// component finds the references to components in a schema.
var component = regexp.MustCompile(`"#/components/schemas/(\w+)"`)

// resolve resolves the references in a schema of the contract, and makes it strict: an answer may have no field that the contract does not name.
func (c *contract) resolve(name string, text json.RawMessage, strict bool) (*jsonschema.Resolved, error) {
	if done := c.cache[name]; done != nil {
		return done, nil
	}
	parse := func(text json.RawMessage) (*jsonschema.Schema, error) {
		var s jsonschema.Schema
		err := json.Unmarshal([]byte(strings.ReplaceAll(string(text), "#/components/schemas/", "#/$defs/")), &s)
		if strict {
			tighten(&s)
		}
		return &s, err
	}
	root, err := parse(text)
	if err != nil {
		return nil, err
	}
	root.Defs = map[string]*jsonschema.Schema{}
	for named := component.FindAllSubmatch(text, -1); len(named) > 0; {
		name := string(named[0][1])
		if named = named[1:]; root.Defs[name] != nil {
			continue
		}
		if root.Defs[name], err = parse(c.Components.Schemas[name]); err != nil {
			return nil, err
		}
		named = append(named, component.FindAllSubmatch(c.Components.Schemas[name], -1)...)
	}
	c.cache[name], err = root.Resolve(nil)
	return c.cache[name], err
}

func tighten(s *jsonschema.Schema) {
	if s == nil {
		return
	}
	if s.Properties != nil {
		s.AdditionalProperties = &jsonschema.Schema{Not: &jsonschema.Schema{}}
	}
	tighten(s.Items)
	for _, p := range s.Properties {
		tighten(p)
	}
}

func TestOpenAPI(t *testing.T) {
	g := newGate(t, rules(), api.Options{Prefix: "/gate", Version: "1.2.3"})
	doc := g.do("GET", "/openapi.json", "", "").want(200, "openapi", "3.1.0", "info.version", "1.2.3", "servers.0.url", "/gate/api/v1")
	if n := len(doc.body["paths"].(map[string]any)); n < 20 {
		t.Errorf("only %d paths", n)
	}
	create := theContract.Paths["/escrow"]["post"]
	body := string(create.RequestBody.Content["application/json"].Schema)
	for _, part := range []string{`"required":["to_agent_id","amount"]`, `"anyOf":[{"type":"string"},{"type":"number"}]`, `"auto_release_hours"`} {
		if !strings.Contains(body, part) {
			t.Errorf("no %s in %s", part, body)
		}
	}
}
