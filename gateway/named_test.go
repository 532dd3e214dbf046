package gateway_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/pricing"
)

// saying opens a WebSocket with a key, says something, and returns what was answered until the connection ended. After so many answers the client
// closes it.
func (s *shop) saying(key string, answers int, messages ...string) string {
	s.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	must(s.t, err)
	defer conn.Close()
	_, _ = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: a\r\nTallygate-Key: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", responses, key)
	r := bufio.NewReader(conn)
	answer, err := http.ReadResponse(r, nil)
	must(s.t, err)
	if answer.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(answer.Body)
		return string(body)
	}
	var told strings.Builder
	read := func() bool {
		op, _, payload, err := frame(r)
		told.WriteString(payload)
		return err == nil && op != 8
	}
	goesOn := true
	for _, message := range messages {
		if _, err := io.WriteString(conn, frames(message, 1)); err != nil {
			break
		}
		if goesOn = answers > 0 && read(); !goesOn {
			break
		}
		answers--
	}
	if goesOn {
		_, _ = io.WriteString(conn, "\x88\x80\x00\x00\x00\x00")
	}
	for read() {
	}
	return told.String()
}

// TestNamesOverASocket: what a message names must be its payer's, wherever it stands in it: made before, or over the same connection.
func TestNamesOverASocket(t *testing.T) {
	t.Parallel()
	tariff := &pricing.Tariff{Models: perToken(t, "0.001")}
	must(t, tariff.Compile(nil))
	said := func(rest string) string { return `{"type":"response.create","model":"cheap-1",` + rest + `}` }
	const own, others = "resp_1", "resp_9"
	for _, test := range []struct {
		name string
		say  string // %s is an id
		is   bool   // it names a resource
	}{
		{"an answer", said(`"previous_response_id":"%s"`), true},
		{"another spelling", said(`"Previous_\u0052esponse_id":"%s"`), true},
		{"the older form", `{"type":"response.create","response":{"model":"cheap-1","previous_response_id":"%s"}}`, true},
		{"an item of the input", said(`"input":[{"type":"item_reference","id":"%s"}]`), true},
		{"an item without a type", said(`"input":[{"id":"%s"}]`), true},
		{"an item, the older form", `{"type":"response.create","response":{"model":"cheap-1","input":[{"id":"%s","type":"item_reference"}]}}`, true},
		{"reasoning", said(`"input":[{"id":"%s","type":"reasoning","summary":[]}]`), true},
		{"a file, deep", said(`"input":[{"role":"user","content":[{"type":"input_file","file_id":"%s"}]}]`), true},
		{"a list of files", said(`"tools":[{"type":"code_interpreter","container":{"type":"auto","file_ids":["%s"]}}]`), true},
		{"a store", said(`"tools":[{"type":"file_search","vector_store_ids":["%s"]}]`), true},
		{"a container", said(`"tools":[{"type":"code_interpreter","container":"%s"}]`), true},
		{"a container by its id", said(`"container":{"id":"%s"}`), true},
		{"behind much else", said(`"x":"` + strings.Repeat("x", 9000) + `","previous_response_id":"%s"`), true},
		{"a message's own id", said(`"input":[{"role":"user","id":"%s"}]`), false},
		{"what a tool is called with", said(`"tools":[{"type":"function","parameters":{"file_id":"%s"}}],"metadata":{"file_id":"%[1]s"}`), false},
		{"text", said(`"input":"previous_response_id: %s"`), false},
		{"what a tool answers", said(`"input":[{"role":"user","content":{"input":{"file_id":"%s"}}}]`), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			heard := make(chan string, 8)
			s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{Tariff: tariff, Batch: pricing.Measure{N: 10, Unit: "output"}}, func(w http.ResponseWriter, r *http.Request) {
				socket(make(chan string, 8), "", socketUsage, socketUsage)(w, r)
				heard <- ""
			})
			told := s.saying(s.key, 2, fmt.Sprintf(test.say, others))
			<-heard
			if refused := strings.Contains(told, "unknown_resource"); refused != test.is || strings.Contains(told, "resp_1") == test.is {
				t.Errorf("another's: the client is told %q", told)
			}
		})
	}

	first := said(`"input":"hi"`)
	second := said(`"previous_response_id":"` + own + `"`)
	provider := func(w http.ResponseWriter, r *http.Request) {
		socket(make(chan string, 8), "", socketUsage, socketUsage)(w, r)
	}
	s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{Tariff: tariff, Batch: pricing.Measure{N: 10, Unit: "output"}}, provider)
	bob := s.another("bob")
	want(t, "over the same connection", strings.Count(s.saying(s.key, 2, first, second), "resp_1"), 2)
	if told := s.saying(s.key, 1, second); strings.Count(told, "resp_1") != 1 {
		t.Errorf("over a later one: %q", told)
	}
	if told := s.saying(bob, 1, second); !strings.Contains(told, "unknown_resource") {
		t.Errorf("another agent is told %q", told)
	}
	if told := s.saying(s.key, 1, said(`"conversation":"conv_1"`)); !strings.Contains(told, "conversation") || strings.Contains(told, "resp_1") {
		t.Errorf("an answer that goes into a conversation: %q", told)
	}
	s.sound()

	byTheCall := byCall(t)
	s = openShop(t, escrow.Rules{}, gateway.Options{}, byTheCall, provider)
	if told := s.saying(s.key, 1, second); strings.Contains(told, "resp_1") {
		t.Errorf("over a connection whose price is known: %q", told)
	}
}

// TestAnswersThatASocketLeavesOpen: of several answers at once over a connection that ends, none is had by fetching it for nothing.
func TestAnswersThatASocketLeavesOpen(t *testing.T) {
	t.Parallel()
	tariff := &pricing.Tariff{Models: perToken(t, "0.001")}
	must(t, tariff.Compile(nil))
	const begun = `{"type":"response.created","response":{"id":"resp_%d","model":"m"}}`
	for name, last := range map[string]string{
		"the client leaves":  `{"type":"response.output_text.delta","delta":"w"}`,
		"the money runs out": `{"type":"response.output_text.delta","delta":"` + strings.Repeat("word ", 2000) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{Tariff: tariff, Batch: pricing.Measure{N: 10, Unit: "output"}}, func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Upgrade") == "" {
					w.Header().Set("Content-Type", "application/json")
					_, _ = io.WriteString(w, `{"id":"x","model":"m","status":"completed","output":[{"content":[{"text":"w"}]}],"usage":{"input_tokens":0,"output_tokens":100,"total_tokens":100}}`)
					return
				}
				socket(make(chan string, 8), "", fmt.Sprintf(begun, 1), fmt.Sprintf(begun, 2), fmt.Sprintf(begun, 3),
					`{"type":"response.completed","response":{"id":"resp_2","model":"m","usage":{"input_tokens":0,"output_tokens":10,"total_tokens":10}}}`, last)(w, r)
			})
			ask := `{"type":"response.create","model":"m"}`
			s.saying(s.key, 5, ask, ask, ask, ask, ask)
			must(t, s.do(func(tx *escrow.Tx) error {
				_, err := tx.Deposit(operator, escrow.PaymentOrder{To: "alice", Amount: amount("9")})
				return err
			}))
			for id, charge := range map[string]string{"resp_1": "0.1", "resp_2": "0", "resp_3": "0.1"} {
				r, answer := s.call(s.key, http.MethodGet, responses+"/"+id, "")
				want(t, id+": "+answer, fmt.Sprint(r.StatusCode, " ", r.Header.Get("Tallygate-Charge")), "200 "+charge)
			}
		})
	}
}
