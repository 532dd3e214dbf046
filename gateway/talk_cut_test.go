package gateway_test

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/gateway"
)

// answering is a provider that answers the last message of a client by several, and, once its client has left, by one more if it has not heard of that.
func answering(messages int, answers []string, left <-chan struct{}, late string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "websocket")
		w.WriteHeader(http.StatusSwitchingProtocols)
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_ = buffered.Flush()
		for range messages {
			_, _, _, _ = frame(buffered.Reader)
		}
		for _, answer := range answers {
			_, _ = io.WriteString(conn, fromServer(1, answer))
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			if late != "" {
				<-left
				_, _ = io.WriteString(conn, fromServer(1, late))
			}
		}()
		if op, _, _, err := frame(buffered.Reader); err == nil && op == 8 {
			_, _ = io.WriteString(conn, fromServer(8, "\x03\xe8"))
		}
		<-done
	}
}

// TestAnAnswerOverASocketIsPaidThoughItsClientLeaves: whoever hangs up before the usage comes pays for what was said, and for what has answered it.
func TestAnAnswerOverASocketIsPaidThoughItsClientLeaves(t *testing.T) {
	t.Parallel()
	said := strings.TrimSuffix(strings.Repeat("hello ", 1000), " ") // 1000 tokens
	second := base64.StdEncoding.EncodeToString(make([]byte, 48_000))[:32_000]
	const created, done = `{"type":"response.created","response":{"id":"r1","model":"gpt-4o"}}`, `{"type":"response.done","response":{"id":"r1","usage":{"input_tokens":3000,"output_tokens":20,"total_tokens":3020}}}`
	item, create := `{"type":"conversation.item.create","item":{"type":"message","role":"user","content":[{"type":"input_text","text":"`+said+`"}]}}`, `{"type":"response.create"}`
	text, voice := `{"type":"response.output_text.delta","delta":"hello hello"}`, `{"type":"response.output_audio.delta","delta":"`+second+`"}` // half a second
	telephone := `{"type":"session.updated","session":{"audio":{"output":{"format":{"type":"audio/pcmu"}}}}}`
	mic := `{"type":"input_audio_buffer.append","audio":"` + second + `"}`
	turn := `{"clientContent":{"turns":[{"role":"user","parts":[{"text":"` + said + `"}]}],"turnComplete":true}}`
	speech := `{"serverContent":{"modelTurn":{"parts":[{"inlineData":{"mimeType":"audio/pcm","data":"` + second + `"}}]}}}`
	for _, test := range []struct {
		name, path string
		say        []string
		answers    []string
		late       string
		units      string
		cut        string
	}{
		{"realtime", realtime + "?model=gpt-4o", []string{item, create}, []string{created, text}, "", "input=1000,output=2", "client"},
		{"realtime, before anything has come", realtime + "?model=gpt-4o", []string{item, create}, []string{created}, "", "input=1000", "client"},
		{"realtime, without a beginning", realtime + "?model=gpt-4o", []string{item, create}, []string{text}, "", "input=1000,output=2", "client"},
		{"realtime, of sound", realtime + "?model=gpt-4o", []string{mic, mic, create}, []string{created, voice}, "", "audio_input=10,audio_output=10", "client"},
		{"realtime, by telephone", realtime + "?model=gpt-4o", []string{create}, []string{telephone, created, voice}, "", "audio_output=60", "client"},
		{"realtime, the second answer", realtime + "?model=gpt-4o", []string{item, create}, []string{created, done, created, text}, "", "input=6020,output=22", "client"},
		{"realtime, two answers at once", realtime + "?model=gpt-4o", []string{item, create, create}, []string{created, strings.ReplaceAll(created, "r1", "r2")}, "", "input=2000", "client"},
		{"realtime, after the usage", realtime + "?model=gpt-4o", []string{item, create}, []string{created, text, done}, "", "input=3000,output=20", "none"},
		{"realtime, whose usage comes late", realtime + "?model=gpt-4o", []string{item, create}, []string{created, text}, done, "input=3000,output=20", "none"},
		{"realtime, of hidden reasoning", realtime + "?model=gpt-5", []string{item, create}, []string{created, done, created}, "", "input=6020,output=4116", "client"},
		{"responses", responses, []string{`{"type":"response.create","model":"gpt-4o","store":false,"input":"` + said + `"}`}, []string{created, text}, "", "input=1020,output=2", "client"},
		{"responses, of reasoning", responses, []string{`{"type":"response.create","model":"gpt-4o","reasoning":{"effort":"low"},"store":false,"input":"` + said + `"}`}, []string{created, text}, "", "input=1021,output=4096", "client"},
		{"live", live, []string{`{"setup":{"model":"models/gpt-4o"}}`, turn}, []string{`{"setupComplete":{}}`, speech}, "", "audio_output=13,input=1020", "client"},
		{"live, whose usage comes late", live, []string{turn}, []string{speech}, liveUsage, "output=10", "none"},
	} {
		for _, how := range []string{"a close frame", "the connection's end"} {
			t.Run(test.name+", by "+how, func(t *testing.T) {
				t.Parallel()
				over, left := make(chan gateway.Report, 1), make(chan struct{})
				s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{}, nil)
				g := gateway.New(s.book, gateway.Options{Report: func(_ *http.Request, r gateway.Report) { over <- r }})
				if test.late == "" {
					g.SetHangUpGrace(time.Millisecond)
				}
				route := gateway.Route{Payee: "acme", Rates: rates(t, "0.00001 per token"), Logger: slog.New(slog.DiscardHandler)}
				server := httptest.NewServer(g.Handler(&route, answering(len(test.say), test.answers, left, test.late)))
				defer server.Close()
				conn, err := net.Dial("tcp", strings.TrimPrefix(server.URL, "http://"))
				must(t, err)
				defer conn.Close()
				_, _ = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: a\r\nTallygate-Key: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", test.path, s.key)
				r := bufio.NewReader(conn)
				_, err = http.ReadResponse(r, nil)
				must(t, err)
				for _, message := range test.say {
					_, _ = io.WriteString(conn, frames(message, 1))
				}
				for range test.answers {
					_, _, _, err := frame(r)
					must(t, err)
				}
				if how == "a close frame" {
					_, _ = io.WriteString(conn, "\x88\x80\x00\x00\x00\x00")
				} else {
					conn.Close()
				}
				close(left)
				<-over
				charge := s.charges()[0]
				want(t, "units", unitsOf(charge), test.units)
				want(t, "cut", charge.Cut, test.cut)
			})
		}
	}
}

// unitsOf writes the tokens of a charge, in order.
func unitsOf(c escrow.Charge) string {
	var list []string
	for class, n := range c.Units {
		list = append(list, class+"="+n)
	}
	slices.Sort(list)
	return strings.Join(list, ",")
}
