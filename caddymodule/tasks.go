package caddymodule

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// task is what a subcommand does with the books: on those of a running server, by its admin endpoint, or straight on the
// file where no server holds it. It reads its arguments from JSON and writes its result to w, so that both ways are the same.
type task struct {
	// name is the path below /tallygate/ of the admin endpoint.
	name string
	// readOnly tasks change nothing and open the store for reading alone.
	readOnly bool
	run      func(ctx context.Context, on bench, args json.RawMessage, w io.Writer) error
}

// bench is what a task works on.
type bench struct {
	*escrow.Book
	store ledger.Store
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
	addTask("agents/list", true, listAgents)
	addTask("agents/add", false, addAgent)
	addTask("agents/key", false, makeKey)
	addTask("deposit", false, deposit)
	addTask("explain", true, explain)
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

func listAgents(_ context.Context, on bench, _ struct{}) ([]api.Agent, error) {
	all := []api.Agent{}
	for cursor := ""; ; {
		page, next, err := on.Agents(cursor, 100)
		if err != nil {
			return nil, err
		}
		for _, agent := range page {
			all = append(all, api.AgentOf(agent))
		}
		if next == "" {
			return all, nil
		}
		cursor = next
	}
}

func addAgent(ctx context.Context, on bench, args agentArgs) (newKey, error) {
	var made newKey
	if args.Adopt {
		return newKey{AgentID: args.ID}, on.Do(ctx, func(tx *escrow.Tx) error { return tx.Adopt(operator, args.ID) })
	}
	err := on.Do(ctx, func(tx *escrow.Tx) error {
		agent, _, key, err := tx.CreateAgent(operator, escrow.AgentOrder{ID: args.ID, Name: args.Name})
		made = newKey{AgentID: agent.ID, APIKey: key}
		return err
	})
	return made, err
}

func makeKey(ctx context.Context, on bench, args agentArgs) (newKey, error) {
	made := newKey{AgentID: args.ID}
	err := on.Do(ctx, func(tx *escrow.Tx) error {
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

func deposit(ctx context.Context, on bench, args depositArgs) (api.Payment, error) {
	var booked escrow.Payment
	err := on.Do(ctx, func(tx *escrow.Tx) error {
		var err error
		booked, err = tx.Deposit(operator, escrow.PaymentOrder{To: args.AgentID, Amount: args.Amount, Reference: args.Reference})
		return err
	})
	return api.PaymentOf(booked), err
}
