package api

import (
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
)

type subscriptionOut struct {
	SubscriptionID string                    `json:"subscription_id"`
	Status         escrow.SubscriptionStatus `json:"status"`
	FromAgentID    string                    `json:"from_agent_id"`
	ToAgentID      string                    `json:"to_agent_id"`
	Plan           string                    `json:"plan,omitempty"`
	Amount         ledger.Amount             `json:"amount" jsonschema:"what is locked for each period, and released at the period's end"`
	Pool           ledger.Amount             `json:"pool" jsonschema:"what is locked for each period to pay for overage; the unused part goes back"`
	PeriodHours    hours                     `json:"period_hours" jsonschema:"of the present period, where periods are calendar months"`
	Period         string                    `json:"period" jsonschema:"such as 168h, or 1mo for a calendar month"`
	Memo           string                    `json:"memo"`
	Included       string                    `json:"included,omitempty" jsonschema:"how many units each period includes"`
	Used           string                    `json:"used,omitempty" jsonschema:"how many units were used in this period"`
	Left           string                    `json:"left,omitempty" jsonschema:"how many of the included units are left in this period"`
	Unit           string                    `json:"unit,omitempty"`
	Overage        string                    `json:"overage,omitempty" jsonschema:"the price of units beyond the included ones"`
	EscrowID       *string                   `json:"escrow_id" jsonschema:"the escrow of this period"`
	PoolEscrowID   *string                   `json:"pool_escrow_id"`
	PeriodStart    time.Time                 `json:"period_start"`
	PeriodEnd      time.Time                 `json:"period_end"`
	Periods        int64                     `json:"periods" jsonschema:"how many periods have begun"`
	RenewalFunded  *bool                     `json:"renewal_funded,omitempty" jsonschema:"whether the next period would begin now: the wallet has enough for it, and the key that began the subscription is not revoked. The payer alone is told"`
	Currency       string                    `json:"currency"`
	CreatedAt      time.Time                 `json:"created_at"`
	UpdatedAt      time.Time                 `json:"updated_at"`
}

// subscriptionAnswer returns a function that shows a subscription as the caller by may see it.
func subscriptionAnswer(currency string, by escrow.Actor) func(escrow.Subscription) subscriptionOut {
	return func(s escrow.Subscription) subscriptionOut {
		out := subscriptionOut{
			SubscriptionID: s.ID, Status: s.Status, FromAgentID: s.Payer, ToAgentID: s.Payee, Plan: s.Plan.Name, Amount: s.Plan.Price,
			Pool: s.Plan.Pool, PeriodHours: hours(s.PeriodEnd.Sub(s.PeriodStart)), Period: s.Plan.Term().String(), Memo: s.Memo, EscrowID: optionalText(s.EscrowID), PoolEscrowID: optionalText(s.PoolID),
			PeriodStart: s.PeriodStart, PeriodEnd: s.PeriodEnd, Periods: s.Periods, RenewalFunded: s.FundedFor(by), Currency: currency,
			CreatedAt: s.CreatedAt, UpdatedAt: s.UpdatedAt,
		}
		if s.Plan.Months == 0 {
			out.PeriodHours = hours(s.Plan.Period)
		}
		if s.Plan.Included > 0 {
			out.Included, out.Used, out.Unit = escrow.Units(s.Plan.Included), escrow.Units(s.Used), s.Plan.Unit
			out.Left, out.Overage = escrow.Units(s.QuotaLeft()), s.Plan.OveragePrice
		}
		return out
	}
}

// optionalText returns a text that is null in JSON if it is empty.
func optionalText(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

type subscribeIn struct {
	FromAgentID string        `json:"from_agent_id,omitempty" jsonschema:"the payer; only the operator gives it"`
	Payee       string        `json:"payee,omitempty" jsonschema:"with a plan, the agent that offers it"`
	Plan        string        `json:"plan,omitempty"`
	ToAgentID   string        `json:"to_agent_id,omitempty" jsonschema:"without a plan, the agent that is paid"`
	Amount      ledger.Amount `json:"amount,omitempty" jsonschema:"without a plan, the amount for each period"`
	PeriodHours hours         `json:"period_hours,omitempty"`
	Period      string        `json:"period,omitempty" jsonschema:"instead of period_hours: 168h, 1mo (a calendar month), daily, weekly or monthly"`
	Memo        string        `json:"memo,omitempty"`
}

func (in subscribeIn) order() (escrow.SubscriptionOrder, error) {
	o := escrow.SubscriptionOrder{Payer: in.FromAgentID, Payee: in.ToAgentID, Plan: in.Plan, Amount: in.Amount, Period: time.Duration(in.PeriodHours), Memo: in.Memo}
	if in.Plan == "" {
		if in.Payee != "" {
			return o, invalid("plan", "plan is missing; without a plan, name to_agent_id, amount and period_hours or period")
		}
		if in.Period == "" {
			return o, nil
		}
		if in.PeriodHours != 0 {
			return o, invalid("period", "period and period_hours: give one of them")
		}
		term, err := escrow.ParseTerm(in.Period, time.ParseDuration)
		if err != nil {
			return o, invalid("period", "period %v", err)
		}
		o.Period, o.Months = term.Length, term.Months
		return o, nil
	}
	if in.ToAgentID != "" || in.Amount != 0 || in.PeriodHours != 0 || in.Period != "" {
		return o, invalid("plan", "a plan determines payee, amount and period: leave to_agent_id, amount and period_hours out")
	}
	o.Payee = in.Payee
	return o, nil
}

type subscriptionsIn struct {
	AgentID string `query:"agent_id"`
	Status  string `query:"status"`
	paging
}

type subscriptionsOut struct {
	Subscriptions []subscriptionOut `json:"subscriptions"`
	NextCursor    *string           `json:"next_cursor"`
}

type limitIn struct {
	KeyID       string        `json:"key_id,omitempty" jsonschema:"the key that is limited; missing: all keys together"`
	Payee       string        `json:"payee,omitempty" jsonschema:"the payee that is limited; missing: all payees together"`
	Amount      ledger.Amount `json:"amount"`
	WindowHours hours         `json:"window_hours"`

	// An answer may be sent back with changes. What it tells besides the limit is not read.
	Spent *ledger.Amount `json:"spent,omitempty" jsonschema:"as in the answer; it is not read"`
	Until *time.Time     `json:"until,omitempty" jsonschema:"as in the answer; it is not read"`
	SetBy string         `json:"set_by,omitempty" jsonschema:"as in the answer; it is not read"`
}

func (l limitIn) limit() escrow.Limit {
	return escrow.Limit{Key: l.KeyID, Payee: l.Payee, Amount: l.Amount, Window: time.Duration(l.WindowHours)}
}

type limitsIn struct {
	AgentID string    `json:"agent_id,omitempty" jsonschema:"whose limits; only the operator gives it"`
	Limits  []limitIn `json:"limits" jsonschema:"all limits of the caller; they replace those that it has set before. The operator's limits and the agent's own are separate, and both apply"`
}

type limitOut struct {
	KeyID       *string       `json:"key_id"`
	Payee       *string       `json:"payee"`
	Amount      ledger.Amount `json:"amount"`
	WindowHours hours         `json:"window_hours"`
	Spent       ledger.Amount `json:"spent" jsonschema:"what was spent in the current window"`
	Until       *time.Time    `json:"until" jsonschema:"when the current window ends"`
	SetBy       string        `json:"set_by" jsonschema:"agent or operator: who can change it"`
}

type limitsOut struct {
	Limits     []limitOut `json:"limits"`
	NextCursor *string    `json:"next_cursor"`
}

func limitAnswer(l escrow.Limit) limitOut {
	setBy := "agent"
	if l.ByOperator {
		setBy = "operator"
	}
	return limitOut{
		SetBy: setBy, KeyID: optionalText(l.Key), Payee: optionalText(l.Payee), Amount: l.Amount, WindowHours: hours(l.Window), Spent: l.Spent, Until: optionalTime(l.Until),
	}
}

func termRoutes() []route {
	return []route{
		post("/subscriptions", "createSubscription", "Subscribe to a payee's plan, or pay an amount each period", func(r *request, t *escrow.Tx, in *subscribeIn) (subscriptionOut, error) {
			o, err := in.order()
			if err != nil {
				return subscriptionOut{}, err
			}
			s, err := t.Subscribe(r.by, o)
			return subscriptionAnswer(t.Currency(), r.by)(s), err
		}).creates(),
		get("/subscriptions", "listSubscriptions", "The agent's subscriptions, both sides, newest first", listSubscriptions),
		get("/subscriptions/{id}", "getSubscription", "A subscription", func(r *request, in *byID) (subscriptionOut, error) {
			s, err := r.book.Subscription(r.Context(), r.by, in.ID)
			return subscriptionAnswer(r.book.Currency(), r.by)(s), err
		}),
		del("/subscriptions/{id}", "endSubscription", "End a subscription at the end of its period", func(r *request, t *escrow.Tx, in *byID) error {
			_, err := t.EndSubscription(r.by, in.ID)
			return err
		}),
		post("/subscriptions/{id}/cancel", "cancelSubscription", "End a subscription now; the rest of the period goes back", func(r *request, t *escrow.Tx, in *byID) (subscriptionOut, error) {
			s, err := t.CancelSubscription(r.by, in.ID)
			return subscriptionAnswer(t.Currency(), r.by)(s), err
		}),
		post("/subscriptions/{id}/resume", "resumeSubscription", "Begin a new period of a suspended subscription, or let one that was to end go on", func(r *request, t *escrow.Tx, in *byID) (subscriptionOut, error) {
			s, err := t.ResumeSubscription(r.by, in.ID)
			return subscriptionAnswer(t.Currency(), r.by)(s), err
		}),
		get("/limits", "getLimits", "What the agent may spend, as set by itself and by the operator", func(r *request, in *ofAgent) (limitsOut, error) {
			agent, err := r.book.ReadsFor(r.by, in.AgentID)
			if err != nil {
				return limitsOut{}, err
			}
			limits, err := r.book.Limits(agent)
			return limitsOut{Limits: each(limits, limitAnswer)}, err
		}),
		put("/limits", "setLimits", "Limit what the agent may spend: per key, per payee, or in all", func(r *request, t *escrow.Tx, in *limitsIn) (limitsOut, error) {
			limits, err := t.SetLimits(r.by, in.AgentID, each(in.Limits, limitIn.limit))
			return limitsOut{Limits: each(limits, limitAnswer)}, err
		}),
	}
}

func listSubscriptions(r *request, in *subscriptionsIn) (subscriptionsOut, error) {
	agent, err := r.book.ReadsFor(r.by, in.AgentID)
	if err != nil {
		return subscriptionsOut{}, err
	}
	subs, place, err := r.book.Subscriptions(r.Context(), agent, escrow.SubscriptionStatus(in.Status), in.page())
	return subscriptionsOut{Subscriptions: each(subs, subscriptionAnswer(r.book.Currency(), r.by)), NextCursor: next(r, place)}, err
}
