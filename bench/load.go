package main

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
	"golang.org/x/net/websocket"
)

// turn is the result of loading one server.
type turn struct {
	took   time.Duration
	count  int64           // calls, or events of streams
	delays []time.Duration // of each of them, in no order
	first  []time.Duration // of the first event of each stream
	cpu    time.Duration
	rss    int64
	open   int64 // bytes in use while all idle streams were open, beyond those before
}

// job is what one connection of a turn does, and what it finds.
type job struct {
	*bench
	load
	server     *process
	client     *fasthttp.HostClient
	n          int // of the connection
	began, end time.Time
	next       *atomic.Int64   // of the requests with a fixed rate
	opened     *sync.WaitGroup // of idle streams: done when the first event has come
	delays     []time.Duration
	first      []time.Duration
}

// authorization is the header of a call of a payer; empty for a server without meters.
func (j *job) authorization(call int) string {
	if !j.server.meters {
		return ""
	}
	keys := j.keys[j.server]
	return "Bearer " + keys[call%max(j.payers, 1)%len(keys)]
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
		next   atomic.Int64
		all    sync.WaitGroup
		opened sync.WaitGroup
		mu     sync.Mutex
		result turn
		failed error
	)
	var idle int64
	if c.idle {
		if idle, err = p.live(); err != nil {
			return turn{}, err
		}
		opened.Add(c.connections)
	}
	for n := range c.connections {
		all.Go(func() {
			j := &job{bench: b, load: c, server: p, client: client, n: n, began: began, end: began.Add(b.turn), next: &next, opened: &opened}
			err := j.run()
			mu.Lock()
			defer mu.Unlock()
			result.delays, result.first = append(result.delays, j.delays...), append(result.first, j.first...)
			if err != nil && failed == nil {
				failed = err
			}
		})
	}
	var open int64
	var openErr error
	if c.idle {
		opened.Wait()
		open, openErr = p.live()
	}
	all.Wait()
	result.took, result.count, result.open = time.Since(began), int64(len(result.delays)), open-idle
	if failed = cmp.Or(failed, openErr); failed != nil {
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

// run does what the case's connections do.
func (j *job) run() error {
	switch {
	case j.load.http2:
		return j.streams()
	case j.echo:
		return j.messages()
	default:
		return j.requests()
	}
}

// requests sends one request after the other until the turn is over. An idle stream is one request.
func (j *job) requests() error {
	request, response := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
	defer fasthttp.ReleaseRequest(request)
	defer fasthttp.ReleaseResponse(response)
	if j.body != "" {
		request.Header.SetMethod(fasthttp.MethodPost)
		request.Header.SetContentType("application/json")
		request.Header.Set("Accept", "application/json, text/event-stream")
		request.SetBodyString(j.body)
	}
	for call := j.n; ; call += j.connections {
		due := time.Now()
		if j.rate > 0 {
			due = j.began.Add(time.Duration(float64(j.next.Add(1)-1) / j.rate * float64(time.Second)))
			time.Sleep(time.Until(due))
		}
		if !due.Before(j.end) && !j.idle {
			return nil
		}
		j.server.target(request, j.pathOf(call))
		if by := j.authorization(call); by != "" {
			request.Header.Set("Authorization", by)
		}
		if err := j.request(request, response, due); err != nil || j.idle {
			return err
		}
	}
}

// request sends one request and reads its answer.
func (j *job) request(request *fasthttp.Request, response *fasthttp.Response, due time.Time) error {
	opened := sync.OnceFunc(func() {
		if j.idle {
			j.opened.Done()
		}
	})
	defer opened()
	defer response.Reset()
	if err := j.client.Do(request, response); err != nil {
		return err
	}
	if response.StatusCode() != fasthttp.StatusOK || response.Header.ContentLength() == 0 {
		return fmt.Errorf("%d: %q", response.StatusCode(), response.Body())
	}
	if !j.events {
		j.delays = append(j.delays, time.Since(due))
		return nil
	}
	return readEvents(response, func(delay time.Duration, first bool) {
		j.delays = append(j.delays, delay)
		if first {
			j.first = append(j.first, time.Since(due))
			opened()
		}
	})
}

// streams is like requests, in one of the streams of HTTP/2. fasthttp does not know HTTP/2, so it uses net/http, which costs the load
// generator more; both servers share the machine with it in the same way.
func (j *job) streams() error {
	for call := j.n; ; call += j.connections {
		due := time.Now()
		if !due.Before(j.end) {
			return nil
		}
		r, err := http.NewRequest(http.MethodGet, "http://"+j.server.address+j.pathOf(call), nil)
		if err != nil {
			return err
		}
		if by := j.authorization(call); by != "" {
			r.Header.Set("Authorization", by)
		}
		answer, err := j.bench.http2.Do(r)
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
		j.delays = append(j.delays, time.Since(due))
	}
}

// messages opens a WebSocket, and sends one message after the other, when the last has come back, until the turn is over.
func (j *job) messages() error {
	config, err := websocket.NewConfig("ws://"+j.server.address+j.pathOf(j.n), "http://"+j.server.address)
	if err != nil {
		return err
	}
	if by := j.authorization(j.n); by != "" {
		config.Header.Set("Authorization", by)
	}
	c, err := websocket.DialConfig(config)
	if err != nil {
		return err
	}
	defer c.Close()
	message, back := bytes.Repeat([]byte("message "), 128), make([]byte, 1024)
	for {
		sent := time.Now()
		if !sent.Before(j.end) {
			return nil
		}
		if _, err := c.Write(message); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, back); err != nil {
			return err
		}
		if !bytes.Equal(message, back) {
			return errors.New("another message came back than was sent")
		}
		j.delays = append(j.delays, time.Since(sent))
	}
}

// newHTTP2 returns a client that speaks HTTP/2 without TLS.
func newHTTP2() *http.Client {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Client{Transport: &http.Transport{Protocols: protocols}}
}

var idOf = []byte(`data: {"id":"`)

// readEvents reads a stream, and passes on the delay of each event. The id of an event is the time at which the upstream sent it.
func readEvents(response *fasthttp.Response, came func(delay time.Duration, first bool)) error {
	lines := bufio.NewScanner(response.BodyStream())
	first, done := true, false
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
		came(time.Duration(time.Now().UnixNano()-at), first)
		first = false
	}
	if lines.Err() == nil && !done {
		return fmt.Errorf("a stream ended without [DONE]")
	}
	return lines.Err()
}
