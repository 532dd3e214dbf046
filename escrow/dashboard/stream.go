package dashboard

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// A page that is open hears of changes by a stream of server-sent events. An event says only that something of the reader has changed. The page
// then renews what it shows by an ordinary request, which does and shows what the session may. Each event has the mark of what was told before
// it: the page begins with the mark of its own text, and a browser that connects again sends the mark of its last event. If the mark is not the
// last one any more, the stream begins with an event.

const (
	// streamPause is the least time between two events of a stream, so that an agent with many calls does not make its pages renew all the time.
	streamPause = 2 * time.Second
	// streamBeat is how often a quiet stream sends something, so that nothing on the way takes it for dead. The session is looked at then, too.
	streamBeat = 15 * time.Second
	// streamWrite is how long a reader may take to accept an event.
	streamWrite = 30 * time.Second
	// maxMark is how long a mark may be that a reader sends.
	maxMark = 64
)

// openStreams are the streams of each session, so that they end with it.
type openStreams struct {
	mu sync.Mutex
	of map[[32]byte]map[*func()]struct{} // by the hash of the cookie: functions that end a stream
}

func sessionHash(r *http.Request) [32]byte {
	cookie, err := r.Cookie(cookieName)
	if err != nil {
		return [32]byte{}
	}
	return sha256.Sum256([]byte(cookie.Value))
}

// add registers a stream, until the returned function is called.
func (s *openStreams) add(session [32]byte, end func()) (ended func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == nil {
		s.of = make(map[[32]byte]map[*func()]struct{})
	}
	if s.of[session] == nil {
		s.of[session] = make(map[*func()]struct{})
	}
	s.of[session][&end] = struct{}{}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.of[session], &end)
		if len(s.of[session]) == 0 {
			delete(s.of, session)
		}
	}
}

// end ends the streams of a session.
func (s *openStreams) end(session [32]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for end := range s.of[session] {
		(*end)()
	}
}

// watched is the agent whose changes the reader may hear of; for the operator that is all agents.
func (v *visit) watched() string {
	if v.operator() {
		return ""
	}
	return orEmpty(v.Me["agent_id"])
}

// stream answers with the stream of events of a session, until the session ends.
func (p *pages) stream(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	loggedOut, logOut := context.WithCancel(ctx)
	defer p.streams.add(sessionHash(r), logOut)() // before the session is looked at, so that no end of it is missed
	v, until, err := p.visitOf(r)
	if err != nil {
		p.refuseStream(w, err)
		return
	}
	since := r.Header.Get("Last-Event-ID")
	if since == "" {
		since = v.param("since")
	}
	watch, err := p.o.Watch(ctx, v.watched(), since[:min(len(since), maxMark)])
	if err != nil {
		p.refuseStream(w, err)
		return
	}
	defer watch.End()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store, no-transform") // compression would hold events back
	w.Header().Set("X-Accel-Buffering", "no")
	out := &eventWriter{w: w, control: http.NewResponseController(w)}
	defer out.end()
	out.send("retry: 3000\n: hello\n\n")
	session := time.NewTimer(time.Until(until))
	defer session.Stop()
	beat := time.NewTicker(streamBeat)
	defer beat.Stop()
	for out.err == nil {
		changed := false
		select {
		case <-loggedOut.Done():
		case <-session.C:
			logOut()
		case <-p.o.Stopping:
			return // the browser connects again, to the server that is there then
		case <-watch.Changed():
			changed = true
		case <-beat.C:
			changed = watch.IsPartial()
		}
		if r.Context().Err() != nil {
			return
		}
		if loggedOut.Err() != nil || !v.goesOn() {
			out.send("event: ended\ndata: the session has ended\n\n")
			return
		}
		if !changed {
			out.send(": beat\n\n")
			continue
		}
		out.send(fmt.Sprintf("event: changed\nid: %s\ndata: \n\n", watch.Mark()))
		pause(loggedOut, p.o.Stopping, streamPause)
	}
}

// goesOn reports whether the key of a session is still valid. A failure of the ledger does not end a session.
func (v *visit) goesOn() bool {
	_, err := v.call(http.MethodGet, "/agents/me", nil, nil)
	refused := (*problem)(nil)
	return !errors.As(err, &refused) || refused.Status != http.StatusUnauthorized
}

// pause waits, unless one of the others ends before.
func pause(ctx context.Context, stopping <-chan struct{}, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-stopping:
	}
}

// refuseStream answers a page that gets no stream. The page then renews itself now and then, and finds out why.
func (p *pages) refuseStream(w http.ResponseWriter, err error) {
	status := http.StatusServiceUnavailable
	if errors.Is(err, errSession) {
		status = http.StatusUnauthorized
	}
	http.Error(w, "there is no stream now", status)
}

// eventWriter writes events. After an error it writes no more.
type eventWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	err     error
}

func (e *eventWriter) send(text string) {
	if e.err != nil {
		return
	}
	_ = e.control.SetWriteDeadline(time.Now().Add(streamWrite)) // where it is not supported, the server has its own limits
	if _, e.err = e.w.Write([]byte(text)); e.err == nil {
		e.err = e.control.Flush()
	}
}

// end takes the deadline back, since the connection may serve other requests.
func (e *eventWriter) end() { _ = e.control.SetWriteDeadline(time.Time{}) }
