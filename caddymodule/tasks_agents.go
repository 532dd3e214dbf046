package caddymodule

import (
	"context"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
)

func init() {
	addTask("agents/suspend", false, standing(func(tx *escrow.Tx, args standingArgs) (escrow.Closing, error) {
		agent, err := tx.Suspend(operator, args.AgentID, args.Reason)
		return escrow.Closing{Agent: agent}, err
	}))
	addTask("agents/resume", false, standing(func(tx *escrow.Tx, args standingArgs) (escrow.Closing, error) {
		agent, err := tx.Resume(operator, args.AgentID)
		return escrow.Closing{Agent: agent}, err
	}))
	addTask("agents/close", false, standing(func(tx *escrow.Tx, args standingArgs) (escrow.Closing, error) {
		return tx.CloseAgent(operator, args.AgentID, args.Reason, escrow.PaymentOrder{Reference: args.Reference})
	}))
	addTask("keys/rotate", false, rotateKey)
	addTask("holds/list", true, listHolds)
	addTask("holds/void", false, voidHold)
}

type standingArgs struct {
	AgentID   string `json:"agent_id"`
	Reason    string `json:"reason,omitempty"`
	Reference string `json:"reference,omitempty"` // of the payout of an agent that is closed
}

// standing makes a task of changing whether an agent may act.
func standing(change func(*escrow.Tx, standingArgs) (escrow.Closing, error)) func(context.Context, bench, standingArgs) (api.ClosedAgent, error) {
	return func(ctx context.Context, on bench, args standingArgs) (api.ClosedAgent, error) {
		c, err := escrow.Do(ctx, on.Book, func(tx *escrow.Tx) (escrow.Closing, error) { return change(tx, args) })
		return api.ClosedAgentOf(c), err
	}
}

func rotateKey(ctx context.Context, on bench, args keyArgs) (newKey, error) {
	return escrow.Do(ctx, on.Book, func(tx *escrow.Tx) (newKey, error) {
		key, secret, err := tx.RotateKey(operator, args.AgentID, args.KeyID, args.Overlap)
		return newKey{AgentID: key.Agent, APIKey: secret}, err
	})
}

type holdsArgs struct {
	AgentID string `json:"agent_id,omitempty"`
	Limit   int    `json:"limit"`
}

func listHolds(ctx context.Context, on bench, args holdsArgs) ([]api.Hold, error) {
	agent, err := on.ListsFor(operator, args.AgentID)
	if err != nil {
		return nil, err
	}
	list := []api.Hold{}
	for cursor := ""; ; {
		page, next, err := on.Escrows(ctx, escrow.EscrowFilter{Agent: agent, Holds: true}, escrow.Page{Before: cursor, Limit: min(args.Limit-len(list), escrow.MaxPage)})
		if err != nil {
			return nil, err
		}
		for _, h := range page {
			list = append(list, api.HoldOf(on.Currency(), h))
		}
		if next == "" || len(list) >= args.Limit {
			return list, nil
		}
		cursor = next
	}
}

type holdArgs struct {
	HoldID string `json:"hold_id"`
}

func voidHold(ctx context.Context, on bench, args holdArgs) (api.Hold, error) {
	h, err := escrow.Do(ctx, on.Book, func(tx *escrow.Tx) (escrow.Escrow, error) { return tx.VoidHold(operator, args.HoldID) })
	return api.HoldOf(on.Currency(), h), err
}
