package gateway

import (
	"net/http"
	"net/textproto"
	"net/url"
	"strings"
	"testing"

	"github.com/tallygate/tallygate/escrow"
)

// FuzzTakeKey puts keys and terms into any headers and queries. No Tallygate key and none of Tallygate's headers may stay in the request,
// and the caller's own key must be found if it is the only one.
func FuzzTakeKey(f *testing.F) {
	for _, seed := range [][2]string{
		{"Authorization: Bearer KEY", ""}, {"Tallygate-Key: KEY\nAuthorization: Bearer provider", "a=1"}, {"X-Api-Key: x\nX-Api-Key: KEY", "key=KEY"},
		{"authorization: KEY\nCookie: a=KEY", "%6bey=KEY&a=b"}, {"Tallygate-Tag: a=b,c=d\nTallygate-Max-Charge: 0.1\nIdempotency-Key: k", "key=KEY&key=KEY"},
		{"tallygate_key: KEY\nX: tg_tg_KEY", "a=%74g_&KEY=&=KEY"}, {"", "key="}, {"", "&&=&key"}, {"Authorization: Bearer a KEY", "x=%zz&KEY"},
	} {
		f.Add(seed[0], seed[1])
	}
	key := validKey(f)
	f.Fuzz(func(t *testing.T, lines, query string) {
		h := make(http.Header)
		alone := true
		for line := range strings.Lines(lines) {
			name, value, _ := strings.Cut(strings.TrimRight(line, "\r\n"), ":")
			value = strings.ReplaceAll(value, "KEY", key)
			if name = textproto.CanonicalMIMEHeaderKey(name); name != "" {
				h.Add(name, textproto.TrimString(value))
			}
			alone = alone && h.Get("Tallygate-Key") == key
		}
		query = strings.ReplaceAll(query, "KEY", key)
		r := &http.Request{Method: "GET", URL: &url.URL{Path: "/", RawQuery: query}, Header: h}
		got := takeKey(r, nil)
		if alone && len(h) > 0 && got != key {
			t.Errorf("Tallygate-Key came first, but the key is %q", got)
		}
		_, _ = takeTerms(r.Header)
		for name, values := range r.Header {
			if isOwn(name) || strings.HasPrefix(strings.ToLower(name), "tallygate-") {
				t.Errorf("%s stays", name)
			}
			for _, value := range values {
				if strings.Contains(value, key) {
					t.Errorf("%s: %q stays", name, value)
				}
			}
		}
		decoded, err := url.QueryUnescape(r.URL.RawQuery)
		if err != nil {
			decoded = r.URL.RawQuery
		}
		if strings.Contains(r.URL.RawQuery, key) || strings.Contains(decoded, key) {
			t.Errorf("the query %q stays", r.URL.RawQuery)
		}
	})
}

// validKey is a text with the form of a key.
func validKey(f *testing.F) string {
	f.Helper()
	const key = "tg_mC0XT26b60_EVYFftAorFIxj70pcmZDhlQYr6NMNiqT6CFzJK28MG01dmmuH"
	if !escrow.IsKey(key) {
		f.Fatal("keys have another form now: make one that fits")
	}
	return key
}
