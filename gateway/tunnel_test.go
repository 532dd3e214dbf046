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
)

// TestAServerThatOnlyListens: where time is charged, what a client sends is not free, although nothing comes back: the connection ends when the
// money does, and what has passed is charged.
func TestAServerThatOnlyListens(t *testing.T) {
	t.Parallel()
	heard := make(chan error, 1)
	s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{Rates: rates(t, "0.9 per second")}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "websocket")
		w.WriteHeader(http.StatusSwitchingProtocols)
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			heard <- err
			return
		}
		_, err = io.Copy(io.Discard, conn)
		_ = conn.Close()
		heard <- err
	})
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	must(t, err)
	defer conn.Close()
	_, err = fmt.Fprintf(conn, "GET /socket HTTP/1.1\r\nHost: a\r\nTallygate-Key: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", s.key)
	must(t, err)
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || answer.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(answer, err)
	}
	for err == nil { // until its money has run out
		_, err = io.WriteString(conn, "\x82\x84\x00\x00\x00\x00word")
	}
	if err := <-heard; err == nil {
		t.Error("the server does not hear that the money has run out")
	}
	charges := s.charges()
	if len(charges) != 1 || charges[0].Cut != "funds" || charges[0].Amount < amount("0.9") {
		t.Errorf("charged: %+v", charges)
	}
	s.sound()
}
