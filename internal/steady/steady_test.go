package steady

import (
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"testing"
)

// TestAnotherServerCloses: a connection stays when a server that it does not go to is closed.
func TestAnotherServerCloses(t *testing.T) {
	handler := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	asked, another := httptest.NewServer(handler), httptest.NewServer(handler)
	defer asked.Close()
	reused := false
	ask := func() {
		trace := &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) { reused = got.Reused }}
		r, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), http.MethodHead, asked.URL, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
	}
	ask()
	another.Close()
	if ask(); !reused {
		t.Error("the connection was closed")
	}
}
