package caddymodule

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/cashier"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// task is the work of a subcommand on the ledger. If a running server has the ledger open, its admin endpoint runs the task. Otherwise the
// subcommand runs it on the file itself. A task reads its arguments from JSON and writes its result to w, so it works the same in both
// cases.
type task struct {
	// name is the task's path below /tallygate/ at the admin endpoint.
	name string
	// readOnly is true if the task changes nothing. Then the store is opened for reading only.
	readOnly bool
	run      func(ctx context.Context, on bench, args json.RawMessage, w io.Writer) error
}

// bench is the open ledger that a task works on.
type bench struct {
	*escrow.Book
	store    ledger.Store
	cards    *cashier.Cashier // nil if there is none, and for a command that works on the file itself
	giving   *cashier.Refunds // nil for a command that works on the file itself
	progress ledger.Progress  // told how far a long task is; nil if nobody looks
}

var tasks = map[string]task{}

func addTask[Args, Result any](name string, readOnly bool, run func(context.Context, bench, Args) (Result, error)) {
	tasks[name] = task{name: name, readOnly: readOnly,
		run: func(ctx context.Context, on bench, raw json.RawMessage, w io.Writer) error {
			var args Args
			if len(raw) > 0 {
				if err := json.Unmarshal(raw, &args); err != nil {
					return fmt.Errorf("reading the arguments of %s: %w", name, err)
				}
			}
			result, err := run(ctx, on, args)
			if err != nil {
				return err
			}
			return json.NewEncoder(w).Encode(result)
		},
	}
}

func init() {
	addTask("ledger/verify", true, verifyLedger)
	addTask("ledger/stat", true, statLedger)
	addTask("ledger/backup", true, backupLedger)
	tasks["ledger/export"] = task{name: "ledger/export", readOnly: true, run: exportLedger}
	addTask("ledger/reconcile", true, balance)
	addTask("agents/list", true, listAgents)
	addTask("agents/add", false, addAgent)
	addTask("agents/key", false, makeKey)
	addTask("deposit", false, booking(deposit))
	addTask("withdraw", false, booking(withdraw))
	addTask("credit", false, issueCredit)
	addTask("explain", true, explain)
	addTask("reconcile", true, reconcile)
}

var operator = escrow.Actor{Operator: true}

type agentArgs struct {
	ID    string `json:"agent_id"`
	Name  string `json:"name,omitempty"`
	Adopt bool   `json:"adopt,omitempty"`
}

// newKey is a new key, which is shown only once.
type newKey struct {
	AgentID string `json:"agent_id"`
	APIKey  string `json:"api_key"`
}

func addAgent(ctx context.Context, on bench, args agentArgs) (newKey, error) {
	return escrow.Do(ctx, on.Book, func(tx *escrow.Tx) (newKey, error) {
		if args.Adopt {
			agent, err := tx.Adopt(operator, args.ID)
			return newKey{AgentID: agent.ID}, err
		}
		agent, _, key, err := tx.CreateAgent(operator, escrow.AgentOrder{ID: args.ID, Name: args.Name})
		return newKey{AgentID: agent.ID, APIKey: key}, err
	})
}

func makeKey(ctx context.Context, on bench, args agentArgs) (newKey, error) {
	return escrow.Do(ctx, on.Book, func(tx *escrow.Tx) (newKey, error) {
		_, key, err := tx.CreateKey(operator, args.ID, escrow.KeyOrder{Name: args.Name})
		return newKey{AgentID: args.ID, APIKey: key}, err
	})
}

type bookingArgs struct {
	AgentID   string        `json:"agent_id"`
	Amount    ledger.Amount `json:"amount"`
	Reference string        `json:"reference,omitempty"`
	Memo      string        `json:"memo,omitempty"`
}

// booked is a deposit or withdrawal.
type booked struct {
	api.Payment
	Repeated bool `json:"repeated,omitempty"` // its reference was booked before; nothing has moved now
}

// booking makes a task of booking money in or out.
func booking(book func(*escrow.Tx, bookingArgs) (escrow.Payment, error)) func(context.Context, bench, bookingArgs) (booked, error) {
	return func(ctx context.Context, on bench, args bookingArgs) (booked, error) {
		p, err := escrow.Do(ctx, on.Book, func(tx *escrow.Tx) (escrow.Payment, error) { return book(tx, args) })
		return booked{api.PaymentOf(p), p.Repeated}, err
	}
}

func deposit(tx *escrow.Tx, args bookingArgs) (escrow.Payment, error) {
	return tx.Deposit(operator, escrow.PaymentOrder{To: args.AgentID, Amount: args.Amount, Reference: args.Reference, Memo: args.Memo})
}

func withdraw(tx *escrow.Tx, args bookingArgs) (escrow.Payment, error) {
	return tx.Withdraw(operator, escrow.PaymentOrder{From: args.AgentID, Amount: args.Amount, Reference: args.Reference, Memo: args.Memo})
}

type creditArgs struct {
	Payee     string        `json:"payee"`
	AgentID   string        `json:"agent_id"`
	Amount    ledger.Amount `json:"amount"`
	ExpiresAt time.Time     `json:"expires_at,omitzero"`
	Memo      string        `json:"memo,omitempty"`
}

func issueCredit(ctx context.Context, on bench, args creditArgs) (api.Credit, error) {
	issued, err := escrow.Do(ctx, on.Book, func(tx *escrow.Tx) (escrow.Credit, error) {
		return tx.IssueCredit(operator, escrow.CreditOrder{
			Payee: args.Payee, Agent: args.AgentID, Amount: args.Amount, ExpiresAt: args.ExpiresAt, Memo: args.Memo,
		})
	})
	return api.CreditOf(on.Currency(), issued), err
}
