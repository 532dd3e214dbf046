package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"time"

	"code.dny.dev/ssrf"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/tallygate/tallygate/escrow"
)

// Sender delivers the events in the ledger's outbox to webhooks. It sends each at least once, and again, less and less often, until
// the webhook answers with 2xx. An answer of 410 removes the webhook. Any number of senders may work on one
// ledger: one sender at a time sees to a delivery.
type Sender struct {
	book   func() *escrow.Book
	client *http.Client
	local  *http.Client // for webhooks that were made from this machine
	logger *slog.Logger
}

// SenderOptions are what a sender is made with. All are optional.
type SenderOptions struct {
	// Private lets webhooks be at private addresses, such as loopback and local networks. Without it, such an address is refused
	// when it is dialled, whatever name it has. A webhook that was made from this machine may be at loopback all the same, which
	// its maker could reach anyway.
	Private bool
	// Listens reports whether this process itself listens at an address that is not public, such as Caddy's admin endpoint on loopback: no
	// webhook is delivered there, whoever made it. Default: it listens nowhere.
	Listens func(netip.AddrPort) bool
	// Logger takes the failures of deliveries. Default: slog.Default.
	Logger *slog.Logger
}

const (
	sendTimeout  = 10 * time.Second
	sendTogether = 64               // agents whose deliveries are looked up at once
	sendAtOnce   = 1000             // attempts that run at once, of all agents
	sendIdle     = 30 * time.Second // after which the sender looks for events that another gateway has written
	sendAgain    = time.Second      // after which it looks again, where all that is due is being sent already
)

// NewSender returns a sender. book returns the books under the rules that serve now, and nil while there are none.
func NewSender(book func() *escrow.Book, o SenderOptions) *Sender {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Listens == nil {
		o.Listens = func(netip.AddrPort) bool { return false }
	}
	return &Sender{
		book: book, logger: o.Logger,
		client: newClient(func(at netip.AddrPort) bool { return public(at.Addr()) || o.Private && !o.Listens(at) }),
		local: newClient(func(at netip.AddrPort) bool {
			return public(at.Addr()) || (o.Private || at.Addr().Unmap().IsLoopback()) && !o.Listens(at)
		}),
	}
}

// newClient returns a client that dials only the addresses that it may. It checks the address that a name was resolved to.
func newClient(may func(netip.AddrPort) bool) *http.Client {
	dialer := &net.Dialer{Timeout: sendTimeout, Control: func(_, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err == nil && !may(at) {
			err = fmt.Errorf("webhook at %s: private addresses, and this server's own ports on them, are no targets here", at)
		}
		return err
	}}
	return &http.Client{
		Timeout: sendTimeout,
		// There is no proxy, which would dial the addresses that are refused here.
		Transport:     &http.Transport{DialContext: dialer.DialContext, TLSHandshakeTimeout: sendTimeout, MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Run sends until ctx ends.
func (s *Sender) Run(ctx context.Context) {
	var sending sync.WaitGroup
	defer sending.Wait()
	sent := make(chan struct{}, 1)
	for {
		wait := sendIdle
		var wake <-chan struct{}
		if book := s.book(); book != nil {
			wake = book.OutboxChanged()
			_, next, err := s.begin(ctx, book, &sending, sent)
			if err != nil && ctx.Err() == nil {
				s.logger.Error("webhooks can't be delivered", "error", err)
			} else if !next.IsZero() {
				wait = min(wait, max(next.Sub(book.Now()), 0))
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-wake:
		case <-sent:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// Send makes one attempt at each delivery that is due, and returns the time when the next one is due, zero if none waits. The error
// is the ledger's.
func (s *Sender) Send(ctx context.Context) (next time.Time, err error) {
	for {
		var sending sync.WaitGroup
		begun, next, err := s.begin(ctx, s.book(), &sending, make(chan struct{}, 1))
		sending.Wait()
		if err != nil || begun == 0 {
			return next, err
		}
	}
}

// begin begins an attempt at deliveries that are due, of each agent so many that no more than [escrow.DeliveriesOf] run at once. It returns
// how many that were and when to look again, if it is not told before by sent, as each attempt ends.
func (s *Sender) begin(ctx context.Context, book *escrow.Book, sending *sync.WaitGroup, sent chan<- struct{}) (begun int, next time.Time, err error) {
	claims := book.Claims()
	of := func(agent string) escrow.Thing { return escrow.Thing{Kind: escrow.RunningDelivery, Owner: agent} }
	work := func(d escrow.Delivery) escrow.Thing { return escrow.Thing{Kind: escrow.Work, Name: "delivery " + d.ID} }
	due, next, err := book.Deliveries(ctx, sendTogether, func(d escrow.Delivery) bool { return claims.Taken(work(d)) > 0 })
	if err != nil {
		return 0, time.Time{}, err
	}
	for _, d := range due {
		claim, err := claims.Take(ctx, 1,
			escrow.Bound{Of: work(d), Most: 1},
			escrow.Bound{Of: of(d.Agent), Most: escrow.DeliveriesOf},
			escrow.Bound{Of: of(""), Most: sendAtOnce})
		if err != nil { // another sender sees to it this very moment
			continue
		}
		begun++
		sending.Go(func() {
			if err := s.sendOne(ctx, book, d); err != nil && ctx.Err() == nil {
				s.logger.Error("what became of a webhook's message can't be written down", "message", d.ID, "error", err)
				select { // else it would be sent again at once, and again
				case <-ctx.Done():
				case <-time.After(sendIdle):
				}
			}
			claim.End()
			select {
			case sent <- struct{}{}:
			default:
			}
		})
	}
	if soon := book.Now().Add(sendAgain); !next.IsZero() && next.Before(soon) && begun == 0 {
		next = soon
	}
	return begun, next, nil
}

// sendOne makes one attempt and records what became of it. The error is the ledger's, not the webhook's.
func (s *Sender) sendOne(ctx context.Context, book *escrow.Book, d escrow.Delivery) error {
	h, found, err := book.Webhook(d)
	if err != nil {
		return err
	}
	record := (*escrow.Tx).Delivered
	if found { // else it was deleted
		status, err := s.post(ctx, book, d, h)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		switch {
		case err == nil && status >= 200 && status < 300:
		case status == http.StatusGone:
			record = (*escrow.Tx).WebhookGone
		default:
			s.logger.Warn("a webhook did not take a message", "webhook", h.ID, "agent", h.Agent, "message", d.ID, "attempts", d.Attempts+1, "status", status, "error", err)
			record = (*escrow.Tx).DeliveryFailed
		}
	}
	_, err = escrow.Do(ctx, book, func(t *escrow.Tx) (struct{}, error) { return struct{}{}, record(t, d) })
	return err
}

// post sends one message, signed as https://www.standardwebhooks.com says.
func (s *Sender) post(ctx context.Context, book *escrow.Book, d escrow.Delivery, h escrow.Webhook) (status int, err error) {
	body, err := json.Marshal(eventAnswer(book.Currency(), d.Event))
	if err != nil {
		return 0, err
	}
	signer, err := standardwebhooks.NewWebhook(h.Secret)
	if err != nil {
		return 0, err
	}
	now := book.Now()
	signature, err := signer.Sign(d.ID, now, body)
	if err != nil {
		return 0, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "Tallygate-Webhooks")
	req.Header.Set(standardwebhooks.HeaderWebhookID, d.ID)
	req.Header.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(now.Unix(), 10))
	req.Header.Set(standardwebhooks.HeaderWebhookSignature, signature)
	client := s.client
	if h.Local {
		client = s.local
	}
	response, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	_, _ = io.CopyN(io.Discard, response.Body, 64<<10)
	return response.StatusCode, nil
}

// guard refuses the addresses in IANA's special-purpose registries, and those of IPv6 that are not set aside for the internet.
var guard = ssrf.New()

// public reports whether an address is one of the public internet.
func public(at netip.Addr) bool {
	return guard.SafeAddr(at.Unmap().WithZone("")) == nil
}
