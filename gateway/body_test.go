package gateway_test

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/gateway"
)

// slowly sends a request whose body begins with some bytes and then waits until it is released. The route reads the body because of the
// idempotency key. The answer's status is sent on the channel.
func (s *shop) slowly(key, at string, begins int) (letGo func(), status <-chan int) {
	conn, err := net.Dial("tcp", strings.TrimPrefix(at, "http://"))
	must(s.t, err)
	answered := make(chan int, 1)
	go func() {
		defer conn.Close()
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			s.t.Errorf("no answer: %v", err)
			answered <- 0
			return
		}
		answered <- response.StatusCode
	}()
	_, err = fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: shop\r\nAuthorization: Bearer %s\r\nIdempotency-Key: %d\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n",
		key, begins, begins, strings.Repeat("x", begins))
	must(s.t, err)
	return func() { _, _ = io.WriteString(conn, "0\r\n\r\n") }, answered
}

func (s *shop) agent(name, money string) (key string) {
	must(s.t, s.do(func(tx *escrow.Tx) (err error) {
		if _, _, key, err = tx.CreateAgent(escrow.Actor{}, escrow.AgentOrder{ID: name}); err != nil || money == "0" {
			return err
		}
		_, err = tx.Deposit(operator, escrow.PaymentOrder{To: name, Amount: amount(money)})
		return err
	}))
	return key
}

func ok(http.ResponseWriter, *http.Request) {}

// TestABodyThatComesTooSlowly: such a body loses its room, whoever sends it.
func TestABodyThatComesTooSlowly(t *testing.T) {
	t.Parallel()
	s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{}, nil)
	meter := gateway.New(s.book, gateway.Options{})
	meter.SetBodyGrace(20 * time.Millisecond)
	route := &gateway.Route{Payee: "acme", Rates: rates(t, "0.1 per call"), Logger: slog.New(slog.DiscardHandler)}
	server := httptest.NewServer(meter.Handler(route, http.HandlerFunc(ok)))
	defer server.Close()
	_, status := s.slowly(s.key, server.URL, 100)
	if got := <-status; got != http.StatusRequestTimeout {
		t.Errorf("answered with %d, want 408", got)
	}
	if taken := s.book.Claims().Taken(escrow.Thing{Kind: escrow.RequestBody}); taken != 0 {
		t.Errorf("%d bytes of room are still taken", taken)
	}
}

// TestRoomForBodiesIsShared: an agent that sends many large bodies slowly leaves room for others. Very many such agents leave room for
// small bodies. A caller without money gets almost no room.
func TestRoomForBodiesIsShared(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ agents, then int }{{3, 40 << 10}, {12, 10 << 10}} {
		t.Run(fmt.Sprint(c.agents), func(t *testing.T) { t.Parallel(); testRoomIsShared(t, c.agents, c.then) })
	}
}

func testRoomIsShared(t *testing.T, agents, then int) {
	const most = 1 << 20
	s := openShop(t, escrow.Rules{}, gateway.Options{MaxBodies: most}, gateway.Route{Rates: rates(t, "0.001 per call"), MaxBody: most / 4}, ok)
	taken := func() int64 { return s.book.Claims().Taken(escrow.Thing{Kind: escrow.RequestBody}) }
	var letGo []func()
	var waiting []<-chan int
	for n := range agents {
		name := fmt.Sprint("mallory-", n)
		for key, refused, i := s.agent(name, "1"), false, 0; !refused; i++ {
			before := taken()
			end, status := s.slowly(key, s.url, 64<<10+i) // each under an idempotency key of its own
			for taken() < before+64<<10 && !refused {
				select {
				case got := <-status:
					if refused = true; got != http.StatusTooManyRequests {
						t.Errorf("%s is answered with %d, want 429", name, got)
					}
				default:
					runtime.Gosched()
				}
			}
			if !refused {
				letGo, waiting = append(letGo, end), append(waiting, status)
			}
		}
	}
	_, status := s.slowly(s.agent("poor", "0"), s.url, 60<<10)
	if got := <-status; got != http.StatusPaymentRequired && got != http.StatusTooManyRequests {
		t.Errorf("a large body of a caller without money is answered with %d, want 402, or 429 where no room is left", got)
	}
	end, status := s.slowly(s.key, s.url, then)
	end()
	if got := <-status; got != http.StatusOK {
		t.Errorf("beside %d agents that fill the room, an honest caller is answered with %d, want 200", agents, got)
	}
	for _, end := range letGo {
		end()
	}
	for _, status := range waiting {
		<-status
	}
}
