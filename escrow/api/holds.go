package api

import (
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// holdStatus is the status of a hold.
type holdStatus string

const (
	holdOpen     holdStatus = "open"
	holdCaptured holdStatus = "captured" // all of it
	holdReturned holdStatus = "returned" // all of it went back
	holdSettled  holdStatus = "settled"  // a part was captured, the rest went back
)

// holdStatuses are the statuses of holds, by those of the escrows that they are in the books.
var holdStatuses = map[escrow.Status]holdStatus{
	escrow.StatusOpen: holdOpen, escrow.StatusReleased: holdCaptured, escrow.StatusRefunded: holdReturned, escrow.StatusSettled: holdSettled,
}

type holdOut struct {
	HoldID      string        `json:"hold_id"`
	Status      holdStatus    `json:"status" jsonschema:"settled means that a part was captured, and the rest went back"`
	FromAgentID string        `json:"from_agent_id" jsonschema:"the payer"`
	ToAgentID   string        `json:"to_agent_id" jsonschema:"the payee"`
	Amount      ledger.Amount `json:"amount"`
	Captured    ledger.Amount `json:"captured"`
	Returned    ledger.Amount `json:"returned"`
	Remaining   ledger.Amount `json:"remaining" jsonschema:"amount = captured + returned + remaining, always"`
	Commission  ledger.Amount `json:"commission" jsonschema:"the part of captured that the operator took"`
	Currency    string        `json:"currency"`
	Memo        string        `json:"memo"`
	ByAllowance bool          `json:"by_allowance,omitempty" jsonschema:"the payee has opened it, under an allowance of the payer; what goes back is free for other uses of that allowance"`
	ExpiresAt   time.Time     `json:"expires_at" jsonschema:"when what remains goes back to the payer"`
	CreatedAt   time.Time     `json:"created_at"`
	UpdatedAt   time.Time     `json:"updated_at"`
}

func holdAnswer(currency string) func(escrow.Escrow) holdOut {
	return func(e escrow.Escrow) holdOut {
		return holdOut{
			HoldID: e.ID, Status: holdStatuses[e.Status], FromAgentID: e.From, ToAgentID: e.To, Amount: e.Amount, Captured: e.Released, Returned: e.Refunded,
			Remaining: e.Remaining(), Commission: e.Commission, Currency: currency, Memo: e.Memo, ByAllowance: e.Allowed != "",
			ExpiresAt: e.AutoReleaseAt, CreatedAt: e.CreatedAt, UpdatedAt: e.UpdatedAt,
		}
	}
}

type openHoldIn struct {
	FromAgentID    string        `json:"from_agent_id,omitempty" jsonschema:"the payer; missing: the caller. A payee names the payer whose allowance it uses"`
	ToAgentID      string        `json:"to_agent_id,omitempty" jsonschema:"the payee; a payee that names the payer leaves it out"`
	Amount         ledger.Amount `json:"amount" jsonschema:"the most that can be captured"`
	ExpiresInHours hours         `json:"expires_in_hours,omitempty" jsonschema:"when what remains goes back to the payer; missing: 168, at most 2160"`
	Memo           string        `json:"memo,omitempty"`
}

type captureIn struct {
	ID        string        `path:"id"`
	Amount    ledger.Amount `json:"amount"`
	Reference string        `json:"reference" jsonschema:"your own id of the work; the same capture again moves nothing"`
	Final     bool          `json:"final,omitempty" jsonschema:"the rest goes back to the payer"`
}

// captureOut is a hold after a capture, with the charge that the capture is.
type captureOut struct {
	holdOut
	Charge chargeOut `json:"charge"`

	repeated bool
}

func (c captureOut) replayed() bool { return c.repeated }

type holdsIn struct {
	AgentID string `query:"agent_id"`
	Status  string `query:"status"`
	Role    string `query:"role"`
	paging
}

type holdsOut struct {
	Holds      []holdOut `json:"holds"`
	NextCursor *string   `json:"next_cursor"`
}

func holdRoutes() []route {
	return []route{
		post("/holds", "openHold", "Set money aside for a payee, which captures it in parts (payer, or payee under an allowance)", func(r *request, t *escrow.Tx, in *openHoldIn) (holdOut, error) {
			e, err := t.OpenHold(r.by, escrow.HoldOrder{
				Payer: in.FromAgentID, Payee: in.ToAgentID, Amount: in.Amount, For: time.Duration(in.ExpiresInHours), Memo: in.Memo,
			})
			return holdAnswer(t.Currency())(e), err
		}).creates(),
		get("/holds", "listHolds", "The agent's holds, both sides, newest first", listHolds),
		get("/holds/{id}", "getHold", "A hold", func(r *request, in *byID) (holdOut, error) {
			e, err := r.book.Hold(r.Context(), r.by, in.ID)
			return holdAnswer(r.book.Currency())(e), err
		}),
		post("/holds/{id}/capture", "captureHold", "Charge a part of a hold (payee)", func(r *request, t *escrow.Tx, in *captureIn) (captureOut, error) {
			c, err := t.CaptureHold(r.by, in.ID, escrow.CaptureOrder{Amount: in.Amount, Reference: in.Reference, Final: in.Final})
			return captureOut{holdAnswer(t.Currency())(c.Hold), chargeAnswer(t.Currency(), r.by)(c.Charge), c.Repeated}, err
		}),
		post("/holds/{id}/void", "voidHold", "Give what remains of a hold back to its payer (payee)", func(r *request, t *escrow.Tx, in *byID) (holdOut, error) {
			e, err := t.VoidHold(r.by, in.ID)
			return holdAnswer(t.Currency())(e), err
		}),
	}
}

func listHolds(r *request, in *holdsIn) (holdsOut, error) {
	agent, err := r.book.ListsFor(r.by, in.AgentID)
	if err != nil {
		return holdsOut{}, err
	}
	filter := escrow.EscrowFilter{Agent: agent, Role: in.Role, Holds: true}
	for status, shown := range holdStatuses {
		if in.Status == string(shown) {
			filter.Status = string(status)
		}
	}
	if in.Status != "" && filter.Status == "" {
		return holdsOut{}, invalid("status", "status %.40q: open, captured, returned or settled", in.Status)
	}
	holds, place, err := r.book.Escrows(r.Context(), filter, in.page())
	return holdsOut{Holds: each(holds, holdAnswer(r.book.Currency())), NextCursor: next(r, place)}, err
}
