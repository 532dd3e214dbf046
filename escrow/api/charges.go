package api

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
)

type chargeOut struct {
	RequestID  string              `json:"request_id"`
	Payer      string              `json:"payer"`
	Payee      string              `json:"payee"`
	Route      string              `json:"route"`
	Pattern    string              `json:"pattern"`
	API        string              `json:"api,omitempty"`
	Model      string              `json:"model" jsonschema:"the model that answered"`
	AskedModel string              `json:"asked_model,omitempty" jsonschema:"the model that was asked for, if another one answered; the more expensive of the two is charged"`
	Units      map[string]string   `json:"units"`
	UnitPrices map[string]string   `json:"unit_prices"`
	Cost       string              `json:"cost,omitempty" jsonschema:"the cost that the provider stated; if it is there, the cost and the markup are charged instead of the unit prices"`
	Markup     string              `json:"markup,omitempty" jsonschema:"what is added to the cost, such as 20%"`
	Amount     ledger.Amount       `json:"amount"`
	Commission ledger.Amount       `json:"commission"`
	Refunded   ledger.Amount       `json:"refunded"`
	Credit     ledger.Amount       `json:"credit,omitzero" jsonschema:"the part of the amount that credit has paid; money is the other part"`
	Money      *ledger.Amount      `json:"money,omitempty" jsonschema:"the part of the amount that was paid with money; missing: all of it"`
	CreditBack ledger.Amount       `json:"credit_refunded,omitzero" jsonschema:"the part of refunded that came back as credit"`
	Price      *ledger.Amount      `json:"price,omitempty" jsonschema:"what the call would have cost, if that differs from the amount because of quality or shadow mode"`
	Score      string              `json:"score,omitempty" jsonschema:"the score of the answer's quality"`
	Owed       ledger.Amount       `json:"owed,omitzero" jsonschema:"what is missing of the price of an answer that the provider keeps; it is charged before that answer can be read"`
	Plan       string              `json:"plan,omitempty"`
	SubID      string              `json:"subscription_id,omitempty"`
	QuotaUsed  string              `json:"quota_used,omitempty" jsonschema:"units of the plan's quota that the call used"`
	QuotaLeft  string              `json:"quota_left,omitempty" jsonschema:"units of the plan's quota that were left after the call"`
	Currency   string              `json:"currency"`
	Source     string              `json:"source" jsonschema:"how the usage is known: stated by the provider, estimated, or reported by the payee, of work outside of metered routes"`
	Cut        string              `json:"cut" jsonschema:"what ended the response early: none, client, upstream, funds, or crash"`
	Status     escrow.ChargeStatus `json:"status"`
	EscrowID   *string             `json:"escrow_id"`
	Suspect    bool                `json:"suspect,omitempty" jsonschema:"the amount or the usage was absurd and was cut"`
	HTTPStatus int                 `json:"http_status,omitempty"`
	DurationMS int64               `json:"duration_ms,omitempty"`
	Tags       map[string]string   `json:"tags"`
	Reference  string              `json:"reference,omitempty" jsonschema:"the payee's own id of reported work, or of a capture of a hold"`
	Dispute    *chargeDisputeOut   `json:"dispute,omitempty" jsonschema:"the payer's dispute of the charge"`
	CreatedAt  time.Time           `json:"created_at"`
	Receipt    string              `json:"receipt,omitempty" jsonschema:"the charge as a signed JWS; the public key is at /receipt-keys"`
}

type chargeDisputeOut struct {
	DisputedAt time.Time  `json:"disputed_at"`
	Reason     string     `json:"reason"`
	ResolvedAt *time.Time `json:"resolved_at" jsonschema:"null while it is open"`
	Note       string     `json:"note,omitempty" jsonschema:"the operator's, or withdrawn or refunded"`
}

// chargeAnswer returns a function that shows a charge as the caller by may see it.
func chargeAnswer(currency string, by escrow.Actor) func(escrow.Charge) chargeOut {
	return func(c escrow.Charge) chargeOut {
		tags := c.Tags
		if !by.Operator {
			tags = c.TagsFor(by.Agent)
		}
		out := chargeOut{
			RequestID: c.RequestID, Payer: c.Payer, Payee: c.Payee, Route: c.Route, Pattern: c.Pattern, API: c.API, Model: c.Model, AskedModel: c.AskedModel,
			Units: orEmpty(c.Units), UnitPrices: orEmpty(c.UnitPrices), Cost: c.Cost, Markup: c.Markup, Amount: c.Amount, Commission: c.Commission, Refunded: c.Refunded,
			Currency: currency, Source: c.Source, Cut: c.Cut, Status: c.Status, Suspect: c.Suspect, HTTPStatus: c.HTTPStatus, Owed: c.Owed,
			Reference: c.Reference, DurationMS: c.Duration.Milliseconds(), Tags: orEmpty(tags), CreatedAt: c.CreatedAt,
		}
		if d := c.Dispute; d != nil {
			out.Dispute = &chargeDisputeOut{DisputedAt: d.At, Reason: d.Reason, ResolvedAt: optionalTime(d.ResolvedAt), Note: d.Note}
		}
		if c.EscrowID != "" {
			out.EscrowID = &c.EscrowID
		}
		if out.Credit, out.CreditBack = c.Credit, c.CreditBack; c.Credit > 0 {
			money := c.Amount - c.Credit
			out.Money = &money
		}
		if c.Price > 0 {
			out.Price = &c.Price
		}
		if out.Plan, out.SubID, out.Score = c.Plan, c.SubscriptionID, c.Score; c.QuotaUsed > 0 || c.QuotaLeft > 0 {
			out.QuotaUsed, out.QuotaLeft = escrow.Units(c.QuotaUsed), escrow.Units(c.QuotaLeft)
		}
		return out
	}
}

// orEmpty returns m, or an empty map for nil, which would be null in JSON.
func orEmpty(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

// score is the text of a number in a request, which may be a JSON string or number.
type score string

// UnmarshalJSON keeps the number's text.
func (s *score) UnmarshalJSON(text []byte) error {
	if len(text) > 0 && text[0] == '"' {
		return json.Unmarshal(text, (*string)(s))
	}
	var n json.Number
	err := json.Unmarshal(text, &n)
	*s = score(n)
	return err
}

type scoreIn struct {
	ID    string `path:"id"`
	Score score  `json:"score"`
}

type resolveChargeIn struct {
	ID      string        `path:"id"`
	ToPayer ledger.Amount `json:"to_payer,omitempty" jsonschema:"what of the charge goes back to the payer; missing: nothing"`
	Note    string        `json:"note,omitempty"`
}

type chargesIn struct {
	AgentID string    `query:"agent_id"`
	Payer   string    `query:"payer"`
	Payee   string    `query:"payee"`
	Route   string    `query:"route"`
	Status  string    `query:"status"`
	Suspect bool      `query:"suspect"`
	From    time.Time `query:"from"`
	To      time.Time `query:"to"`
	paging
}

type chargesOut struct {
	Charges    []chargeOut `json:"charges"`
	NextCursor *string     `json:"next_cursor"`
}

type withheldCallsOut struct {
	Withheld   []withheldCallOut `json:"withheld"`
	NextCursor *string           `json:"next_cursor"`
}

type withheldCallOut struct {
	RequestID string         `json:"request_id"`
	Payer     string         `json:"payer"`
	Payee     string         `json:"payee"`
	Route     string         `json:"route"`
	Reason    escrow.Outcome `json:"reason" jsonschema:"why the whole price could not be charged, such as insufficient_funds or limit_exceeded"`
	CreatedAt time.Time      `json:"created_at"`
}

func listWithheld(r *request, in *listIn) (withheldCallsOut, error) {
	calls, place, err := r.book.WithheldCalls(in.page())
	return withheldCallsOut{Withheld: each(calls, func(e escrow.Event) withheldCallOut {
		w := e.Withheld
		return withheldCallOut{RequestID: w.Request, Payer: w.Payer, Payee: w.Payee, Route: w.Route, Reason: w.Reason, CreatedAt: e.At}
	}), NextCursor: next(r, place)}, err
}

func chargeRoutes() []route {
	return []route{
		get("/withheld", "listWithheld", "The last calls whose answers were withheld, since their whole price could not be charged, newest first", listWithheld).operators(),
		get("/charges", "listCharges", "Charges that the agent paid or was paid, newest first", listCharges),
		post("/charges", "reportCharge", "Charge a payer for work outside of metered routes (payee), with its consent: a hold, a subscription or an allowance", reportCharge).creates(),
		post("/charges/{id}/refund", "refundCharge", "Refund a charge to its payer (payee, operator)", func(r *request, t *escrow.Tx, in *refundIn) (chargeOut, error) {
			amount, err := optional("amount", in.Amount)
			if err != nil {
				return chargeOut{}, err
			}
			c, err := t.RefundCharge(r.by, in.ID, amount, in.Reason)
			return chargeAnswer(t.Currency(), r.by)(c), err
		}),
		post("/charges/{id}/dispute", "disputeCharge", "Dispute a charge (payer); the operator decides", func(r *request, t *escrow.Tx, in *reasonedIn) (chargeOut, error) {
			c, err := t.DisputeCharge(r.by, in.ID, in.Reason)
			return chargeAnswer(t.Currency(), r.by)(c), err
		}),
		del("/charges/{id}/dispute", "withdrawDispute", "Take the dispute of a charge back (payer)", func(r *request, t *escrow.Tx, in *byID) error {
			_, err := t.WithdrawDispute(r.by, in.ID)
			return err
		}),
		post("/charges/{id}/resolve", "resolveCharge", "Decide a disputed charge", func(r *request, t *escrow.Tx, in *resolveChargeIn) (chargeOut, error) {
			c, err := t.ResolveCharge(r.by, in.ID, in.ToPayer, in.Note)
			return chargeAnswer(t.Currency(), r.by)(c), err
		}).operators(),
		put("/charges/{id}/quality", "scoreCharge", "Send the score that decides a held charge (payer, if the route allows it; operator)", func(r *request, t *escrow.Tx, in *scoreIn) (chargeOut, error) {
			c, err := t.Score(r.by, in.ID, string(in.Score))
			return chargeAnswer(t.Currency(), r.by)(c), err
		}),
	}
}

func listCharges(r *request, in *chargesIn) (chargesOut, error) {
	agent, err := r.book.ListsFor(r.by, in.AgentID)
	if err != nil {
		return chargesOut{}, err
	}
	if status := escrow.ChargeStatus(in.Status); status != "" && !slices.Contains(escrow.ChargeStatuses, status) {
		return chargesOut{}, invalid("status", "status %.40q: one of %v", in.Status, escrow.ChargeStatuses)
	}
	charges, place, err := r.book.Charges(escrow.ChargeFilter{
		Agent: agent, Payer: in.Payer, Payee: in.Payee, Route: in.Route, Status: escrow.ChargeStatus(in.Status), Suspect: in.Suspect, From: in.From, To: in.To,
	}, in.page())
	return chargesOut{Charges: each(charges, chargeAnswer(r.book.Currency(), r.by)), NextCursor: next(r, place)}, err
}
