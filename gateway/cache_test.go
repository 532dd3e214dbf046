package gateway

import (
	"net/http"
	"testing"
)

func TestSharedCachesKeepNothing(t *testing.T) {
	for _, test := range []struct{ provider, private, unstored string }{
		{"", "private", "no-store"},
		{"public, max-age=60", "private, max-age=60", "no-store"},
		{"max-age=60, s-maxage=600", "private, max-age=60", "no-store"},
		{`private="Set-Cookie, X", max-age=60`, "private, max-age=60", "no-store"},
		{"Private", "Private", "no-store"},
		{"PUBLIC,,No-Store", "PUBLIC,,No-Store", "PUBLIC,,No-Store"},
		{"no-cache", "private, no-cache", "no-store"},
	} {
		for how, want := range map[string]string{"private": test.private, "no-store": test.unstored} {
			h := http.Header{"Cdn-Cache-Control": {"max-age=60"}, "Surrogate-Control": {"max-age=60"}, "X-Accel-Expires": {"60"}, "Vercel-Cdn-Cache-Control": {"max-age=1"}}
			if test.provider != "" {
				h.Set("Cache-Control", test.provider)
			}
			forbidCaching(h, how)
			if got := h.Get("Cache-Control"); got != want || len(h) != 1 {
				t.Errorf("%q became %v, want %s", test.provider, h, want)
			}
		}
	}
}
