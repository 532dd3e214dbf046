package caddymodule_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// readFrame reads a WebSocket frame of at most 125 bytes, and takes off its mask.
func readFrame(r io.Reader) (op byte, payload string, err error) {
	header := make([]byte, 2)
	if _, err := io.ReadFull(r, header); err != nil {
		return 0, "", err
	}
	var mask [4]byte
	if header[1]&0x80 != 0 {
		if _, err := io.ReadFull(r, mask[:]); err != nil {
			return 0, "", err
		}
	}
	body := make([]byte, header[1]&0x7F)
	if _, err := io.ReadFull(r, body); err != nil {
		return 0, "", err
	}
	for i := range body {
		body[i] ^= mask[i&3]
	}
	return header[0] & 0x0F, string(body), nil
}

// clientFrame is a frame as clients send it, under a mask of zeros.
func clientFrame(op byte, payload string) string {
	return string([]byte{0x80 | op, 0x80 | byte(len(payload)), 0, 0, 0, 0}) + payload
}

func serverFrame(op byte, payload string) string {
	return string([]byte{0x80 | op, byte(len(payload))}) + payload
}

const (
	closeByClient = "\x0F\xA1bye"  // 4001
	closeByServer = "\x0F\xA2done" // 4002
)

// TestCountedWebSocketsKeepTheirCloseFrames: whichever side closes a counted WebSocket, both sides see the code. The server's close frame comes
// after the connection is charged.
func TestCountedWebSocketsKeepTheirCloseFrames(t *testing.T) {
	t.Parallel()
	for _, site := range []string{"meter acme 0.01 per event", "meter acme 0.02 per call"} {
		for _, test := range []struct{ name, client, server string }{
			{"the client closes", closeByClient, closeByClient},
			{"the server closes", closeByServer, closeByServer},
			{"without a code", "", ""},
		} {
			t.Run(site+": "+test.name, func(t *testing.T) {
				seen := make(chan string, 1)
				byServer := test.client == closeByServer
				s := openShop(t, "", "handle /socket {\n\t\t"+site+"\n\t\treverse_proxy UPSTREAM\n\t}", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					conn, buffered, err := http.NewResponseController(w).Hijack()
					if err != nil {
						panic(err)
					}
					defer conn.Close()
					_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"+serverFrame(1, "one")+serverFrame(1, "two"))
					if byServer {
						_, _ = io.WriteString(conn, serverFrame(8, closeByServer))
					}
					op, payload, err := readFrame(buffered)
					if !byServer {
						_, _ = io.WriteString(conn, serverFrame(8, payload))
					}
					seen <- fmt.Sprintf("%d %q %v", op, payload, err)
				}))
				key := s.agent("alice", "1")
				conn, err := net.Dial("tcp", "127.0.0.1:"+s.port)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				_, _ = fmt.Fprintf(conn, "GET /socket HTTP/1.1\r\nHost: 127.0.0.1\r\nTallygate-Key: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", key)
				r := bufio.NewReader(conn)
				if response, err := http.ReadResponse(r, nil); err != nil || response.StatusCode != 101 {
					t.Fatal(response, err)
				}
				for _, message := range []string{"one", "two"} {
					if _, payload, err := readFrame(r); payload != message || err != nil {
						t.Fatalf("%q, %v", payload, err)
					}
				}
				if !byServer {
					_, _ = io.WriteString(conn, clientFrame(8, test.client))
				}
				op, payload, err := readFrame(r)
				if op != 8 || payload != test.server || err != nil {
					t.Errorf("the client sees %d %q, %v", op, payload, err)
				}
				want(t, "wallet as the close frame comes", s.balance(key), "0.98")
				if byServer {
					_, _ = io.WriteString(conn, clientFrame(8, payload))
				}
				want(t, "the server sees", <-seen, fmt.Sprintf("8 %q <nil>", test.client))
				if rest, err := io.ReadAll(r); len(rest) > 0 || err != nil {
					t.Errorf("then %q, %v", rest, err)
				}
				charge := s.charges(key)[0]
				want(t, "cut", charge["cut"].(string), "none")
				if strings.Contains(site, "event") {
					want(t, "units", fmt.Sprint(charge["units"]), "map[event:2]")
				}
			})
		}
	}
}

// TestAModelNamedOverAWebSocket: what the client names by a message is priced on its way through a real proxy, also what it sends before the
// server has answered; what has no price never reaches the provider.
func TestAModelNamedOverAWebSocket(t *testing.T) {
	t.Parallel()
	const setup = `{"setup":{"model":"models/%s"}}`
	for _, early := range []bool{false, true} {
		for _, test := range []struct{ model, charge, balance, told string }{
			{"dear-live", "0.1", "9.9", "usageMetadata"},
			{"cheap-live", "0.01", "9.99", "usageMetadata"},
			{"other", "0", "10", "no price for model"},
		} {
			t.Run(fmt.Sprintf("%s, early %v", test.model, early), func(t *testing.T) {
				seen := make(chan string, 1)
				s := openShop(t, "", "handle /ws/* {\n\t\tmeter llm {\n\t\t\ttariff {\n\t\t\t\tmodel dear-* {\n\t\t\t\t\toutput 0.01 per token\n\t\t\t\t}\n\t\t\t\tmodel cheap-* {\n\t\t\t\t\toutput 0.001 per token\n\t\t\t\t}\n\t\t\t}\n\t\t}\n\t\treverse_proxy UPSTREAM\n\t}", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					conn, buffered, err := http.NewResponseController(w).Hijack()
					if err != nil {
						panic(err)
					}
					defer conn.Close()
					_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
					if _, payload, err := readFrame(buffered); err == nil {
						seen <- payload
						_, _ = io.WriteString(conn, serverFrame(1, `{"usageMetadata":{"promptTokenCount":0,"responseTokenCount":10,"totalTokenCount":10}}`)+serverFrame(8, closeByServer))
					}
					close(seen)
				}))
				key := s.agent("alice", "10")
				conn, err := net.Dial("tcp", "127.0.0.1:"+s.port)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				message := clientFrame(1, fmt.Sprintf(setup, test.model))
				request := fmt.Sprintf("GET /ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent HTTP/1.1\r\nHost: 127.0.0.1\r\nTallygate-Key: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", key)
				if early {
					request += message
				}
				_, _ = io.WriteString(conn, request)
				r := bufio.NewReader(conn)
				if response, err := http.ReadResponse(r, nil); err != nil || response.StatusCode != 101 {
					t.Fatal(response, err)
				}
				if !early {
					_, _ = io.WriteString(conn, message)
				}
				told, _ := io.ReadAll(r)
				if !strings.Contains(string(told), test.told) {
					t.Errorf("the client is told %q", told)
				}
				if heard, ok := <-seen; ok != (test.charge != "0") {
					t.Errorf("the provider hears %q", heard)
				}
				want(t, "wallet", s.balance(key), test.balance)
				s.wantNothingHeld(t, key)
			})
		}
	}
}
