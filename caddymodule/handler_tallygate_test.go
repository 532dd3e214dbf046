package caddymodule_test

import (
	"net/http"
	"testing"
)

// The directive takes a prefix in the place where other directives take a matcher.
func TestPrefix(t *testing.T) {
	t.Parallel()
	s := openShop(t, "", `tallygate /pay
	respond "passed on" 418`, http.NotFoundHandler())
	for path, want := range map[string]int{
		"/pay/api/v1/tariffs":  http.StatusOK,
		"/pay/openapi.json":    http.StatusOK,
		"/pay/api/v1/nothing":  http.StatusTeapot, // what the API does not have there goes on to the site
		"/pay/elsewhere":       http.StatusTeapot,
		"/pays/api/v1/tariffs": http.StatusTeapot,
	} {
		response, err := http.Get(s.url + path)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, response.StatusCode, want)
		}
	}
}
