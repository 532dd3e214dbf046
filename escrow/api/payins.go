package api

import (
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/cashier"
	"github.com/tallygate/tallygate/escrow/ledger"
)

type checkoutIn struct {
	AgentID string        `json:"agent_id,omitempty" jsonschema:"whose wallet is filled; only the operator gives it"`
	Amount  ledger.Amount `json:"amount"`
	Save    bool          `json:"save,omitempty" jsonschema:"keep the payment method for automatic top-ups"`
}

type checkoutOut struct {
	CheckoutID string        `json:"checkout_id"`
	URL        string        `json:"url" jsonschema:"a page on which a person pays by card"`
	AgentID    string        `json:"agent_id"`
	Amount     ledger.Amount `json:"amount"`
	Currency   string        `json:"currency"`
	ExpiresAt  time.Time     `json:"expires_at"`
}

type topUpIn struct {
	AgentID string        `json:"agent_id,omitempty" jsonschema:"whose wallet is filled; only the operator gives it"`
	Below   ledger.Amount `json:"below" jsonschema:"the wallet is filled when less than this is available"`
	Amount  ledger.Amount `json:"amount" jsonschema:"what is paid then"`
	PerDay  ledger.Amount `json:"per_day" jsonschema:"the most that is paid on one day, in UTC"`
}

type topUpOut struct {
	AgentID   string        `json:"agent_id"`
	Active    bool          `json:"active" jsonschema:"the wallet is filled by itself"`
	Below     ledger.Amount `json:"below"`
	Amount    ledger.Amount `json:"amount"`
	PerDay    ledger.Amount `json:"per_day"`
	PaidToday ledger.Amount `json:"paid_today"`
	Pending   bool          `json:"pending" jsonschema:"a payment is being made, and its outcome is not known yet"`
	Rail      string        `json:"rail" jsonschema:"whose service has saved the payment method"`
	Failed    string        `json:"failed,omitempty" jsonschema:"why the last payment was not made; nothing is paid before the top-up is set again"`
	Currency  string        `json:"currency"`
}

func topUpAnswer(currency string, now time.Time, a escrow.AutoTopUp) topUpOut {
	out := topUpOut{
		AgentID: a.Agent, Active: a.IsOn(), Below: a.Below, Amount: a.Amount, PerDay: a.PerDay, Pending: a.Order != "", Rail: a.Rail, Failed: a.Failed, Currency: currency,
	}
	if a.Day == now.UTC().Format(time.DateOnly) {
		out.PaidToday = a.Paid
	}
	return out
}

func payInRoutes() []route {
	return []route{
		ask("/checkout", "createCheckout", "A page on which a person pays by card into the wallet", createCheckout).creates(),
		get("/wallet/top-up", "getTopUp", "How the wallet is filled by itself", getTopUp),
		put("/wallet/top-up", "setTopUp", "Fill the wallet by itself, with the payment method that a checkout has saved", func(r *request, t *escrow.Tx, in *topUpIn) (topUpOut, error) {
			if r.server.o.Cashier == nil {
				return topUpOut{}, noCashier()
			}
			a, err := t.SetAutoTopUp(r.by, escrow.TopUpOrder{Agent: in.AgentID, Below: in.Below, Amount: in.Amount, PerDay: in.PerDay})
			return topUpAnswer(t.Currency(), t.Now(), a), err
		}),
		del("/wallet/top-up", "deleteTopUp", "Stop filling the wallet by itself, and forget the payment method", func(r *request, t *escrow.Tx, in *ofAgent) error {
			return t.DeleteAutoTopUp(r.by, in.AgentID)
		}),
	}
}

func noCashier() error {
	return &escrow.Refusal{Outcome: escrow.NotFound, Detail: "nobody pays by card here: the operator has configured no cashier"}
}

func createCheckout(r *request, in *checkoutIn) (checkoutOut, error) {
	c := r.server.o.Cashier
	if c == nil {
		return checkoutOut{}, noCashier()
	}
	agent, err := r.book.PaysIn(r.by, in.AgentID)
	if err != nil {
		return checkoutOut{}, err
	}
	page, err := c.Checkout(r.Context(), r.by, cashier.Order{Agent: agent, Amount: in.Amount, Save: in.Save, Key: r.Header.Get("Idempotency-Key")})
	return checkoutOut{CheckoutID: page.ID, URL: page.URL, AgentID: agent, Amount: in.Amount, Currency: r.book.Currency(), ExpiresAt: page.ExpiresAt}, err
}

func getTopUp(r *request, in *ofAgent) (topUpOut, error) {
	agent, err := r.book.ReadsFor(r.by, in.AgentID)
	if err != nil {
		return topUpOut{}, err
	}
	a, err := r.book.AutoTopUp(agent)
	return topUpAnswer(r.book.Currency(), r.book.Now(), a), err
}

// eventsPath is where the cashier's service sends its messages. It is in no description, since agents do not call it.
const eventsPath = base + "/checkout/events"

// maxEvent is how many bytes a message of the cashier's service may have.
const maxEvent = 1 << 20

// notify takes a message of the cashier's service. Any answer but 2xx makes the service send it again.
func (s *server) notify(w http.ResponseWriter, r *http.Request) {
	book := s.book()
	switch {
	case s.o.Cashier == nil:
		s.fail(w, r, noCashier())
		return
	case book == nil:
		s.fail(w, r, &escrow.Refusal{Outcome: LedgerUnavailable, Detail: "the gateway is starting", Fields: map[string]string{"charge": "none"}})
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxEvent))
	if err != nil {
		s.fail(w, r, &escrow.Refusal{Outcome: RequestTooLarge, Detail: "the message is too large, or was cut"})
		return
	}
	err = s.o.Cashier.Notify(r.Context(), r.Header, body)
	if escrow.IsRefusal(err, escrow.Unauthorized) {
		if often := WrongKeys.Take(book.Claims(), (&request{Request: r, server: s}).client()); often != nil {
			err = often
		}
	}
	var refusal *escrow.Refusal
	if err != nil && !errors.As(err, &refusal) {
		err = &escrow.Refusal{Outcome: InternalError, Detail: "the message could not be booked; send it again"}
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
