package gateway

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// setBody makes body the request's body, in a form that can be sent more than once.
func setBody(r *http.Request, body []byte) {
	r.Body = io.NopCloser(bytes.NewReader(body))
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	r.ContentLength = int64(len(body))
	r.TransferEncoding = nil
	if r.Header.Get("Content-Length") != "" {
		r.Header.Set("Content-Length", strconv.Itoa(len(body)))
	}
}

// IsEarly reports whether a request came as TLS early data, to this server (HTTP/3) or to a proxy in front of it. Such a request may be a
// replay (RFC 8470), so it might be done twice. Any value of the header Early-Data counts.
func IsEarly(r *http.Request) bool {
	return r.TLS != nil && !r.TLS.HandshakeComplete || len(r.Header["Early-Data"]) > 0
}

// checkReading refuses a path or a method that a provider might read differently, if the price depends on them. Some servers cut a path at
// a semicolon, some decode it twice, and some not at all. So one path could be a free call for one program and an expensive one for
// another. No API needs such a path.
func checkReading(r *http.Request) *ledger.Refusal {
	odd := func(c rune) bool { return c < ' ' || c == 0x7f || strings.ContainsRune(`%?#;\`, c) }
	dots := func(segment string) bool { return segment == "." || segment == ".." }
	if strings.ContainsFunc(r.URL.Path, odd) || slices.ContainsFunc(strings.Split(r.URL.Path, "/"), dots) {
		return refuse(escrow.InvalidRequest, "path "+strconv.Quote(cutText([]byte(r.URL.Path), 100))+": what it asks for can't be told for sure; write it without dot segments, and without % ? # ; \\ and control characters in any encoding", "field", "path")
	}
	maps.DeleteFunc(r.Header, func(name string, _ []string) bool { return isMethodOverride(name) || isOneOf(name, pathOverrides) })
	return nil
}

// pathOverrides are headers by which some servers take a request for one to another path: IIS with URL Rewrite, and frameworks that know it.
// https://symfony.com/blog/cve-2018-14773-remove-support-for-legacy-and-risky-http-headers
var pathOverrides = []string{"X-Original-Url", "X-Rewrite-Url", "X-Override-Url"}

// methodOverrides are headers by which some servers take a request for one with another method.
var methodOverrides = []string{"X-Http-Method-Override", "X-Http-Method", "X-Method-Override"}

func isMethodOverride(header string) bool { return isOneOf(header, methodOverrides) }

// isOneOf reports whether a header is one of those listed, also for servers to which underscores are hyphens.
func isOneOf(header string, listed []string) bool {
	return slices.ContainsFunc(listed, func(name string) bool { return isNamed(header, name) })
}

// isNamed reports whether a header has a name, in any case, also for servers to which underscores are hyphens.
func isNamed(header, name string) bool {
	if len(header) != len(name) {
		return false
	}
	for i := range len(header) {
		if folded(header[i]) != folded(name[i]) {
			return false
		}
	}
	return true
}

func folded(c byte) byte {
	switch {
	case c == '_':
		return '-'
	case 'A' <= c && c <= 'Z':
		return c | 0x20
	default:
		return c
	}
}

func overridesMethod(h http.Header) bool {
	for name := range h {
		if isMethodOverride(name) {
			return true
		}
	}
	return false
}

// leavesHTTP reports whether a request asks for a tunnel, in which usage could not be counted as HTTP.
func leavesHTTP(r *http.Request) bool {
	return r.Header.Get("Upgrade") != "" || r.Method == http.MethodConnect
}

// hasBody reports whether a request has a body, which ends. What follows a CONNECT is what goes through the tunnel.
func hasBody(r *http.Request) bool {
	return r.Body != nil && r.Body != http.NoBody && r.Method != http.MethodConnect
}

// dropHTTPUpgrade removes the request to change to another version of HTTP on the same connection, which servers may ignore. Such a tunnel
// would carry more requests past the meter.
func dropHTTPUpgrade(h http.Header) {
	upgrade := strings.ToLower(strings.Join(h["Upgrade"], ","))
	if strings.Contains(upgrade, "h2c") || strings.Contains(upgrade, "http/") {
		h.Del("Upgrade")
		h.Del("Http2-Settings")
	}
}

// dropHops removes the headers that the client's Connection names: they are for this server, and a proxy behind the meter would take them off.
// So none is read for the price that the provider does not get, and none that the meter writes for the provider can be named there.
func dropHops(h http.Header) {
	var kept []string
	dropped := false
	for _, line := range h["Connection"] {
		for option := range strings.SplitSeq(line, ",") {
			switch option = strings.TrimSpace(option); strings.ToLower(option) {
			case "":
			case "close", "keep-alive", "upgrade", "te", "http2-settings": // the proxy sees to these
				kept = append(kept, option)
			default:
				h.Del(option)
				dropped = true
			}
		}
	}
	switch {
	case !dropped:
	case len(kept) == 0:
		h.Del("Connection")
	default:
		h["Connection"] = []string{strings.Join(kept, ", ")}
	}
}

// dropRange takes off the wish for a part of the answer: the provider sends all of it then.
func dropRange(h http.Header) {
	h.Del("Range")
	h.Del("If-Range")
}

// dropOwnTrailers prevents keys, trailers that are for Tallygate, and those on which a price depends, from reaching the provider. Trailers come
// after the body, with or without an announcement. With ownOnly, other keys than Tallygate's are passed on.
func dropOwnTrailers(r *http.Request, ownOnly bool) {
	if r.Body == nil || r.Trailer == nil {
		return
	}
	body := &trailerFilter{r.Body, r.Trailer, ownOnly}
	body.filter()
	r.Body = body
}

type trailerFilter struct {
	io.ReadCloser
	trailer http.Header
	ownOnly bool
}

func (f *trailerFilter) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	if err == io.EOF {
		f.filter()
	}
	return n, err
}

func (f *trailerFilter) filter() {
	dropOwn(f.trailer)
	dropKeys(f.trailer)
	maps.DeleteFunc(f.trailer, func(name string, _ []string) bool { return BearsOnPrice(name) }) // some servers take trailers for headers
	if f.ownOnly {
		return
	}
	for _, name := range keyHeaders {
		f.trailer.Del(name)
	}
}

// dropKeys removes from h all values that contain a Tallygate key.
func dropKeys(h http.Header) {
	for name, values := range h {
		if !slices.ContainsFunc(values, escrow.HoldsKey) {
			continue
		}
		if values = slices.DeleteFunc(slices.Clone(values), escrow.HoldsKey); len(values) > 0 {
			h[name] = values
		} else {
			delete(h, name)
		}
	}
}

// keyHeaders are the headers in which clients put a provider's key, in the order in which they are searched.
var keyHeaders = []string{"Tallygate-Key", "Authorization", "X-Api-Key", "X-Goog-Api-Key", "Api-Key"}

// takeKey finds the caller's key and removes it from the request, so that it never reaches the provider. If the key is in Tallygate-Key,
// other keys are the provider's and are passed on. But anything that contains a Tallygate key is removed, wherever it is. With own, only keys
// that it reports are looked for, and all others are passed on.
func takeKey(r *http.Request, own func(key string) bool) string {
	var key string
	for _, name := range keyHeaders {
		values := r.Header[name]
		if len(values) == 0 {
			continue
		}
		var others []string
		for _, value := range values {
			token := keyIn(name, value)
			if token == "" || own != nil && !own(token) || key != "" && token != key && !escrow.IsKey(token) {
				others = append(others, value)
				continue
			}
			if key == "" || !escrow.IsKey(key) && escrow.IsKey(token) && name != "Tallygate-Key" {
				key = token
			}
		}
		switch {
		case len(others) == 0:
			delete(r.Header, name)
		case len(others) < len(values):
			r.Header[name] = others
		}
	}
	if inQuery := takeQueryKey(r, key == "", own); key == "" {
		key = inQuery
	}
	dropKeys(r.Header)
	return key
}

// keyIn returns the key in a header's value, or an empty text.
func keyIn(name, value string) string {
	if name != "Authorization" {
		return value
	}
	scheme, token, _ := strings.Cut(value, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// takeQueryKey removes ?key= from the URL if it is the caller's only key, and all parameters that contain a Tallygate key. The others stay
// as they are written.
func takeQueryKey(r *http.Request, only bool, own func(key string) bool) string {
	if r.URL.RawQuery == "" {
		return ""
	}
	var key string
	cutQuery(r, func(name, value string) bool {
		is := only && name == "key" && (own == nil || own(value))
		if is && (key == "" || !escrow.IsKey(key) && escrow.IsKey(value)) {
			key = value
		}
		return is || escrow.HoldsKey(name) || escrow.HoldsKey(value)
	})
	return key
}

// cutQuery removes parameters from the URL. It passes their names and values to drop, decoded.
func cutQuery(r *http.Request, drop func(name, value string) bool) {
	var kept []string
	taken := false
	for pair := range strings.SplitSeq(r.URL.RawQuery, "&") {
		name, value, _ := strings.Cut(pair, "=")
		if drop(unescaped(name), unescaped(value)) {
			taken = true
			continue
		}
		kept = append(kept, pair)
	}
	if taken {
		r.URL.RawQuery = strings.Join(kept, "&")
		r.RequestURI = r.URL.RequestURI()
	}
}

// OwnKey reports whether a text is a key of this gateway: it has the form of an agent's key, or is the operator's.
func (g *Gateway) OwnKey(text string) bool { return escrow.IsKey(text) || g.book.IsOperatorKey(text) }

// ownKeys returns what tells keys that are taken from a route's requests from those that are not; nil if all are.
func (g *Gateway) ownKeys(route *Route) func(key string) bool {
	if route.leavesKeys() {
		return g.OwnKey
	}
	return nil
}

// DropKeys removes everything from a request that contains a Tallygate key: headers, parameters of the URL, and trailers that have come. It
// is for requests that no meter covers. own, if set, reports other texts that are keys, see [Gateway.OwnKey].
func DropKeys(r *http.Request, own func(key string) bool) {
	if own != nil {
		takeKey(r, own)
	}
	dropKeys(r.Header)
	dropKeys(r.Trailer)
	if strings.Contains(r.URL.RawQuery, "=") {
		cutQuery(r, func(name, value string) bool { return escrow.HoldsKey(name) || escrow.HoldsKey(value) })
	}
}

// IsMetered reports whether a request is below a meter, which has taken its key.
func IsMetered(r *http.Request) bool {
	_, is := r.Context().Value(callKey{}).(*admitted)
	return is
}

// unescaped returns a part of a query, decoded. If it can't be decoded, it is returned unchanged.
func unescaped(text string) string {
	if decoded, err := url.QueryUnescape(text); err == nil {
		return decoded
	}
	return text
}

// terms are what a caller asks for in Tallygate's request headers.
type terms struct {
	escrow         string            // Tallygate-Escrow
	milestone      string            // Tallygate-Milestone
	idempotencyKey string            // Idempotency-Key; the provider gets another one, see ownIdempotencyKey
	maxCharge      ledger.Amount     // Tallygate-Max-Charge
	tags           map[string]string // Tallygate-Tag: team=x, run=7
}

const (
	maxTags      = 16
	maxTagLength = 128

	maxIdempotencyKey = 255
)

// takeTerms reads the Tallygate-* request headers and removes them, even if it refuses them, because they are not for the provider.
func takeTerms(h http.Header) (terms, *ledger.Refusal) {
	defer dropOwn(h)
	for _, name := range []string{"Tallygate-Escrow", "Tallygate-Milestone", "Tallygate-Max-Charge", "Idempotency-Key"} {
		if len(h[name]) > 1 {
			return terms{}, refuse(escrow.InvalidRequest, name+" is given more than once", "field", name)
		}
	}
	t := terms{escrow: valueOf(h, "Tallygate-Escrow"), milestone: valueOf(h, "Tallygate-Milestone"), idempotencyKey: valueOf(h, "Idempotency-Key")}
	if len(t.idempotencyKey) > maxIdempotencyKey {
		return t, refuse(escrow.InvalidRequest, "Idempotency-Key: at most 255 bytes", "field", "Idempotency-Key")
	}
	if s := valueOf(h, "Tallygate-Max-Charge"); s != "" {
		amount, err := ledger.ParseAmount(s)
		if err == nil && amount <= 0 {
			err = errors.New(s + ": expected an amount above zero")
		}
		if err != nil {
			return t, refuse(escrow.InvalidRequest, "Tallygate-Max-Charge: "+err.Error(), "field", "Tallygate-Max-Charge")
		}
		t.maxCharge = amount
	}
	for _, line := range h["Tallygate-Tag"] {
		for pair := range strings.SplitSeq(line, ",") {
			name, value, ok := strings.Cut(strings.TrimSpace(pair), "=")
			if !ok || name == "" || len(pair) > maxTagLength || len(t.tags) == maxTags {
				return t, refuse(escrow.InvalidRequest, "Tallygate-Tag "+strconv.Quote(pair)+": expected NAME=VALUE, at most 16 of at most 128 bytes", "field", "Tallygate-Tag")
			}
			if t.tags == nil {
				t.tags = make(map[string]string)
			}
			t.tags[name] = value
		}
	}
	return t, nil
}

// idempotencyKeys are headers by which providers know a request that is sent again.
var idempotencyKeys = []string{"Idempotency-Key", "X-Idempotency-Key"}

// ownIdempotencyKey replaces the caller's idempotency key by one that is different for each payer, and for each route and path. To the
// provider, all payers are one customer, so it could give one payer an answer that it has stored for another. The same key of the same
// payer on the same path always has the same replacement.
func (a *arrival) ownIdempotencyKey() {
	h := a.request.Header
	for name, keys := range h {
		if isOneOf(name, idempotencyKeys) {
			h[name] = []string{"tg-" + a.scoped(append([]string{a.payer.Agent}, keys...)...)}
		}
	}
}

// scoped makes a name that belongs to the payee, the route and the path that the caller has asked for, before rewrites.
func (a *arrival) scoped(names ...string) string {
	sum := sha256.New()
	for _, part := range append(names, a.route.Payee, a.route.Name, a.gateway.options.Path(a.request)) {
		sum.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		_, _ = io.WriteString(sum, part)
	}
	return hex.EncodeToString(sum.Sum(nil)[:16])
}
