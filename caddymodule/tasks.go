package caddymodule

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// task is what a subcommand does with the books: on those of a running server, by its admin endpoint, or straight on the
// file where no server holds it. It reads its arguments from JSON and writes its result to w, so that both ways are the same.
type task struct {
	// name is the path below /tallygate/ of the admin endpoint.
	name string
	// readOnly tasks change nothing and open the store for reading alone.
	readOnly bool
	run      func(ctx context.Context, book *escrow.Book, args json.RawMessage, w io.Writer) error
}

var tasks = map[string]task{}

func addTask[Args, Result any](name string, readOnly bool, run func(context.Context, *escrow.Book, Args) (Result, error)) {
	tasks[name] = task{name: name, readOnly: readOnly,
		run: func(ctx context.Context, book *escrow.Book, raw json.RawMessage, w io.Writer) error {
			var args Args
			if len(raw) > 0 {
				if err := json.Unmarshal(raw, &args); err != nil {
					return fmt.Errorf("reading the arguments of %s: %w", name, err)
				}
			}
			result, err := run(ctx, book, args)
			if err != nil {
				return err
			}
			return json.NewEncoder(w).Encode(result)
		},
	}
}

func init() {
	addTask("ledger/verify", true, verifyLedger)
	addTask("agents/list", true, listAgents)
	addTask("agents/add", false, addAgent)
	addTask("agents/key", false, makeKey)
	addTask("deposit", false, deposit)
	addTask("explain", true, explain)
}

// verified is the result of `tallygate ledger verify`.
type verified struct {
	Good             bool     `json:"good"`
	Transfers        uint64   `json:"transfers"`
	Accounts         int      `json:"accounts"`
	Seconds          float64  `json:"seconds"`
	EntriesPerSecond int64    `json:"entries_per_second"`
	Wrong            []string `json:"wrong,omitempty"`
}

func verifyLedger(ctx context.Context, book *escrow.Book, _ struct{}) (verified, error) {
	report, err := book.Check(ctx, nil)
	if err != nil {
		return verified{}, err
	}
	v := verified{Transfers: report.Ledger.Transfers, Accounts: report.Ledger.Accounts, Seconds: report.Ledger.Seconds}
	if v.Seconds > 0 {
		v.EntriesPerSecond = int64(float64(v.Transfers) / v.Seconds)
	}
	for _, finding := range report.Ledger.Wrong {
		v.Wrong = append(v.Wrong, finding.String())
	}
	for _, finding := range report.Wrong {
		v.Wrong = append(v.Wrong, finding.String())
	}
	v.Good = len(v.Wrong) == 0
	return v, nil
}

var operator = escrow.Actor{Operator: true}

type agentArgs struct {
	ID    string `json:"agent_id"`
	Name  string `json:"name,omitempty"`
	Adopt bool   `json:"adopt,omitempty"`
}

// newKey is a key, shown once.
type newKey struct {
	AgentID string `json:"agent_id"`
	APIKey  string `json:"api_key"`
}

func listAgents(_ context.Context, book *escrow.Book, _ struct{}) ([]escrow.Agent, error) {
	var all []escrow.Agent
	for cursor := ""; ; {
		page, next, err := book.Agents(cursor, 100)
		if err != nil {
			return nil, err
		}
		if all = append(all, page...); next == "" {
			return all, nil
		}
		cursor = next
	}
}

func addAgent(ctx context.Context, book *escrow.Book, args agentArgs) (newKey, error) {
	var made newKey
	if args.Adopt {
		return newKey{AgentID: args.ID}, book.Do(ctx, func(tx *escrow.Tx) error { return tx.Adopt(operator, args.ID) })
	}
	err := book.Do(ctx, func(tx *escrow.Tx) error {
		agent, _, key, err := tx.CreateAgent(operator, escrow.AgentOrder{ID: args.ID, Name: args.Name})
		made = newKey{AgentID: agent.ID, APIKey: key}
		return err
	})
	return made, err
}

func makeKey(ctx context.Context, book *escrow.Book, args agentArgs) (newKey, error) {
	made := newKey{AgentID: args.ID}
	err := book.Do(ctx, func(tx *escrow.Tx) error {
		_, key, err := tx.CreateKey(operator, args.ID, escrow.KeyOrder{Name: args.Name})
		made.APIKey = key
		return err
	})
	return made, err
}

type depositArgs struct {
	AgentID   string        `json:"agent_id"`
	Amount    ledger.Amount `json:"amount"`
	Reference string        `json:"reference,omitempty"`
}

func deposit(ctx context.Context, book *escrow.Book, args depositArgs) (escrow.Payment, error) {
	var booked escrow.Payment
	err := book.Do(ctx, func(tx *escrow.Tx) error {
		var err error
		booked, err = tx.Deposit(operator, escrow.PaymentOrder{To: args.AgentID, Amount: args.Amount, Reference: args.Reference})
		return err
	})
	return booked, err
}
