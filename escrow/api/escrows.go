package api

import (
	"encoding/json"
	"time"

	"github.com/shopspring/decimal"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// hours is a duration that is a decimal number of hours in JSON.
type hours time.Duration

const hour = int64(time.Hour)

// MarshalJSON writes a number: 168, 0.5.
func (h hours) MarshalJSON() ([]byte, error) {
	return []byte(decimal.NewFromInt(int64(h)).DivRound(decimal.NewFromInt(hour), 12).String()), nil
}

// UnmarshalJSON reads a number or a string.
func (h *hours) UnmarshalJSON(text []byte) error {
	s := string(text)
	if len(s) > 0 && s[0] == '"' {
		if err := json.Unmarshal(text, &s); err != nil {
			return err
		}
	}
	d, err := decimal.NewFromString(s)
	if err != nil || len(s) > 40 || d.Exponent() > 10 || d.Exponent() < -100 {
		return invalid("", "%.40q is not a number of hours, such as 168 or 0.5", s)
	}
	d = d.Mul(decimal.NewFromInt(hour)).Round(0)
	if !d.IsPositive() || !d.BigInt().IsInt64() {
		return invalid("", "%s hours: expected a number above zero and at most 876000", s)
	}
	*h = hours(d.IntPart())
	return nil
}

type escrowOut struct {
	EscrowID         string         `json:"escrow_id"`
	Status           escrow.Status  `json:"status" jsonschema:"settled means that a part went to each side"`
	FromAgentID      string         `json:"from_agent_id"`
	ToAgentID        string         `json:"to_agent_id"`
	Amount           ledger.Amount  `json:"amount"`
	Released         ledger.Amount  `json:"released"`
	Refunded         ledger.Amount  `json:"refunded"`
	Remaining        ledger.Amount  `json:"remaining" jsonschema:"amount = released + refunded + remaining, always"`
	Held             ledger.Amount  `json:"held" jsonschema:"the part of remaining that running calls hold"`
	Commission       ledger.Amount  `json:"commission" jsonschema:"the part of released that the operator took"`
	Currency         string         `json:"currency"`
	Memo             string         `json:"memo"`
	AutoReleaseHours *hours         `json:"auto_release_hours"`
	AutoReleaseAt    *time.Time     `json:"auto_release_at"`
	OnExpiry         escrow.Way     `json:"on_expiry" jsonschema:"where the remaining money goes at auto_release_at"`
	Milestones       []milestoneOut `json:"milestones"`
	SubscriptionID   string         `json:"subscription_id,omitempty"`
	Refund           *refundOut     `json:"refund_request,omitempty" jsonschema:"the payer's open request"`
	Dispute          *disputeOut    `json:"dispute,omitempty"`
	CreatedAt        time.Time      `json:"created_at"`
	UpdatedAt        time.Time      `json:"updated_at"`
}

type milestoneOut struct {
	Name        string                 `json:"name"`
	Amount      ledger.Amount          `json:"amount"`
	Status      escrow.MilestoneStatus `json:"status"`
	Note        string                 `json:"note,omitempty"`
	DeliveredAt *time.Time             `json:"delivered_at"`
	AcceptedAt  *time.Time             `json:"accepted_at"`
}

type refundOut struct {
	Amount    ledger.Amount `json:"amount"`
	Reason    string        `json:"reason"`
	GrantedAt *time.Time    `json:"granted_at" jsonschema:"when the request is granted unless the payee answers before"`
}

type disputeOut struct {
	By         string `json:"by" jsonschema:"who disputed it: an agent, the operator, or meter (the gateway)"`
	Reason     string `json:"reason"`
	Resolution string `json:"resolution,omitempty"`
}

func escrowAnswer(currency string) func(escrow.Escrow) escrowOut {
	return func(e escrow.Escrow) escrowOut {
		out := escrowOut{
			EscrowID: e.ID, Status: e.Status, FromAgentID: e.From, ToAgentID: e.To, Amount: e.Amount, Released: e.Released,
			Refunded: e.Refunded, Remaining: e.Remaining(), Held: e.Held, Commission: e.Commission, Currency: currency, Memo: e.Memo,
			AutoReleaseAt: optionalTime(e.AutoReleaseAt), OnExpiry: e.OnExpiry, SubscriptionID: e.Subscription,
			Milestones: each(e.Milestones, milestoneAnswer), CreatedAt: e.CreatedAt, UpdatedAt: e.UpdatedAt,
		}
		if e.AutoRelease > 0 {
			h := hours(e.AutoRelease)
			out.AutoReleaseHours = &h
		}
		if e.Status == escrow.StatusRefundRequested {
			asked := e.RefundAsked
			if asked == 0 {
				asked = e.Remaining()
			}
			out.Refund = &refundOut{Amount: asked, Reason: e.RefundReason, GrantedAt: optionalTime(e.RefundAt)}
		}
		if e.DisputedBy != "" {
			out.Dispute = &disputeOut{By: e.DisputedBy, Reason: e.DisputeReason, Resolution: e.Resolution}
		}
		return out
	}
}

func milestoneAnswer(m escrow.Milestone) milestoneOut {
	return milestoneOut{
		Name: m.Name, Amount: m.Amount, Status: m.Status, Note: m.Note,
		DeliveredAt: optionalTime(m.DeliveredAt), AcceptedAt: optionalTime(m.AcceptedAt),
	}
}

type milestoneIn struct {
	Name   string        `json:"name"`
	Amount ledger.Amount `json:"amount"`
}

type createEscrow struct {
	FromAgentID      string        `json:"from_agent_id,omitempty" jsonschema:"the payer; only the operator gives it"`
	ToAgentID        string        `json:"to_agent_id"`
	Amount           ledger.Amount `json:"amount"`
	Memo             string        `json:"memo,omitempty"`
	AutoReleaseHours hours         `json:"auto_release_hours,omitempty" jsonschema:"after this many hours the remaining money goes by on_expiry; missing: it stays"`
	OnExpiry         string        `json:"on_expiry,omitempty" jsonschema:"where the remaining money goes then, release or refund; missing: refund if the memo's first word ends in _pool, else release"`
	Milestones       []milestoneIn `json:"milestones,omitempty" jsonschema:"parts that add up to the amount"`
}

func (in createEscrow) order() escrow.EscrowOrder {
	return escrow.EscrowOrder{
		From: in.FromAgentID, To: in.ToAgentID, Amount: in.Amount, Memo: in.Memo,
		AutoRelease: time.Duration(in.AutoReleaseHours), OnExpiry: escrow.Way(in.OnExpiry),
		Milestones: each(in.Milestones, func(m milestoneIn) escrow.Milestone { return escrow.Milestone{Name: m.Name, Amount: m.Amount} }),
	}
}

type releaseIn struct {
	ID   string `path:"id"`
	Memo string `json:"memo,omitempty"`
}

type partIn struct {
	ID        string         `path:"id"`
	Amount    *ledger.Amount `json:"amount,omitempty"`
	Milestone string         `json:"milestone,omitempty"`
	Memo      string         `json:"memo,omitempty"`
}

type refundIn struct {
	ID     string         `path:"id"`
	Amount *ledger.Amount `json:"amount,omitempty" jsonschema:"missing: all that remains"`
	Reason string         `json:"reason,omitempty"`
}

type disputeIn struct {
	ID     string `path:"id"`
	Reason string `json:"reason,omitempty"`
}

type resolveIn struct {
	ID      string         `path:"id"`
	ToPayee *ledger.Amount `json:"to_payee,omitempty"`
	ToPayer *ledger.Amount `json:"to_payer,omitempty"`
	Note    string         `json:"note,omitempty"`
}

type deliverIn struct {
	ID   string `path:"id"`
	Name string `path:"name"`
	Note string `json:"note,omitempty"`
}

func escrowRoutes() []route {
	return []route{
		post("/escrow", "createEscrow", "Lock money for a payee", actOn(func(r *request, t *escrow.Tx, in *createEscrow) (escrow.Escrow, error) {
			return t.CreateEscrow(r.by, in.order())
		})).creates(),
		get("/escrow", "listEscrows", "The agent's escrows, both sides, newest first", listEscrows),
		get("/escrow/{id}", "getEscrow", "An escrow", func(r *request, in *byID) (escrowOut, error) {
			e, err := r.book.Escrow(r.Context(), r.by, in.ID)
			return escrowAnswer(r.book.Currency())(e), err
		}),
		post("/escrow/{id}/release", "releaseEscrow", "Release all that remains to the payee", actOn(func(r *request, t *escrow.Tx, in *releaseIn) (escrow.Escrow, error) {
			return t.Release(r.by, in.ID, in.Memo)
		})),
		post("/escrow/{id}/release-partial", "releasePartial", "Release an amount, or a milestone", actOn(releasePart)),
		post("/escrow/{id}/refund", "refundEscrow", "Refund the payer at once (payee, operator), or ask for it (payer)", actOn(refundEscrow)),
		del("/escrow/{id}/refund", "withdrawRefund", "Withdraw the payer's refund request", func(r *request, t *escrow.Tx, in *byID) error {
			_, err := t.WithdrawRefund(r.by, in.ID)
			return err
		}),
		post("/escrow/{id}/dispute", "disputeEscrow", "Freeze the escrow until the operator resolves it", actOn(func(r *request, t *escrow.Tx, in *disputeIn) (escrow.Escrow, error) {
			return t.Dispute(r.by, in.ID, in.Reason)
		})),
		post("/escrow/{id}/resolve", "resolveEscrow", "Divide what remains of a disputed escrow", actOn(resolveEscrow)),
		post("/escrow/{id}/milestones/{name}/deliver", "deliverMilestone", "Say that a milestone's work is done", actOn(func(r *request, t *escrow.Tx, in *deliverIn) (escrow.Escrow, error) {
			return t.DeliverMilestone(r.by, in.ID, in.Name, in.Note)
		})),
	}
}

// actOn returns the function of a route that acts on an escrow. The route answers with the escrow as it is afterwards.
func actOn[In any](act func(r *request, t *escrow.Tx, in *In) (escrow.Escrow, error)) func(*request, *escrow.Tx, *In) (escrowOut, error) {
	return func(r *request, t *escrow.Tx, in *In) (escrowOut, error) {
		e, err := act(r, t, in)
		return escrowAnswer(t.Currency())(e), err
	}
}

// optional returns an amount that may be missing. If it is there, it must be above zero.
func optional(field string, amount *ledger.Amount) (ledger.Amount, error) {
	if amount == nil {
		return 0, nil
	}
	if *amount <= 0 {
		return 0, invalid(field, "%s %s: it must be above zero", field, *amount)
	}
	return *amount, nil
}

func releasePart(r *request, t *escrow.Tx, in *partIn) (escrow.Escrow, error) {
	switch {
	case in.Milestone != "" && in.Amount != nil:
		return escrow.Escrow{}, invalid("milestone", "name an amount or a milestone, not both")
	case in.Milestone != "":
		return t.AcceptMilestone(r.by, in.ID, in.Milestone, in.Memo)
	case in.Amount == nil:
		return escrow.Escrow{}, invalid("amount", "amount is missing")
	default:
		return t.ReleasePartial(r.by, in.ID, *in.Amount, in.Memo)
	}
}

func refundEscrow(r *request, t *escrow.Tx, in *refundIn) (escrow.Escrow, error) {
	amount, err := optional("amount", in.Amount)
	if err != nil {
		return escrow.Escrow{}, err
	}
	return t.Refund(r.by, in.ID, amount, in.Reason)
}

func resolveEscrow(r *request, t *escrow.Tx, in *resolveIn) (escrow.Escrow, error) {
	if in.ToPayee == nil && in.ToPayer == nil {
		return escrow.Escrow{}, invalid("to_payee", "to_payee and to_payer are missing")
	}
	return t.Resolve(r.by, in.ID, escrow.Resolution{ToPayee: orZero(in.ToPayee), ToPayer: orZero(in.ToPayer), Note: in.Note})
}

func orZero(amount *ledger.Amount) ledger.Amount {
	if amount == nil {
		return 0
	}
	return *amount
}

type escrowsIn struct {
	AgentID string `query:"agent_id"`
	Status  string `query:"status"`
	Role    string `query:"role"`
	paging
}

type escrowsOut struct {
	Escrows    []escrowOut `json:"escrows"`
	NextCursor *string     `json:"next_cursor"`
}

func listEscrows(r *request, in *escrowsIn) (escrowsOut, error) {
	agent, err := r.book.ListsFor(r.by, in.AgentID)
	if err != nil {
		return escrowsOut{}, err
	}
	escrows, place, err := r.book.Escrows(r.Context(), escrow.EscrowFilter{Agent: agent, Status: in.Status, Role: in.Role}, in.page())
	return escrowsOut{Escrows: each(escrows, escrowAnswer(r.book.Currency())), NextCursor: next(r, place)}, err
}
