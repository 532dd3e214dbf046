package caddymodule

import (
	"context"
	"errors"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
)

func init() {
	addTask("payouts/list", true, listPayouts)
	addTask("payouts/request", false, onPayout(func(tx *escrow.Tx, args payoutArgs) (escrow.Payout, error) {
		return tx.RequestPayout(operator, escrow.PayoutOrder{Agent: args.AgentID, Amount: args.Amount, To: args.To, Memo: args.Memo})
	}))
	addTask("payouts/book", false, onPayout(func(tx *escrow.Tx, args payoutArgs) (escrow.Payout, error) {
		return tx.BookPayout(operator, args.PayoutID, args.Reference)
	}))
	addTask("payouts/refuse", false, onPayout(func(tx *escrow.Tx, args payoutArgs) (escrow.Payout, error) {
		return tx.RefusePayout(operator, args.PayoutID, args.Reason)
	}))
	addTask("payouts/send", false, sendPayout)
}

type payoutArgs struct {
	PayoutID  string        `json:"payout_id,omitempty"`
	AgentID   string        `json:"agent_id,omitempty"`
	Amount    ledger.Amount `json:"amount,omitzero"`
	To        string        `json:"to,omitempty"`
	Memo      string        `json:"memo,omitempty"`
	Reference string        `json:"reference,omitempty"`
	Reason    string        `json:"reason,omitempty"`
}

// onPayout makes a task of changing one payout.
func onPayout(change func(*escrow.Tx, payoutArgs) (escrow.Payout, error)) func(context.Context, bench, payoutArgs) (api.Payout, error) {
	return func(ctx context.Context, on bench, args payoutArgs) (api.Payout, error) {
		p, err := escrow.Do(ctx, on.Book, func(tx *escrow.Tx) (escrow.Payout, error) { return change(tx, args) })
		return api.PayoutOf(on.Currency(), p), err
	}
}

func sendPayout(ctx context.Context, on bench, args payoutArgs) (api.Payout, error) {
	if on.cards == nil && (on.giving == nil || len(on.giving.Rails) == 0) {
		return api.Payout{}, errors.New("payouts are sent by a running server with a cashier in its config; to book a payout that you have paid yourself, use 'payouts book'")
	}
	p, err := api.SendPayout(ctx, on.cards, on.giving, on.Book, operator, args.PayoutID)
	return api.PayoutOf(on.Currency(), p), err
}

type payoutsArgs struct {
	AgentID string `json:"agent_id,omitempty"`
	Status  string `json:"status,omitempty"`
	Limit   int    `json:"limit"`
}

func listPayouts(_ context.Context, on bench, args payoutsArgs) ([]api.Payout, error) {
	agent, err := on.ListsFor(operator, args.AgentID)
	if err != nil {
		return nil, err
	}
	list := []api.Payout{}
	for cursor := ""; ; {
		page, next, err := on.Payouts(agent, escrow.PayoutStatus(args.Status), escrow.Page{Before: cursor, Limit: min(args.Limit-len(list), escrow.MaxPage)})
		if err != nil {
			return nil, err
		}
		for _, p := range page {
			list = append(list, api.PayoutOf(on.Currency(), p))
		}
		if next == "" || len(list) >= args.Limit {
			return list, nil
		}
		cursor = next
	}
}
