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

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/tallygate/tallygate/escrow"
)

// Sender delivers events to webhooks, out of the ledger's outbox: each at least once, and again, less and less often, until the
// webhook answers with 2xx, or with 410, which takes it off. Any number of senders may work on one ledger: a delivery is one's at a time.
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
	sendAgain    = time.Second      // after it, where another sender was at work on all that is due
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
		others := 0 // of which another sender sees to this very moment
		for i := range due {
			claim, err := book.Claims().Take(ctx, 1, escrow.Bound{Of: escrow.Thing{Kind: escrow.Work, Name: "delivery " + due[i].ID}, Most: 1})
			if err != nil {
				others++
				continue
			}
			wg.Go(func() {
				defer claim.End()
				failures[i] = s.sendOne(ctx, book, due[i], hooks[i])
			})
		}
		wg.Wait()
		if err := errors.Join(failures...); err != nil {
			return time.Time{}, err
		}
		if others == len(due) {
			return book.Now().Add(sendAgain), nil
		}
	}
}

// sendOne makes one attempt and takes down what became of it. The error is the ledger's, not the webhook's.
func (s *Sender) sendOne(ctx context.Context, book *escrow.Book, d escrow.Delivery, h escrow.Webhook) error {
	takeDown := (*escrow.Tx).Delivered
	if h.ID != "" { // else it was deleted
		status, err := s.post(ctx, book, d, h)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		switch {
		case err == nil && status >= 200 && status < 300:
		case status == http.StatusGone:
			takeDown = (*escrow.Tx).WebhookGone
		default:
			s.logger.Warn("a webhook did not take a message", "webhook", h.ID, "agent", h.Agent, "message", d.ID, "attempts", d.Attempts+1, "status", status, "error", err)
			takeDown = (*escrow.Tx).DeliveryFailed
		}
	}
	_, err := escrow.Do(ctx, book, func(t *escrow.Tx) (struct{}, error) { return struct{}{}, takeDown(t, d) })
	return err
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

// notPublic are the blocks that are nobody's on the internet, beside those that netip knows (RFC 6890).
var notPublic = func() (blocks []netip.Prefix) {
	for _, block := range []string{
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
		"64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "fec0::/10",
	} {
		blocks = append(blocks, netip.MustParsePrefix(block))
	}
	return blocks
}()

// public reports whether an address is one of the internet's.
func public(at netip.Addr) bool {
	at = at.Unmap().WithZone("")
	if !at.IsGlobalUnicast() || at.IsPrivate() {
		return false
	}
	for _, block := range notPublic {
		if block.Contains(at) {
			return false
		}
	}
	return true
}
