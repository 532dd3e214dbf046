package api

import (
	"slices"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
)

type creditOut struct {
	CreditID  string              `json:"credit_id"`
	Status    escrow.CreditStatus `json:"status" jsonschema:"active, expired or revoked; one that is used up is active, since a refund gives credit back"`
	Payee     string              `json:"payee" jsonschema:"who has issued it: calls to this payee alone use it"`
	AgentID   string              `json:"agent_id" jsonschema:"who may use it"`
	Amount    ledger.Amount       `json:"amount"`
	Used      ledger.Amount       `json:"used" jsonschema:"what calls have used, less what refunds gave back"`
	Ended     ledger.Amount       `json:"ended" jsonschema:"what was unused when it expired or was revoked"`
	Remaining ledger.Amount       `json:"remaining" jsonschema:"amount = used + ended + remaining, always; running calls hold a part of it"`
	Currency  string              `json:"currency"`
	ExpiresAt *time.Time          `json:"expires_at"`
	CouponID  string              `json:"coupon_id,omitempty"`
	Memo      string              `json:"memo"`
	CreatedAt time.Time           `json:"created_at"`
}

func creditAnswer(currency string) func(escrow.Credit) creditOut {
	return func(c escrow.Credit) creditOut {
		return creditOut{
			CreditID: c.ID, Status: c.Status, Payee: c.Payee, AgentID: c.Agent, Amount: c.Amount, Used: c.Used(), Ended: c.Ended, Remaining: c.Left,
			Currency: currency, ExpiresAt: optionalTime(c.ExpiresAt), CouponID: c.CouponID, Memo: c.Memo, CreatedAt: c.CreatedAt,
		}
	}
}

type creditIn struct {
	Payee     string        `json:"payee,omitempty" jsonschema:"whose credit; only the operator gives it"`
	AgentID   string        `json:"agent_id" jsonschema:"who may use it"`
	Amount    ledger.Amount `json:"amount"`
	ExpiresAt time.Time     `json:"expires_at,omitzero" jsonschema:"missing: never"`
	Memo      string        `json:"memo,omitempty"`
}

type creditsIn struct {
	AgentID string `query:"agent_id"`
	Payee   string `query:"payee"`
	Status  string `query:"status"`
	paging
}

type creditsOut struct {
	Credits    []creditOut `json:"credits"`
	NextCursor *string     `json:"next_cursor"`
}

type couponOut struct {
	CouponID   string        `json:"coupon_id"`
	Code       string        `json:"code" jsonschema:"who has it can redeem it"`
	Payee      string        `json:"payee"`
	Amount     ledger.Amount `json:"amount" jsonschema:"the credit of each agent that redeems it"`
	Uses       int64         `json:"uses" jsonschema:"how many agents may redeem it, each once"`
	Redeemed   int64         `json:"redeemed"`
	Currency   string        `json:"currency"`
	RedeemBy   *time.Time    `json:"redeem_by"`
	ValidHours *hours        `json:"valid_hours" jsonschema:"how long the credit may be used once it is redeemed; null: for ever"`
	RevokedAt  *time.Time    `json:"revoked_at"`
	Memo       string        `json:"memo"`
	CreatedAt  time.Time     `json:"created_at"`
}

func couponAnswer(currency string) func(escrow.Coupon) couponOut {
	return func(c escrow.Coupon) couponOut {
		out := couponOut{
			CouponID: c.ID, Code: c.Code, Payee: c.Payee, Amount: c.Amount, Uses: c.Uses, Redeemed: c.Redeemed, Currency: currency,
			RedeemBy: optionalTime(c.RedeemBy), RevokedAt: optionalTime(c.RevokedAt), Memo: c.Memo, CreatedAt: c.CreatedAt,
		}
		if c.Valid > 0 {
			h := hours(c.Valid)
			out.ValidHours = &h
		}
		return out
	}
}

type couponIn struct {
	Payee      string        `json:"payee,omitempty" jsonschema:"whose coupon; only the operator gives it"`
	Amount     ledger.Amount `json:"amount" jsonschema:"the credit of each agent that redeems it"`
	Uses       int64         `json:"uses" jsonschema:"how many agents may redeem it, each once"`
	RedeemBy   time.Time     `json:"redeem_by,omitzero" jsonschema:"missing: at any time"`
	ValidHours hours         `json:"valid_hours,omitzero" jsonschema:"how long the credit may be used once it is redeemed; missing: for ever"`
	Memo       string        `json:"memo,omitempty"`
}

type couponsOut struct {
	Coupons    []couponOut `json:"coupons"`
	NextCursor *string     `json:"next_cursor"`
}

type redeemIn struct {
	AgentID string `json:"agent_id,omitempty" jsonschema:"for whom; only the operator gives it"`
	Code    string `json:"code"`
}

func creditRoutes() []route {
	return []route{
		post("/credits", "issueCredit", "Give an agent credit: calls to the payee that it may make without money (payee, operator)", func(r *request, t *escrow.Tx, in *creditIn) (creditOut, error) {
			c, err := t.IssueCredit(r.by, escrow.CreditOrder{Payee: in.Payee, Agent: in.AgentID, Amount: in.Amount, ExpiresAt: in.ExpiresAt.UTC(), Memo: in.Memo})
			return creditAnswer(t.Currency())(c), err
		}).creates(),
		get("/credits", "listCredits", "Credit that the agent may use, or has issued, newest first", listCredits),
		get("/credits/{id}", "getCredit", "One credit, and what is left of it", func(r *request, in *byID) (creditOut, error) {
			c, err := r.book.Credit(r.by, in.ID)
			return creditAnswer(r.book.Currency())(c), err
		}),
		post("/credits/{id}/revoke", "revokeCredit", "Take back what is unused of a credit (payee, operator)", func(r *request, t *escrow.Tx, in *byID) (creditOut, error) {
			c, err := t.RevokeCredit(r.by, in.ID)
			return creditAnswer(t.Currency())(c), err
		}),
		post("/coupons", "issueCoupon", "Make a code that agents redeem for credit (payee, operator)", func(r *request, t *escrow.Tx, in *couponIn) (couponOut, error) {
			c, err := t.IssueCoupon(r.by, escrow.CouponOrder{
				Payee: in.Payee, Amount: in.Amount, Uses: in.Uses, RedeemBy: in.RedeemBy.UTC(), Valid: time.Duration(in.ValidHours), Memo: in.Memo,
			})
			return couponAnswer(t.Currency())(c), err
		}).creates(),
		get("/coupons", "listCoupons", "The coupons that the agent has issued, newest first", listCoupons),
		post("/coupons/{id}/revoke", "revokeCoupon", "End a coupon: nobody redeems it any more (payee, operator)", func(r *request, t *escrow.Tx, in *byID) (couponOut, error) {
			c, err := t.RevokeCoupon(r.by, in.ID)
			return couponAnswer(t.Currency())(c), err
		}),
		post("/coupons/redeem", "redeemCoupon", "Redeem a coupon's code for credit, once", func(r *request, t *escrow.Tx, in *redeemIn) (creditOut, error) {
			c, err := t.RedeemCoupon(r.by, in.AgentID, in.Code)
			return creditAnswer(t.Currency())(c), err
		}).creates(),
	}
}

func listCredits(r *request, in *creditsIn) (creditsOut, error) {
	agent, err := r.book.ListsFor(r.by, in.AgentID)
	if err != nil {
		return creditsOut{}, err
	}
	if status := escrow.CreditStatus(in.Status); status != "" && !slices.Contains(escrow.CreditStatuses, status) {
		return creditsOut{}, invalid("status", "status %.40q: one of %v", in.Status, escrow.CreditStatuses)
	}
	credits, place, err := r.book.Credits(escrow.CreditFilter{Agent: agent, Payee: in.Payee, Status: escrow.CreditStatus(in.Status)}, in.page())
	return creditsOut{Credits: each(credits, creditAnswer(r.book.Currency())), NextCursor: next(r, place)}, err
}

func listCoupons(r *request, in *listOfAgent) (couponsOut, error) {
	agent, err := r.book.ReadsFor(r.by, in.AgentID)
	if err != nil {
		return couponsOut{}, err
	}
	coupons, place, err := r.book.Coupons(agent, in.page())
	return couponsOut{Coupons: each(coupons, couponAnswer(r.book.Currency())), NextCursor: next(r, place)}, err
}
