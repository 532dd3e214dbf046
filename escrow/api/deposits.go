package api

import (
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// How a deposit goes back, if its agent asks for that.
const (
	backAtOnce     = "at_once"
	backByOperator = "by_operator"
)

type depositOut struct {
	DepositID string        `json:"deposit_id"`
	AgentID   string        `json:"agent_id"`
	Rail      string        `json:"rail" jsonschema:"by which it came in, such as stripe, x402 or mpp"`
	PaymentID string        `json:"payment_id" jsonschema:"the reference of the deposit in the statement"`
	Amount    ledger.Amount `json:"amount"`
	Left      ledger.Amount `json:"left" jsonschema:"what did not go back yet, by refunds or disputes, whether or not it is spent"`
	Refund    string        `json:"refund" jsonschema:"at_once: the rail gives it back when you ask; by_operator: the operator does"`
	Currency  string        `json:"currency"`
	CreatedAt time.Time     `json:"created_at"`
}

type depositsOut struct {
	Deposits   []depositOut `json:"deposits"`
	NextCursor *string      `json:"next_cursor"`
}

type refundDepositIn struct {
	ID      string        `path:"id"`
	AgentID string        `json:"agent_id,omitempty" jsonschema:"whose deposit it is; only the operator gives it"`
	Amount  ledger.Amount `json:"amount,omitempty" jsonschema:"what goes back; default: all of the deposit that is left and available"`
	Memo    string        `json:"memo,omitempty"`
}

func depositRoutes() []route {
	return []route{
		get("/deposits", "listDeposits", "Deposits that came in by payment rails, newest first", listDeposits),
		post("/deposits/{id}/refund", "refundDeposit", "Have unspent money of a deposit back, the way it came; it is a payout, and set aside at once", func(r *request, t *escrow.Tx, in *refundDepositIn) (payoutOut, error) {
			p, err := t.RequestRefund(r.by, escrow.RefundOrder{Agent: in.AgentID, Deposit: in.ID, Amount: in.Amount, Memo: in.Memo, Can: r.server.o.Refunds.Can})
			return payoutAnswer(t.Currency())(p), err
		}).creates().then(func(s *server) { s.o.Refunds.Wake() }),
	}
}

func listDeposits(r *request, in *listOfAgent) (depositsOut, error) {
	agent, err := r.book.ReadsFor(r.by, in.AgentID)
	if err != nil {
		return depositsOut{}, err
	}
	deposits, place, err := r.book.Deposits(agent, in.page())
	answer := func(p escrow.RailPayment) depositOut {
		out := depositOut{
			DepositID: p.Deposit, AgentID: p.Agent, Rail: p.Rail, PaymentID: p.ID, Amount: p.Amount, Left: p.Left(), Refund: backByOperator,
			Currency: r.book.Currency(), CreatedAt: p.At,
		}
		if _, atOnce := r.server.o.Refunds.Can(p); atOnce {
			out.Refund = backAtOnce
		}
		return out
	}
	return depositsOut{Deposits: each(deposits, answer), NextCursor: next(r, place)}, err
}
