package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
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

// Sender delivers events to webhooks, out of the ledger's outbox: each at least once, and again, less and less often, until the
// webhook answers with 2xx, or with 410, which takes it off. Any number of senders may work on one ledger.
type Sender struct {
	book   func() *escrow.Book
	client *http.Client
	local  *http.Client // for webhooks that were asked for from this machine
	logger *slog.Logger
}

// SenderOptions are what a sender is made with.
type SenderOptions struct {
	// Private lets webhooks be at private addresses: loopback, local networks. Without it they are refused when they are dialled
	// (but for loopback, where the webhook was asked for from loopback: who is on this machine reaches that anyway),
	// whatever name they go by.
	Private bool
	Logger  *slog.Logger // default slog.Default
}

const (
	sendTimeout  = 10 * time.Second
	sendTogether = 16
	sendIdle     = 30 * time.Second // at the latest then it looks again: another gateway may have written
)

// NewSender returns a sender for the books that serve.
func NewSender(book func() *escrow.Book, o SenderOptions) *Sender {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return &Sender{
		book: book, logger: o.Logger,
		client: newClient(func(at netip.Addr) bool { return o.Private || public(at) }),
		local:  newClient(func(at netip.Addr) bool { return o.Private || public(at) || at.Unmap().IsLoopback() }),
	}
}

// newClient returns a client that dials only where it may. It looks at what a name was resolved to.
func newClient(may func(netip.Addr) bool) *http.Client {
	dialer := &net.Dialer{Timeout: sendTimeout, Control: func(_, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err == nil && !may(at.Addr()) {
			err = fmt.Errorf("webhook at %s: private addresses are no targets here", at.Addr())
		}
		return err
	}}
	return &http.Client{
		Timeout: sendTimeout,
		// No proxy: it would dial what is refused here.
		Transport:     &http.Transport{DialContext: dialer.DialContext, TLSHandshakeTimeout: sendTimeout, MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Run sends until ctx ends.
func (s *Sender) Run(ctx context.Context) {
	for {
		wait := sendIdle
		var wake <-chan struct{}
		if book := s.book(); book != nil {
			wake = book.OutboxChanged()
			next, err := s.Send(ctx)
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
		case <-timer.C:
		}
		timer.Stop()
	}
}

// Send makes one attempt for each delivery that is due, and returns when the next one is (zero: none waits).
func (s *Sender) Send(ctx context.Context) (next time.Time, err error) {
	for {
		book := s.book()
		due, hooks, next, err := book.Deliveries(ctx, sendTogether)
		if err != nil || len(due) == 0 {
			return next, err
		}
		var wg sync.WaitGroup
		failures := make([]error, len(due))
		for i := range due {
			wg.Add(1)
			go func() {
				defer wg.Done()
				failures[i] = s.sendOne(ctx, book, due[i], hooks[i])
			}()
		}
		wg.Wait()
		if err := errors.Join(failures...); err != nil {
			return time.Time{}, err
		}
	}
}

// sendOne makes one attempt and takes down what became of it. The error is the ledger's, not the webhook's.
func (s *Sender) sendOne(ctx context.Context, book *escrow.Book, d escrow.Delivery, h escrow.Webhook) error {
	if h.ID == "" { // it was deleted
		return book.Do(ctx, func(t *escrow.Tx) error { t.Delivered(d); return nil })
	}
	status, err := s.post(ctx, book, d, h)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	switch {
	case err == nil && status >= 200 && status < 300:
		return book.Do(ctx, func(t *escrow.Tx) error { t.Delivered(d); return nil })
	case status == http.StatusGone:
		return book.Do(ctx, func(t *escrow.Tx) error { return t.WebhookGone(d) })
	default:
		s.logger.Warn("a webhook did not take a message", "webhook", h.ID, "agent", h.Agent, "message", d.ID, "attempts", d.Attempts+1, "status", status, "error", err)
		return book.Do(ctx, func(t *escrow.Tx) error { return t.DeliveryFailed(d) })
	}
}

// post sends one message, signed by the Standard Webhooks convention.
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

// guard knows the blocks of IANA's special-purpose registries, and all of IPv6 that is not handed out for the internet.
var guard = ssrf.New()

// public reports whether an address is one of the internet's.
func public(at netip.Addr) bool {
	return guard.SafeAddr(at.Unmap().WithZone("")) == nil
}
