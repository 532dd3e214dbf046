package gateway_test

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/gateway"
	"github.com/tallygate/tallygate/pricing"
)

// frames are a message as a client sends it over a WebSocket, under a mask, in so many frames.
func frames(message string, parts int) string {
	var sent []byte
	for i := range parts {
		part := []byte(message[i*len(message)/parts : (i+1)*len(message)/parts])
		first := byte(0x80 | 1)
		if i > 0 {
			first &^= 1
		}
		if i < parts-1 {
			first &^= 0x80
		}
		sent = append(sent, first, 0x80|126)
		sent = binary.BigEndian.AppendUint16(sent, uint16(len(part)))
		sent = append(sent, 1, 2, 3, 4)
		for j, c := range part {
			sent = append(sent, c^byte(j&3+1))
		}
	}
	return string(sent)
}

// frame reads a frame, and takes off its mask.
func frame(r io.Reader) (op byte, final bool, payload string, err error) {
	header := make([]byte, 2)
	if _, err := io.ReadFull(r, header); err != nil {
		return 0, false, "", err
	}
	size := int(header[1] & 0x7F)
	if size == 126 {
		long := make([]byte, 2)
		_, _ = io.ReadFull(r, long)
		size = int(binary.BigEndian.Uint16(long))
	}
	var mask [4]byte
	if header[1]&0x80 != 0 {
		_, _ = io.ReadFull(r, mask[:])
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return 0, false, "", err
	}
	for i := range body {
		body[i] ^= mask[i&3]
	}
	return header[0] & 0x0F, header[0]&0x80 != 0, string(body), nil
}

func fromServer(op byte, payload string) string {
	return string(binary.BigEndian.AppendUint16([]byte{0x80 | op, 126}, uint16(len(payload)))) + payload
}

// socket is a provider that says something first, and answers each message that comes whole by the next of its answers.
func socket(heard chan<- string, first string, answers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		defer close(heard)
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "websocket")
		w.WriteHeader(http.StatusSwitchingProtocols)
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_ = buffered.Flush()
		if first != "" {
			_, _ = io.WriteString(conn, fromServer(1, first))
		}
		for message := ""; ; {
			op, final, payload, err := frame(buffered.Reader)
			switch message += payload; {
			case err != nil:
				return
			case op == 8:
				_, _ = io.WriteString(conn, fromServer(8, "\x03\xe8"))
				return
			case !final:
				continue
			}
			heard <- message
			message = ""
			if len(answers) > 0 {
				if answers[0] != "" {
					_, _ = io.WriteString(conn, fromServer(1, answers[0]))
				}
				answers = answers[1:]
			}
		}
	}
}

const (
	liveUsage     = `{"usageMetadata":{"promptTokenCount":0,"responseTokenCount":10,"totalTokenCount":10}}`
	realtimeUsage = `{"type":"response.done","response":{"usage":{"input_tokens":0,"output_tokens":10}}}`
	socketUsage   = `{"type":"response.completed","response":{"id":"resp_1","model":"cheap-1","usage":{"input_tokens":0,"output_tokens":10,"total_tokens":10}}}`

	live      = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"
	realtime  = "/v1/realtime"
	responses = "/v1/responses"
)

// TestWhatIsNamedOverASocketIsCharged: a connection whose client names its model by a message is charged at the dearest of all that were named
// there and of what has answered; what has no price, or can't be metered, never reaches the provider.
func TestWhatIsNamedOverASocketIsCharged(t *testing.T) {
	t.Parallel()
	models := func(named ...string) (list []pricing.Model) {
		for _, m := range named {
			glob, price, _ := strings.Cut(m, " ")
			model := perToken(t, price)[0]
			model.Glob = glob
			list = append(list, model)
		}
		return list
	}
	closed := models("dear-* 0.01", "cheap-* 0.001")
	open := models("dear-* 0.01", "cheap-* 0.001", "* 0.0001")
	for _, test := range []struct {
		name    string
		path    string
		models  []pricing.Model
		first   string   // of the server
		say     []string // by the client
		answers []string
		charge  string
		model   string
		refused string // what the client is told
		heard   int    // where something is refused: messages before that
	}{
		{name: "a dear model beside a cheap *", path: live, models: open, say: []string{`{"setup":{"model":"models/dear-live"}}`}, answers: []string{liveUsage}, charge: "0.1", model: "dear-live"},
		{name: "a dear model without a *", path: live, models: closed, say: []string{`{"setup":{"model":"models/dear-live"}}`}, answers: []string{liveUsage}, charge: "0.1", model: "dear-live"},
		{name: "a cheap model", path: live, models: closed, say: []string{`{"setup":{"model":"models/cheap-live"}}`}, answers: []string{liveUsage}, charge: "0.01", model: "cheap-live"},
		{name: "Vertex AI's name", path: live, models: open, say: []string{`{"setup":{"model":"projects/p/locations/l/publishers/google/models/cheap-live"}}`}, answers: []string{liveUsage}, charge: "0.01", model: "cheap-live"},
		{name: "any model", path: live, models: open, say: []string{`{"setup":{"model":"models/other"}}`}, answers: []string{liveUsage}, charge: "0.001", model: "other"},
		{name: "no model", path: live, models: open, say: []string{`{"setup":{}}`}, answers: []string{liveUsage}, charge: "0.1"},
		{name: "a model without a price", path: live, models: closed, say: []string{`{"setup":{"model":"models/other"}}`}, answers: []string{liveUsage}, charge: "0", refused: "no price for model"},
		{name: "another spelling", path: live, models: open, say: []string{`{"Setup":{"MOD\u0065L":"dear-\u006cive"}}`}, answers: []string{liveUsage}, charge: "0.1", model: "dear-live"},
		{name: "a byte order mark", path: live, models: open, say: []string{"\ufeff" + ` {"setup":{"model":"dear-live"}}`}, answers: []string{liveUsage}, charge: "0.1", model: "dear-live"},
		{name: "a model twice", path: live, models: open, say: []string{`{"setup":{"model":"cheap-live","model":"dear-live"},"setup":{"model":"cheap-live"}}`}, answers: []string{liveUsage}, charge: "0.1", model: "cheap-live"},
		{name: "a model behind much else", path: live, models: open, say: []string{`{"a":"` + strings.Repeat("x", 60000) + `","setup":{"model":"dear-live"}}`}, answers: []string{liveUsage}, charge: "0.1", model: "dear-live"},
		{name: "other quotes", path: live, models: open, say: []string{`{"setup":{"model":"cheap-live"},'setup':{'model':'dear-live'}}`}, charge: "0", refused: "expected a JSON object"},
		{name: "names without quotes", path: live, models: open, say: []string{`{setup:{model:"dear-live"}}`}, charge: "0", refused: "expected a JSON object"},
		{name: "a comment", path: live, models: open, say: []string{`/* {} */ {"setup":{"model":"dear-live"}}`}, charge: "0", refused: "expected a JSON object"},
		{name: "a list", path: live, models: open, say: []string{`[{"setup":{"model":"dear-live"}}]`}, charge: "0", refused: "expected a JSON object"},
		{name: "two objects", path: live, models: open, say: []string{`{}{"setup":{"model":"dear-live"}}`}, charge: "0", refused: "something follows"},
		{name: "half an object", path: live, models: open, say: []string{`{"setup":{"model":"dear-live"}`}, charge: "0", refused: "does not end"},
		{name: "a name that is none", path: live, models: open, say: []string{`{"setup":{"model":["dear-live"]}}`}, charge: "0", refused: "expected a name"},
		{name: "what is no JSON", path: live, models: open, say: []string{"ping", `{"setup":{"model":"cheap-live"}}`}, answers: []string{"", liveUsage}, charge: "0.01", model: "cheap-live"},

		{name: "a model in the query", path: realtime + "?model=cheap-1", models: open, first: `{"type":"session.created","session":{"model":"cheap-1"}}`,
			say: []string{`{"type":"response.create"}`}, answers: []string{realtimeUsage}, charge: "0.01", model: "cheap-1"},
		{name: "another one by the session, and back", path: realtime + "?model=cheap-1", models: open, first: `{"type":"session.created","session":{"model":"cheap-1"}}`,
			say:     []string{`{"type":"session.update","session":{"model":"dear-1"}}`, `{"type":"response.create"}`, `{"type":"session.update","session":{"model":"cheap-1"}}`},
			answers: []string{"", realtimeUsage, `{"type":"session.updated","session":{"model":"cheap-1"}}`}, charge: "0.1", model: "cheap-1"},
		{name: "another one that only the server names", path: realtime + "?model=cheap-1", models: open, first: `{"type":"session.created","session":{"model":"cheap-1"}}`,
			say:     []string{`{"type":"session.update","session":{"prompt":{"id":"pmpt_1"}}}`, `{"type":"response.create"}`, `{"type":"session.update"}`},
			answers: []string{`{"type":"session.updated","session":{"model":"dear-1"}}`, realtimeUsage, `{"type":"session.updated","session":{"model":"cheap-1"}}`}, charge: "0.1", model: "cheap-1"},
		{name: "a model that the server alone names", path: realtime, models: closed, first: `{"type":"session.created","session":{"model":"cheap-1"}}`,
			say: []string{`{"type":"response.create"}`}, answers: []string{realtimeUsage}, charge: "0.01", model: "cheap-1"},
		{name: "a model of transcription is none that answers", path: realtime + "?model=cheap-1", models: closed,
			say:     []string{`{"type":"session.update","session":{"audio":{"input":{"transcription":{"model":"whisper-1"}}}}}`, `{"type":"session.update","session":{"input_audio_transcription":{"model":"whisper-1"}}}`, `{"type":"response.create"}`},
			answers: []string{"", "", realtimeUsage}, charge: "0.01", model: "cheap-1"},

		{name: "responses", path: responses, models: closed, say: []string{`{"type":"response.create","model":"cheap-1","input":[{"role":"user","content":"{\"model\":\"dear-1\"}"}]}`}, answers: []string{socketUsage}, charge: "0.01", model: "cheap-1"},
		{name: "responses of another model than is said", path: responses, models: open, say: []string{`{"type":"response.create","model":"dear-1"}`}, answers: []string{socketUsage}, charge: "0.1", model: "cheap-1"},
		{name: "one of several models", path: responses, models: open, say: []string{`{"type":"response.create","model":"cheap-1","models":["cheap-1",{"model":"dear-1"}]}`}, answers: []string{socketUsage}, charge: "0.1", model: "cheap-1"},
		{name: "the older form", path: responses, models: open, say: []string{`{"type":"response.create","response":{"model":"dear-1"}}`}, answers: []string{socketUsage}, charge: "0.1", model: "cheap-1"},
		{name: "two responses", path: responses, models: closed, say: []string{`{"type":"response.create","model":"cheap-1"}`, `{"type":"response.create","model":"cheap-1","previous_response_id":"resp_1"}`}, answers: []string{socketUsage, socketUsage}, charge: "0.02", model: "cheap-1"},
		{name: "an answer that comes later", path: responses, models: closed, say: []string{`{"type":"response.create","model":"cheap-1"}`, `{"type":"response.create","model":"cheap-1","background":true}`}, answers: []string{socketUsage}, charge: "0.01", model: "cheap-1", refused: "later", heard: 1},
		{name: "one that does not", path: responses, models: closed, say: []string{`{"type":"response.create","model":"cheap-1","background":false}`}, answers: []string{socketUsage}, charge: "0.01", model: "cheap-1"},
		{name: "a tier without a price", path: responses, models: closed, say: []string{`{"type":"response.create","model":"cheap-1","service_tier":"priority"}`}, charge: "0", refused: "no price for the service tier"},
		{name: "a plain tier", path: responses, models: closed, say: []string{`{"type":"response.create","model":"cheap-1","service_tier":"auto"}`}, answers: []string{socketUsage}, charge: "0.01", model: "cheap-1"},
		{name: "a model that is beyond the wallet", path: responses, models: models("cheap-* 0.001", "dear-* 10"), say: []string{`{"type":"response.create","model":"dear-1"}`}, charge: "0", refused: "insufficient"},
		{name: "a cheap one beside it", path: responses, models: models("cheap-* 0.001", "dear-* 10"), say: []string{`{"type":"response.create","model":"cheap-1"}`}, answers: []string{socketUsage}, charge: "0.01", model: "cheap-1"},
	} {
		for _, parts := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s, in %d frames", test.name, parts), func(t *testing.T) {
				t.Parallel()
				tariff := &pricing.Tariff{Models: test.models}
				must(t, tariff.Compile(nil))
				heard := make(chan string, 8)
				s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{Tariff: tariff, Shared: shared(t, "*"), Batch: pricing.Measure{N: 10, Unit: "output"}}, socket(heard, test.first, test.answers...))
				conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
				must(t, err)
				defer conn.Close()
				_, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: a\r\nTallygate-Key: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", test.path, s.key)
				must(t, err)
				r := bufio.NewReader(conn)
				if parts == 1 { // what comes at once is read, too
					_, _ = io.WriteString(conn, frames(test.say[0], parts))
				}
				answer, err := http.ReadResponse(r, nil)
				must(t, err)
				if answer.StatusCode != http.StatusSwitchingProtocols {
					body, _ := io.ReadAll(answer.Body)
					t.Fatalf("%d %s", answer.StatusCode, body)
				}
				var told strings.Builder
				read := func() (op byte) {
					op, _, payload, err := frame(r)
					if err != nil {
						return 8
					}
					told.WriteString(payload)
					return op
				}
				if test.first != "" {
					read()
				}
				for i, message := range test.say {
					if i > 0 || parts > 1 {
						_, _ = io.WriteString(conn, frames(message, parts))
					}
					if test.refused != "" && i >= test.heard {
						continue
					}
					want(t, "the provider hears", <-heard, message)
					if i < len(test.answers) && test.answers[i] != "" {
						read()
					}
				}
				if test.refused == "" {
					_, _ = io.WriteString(conn, "\x88\x80\x00\x00\x00\x00")
				}
				for read() != 8 {
				}
				if test.refused != "" {
					n := test.heard
					for range heard {
						n++
					}
					want(t, "messages that the provider hears", n, test.heard)
					if !strings.Contains(told.String(), test.refused) {
						t.Errorf("the client is told %q", told.String())
					}
				}
				_, _ = io.Copy(io.Discard, r)
				charges, _, err := s.book.Charges(escrow.ChargeFilter{Agent: "alice"}, escrow.Page{})
				must(t, err)
				if len(charges) == 0 || charges[0].Amount == 0 {
					want(t, "charge", "0", test.charge)
					return
				}
				want(t, "charge", charges[0].Amount, test.charge)
				want(t, "model", charges[0].Model, test.model)
				want(t, "suspect", charges[0].Suspect, false)
			})
		}
	}
}

// TestABinaryMessageIsRead: what a server may read as JSON in another encoding never reaches it.
func TestABinaryMessageIsRead(t *testing.T) {
	t.Parallel()
	const dear = `{"type":"response.create","response":{"model":"dear-1"}}`
	wide := func(text string, width, at int) string { // each character at a place of so many bytes
		var encoded []byte
		for _, c := range []byte(text) {
			char := make([]byte, width)
			char[at] = c
			encoded = append(encoded, char...)
		}
		return string(encoded)
	}
	for name, test := range map[string]struct{ message, told string }{
		"UTF-8":                    {dear, "response.done"},
		"UTF-8, marked":            {"\xEF\xBB\xBF" + dear, "response.done"},
		"what is no JSON":          {"RIFF\x00\x02{", "response.done"},
		"UTF-16 LE":                {wide(dear, 2, 0), "expected a JSON object"},
		"UTF-16 LE, marked":        {"\xFF\xFE" + wide(dear, 2, 0), "expected a JSON object"},
		"UTF-16 LE, behind spaces": {"\xFF\xFE" + wide(" \r\n\t"+dear, 2, 0), "expected a JSON object"},
		"UTF-16 BE":                {wide(dear, 2, 1), "expected a JSON object"},
		"UTF-16 BE, marked":        {"\xFE\xFF" + wide(" "+dear, 2, 1), "expected a JSON object"},
		"UTF-32 LE, marked":        {"\xFF\xFE\x00\x00" + wide(dear, 4, 0), "expected a JSON object"},
		"UTF-32 BE":                {wide(dear, 4, 3), "expected a JSON object"},
		"UTF-16, behind a comment": {wide("/**/"+dear, 2, 0), "expected a JSON object"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tariff := &pricing.Tariff{Models: perToken(t, "0.001")}
			must(t, tariff.Compile(nil))
			heard := make(chan string, 1)
			s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{Tariff: tariff, Shared: shared(t, "*")}, socket(heard, "", realtimeUsage))
			conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
			must(t, err)
			defer conn.Close()
			_, _ = fmt.Fprintf(conn, "GET %s?model=cheap-1 HTTP/1.1\r\nHost: a\r\nTallygate-Key: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x82%s", realtime, s.key, frames(test.message, 1)[1:])
			r := bufio.NewReader(conn)
			_, err = http.ReadResponse(r, nil)
			must(t, err)
			if _, _, told, _ := frame(r); !strings.Contains(told, test.told) {
				t.Errorf("the client is told %q", told)
			}
			_ = conn.Close()
			if message := <-heard; (message == "") != (test.told != "response.done") {
				t.Errorf("the provider hears %q", message)
			}
		})
	}
}

// TestATalkOverHTTP2: what is said through a tunnel that a CONNECT has opened is read, too, and does not end it.
func TestATalkOverHTTP2(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, message, charge, told string }{
		{"a dear model", `{"setup":{"model":"dear-live"}}`, "0.1", "usageMetadata"},
		{"a cheap model", `{"setup":{"model":"cheap-live"}}`, "0.01", "usageMetadata"},
		{"a model without a price", `{"setup":{"model":"other"}}`, "0", "no price for model"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dear, cheap := perToken(t, "0.01")[0], perToken(t, "0.001")[0]
			dear.Glob, cheap.Glob = "dear-*", "cheap-*"
			tariff := &pricing.Tariff{Models: []pricing.Model{dear, cheap}}
			must(t, tariff.Compile(nil))
			s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{}, nil)
			route := gateway.Route{Payee: "acme", Tariff: tariff, Shared: shared(t, "*"), Batch: pricing.Measure{N: 10, Unit: "output"}, Logger: slog.New(slog.DiscardHandler)}
			in, out := io.Pipe()
			defer out.Close()
			r := httptest.NewRequestWithContext(t.Context(), http.MethodConnect, live, in)
			r.Header.Set("Tallygate-Key", s.key)
			answer := httptest.NewRecorder()
			go func() { _, _ = io.WriteString(out, frames(test.message, 1)) }()
			gateway.New(s.book, gateway.Options{}).Handler(&route, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(http.StatusOK)
				if _, _, message, err := frame(r.Body); err == nil {
					want(t, "the provider hears", message, test.message)
					_, _ = io.WriteString(w, fromServer(1, liveUsage))
				}
			})).ServeHTTP(answer, r)
			if !strings.Contains(answer.Body.String(), test.told) {
				t.Errorf("the client is told %q", answer.Body.String())
			}
			charges, _, err := s.book.Charges(escrow.ChargeFilter{Agent: "alice"}, escrow.Page{})
			must(t, err)
			if len(charges) == 0 {
				want(t, "charge", "0", test.charge)
				return
			}
			want(t, "charge", charges[0].Amount, test.charge)
		})
	}
}

// TestAnAnswerCutOverASocketIsKept: an answer that was cut for want of money is not had by fetching it, and nothing is built on it.
func TestAnAnswerCutOverASocketIsKept(t *testing.T) {
	t.Parallel()
	tariff := &pricing.Tariff{Models: perToken(t, "0.01")}
	must(t, tariff.Compile(nil))
	const whole = `{"id":"resp_1","model":"m","status":"completed","output":[{"type":"message","content":[{"type":"output_text","text":"w"}]}],"usage":{"input_tokens":0,"output_tokens":200,"total_tokens":200}}`
	provider := func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, whole)
			return
		}
		socket(make(chan string, 8), `{"type":"response.created","response":{"id":"resp_1","model":"m"}}`,
			`{"type":"response.output_text.delta","delta":"`+strings.Repeat("word ", 200)+`"}`)(w, r)
	}
	s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{Tariff: tariff, Shared: shared(t, "*"), Batch: pricing.Measure{N: 10, Unit: "output"}}, provider)
	say := func(message string) string {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		must(t, err)
		defer conn.Close()
		_, _ = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: a\r\nTallygate-Key: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n%s", responses, s.key, frames(message, 1))
		heard, _ := io.ReadAll(conn)
		return string(heard)
	}
	fetch := func() (int, string) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+responses+"/resp_1", nil)
		must(t, err)
		r.Header.Set("Tallygate-Key", s.key)
		answer, err := http.DefaultClient.Do(r)
		must(t, err)
		defer answer.Body.Close()
		return answer.StatusCode, answer.Header.Get("Tallygate-Charge")
	}
	if told := say(`{"type":"response.create","model":"m"}`); !strings.Contains(told, "insufficient_funds") || strings.Contains(told, "word") {
		t.Errorf("without the money: %q", told)
	}
	must(t, s.do(func(tx *escrow.Tx) error {
		_, err := tx.Deposit(operator, escrow.PaymentOrder{To: "alice", Amount: amount("9")})
		return err
	}))
	if told := say(`{"type":"response.create","model":"m","previous_response_id":"resp_1"}`); !strings.Contains(told, "is not paid yet") {
		t.Errorf("built on what is not paid: %q", told)
	}
	status, charge := fetch()
	want(t, "fetched", fmt.Sprint(status, " for ", charge), "200 for 2")
}
