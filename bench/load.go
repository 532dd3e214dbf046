package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// turn is the result of loading one server.
type turn struct {
	took   time.Duration
	count  int64           // calls, or events of streams
	delays []time.Duration // of each of them, in no order
	cpu    time.Duration
	rss    int64
}

// pair is a turn of each server, one right after the other.
type pair struct{ bare, metered turn }

// measure runs a case's pairs. The servers take turns at being first.
func (b *bench) measure(c load) (pairs []pair, err error) {
	for i := range b.pairs + 1 {
		var p pair
		first, second := b.bare, b.metered
		if i%2 == 1 {
			first, second = second, first
		}
		for _, s := range []*process{first, second} {
			t, err := b.load(s, c)
			if err != nil {
				return nil, err
			}
			if s == b.bare {
				p.bare = t
			} else {
				p.metered = t
			}
		}
		if i > 0 { // the first one warms up
			pairs = append(pairs, p)
		}
	}
	return pairs, nil
}

// load is one turn of one server.
func (b *bench) load(p *process, c load) (turn, error) {
	before, err := p.cpu()
	if err != nil {
		return turn{}, err
	}
	if c.http2 {
		defer b.http2.CloseIdleConnections()
	}
	client := &fasthttp.HostClient{Addr: p.address, MaxConns: c.connections + 1, StreamResponseBody: c.events, MaxIdemponentCallAttempts: 1,
		ReadBufferSize: 16 << 10, MaxResponseBodySize: 1 << 30}
	defer client.CloseIdleConnections()
	var (
		began  = time.Now()
		end    = began.Add(b.turn)
		next   atomic.Int64
		all    sync.WaitGroup
		mu     sync.Mutex
		result turn
		failed error
	)
	for n := range c.connections {
		all.Go(func() {
			var delays []time.Duration
			run := b.connection
			if c.http2 {
				run = b.stream
			}
			err := run(client, p, c, n, began, end, &next, &delays)
			mu.Lock()
			defer mu.Unlock()
			result.delays = append(result.delays, delays...)
			if err != nil && failed == nil {
				failed = err
			}
		})
	}
	all.Wait()
	result.took, result.count = time.Since(began), int64(len(result.delays))
	if failed != nil {
		return turn{}, failed
	}
	after, err := p.cpu()
	if err != nil {
		return turn{}, err
	}
	result.cpu = after - before
	result.rss, err = p.rss()
	return result, err
}

// connection sends one request after the other until the turn is over.
func (b *bench) connection(client *fasthttp.HostClient, p *process, c load, n int, began, end time.Time, next *atomic.Int64, delays *[]time.Duration) error {
	request, response := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
	defer fasthttp.ReleaseRequest(request)
	defer fasthttp.ReleaseResponse(response)
	request.SetRequestURI("http://" + p.address + c.path)
	if c.body != "" {
		request.Header.SetMethod(fasthttp.MethodPost)
		request.Header.SetContentType("application/json")
		request.Header.Set("Accept", "application/json, text/event-stream")
		request.SetBodyString(c.body)
	}
	keys := b.keys[p]
	for turn := n; ; turn += c.connections {
		due := time.Now()
		if c.rate > 0 {
			due = began.Add(time.Duration(float64(next.Add(1)-1) / c.rate * float64(time.Second)))
			time.Sleep(time.Until(due))
		}
		if !due.Before(end) {
			return nil
		}
		if p.meters {
			request.Header.Set("Authorization", "Bearer "+keys[turn%max(c.payers, 1)%len(keys)])
		}
		if err := client.Do(request, response); err != nil {
			return err
		}
		if response.StatusCode() != fasthttp.StatusOK || response.Header.ContentLength() == 0 {
			return fmt.Errorf("%d: %q", response.StatusCode(), response.Body())
		}
		if c.events {
			if err := readEvents(response, delays); err != nil {
				return err
			}
		} else {
			*delays = append(*delays, time.Since(due))
		}
		response.Reset()
	}
}

// stream is like connection, for one of the streams of HTTP/2. fasthttp does not know HTTP/2, so it uses net/http, which costs the load
// generator more; both servers share the machine with it in the same way.
func (b *bench) stream(_ *fasthttp.HostClient, p *process, c load, n int, began, end time.Time, _ *atomic.Int64, delays *[]time.Duration) error {
	keys := b.keys[p]
	for turn := n; ; turn += c.connections {
		due := time.Now()
		if !due.Before(end) {
			return nil
		}
		r, err := http.NewRequest(http.MethodGet, "http://"+p.address+c.path, nil)
		if err != nil {
			return err
		}
		if p.meters {
			r.Header.Set("Authorization", "Bearer "+keys[turn%max(c.payers, 1)%len(keys)])
		}
		answer, err := b.http2.Do(r)
		if err != nil {
			return err
		}
		size, err := io.Copy(io.Discard, answer.Body)
		_ = answer.Body.Close()
		if err != nil {
			return err
		}
		if answer.StatusCode != http.StatusOK || answer.ProtoMajor != 2 || size == 0 {
			return fmt.Errorf("%s %s, %d bytes", answer.Proto, answer.Status, size)
		}
		*delays = append(*delays, time.Since(due))
	}
}

// newHTTP2 returns a client that speaks HTTP/2 without TLS.
func newHTTP2() *http.Client {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Client{Transport: &http.Transport{Protocols: protocols}}
}

var idOf = []byte(`data: {"id":"`)

// readEvents reads a stream. The id of each event is the time at which the upstream sent it.
func readEvents(response *fasthttp.Response, delays *[]time.Duration) error {
	lines := bufio.NewScanner(response.BodyStream())
	done := false
	for lines.Scan() {
		line := lines.Bytes()
		if bytes.Equal(line, []byte("data: [DONE]")) {
			done = true
		}
		if !bytes.HasPrefix(line, idOf) {
			continue
		}
		sent, _, _ := bytes.Cut(line[len(idOf):], []byte(`"`))
		at, err := strconv.ParseInt(string(sent), 10, 64)
		if err != nil {
			return err
		}
		*delays = append(*delays, time.Duration(time.Now().UnixNano()-at))
	}
	if lines.Err() == nil && !done {
		return fmt.Errorf("a stream ended without [DONE]")
	}
	return lines.Err()
}
