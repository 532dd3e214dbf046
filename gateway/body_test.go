package gateway_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/gateway"
)

// slowly sends a request whose body begins with some bytes and then waits until it is let go. The route reads the body for the
// idempotency key. The answer's status comes on the channel.
func (s *shop) slowly(key, url string, begins int) (letGo func(), status <-chan int) {
	body, more := io.Pipe()
	request, err := http.NewRequest(http.MethodPost, url, body)
	must(s.t, err)
	request.Header.Set("Authorization", "Bearer "+key)
	request.Header.Set("Idempotency-Key", ledger.Amount(begins).String())
	answered := make(chan int, 1)
	go func() {
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			answered <- 0
			return
		}
		_ = response.Body.Close()
		answered <- response.StatusCode
	}()
	go func() { _, _ = io.WriteString(more, strings.Repeat("x", begins)) }()
	return func() { _ = more.Close() }, answered
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

// TestABodyThatComesTooSlowly loses its room, whoever sends it.
func TestABodyThatComesTooSlowly(t *testing.T) {
	t.Parallel()
	s := openShop(t, escrow.Rules{}, gateway.Options{}, gateway.Route{}, nil)
	meter := gateway.New(s.book, gateway.Options{})
	meter.SetBodyGrace(20 * time.Millisecond)
	route := &gateway.Route{Payee: "acme", Rates: rates(t, "0.1 per call"), Logger: slog.New(slog.DiscardHandler)}
	server := httptest.NewServer(meter.Handler(route, http.HandlerFunc(ok)))
	defer server.Close()
	letGo, status := s.slowly(s.key, server.URL, 100)
	if got := <-status; got != http.StatusRequestTimeout && got != 0 { // the server hangs up on who goes on sending
		t.Errorf("answered with %d, want 408", got)
	}
	letGo()
	if taken := s.book.Claims().Taken(escrow.Thing{Kind: escrow.RequestBody}); taken != 0 {
		t.Errorf("%d bytes of room are still taken", taken)
	}
}

// TestRoomForBodiesIsShared: whoever sends many large bodies slowly leaves room for others; whoever can pay nothing gets next to none.
func TestRoomForBodiesIsShared(t *testing.T) {
	t.Parallel()
	const most = 1 << 20
	s := openShop(t, escrow.Rules{}, gateway.Options{MaxBodies: most}, gateway.Route{Rates: rates(t, "0.001 per call"), MaxBody: most / 3}, ok)
	taken := func() int64 { return s.book.Claims().Taken(escrow.Thing{Kind: escrow.RequestBody}) }
	var letGo []func()
	for _, name := range []string{"mallory-1", "mallory-2", "mallory-3"} {
		key, refused := s.agent(name, "1"), false
		for i := 0; !refused; i++ {
			before := taken()
			end, status := s.slowly(key, s.url, 64<<10+i) // each under an idempotency key of its own
			letGo = append(letGo, end)
			for taken() < before+64<<10 && !refused {
				select {
				case got := <-status:
					if refused = true; got != http.StatusTooManyRequests && got != 0 {
						t.Errorf("%s is answered with %d, want 429", name, got)
					}
				default:
					runtime.Gosched()
				}
			}
		}
	}
	poor := s.agent("poor", "0")
	end, status := s.slowly(poor, s.url, 60<<10)
	if got := <-status; got != http.StatusPaymentRequired && got != 0 {
		t.Errorf("a large body of a caller without money is answered with %d, want 402", got)
	}
	end()
	end, status = s.slowly(s.key, s.url, 40<<10)
	end0 := make(chan struct{})
	go func() { end(); close(end0) }()
	if got := <-status; got != http.StatusOK {
		t.Errorf("beside three agents that fill the room, an honest caller is answered with %d, want 200", got)
	}
	<-end0
	for _, end := range letGo {
		end()
	}
}
