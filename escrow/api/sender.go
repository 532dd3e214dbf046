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
	"strings"
	"sync"
	"syscall"
	"time"

	"code.dny.dev/ssrf"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/tallygate/tallygate/escrow"
)

// Sender delivers the events in the ledger's outbox to webhooks. It sends each event at least once, and repeats it in longer and longer
// intervals until the webhook answers with 2xx. An answer with 410 removes the webhook. Several senders may work on one ledger: only one at a
// time works on a delivery.
type Sender struct {
	book   func() *escrow.Book
	client *http.Client
	local  *http.Client // for webhooks that were registered from this machine
	agent  string       // the User-Agent
	logger *slog.Logger
}

// SenderOptions are the options of [NewSender]. All are optional.
type SenderOptions struct {
	// Private allows webhooks at private addresses, such as loopback and local networks. Without it, such an address is refused when it is
	// dialled, whatever host name was used. A webhook that was registered from this machine may always be at loopback, since its owner
	// could reach that address anyway.
	Private bool
	// Listens reports whether this process itself listens at an address that is not public, such as Caddy's admin endpoint on loopback.
	// Nothing is delivered to such an address, whoever registered the webhook. Default: it listens nowhere.
	Listens func(netip.AddrPort) bool
	// Version is the version of the program, which the User-Agent of messages states. Default: it states none.
	Version string
	// Logger gets the failures of deliveries. Default: slog.Default.
	Logger *slog.Logger
}

const (
	sendTimeout   = 10 * time.Second
	sendTogether  = 64               // the number of agents whose deliveries are read together
	sendAtOnce    = 1000             // the number of attempts that run at the same time, for all agents
	sendIdle      = 30 * time.Second // the time after which the sender looks for events that another gateway has written
	alertAttempts = 10               // how often an alert is sent to a webhook that does not accept it
	sendAgain     = time.Second      // the time after which it looks again, if everything that is due is being sent already
)

// NewSender returns a sender. book returns the book with the current rules, or nil while the ledger is not open.
func NewSender(book func() *escrow.Book, o SenderOptions) *Sender {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Listens == nil {
		o.Listens = func(netip.AddrPort) bool { return false }
	}
	return &Sender{
		book: book, agent: UserAgent("Tallygate-Webhooks", o.Version), logger: o.Logger,
		client: newClient(func(at netip.AddrPort) bool { return public(at.Addr()) || o.Private && !o.Listens(at) }),
		local: newClient(func(at netip.AddrPort) bool {
			return public(at.Addr()) || (o.Private || at.Addr().Unmap().IsLoopback()) && !o.Listens(at)
		}),
	}
}

// UserAgent is the User-Agent of requests that the program itself makes: a product with its version, such as "Tallygate-Judge/v1.2.0".
func UserAgent(product, version string) string {
	version = strings.Trim(version, "()")
	if version == "" {
		return product
	}
	return product + "/" + version
}

// newClient returns a client that dials only addresses for which may returns true. It checks the address to which a host name was resolved.
func newClient(may func(netip.AddrPort) bool) *http.Client {
	dialer := &net.Dialer{Timeout: sendTimeout, Control: func(_, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err == nil && !may(at) {
			err = fmt.Errorf("webhook at %s: %w", at, errForbiddenAddress)
		}
		return err
	}}
	return &http.Client{
		Timeout: sendTimeout,
		// There is no proxy, since a proxy would dial the addresses that are refused here.
		Transport:     &http.Transport{DialContext: dialer.DialContext, TLSHandshakeTimeout: sendTimeout, MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Run delivers events until ctx ends.
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

// begin begins attempts at deliveries that are due. At most [escrow.DeliveriesOf] attempts of an agent run at the same time. begin returns how
// many attempts it began, and the time at which the caller must look again, unless an attempt ends before, which is reported on sent.
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
		if err != nil { // another sender is working on it now
			continue
		}
		begun++
		sending.Go(func() {
			if err := s.sendOne(ctx, book, d); err != nil && ctx.Err() == nil {
				s.logger.Error("the result of a delivery can't be recorded", "message", d.ID, "error", err)
				select { // without a pause it would be sent again and again
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

// sendOne makes one attempt and records its result. An error is one of the ledger, not of the webhook.
func (s *Sender) sendOne(ctx context.Context, book *escrow.Book, d escrow.Delivery) error {
	h, found, err := book.Webhook(d)
	if err != nil {
		return err
	}
	record, attempt := (*escrow.Tx).DeliveryDropped, escrow.Attempt{}
	if found { // otherwise the webhook was deleted
		status, err := s.post(ctx, book, d, h)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		attempt.Status = status
		switch {
		case err == nil && status >= 200 && status < 300:
			record = (*escrow.Tx).Delivered
		case status == http.StatusGone:
			record = (*escrow.Tx).WebhookGone
		default:
			if err != nil {
				attempt.Error = whyNoAnswer(err)
			}
			s.logger.Warn("a webhook did not accept a message", "webhook", h.ID, "agent", h.Agent, "message", d.ID, "attempts", d.Attempts+1, "status", status, "error", err)
			record = (*escrow.Tx).DeliveryFailed
		}
	}
	_, err = escrow.Do(ctx, book, func(t *escrow.Tx) (struct{}, error) { return struct{}{}, record(t, d, attempt) })
	return err
}

// errForbiddenAddress is the error of dialling an address that webhooks can't have.
var errForbiddenAddress = errors.New("webhooks can't be at private addresses, or at this server's own ports there")

// whyNoAnswer says to the owner of a webhook why there was no answer. It does not repeat addresses that were looked up, since they may be of the
// server's own network.
func whyNoAnswer(err error) string {
	var dns *net.DNSError
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, errForbiddenAddress):
		return errForbiddenAddress.Error()
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Sprintf("no answer within %s", sendTimeout)
	case errors.As(err, &dns):
		return "the host name is not known"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "the connection was refused"
	default:
		return "the connection failed"
	}
}

// Alert sends an event to the operator's webhooks at once, for events that can't be written to the ledger. Each webhook gets a few attempts.
func (s *Sender) Alert(ctx context.Context, book *escrow.Book, event escrow.Event) {
	hooks, err := book.Webhooks(escrow.TheOperator)
	if err != nil {
		s.logger.Error("the operator can't be alerted", "event", event.Type, "error", err)
	}
	var sending sync.WaitGroup
	for _, h := range hooks {
		if !h.Wants(event.Type) {
			continue
		}
		d := escrow.Delivery{ID: book.NewMessageID(), Agent: h.Agent, Webhook: h.ID, Event: event}
		sending.Go(func() {
			for range alertAttempts {
				status, err := s.post(ctx, book, d, h)
				if err == nil && status >= 200 && status < 300 {
					return
				}
				s.logger.Warn("a webhook did not accept an alert", "webhook", h.ID, "event", event.Type, "status", status, "error", err)
				select {
				case <-ctx.Done():
					return
				case <-time.After(sendIdle):
				}
			}
		})
	}
	sending.Wait()
}

// post sends one message, signed as https://www.standardwebhooks.com says.
func (s *Sender) post(ctx context.Context, book *escrow.Book, d escrow.Delivery, h escrow.Webhook) (status int, err error) {
	body, err := json.Marshal(eventAnswer(book.Currency(), d.Agent, d.Event))
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
	req.Header.Set("User-Agent", s.agent)
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

// guard refuses the addresses in IANA's special-purpose registries, and IPv6 addresses outside of the global unicast range.
var guard = ssrf.New()

// public reports whether an address belongs to the public internet.
func public(at netip.Addr) bool {
	return guard.SafeAddr(at.Unmap().WithZone("")) == nil
}
