package caddymodule_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream"
)

// TestAStreamEndsWithItsLastEvent uses upstreams that stay open after the terminal event of their stream. The event is charged and goes out at
// once. What comes after it is dropped.
func TestAStreamEndsWithItsLastEvent(t *testing.T) {
	t.Parallel()
	const chunk = `data: {"object":"chat.completion.chunk","model":"test-1","choices":[{"index":0,"delta":{"content":"hello"}}]}` + "\n\n"
	const usage = `data: {"object":"chat.completion.chunk","model":"test-1","choices":[],"usage":` + chatUsage + `}` + "\n\n"
	for _, test := range []struct{ name, site, path, body, stream, last, charge string }{
		{"chat", chatSite, chatCompletions, chatStreamUsage, chunk + usage, "data: [DONE]\n\n", chatCharge},
		{"messages", chatSite, "/v1/messages", `{"model":"test-1","max_tokens":10,"stream":true,"messages":[{"role":"user","content":"hi"}]}`,
			"event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"model\":\"test-1\",\"usage\":{\"input_tokens\":1000,\"output_tokens\":1}}}\n\n" +
				"event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{},\"usage\":{\"output_tokens\":200}}\n\n",
			"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n", "0.006"},
		{"responses", chatSite, "/v1/responses", `{"model":"test-1","stream":true,"input":"hi"}`,
			"event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"hello\"}\n\n",
			"event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"model\":\"test-1\",\"usage\":{\"input_tokens\":1000,\"output_tokens\":200}}}\n\ndata: [DONE]\n\n", "0.006"},
		{"per call", perCallSite, "/search", "", "data: 1\n\n", "data: [DONE]\n\n", "0.001"},
		{"per event", "handle /search* {\n\t\tmeter acme 0.01 per event\n\t\treverse_proxy UPSTREAM\n\t}", "/search", "", "data: 1\n\ndata: 2\n\n", "data: [DONE]\n\n", "0.02"},
	} {
		t.Run(test.name, func(t *testing.T) {
			next, silent := make(chan string), make(chan struct{})
			s := openShop(t, chatPrices, test.site, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				w.Header().Set("Content-Type", "text/event-stream")
				w.Header().Set("Trailer", "X-Sum")
				_, _ = io.WriteString(w, test.stream+test.last)
				for more, ok := "", true; ok; _, _ = io.WriteString(w, more) {
					w.(http.Flusher).Flush()
					select {
					case more, ok = <-next:
					case <-r.Context().Done():
						return
					}
				}
				w.Header().Set("X-Sum", "1")
				w.Header().Set(http.TrailerPrefix+"Tallygate-Charge", "0")
				close(silent)
			}))
			key := s.agent("alice", "1")
			method := "GET"
			if test.body != "" {
				method = "POST"
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			response, err := http.DefaultClient.Do(s.request(method, test.path, key, test.body).WithContext(ctx))
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			r := bufio.NewReader(response.Body)
			var got string
			for !strings.HasSuffix(got, test.last) {
				line, err := r.ReadString('\n')
				if got += line; err != nil {
					t.Fatalf("%v after %q", err, got)
				}
			}
			if test.body != "" && !strings.Contains(got, " charge="+test.charge+" ") {
				t.Errorf("no charge of %s in %q", test.charge, got)
			}
			want(t, "charge", fmt.Sprint(s.charge(key, response.Header.Get("Tallygate-Request"))["amount"]), test.charge)
			next <- ": a comment\n\n"
			next <- test.stream
			next <- test.last
			close(next)
			rest, err := io.ReadAll(r)
			if len(rest) > 0 || err != nil {
				t.Errorf("then %q, %v", rest, err)
			}
			<-silent
			want(t, "the upstream's trailer", response.Trailer.Get("X-Sum"), "1")
			if test.name == "per call" {
				want(t, "its forged trailer", response.Trailer.Get("Tallygate-Charge"), "")
			} else {
				want(t, "charge in the trailer", response.Trailer.Get("Tallygate-Charge"), test.charge)
			}
			want(t, "charges", fmt.Sprint(len(s.charges(key))), "1")
		})
	}
}

// TestAnUpstreamThatGoesOnIsLeft: the connection to an upstream that goes on sending after the terminal event is closed.
func TestAnUpstreamThatGoesOnIsLeft(t *testing.T) {
	t.Parallel()
	s := openShop(t, "", perCallSite, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: 1\n\ndata: [DONE]\n\n")
		for r.Context().Err() == nil {
			_, _ = io.WriteString(w, strings.Repeat("data: more\n\n", 1000))
			w.(http.Flusher).Flush()
		}
	}))
	key := s.agent("alice", "1")
	a := s.do("GET", "/search", key, "")
	if a.err != nil || len(a.body) > 100_000 {
		t.Errorf("%d bytes, %v", len(a.body), a.err)
	}
	want(t, "wallet", s.balance(key), "0.999")
}

// TestNoUpstreamSpeaksAsUs: comments in Tallygate's name are removed from every kind of stream. Tallygate adds its own comment only to streams
// whose clients are known to accept it.
func TestNoUpstreamSpeaksAsUs(t *testing.T) {
	t.Parallel()
	const forged = ": tallygate request=req_x charge=0 units= balance=1000000\n"
	s := openShop(t, "", perCallSite+"\n\thandle /events {\n\t\tmeter acme 0.01 per event\n\t\treverse_proxy UPSTREAM\n\t}",
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			status := 200
			if r.URL.Query().Has("fails") {
				status = 500
			}
			body := forged + "data: 1\n" + forged + "\n: ping\n\n" + strings.ToUpper(forged) + "data: [DONE]\n\n" + forged
			if r.URL.Query().Has("length") {
				w.Header().Set("Content-Length", fmt.Sprint(len(body)))
			}
			w.WriteHeader(status)
			for _, c := range []byte(body) {
				_, _ = w.Write([]byte{c})
				if r.URL.Query().Has("split") {
					w.(http.Flusher).Flush()
				}
			}
		}))
	key := s.agent("alice", "1")
	for _, path := range []string{
		"/search", "/search?split", "/search?length", "/events", "/events?split", "/events?length",
		"/search?fails", "/search?fails&split", "/search?fails&length", "/events?fails",
	} {
		a := s.do("GET", path, key, "")
		if a.err != nil || strings.Contains(strings.ToLower(a.body), "tallygate") || strings.Contains(a.body, "req_x") {
			t.Errorf("%s: %q, %v", path, a.body, a.err)
		}
		if !strings.Contains(a.body, "data: 1\n: \n\n: ping\n\n") {
			t.Errorf("%s: the upstream's own lines are not whole in %q", path, a.body)
		}
	}
}

// TestBedrocksUsageComesLast: Bedrock sends the usage after the event that ends the message, in pieces of their own. The usage is counted, and
// everything reaches the client.
func TestBedrocksUsageComesLast(t *testing.T) {
	t.Parallel()
	message := func(event, payload string) []byte {
		var b bytes.Buffer
		m := eventstream.Message{Payload: []byte(payload)}
		for name, value := range map[string]string{":message-type": "event", ":event-type": event, ":content-type": "application/json"} {
			m.Headers.Set(name, eventstream.StringValue(value))
		}
		if err := eventstream.NewEncoder().Encode(&b, m); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	var whole []byte
	s := openShop(t, chatPrices, strings.Replace(chatSite, "/v1/*", "/model/*", 1), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/vnd.amazon.eventstream")
		whole = nil
		for _, m := range [][]byte{
			message("contentBlockDelta", `{"contentBlockIndex":0,"delta":{"text":"hello"}}`),
			message("messageStop", `{"stopReason":"end_turn"}`),
			message("metadata", `{"usage":{"inputTokens":1000,"outputTokens":200,"totalTokens":1200}}`),
		} {
			whole = append(whole, m...)
			_, _ = w.Write(m)
			w.(http.Flusher).Flush()
			time.Sleep(20 * time.Millisecond) // the pace of a provider, not a wait for anything
		}
	}))
	key := s.agent("alice", "1")
	a := s.do("POST", "/model/test-1/converse-stream", key, `{"messages":[{"role":"user","content":[{"text":"hi"}]}]}`)
	if a.err != nil || a.body != string(whole) {
		t.Errorf("%v: %q", a.err, a.body)
	}
	charge := s.charge(key, a.header.Get("Tallygate-Request"))
	want(t, "charge", fmt.Sprint(charge["amount"], " ", charge["source"]), "0.006 stated")
}
