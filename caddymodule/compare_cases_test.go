package caddymodule_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

func body(s string) func() io.Reader { return func() io.Reader { return strings.NewReader(s) } }

// unsized hides a reader's length, so that the body is sent in chunks.
func unsized(s string) func() io.Reader {
	return func() io.Reader { return struct{ io.Reader }{strings.NewReader(s)} }
}

func headers(pairs ...string) http.Header {
	h := make(http.Header)
	for i := 0; i+1 < len(pairs); i += 2 {
		h.Add(pairs[i], pairs[i+1])
	}
	return h
}

// answers is an upstream that answers with a status, a header and a body of known length.
func answers(status int, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for name, values := range headers(header...) {
			w.Header()[name] = values
		}
		if status != 204 && status != 304 {
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		}
		w.WriteHeader(status)
		if r.Method != http.MethodHead {
			_, _ = io.WriteString(w, body)
		}
	}
}

// flushes is an upstream that sends pieces in chunks.
func flushes(contentType string, pieces ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", contentType)
		for _, piece := range pieces {
			_, _ = io.WriteString(w, piece)
			w.(http.Flusher).Flush()
		}
	}
}

// gzipped is an upstream that compresses always, or only if asked.
func gzipped(always bool, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Vary", "Accept-Encoding")
		if !always && !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			_, _ = io.WriteString(w, body)
			return
		}
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = io.WriteString(z, body)
		_ = z.Close()
	}
}

const events = "event: a\ndata: 1\n\n: a comment\n\nid: 7\ndata: 2\ndata: more\n\ndata: [DONE]\n\n"

var long = strings.Repeat("0123456789abcdef", 20_000) // 320 kB

// exactly64k is the longest answer that is held back until it is charged.
var exactly64k = long[:64<<10]

func comparisons() []comparison {
	return slicesOf(plainCases, streamCases, requestCases, caddyCases, connectionCases)
}

func slicesOf(all ...[]comparison) (out []comparison) {
	for _, some := range all {
		out = append(out, some...)
	}
	return out
}

var plainCases = []comparison{
	{name: "small", charged: 1},
	{name: "json", upstream: answers(200, `{"a":1}`, "Content-Type", "application/json", "X-Own", "1", "X-Own", "2"), charged: 1},
	{name: "created", upstream: answers(201, "made", "Location", "/x"), charged: 1},
	{name: "empty", upstream: answers(200, ""), charged: 1},
	{name: "empty in chunks", upstream: flushes("text/plain", ""), charged: 1},
	{name: "no content", upstream: answers(204, "", "X-Own", "1"), charged: 1},
	{name: "long", upstream: answers(200, long), charged: 1},
	{name: "exactly 64 KiB", upstream: answers(200, exactly64k), charged: 1},
	{name: "64 KiB and a byte", upstream: answers(200, long[:64<<10+1]), charged: 1},
	{name: "64 KiB in chunks", upstream: flushes("application/json", long[:64<<10-1], "x"), charged: 1},
	{name: "64 KiB and a byte in chunks", upstream: flushes("application/json", exactly64k, "x"), charged: 1},
	{name: "long in chunks", upstream: flushes("text/plain", long[:5], long[5:100_000], long[100_000:]), charged: 1},
	{name: "head", method: "HEAD", upstream: answers(200, long), charged: 1},
	{name: "head without a length", method: "HEAD", upstream: flushes("text/plain", "x"), charged: 1},
	{name: "not modified", header: headers("If-None-Match", `"1"`), upstream: answers(304, "", "ETag", `"1"`)},
	{name: "not found", upstream: answers(404, "no such thing", "X-Own", "1")},
	{name: "teapot in chunks", upstream: func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(418)
		_, _ = io.WriteString(w, "short")
		w.(http.Flusher).Flush()
		_, _ = io.WriteString(w, " and stout")
	}},
	{name: "redirect", upstream: answers(302, "", "Location", "https://example.com/")},
	{name: "server error", upstream: answers(503, "later", "Retry-After", "7")},
	{name: "range", header: headers("Range", "bytes=10-19"), upstream: serveContent, charged: 1},
	{name: "ranges", header: headers("Range", "bytes=0-0,100-109"), upstream: func(w http.ResponseWriter, r *http.Request) {
		answers(206, "--b\r\n\r\n0\r\n--b--", "Content-Type", "multipart/byteranges; boundary=b")(w, r)
	}, charged: 1},
	{name: "unsatisfiable range", header: headers("Range", "bytes=400000-"), upstream: serveContent},
	{name: "large headers", upstream: func(w http.ResponseWriter, r *http.Request) {
		for i := range 200 {
			w.Header().Add(fmt.Sprintf("X-Large-%d", i), strings.Repeat("h", 1000))
		}
		w.Header()["Set-Cookie"] = []string{"a=1", "b=2"}
		_, _ = io.WriteString(w, "x")
	}, charged: 1},
	{name: "gzip if asked", header: headers("Accept-Encoding", "gzip"), upstream: gzipped(false, "text/plain", long), decodes: true, charged: 1},
	{name: "small gzip if asked", header: headers("Accept-Encoding", "gzip"), upstream: gzipped(false, "text/plain", "tiny"), decodes: true, charged: 1},
	{name: "gzip always", header: headers("Accept-Encoding", "gzip"), route: "reverse_proxy UPSTREAM {\n\t\t\ttransport http {\n\t\t\t\tcompression off\n\t\t\t}\n\t\t}", upstream: gzipped(true, "text/plain", long), decodes: true, charged: 1},
	{name: "gzip asked by the operator", route: "reverse_proxy UPSTREAM {\n\t\t\theader_up Accept-Encoding gzip\n\t\t}", header: headers("Accept-Encoding", "gzip"), upstream: gzipped(true, "text/plain", long), decodes: true, charged: 1},
	{name: "gzip events", header: headers("Accept-Encoding", "gzip"), upstream: gzipped(false, "text/event-stream", events), decodes: true, charged: 1},
	{name: "unknown coding", header: headers("Accept-Encoding", "x-own"), upstream: answers(200, "zzz", "Content-Encoding", "x-own"), onlyCall: true, charged: 1},
}

func serveContent(w http.ResponseWriter, r *http.Request) {
	http.ServeContent(w, r, "x.txt", time.Unix(1_700_000_000, 0), bytes.NewReader([]byte(long)))
}

var streamCases = []comparison{
	{name: "events", upstream: flushes("text/event-stream", events[:20], events[20:]), chunks: true, charged: 1},
	{name: "events of a known length", upstream: answers(200, events, "Content-Type", "text/event-stream"), chunks: true, charged: 1},
	{name: "events without an end", upstream: flushes("text/event-stream", "data: 1\n\n", "data: 2"), chunks: true, charged: 1},
	{name: "no events", upstream: flushes("text/event-stream", ""), chunks: true, charged: 1},
	{name: "lines", upstream: flushes("application/x-ndjson", "{\"a\":1}\n", "{\"a\":2}\n"), charged: 1},
	{name: "lines of a known length", upstream: answers(200, "{\"a\":1}\n"+strings.Repeat(" ", 70_000)+"\n", "Content-Type", "application/x-ndjson"), charged: 1},
	named("events at once", turns("", "text/event-stream", "data: 1\n\n", "data: 2\n\n", "data: 3\n\n")),
	named("lines at once", turns("", "application/x-ndjson", "{}\n", "{} \n", "{  }\n")),
	onCalls(named("text at once", turns("", "text/plain", "tick\n", "tock\n", "x"))),
	onCalls(named("bytes at once by h2c", turns("reverse_proxy UPSTREAM2", "application/grpc", "\x00\x01", "\x02", "\x03"))),
	{name: "bidirectional", route: "reverse_proxy UPSTREAM2", upstream: echo("application/grpc"), client: conversation("\x00\x01", "\x02", "\x03"), charged: 1, onlyCall: true},
	{name: "h2c upstream", route: "reverse_proxy UPSTREAM2", upstream: answers(200, "hello"), charged: 1},
	{name: "long from h2c", route: "reverse_proxy UPSTREAM2", upstream: flushes("text/plain", long), charged: 1},
	{name: "announced trailers", upstream: trailers(true), charged: 1},
	{name: "unannounced trailers", upstream: trailers(false), charged: 1},
	{name: "announced trailers by h2c", route: "reverse_proxy UPSTREAM2", upstream: trailers(true), charged: 1},
	{name: "unannounced trailers by h2c", route: "reverse_proxy UPSTREAM2", upstream: trailers(false), charged: 1},
	{name: "trailers of json", upstream: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		trailers(false)(w, r)
	}, charged: 1},
	{name: "trailers of an error", upstream: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum, Tallygate-Charge")
		w.WriteHeader(404)
		_, _ = io.WriteString(w, "x")
		w.Header().Set("X-Sum", "42")
		w.Header().Set("Tallygate-Charge", "forged")
	}},
	{name: "unannounced trailers of an error", upstream: func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(404)
		w.(http.Flusher).Flush()
		w.Header().Set(http.TrailerPrefix+"X-Sum", "42")
		w.Header().Set(http.TrailerPrefix+"Tallygate-Charge", "forged")
	}},
	{name: "early hints", upstream: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</a.css>; rel=preload")
		w.Header().Set("Tallygate-Charge", "forged")
		w.WriteHeader(103)
		w.Header().Set("Link", "</b.css>; rel=preload")
		w.WriteHeader(103)
		w.Header().Del("Link")
		_, _ = io.WriteString(w, "hinted")
	}, charged: 1},
	{name: "early hints of an error", upstream: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</a.css>; rel=preload")
		w.WriteHeader(103)
		w.WriteHeader(404)
	}},
	{name: "websocket", upstream: upgradeAndEcho, client: webSocket, charged: 1},
}

func named(name string, c comparison) comparison {
	c.name = name
	return c
}

func onCalls(c comparison) comparison {
	c.onlyCall = true
	return c
}

func trailers(announced bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		prefix := http.TrailerPrefix
		if announced {
			prefix = ""
			w.Header().Set("Trailer", "X-Sum")
		}
		_, _ = io.WriteString(w, "body")
		w.(http.Flusher).Flush()
		w.Header().Set(prefix+"X-Sum", "42")
	}
}

var readAll http.HandlerFunc = func(w http.ResponseWriter, r *http.Request) {
	n, err := io.Copy(io.Discard, r.Body)
	_, _ = fmt.Fprintf(w, "%d bytes, %v", n, err)
}

var requestCases = []comparison{
	{name: "post", method: "POST", body: body("a=1"), upstream: readAll, charged: 1},
	{name: "post nothing", method: "POST", upstream: readAll, charged: 1},
	{name: "post an empty chunk", method: "POST", body: unsized(""), upstream: readAll, charged: 1},
	{name: "put in chunks", method: "PUT", body: unsized(long), upstream: readAll, charged: 1},
	{name: "large upload", method: "POST", body: func() io.Reader { return strings.NewReader(strings.Repeat(long, 8)) }, upstream: readAll, charged: 1},
	{name: "delete", method: "DELETE", upstream: answers(204, ""), charged: 1},
	{name: "options", method: "OPTIONS", upstream: answers(200, "", "Allow", "GET"), charged: 1},
	{name: "own method", method: "BREW", body: body("x"), upstream: readAll, charged: 1},
	{name: "odd path", path: "/a%2Fb/%41%20?x=%2F&y=a+b&z", charged: 1},
	{name: "headers to the upstream", header: headers("X-A", "1", "X-A", "2", "Cookie", "a=1", "Te", "trailers", "Authorization", "Bearer provider"), charged: 1},
	{name: "hop by hop", header: headers("Connection", "X-Secret", "X-Secret", "1", "Keep-Alive", "timeout=5"), charged: 1, client: raw([]string{"GET"}, "GET PATH HTTP/1.1\nHost: SITE\nKEY\nConnection: X-Secret, close\nX-Secret: 1\nKeep-Alive: timeout=5\n\n")},
	{name: "request trailers", method: "POST", upstream: readAll, body: func() io.Reader {
		return &withTrailer{strings.NewReader("body"), http.Header{"X-Sum": nil}, http.Header{"X-Sum": {"42"}}}
	}, charged: 1},
	{name: "request trailers to h2c", method: "POST", route: "reverse_proxy UPSTREAM2", upstream: readAll, body: func() io.Reader {
		return &withTrailer{strings.NewReader("body"), http.Header{"X-Sum": nil}, http.Header{"X-Sum": {"42"}}}
	}, charged: 1},
	{name: "expect", method: "POST", header: headers("Expect", "100-continue"), body: body("hello"), upstream: readAll, charged: 1},
	{name: "expect refused", method: "POST", header: headers("Expect", "100-continue"), body: body("hello"), upstream: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		w.WriteHeader(417)
	}},
	{name: "answer before the upload ends", method: "POST", body: body("hello"), upstream: answers(200, "early"), charged: 1},
}

// caddyCases are routes that use other handlers of Caddy behind the meter.
var caddyCases = []comparison{
	{name: "respond", route: "respond \"hi\" 200", charged: 1},
	{name: "respond nothing", route: "respond 204", charged: 1},
	{name: "respond an error", route: "respond \"no\" 403"},
	{name: "error", route: "header X-Own 1\n\t\terror \"no\" 402"},
	{name: "no handler", route: "header X-Own 1"},
	{name: "upstream down", route: "header X-Own 1\n\t\treverse_proxy REFUSING"},
	{name: "upstream dies", route: "header X-Own 1\n\t\treverse_proxy DYING"},
	{name: "file", path: "/big.txt", route: "root FILES\n\t\tfile_server", charged: 1},
	{name: "small file", path: "/small.txt", route: "root FILES\n\t\tfile_server", charged: 1},
	{name: "file head", method: "HEAD", path: "/big.txt", route: "root FILES\n\t\tfile_server", charged: 1},
	{name: "file range", header: headers("Range", "bytes=5-70009"), path: "/big.txt", route: "root FILES\n\t\tfile_server", charged: 1},
	{name: "file not modified", header: headers("If-Modified-Since", "Fri, 02 Jan 2026 00:00:00 GMT"), path: "/big.txt", route: "root FILES\n\t\tfile_server"},
	{name: "file not found", path: "/none.txt", route: "root FILES\n\t\tfile_server"},
	{name: "templates", path: "/page.html", route: "root FILES\n\t\ttemplates\n\t\tfile_server", charged: 1},
	{name: "encode outside", header: headers("Accept-Encoding", "gzip"), route: "encode gzip\n\t\treverse_proxy UPSTREAM", upstream: flushes("text/plain", long), decodes: true, charged: 1},
	{name: "encode outside of a small body", header: headers("Accept-Encoding", "gzip"), route: "encode gzip\n\t\treverse_proxy UPSTREAM", upstream: answers(200, long[:3000], "Content-Type", "text/plain", "ETag", `"1"`), charged: 1},
	{name: "encode outside of events", header: headers("Accept-Encoding", "gzip"), route: "encode {\n\t\t\tgzip\n\t\t\tmatch header Content-Type text/event-stream\n\t\t}\n\t\treverse_proxy UPSTREAM", upstream: flushes("text/event-stream", strings.Repeat("data: 1234567890\n\n", 100)), decodes: true, chunks: true, charged: 1},
	{name: "encode outside of a file", header: headers("Accept-Encoding", "gzip"), path: "/big.txt", route: "encode gzip\n\t\troot FILES\n\t\tfile_server", charged: 1},
	{name: "handle_response", route: "reverse_proxy UPSTREAM {\n\t\t\t@gone status 410\n\t\t\thandle_response @gone {\n\t\t\t\theader X-Was {rp.status_code}\n\t\t\t\trespond \"instead\" 200\n\t\t\t}\n\t\t}", upstream: answers(410, "gone", "X-Up", "1"), charged: 1},
	{name: "handle_response copies", route: "reverse_proxy UPSTREAM {\n\t\t\thandle_response {\n\t\t\t\tcopy_response_headers {\n\t\t\t\t\tinclude X-Up Content-Type\n\t\t\t\t}\n\t\t\t\tcopy_response 203\n\t\t\t}\n\t\t}", upstream: answers(200, long[:100], "X-Up", "1", "Content-Type", "text/x-own"), charged: 1},
	{name: "handle_response refuses", route: "reverse_proxy UPSTREAM {\n\t\t\thandle_response {\n\t\t\t\terror 404\n\t\t\t}\n\t\t}"},
	{name: "replace_status", route: "reverse_proxy UPSTREAM {\n\t\t\treplace_status 202\n\t\t}", charged: 1},
	{name: "intercept", route: "intercept {\n\t\t\t@bad status 5xx\n\t\t\thandle_response @bad {\n\t\t\t\trespond \"mended\" 200\n\t\t\t}\n\t\t}\n\t\treverse_proxy UPSTREAM", upstream: answers(500, "broken"), charged: 1},
	{name: "intercept to an error", route: "intercept {\n\t\t\t@ok status 200\n\t\t\thandle_response @ok {\n\t\t\t\trespond \"no more\" 410\n\t\t\t}\n\t\t}\n\t\treverse_proxy UPSTREAM"},
	{name: "second upstream", route: "reverse_proxy REFUSING UPSTREAM {\n\t\t\tlb_policy first\n\t\t\tlb_retries 2\n\t\t\tfail_duration 5s\n\t\t}", charged: 1},
	{name: "post to the second upstream", method: "POST", body: body("hello"), upstream: readAll, route: "reverse_proxy REFUSING UPSTREAM {\n\t\t\tlb_policy first\n\t\t\tlb_retries 2\n\t\t\tfail_duration 5s\n\t\t}", charged: 1},
	{name: "upstream that dies, then another", route: "reverse_proxy DYING UPSTREAM {\n\t\t\tlb_policy first\n\t\t\tlb_retries 2\n\t\t\tfail_duration 5s\n\t\t}", charged: 1},
	{name: "replayed post", method: "POST", body: body("hello"), upstream: readAll, route: "reverse_proxy DYING UPSTREAM {\n\t\t\tlb_policy first\n\t\t\tlb_retries 2\n\t\t\tlb_retry_match {\n\t\t\t\tmethod POST\n\t\t\t}\n\t\t\tfail_duration 5s\n\t\t\trequest_buffers 64KiB\n\t\t}", charged: 1},
	{name: "response buffers", route: "reverse_proxy UPSTREAM {\n\t\t\tresponse_buffers 1MiB\n\t\t}", upstream: flushes("text/plain", long), charged: 1},
	{name: "flush interval", route: "reverse_proxy UPSTREAM {\n\t\t\tflush_interval 1ms\n\t\t}", upstream: answers(200, long), charged: 1},
	{name: "flush at once", route: "reverse_proxy UPSTREAM {\n\t\t\tflush_interval -1\n\t\t}", upstream: answers(200, "small"), charged: 1},
	{name: "rewritten", path: "/x?y=1", route: "rewrite /" + "rewritten" + "/other?z=2\n\t\treverse_proxy UPSTREAM", charged: 1},
}

var connectionCases = []comparison{
	{name: "HTTP 1.0", client: raw([]string{"GET"}, "GET PATH HTTP/1.0\nHost: SITE\nKEY\n\n"), charged: 1},
	{name: "HTTP 1.0 long", upstream: flushes("text/plain", long), client: raw([]string{"GET"}, "GET PATH HTTP/1.0\nHost: SITE\nKEY\n\n"), charged: 1},
	{name: "HTTP 1.0 kept alive", client: raw([]string{"GET", "GET"}, "GET PATH HTTP/1.0\nHost: SITE\nConnection: keep-alive\nKEY\n\nGET PATH HTTP/1.0\nHost: SITE\nKEY\n\n"), charged: 2},
	{name: "pipelined", upstream: readAll, client: raw([]string{"GET", "POST", "HEAD", "GET"}, "GET PATH/1 HTTP/1.1\nHost: SITE\nKEY\n\nPOST PATH/2 HTTP/1.1\nHost: SITE\nKEY\nContent-Length: 3\n\nabcHEAD PATH/3 HTTP/1.1\nHost: SITE\nKEY\n\nGET PATH/4 HTTP/1.1\nHost: SITE\nKEY\nConnection: close\n\n"), charged: 4},
	{name: "client closes", client: raw([]string{"GET"}, "GET PATH HTTP/1.1\nHost: SITE\nKEY\nConnection: close\n\n"), charged: 1},
	{name: "upstream closes", upstream: answers(200, "hello", "Connection", "close"), charged: 1},
	{name: "absolute form", client: raw([]string{"GET"}, "GET http://SITEPATH HTTP/1.1\nHost: SITE\nKEY\nConnection: close\n\n"), charged: 1},
	{name: "bare line feeds and folded case", client: raw([]string{"GET"}, "GET PATH HTTP/1.1\nhOST: SITE\nKEY\nx-oWN: 1\nConnection: close\n\n"), charged: 1},
	{name: "expect on the wire", upstream: readAll, client: raw([]string{"POST"}, "POST PATH HTTP/1.1\nHost: SITE\nKEY\nExpect: 100-continue\nContent-Length: 3\nConnection: close\n\nabc"), charged: 1},
}
