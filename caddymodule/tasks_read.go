package caddymodule

import (
	"context"
	"time"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
)

func init() {
	addTask("wallet", true, readWallet)
	addTask("charges", true, listCharges)
	addTask("keys/list", true, listKeys)
	addTask("keys/revoke", false, revokeKey)
}

type walletArgs struct {
	AgentID string `json:"agent_id"`
	Limit   int    `json:"limit"`
}

// walletStand is a wallet with its last entries.
type walletStand struct {
	api.Wallet
	Entries []api.Entry `json:"entries"`
}

func readWallet(ctx context.Context, on bench, args walletArgs) (walletStand, error) {
	agent, err := on.ReadsFor(operator, args.AgentID)
	if err != nil {
		return walletStand{}, err
	}
	w, err := on.Wallet(ctx, agent)
	if err != nil {
		return walletStand{}, err
	}
	s := walletStand{Wallet: api.WalletOf(w), Entries: []api.Entry{}}
	entries, _, err := on.Entries(ctx, agent, 0, args.Limit)
	for _, e := range entries {
		s.Entries = append(s.Entries, api.EntryOf(e))
	}
	return s, err
}

type chargesArgs struct {
	AgentID string `json:"agent_id,omitempty"`
	Status  string `json:"status,omitempty"`
	Limit   int    `json:"limit"`
}

func listCharges(_ context.Context, on bench, args chargesArgs) ([]api.Charge, error) {
	agent, err := on.ListsFor(operator, args.AgentID)
	if err != nil {
		return nil, err
	}
	list := []api.Charge{}
	filter := escrow.ChargeFilter{Agent: agent, Status: escrow.ChargeStatus(args.Status)}
	for cursor := ""; ; {
		page, next, err := on.Charges(filter, escrow.Page{Before: cursor, Limit: min(args.Limit-len(list), escrow.MaxPage)})
		if err != nil {
			return nil, err
		}
		for _, c := range page {
			list = append(list, api.ChargeOf(on.Currency(), c))
		}
		if next == "" || len(list) >= args.Limit {
			return list, nil
		}
		cursor = next
	}
}

func listKeys(_ context.Context, on bench, args agentArgs) ([]api.Key, error) {
	agent, err := on.ReadsFor(operator, args.ID)
	if err != nil {
		return nil, err
	}
	keys, err := on.Keys(agent)
	list := []api.Key{}
	for _, k := range keys {
		list = append(list, api.KeyOf(k))
	}
	return list, err
}

type keyArgs struct {
	AgentID string `json:"agent_id"`
	KeyID   string `json:"key_id"`

	Overlap time.Duration `json:"overlap,omitempty"` // for how long a replaced secret is valid
}

func revokeKey(ctx context.Context, on bench, args keyArgs) (struct{}, error) {
	return escrow.Do(ctx, on.Book, func(tx *escrow.Tx) (struct{}, error) {
		return struct{}{}, tx.RevokeKey(operator, args.AgentID, args.KeyID)
	})
}

// listedAgent is an agent with the money in its wallet.
type listedAgent struct {
	api.Agent
	Balance   ledger.Amount `json:"balance"`
	Available ledger.Amount `json:"available"`
}

func listAgents(ctx context.Context, on bench, _ struct{}) ([]listedAgent, error) {
	all := []listedAgent{}
	for cursor := ""; ; {
		page, next, err := on.Agents(cursor, 100)
		if err != nil {
			return nil, err
		}
		for _, agent := range page {
			w, err := on.Wallet(ctx, agent.ID)
			if err != nil {
				return nil, err
			}
			all = append(all, listedAgent{api.AgentOf(agent), w.Balance, w.Available})
		}
		if next == "" {
			return all, nil
		}
		cursor = next
	}
}
