package escrow

import (
	"context"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Affordable reports whether the call that an order describes could begin now. It holds nothing, opens no escrow and renews no subscription,
// so a moment later the answer may be different.
func (b *Book) Affordable(ctx context.Context, o CallOrder) (bool, error) {
	wallet, err := b.Wallet(ctx, o.By.Agent)
	if err != nil || o.By.Agent == "" {
		return false, err
	}
	switch o.From {
	case FromEscrow:
		return b.escrowCovers(o, wallet)
	case FromSubscription:
		return b.subscriptionCovers(o, wallet)
	default:
		if wallet.Available >= o.Least || !o.Credit {
			return wallet.Available >= o.Least, nil
		}
		credit, err := b.UsableCredit(o.By.Agent, o.Payee)
		return credit >= o.Least-wallet.Available && err == nil, err
	}
}

// Penniless reports whether an agent can't pay a payee anything: its wallet is empty, none of its escrows contains money, it has no running
// subscription to the payee, and no credit there. subscription to the payee.
func (b *Book) Penniless(ctx context.Context, agent, payee string) (bool, error) {
	wallet, err := b.Wallet(ctx, agent)
	if err != nil || wallet.Available > 0 {
		return false, err
	}
	if credit, err := b.UsableCredit(agent, payee); err != nil || credit > 0 {
		return false, err
	}
	penniless := true
	found := func(_, _ []byte) (bool, error) { penniless = false; return false, nil }
	err = b.view(func(r ledger.Reader) error {
		if err := r.Scan(activeByAgent.under(agent), found); err != nil || !penniless {
			return err
		}
		return r.Scan(subsByPlan.under(agent, payee), found)
	})
	return penniless, err
}

func (b *Book) escrowCovers(o CallOrder, wallet Wallet) (bool, error) {
	escrows, err := b.openEscrows(o.By.Agent, o.Payee)
	if err != nil {
		return false, err
	}
	for _, e := range escrows {
		if e.over(b.Now()) {
			continue
		}
		if covers, err := b.covers(e.Account(), o.Least); covers || err != nil {
			return covers, err
		}
	}
	return o.Open > 0 && wallet.Available >= o.Least, nil
}

func (b *Book) subscriptionCovers(o CallOrder, wallet Wallet) (bool, error) {
	s, err := b.storedPlanSubscription(o)
	if err != nil || s == nil {
		return false, err
	}
	if s.Status == SubSuspended { // the call would begin a new period
		needed, err := s.Plan.needed()
		return err == nil && wallet.Available >= needed, err
	}
	beyond := o.Quota - s.QuotaLeft()
	switch {
	case s.Plan.Included == 0 || beyond <= 0:
		return true, nil
	case !s.Plan.Overage:
		return false, nil
	case s.PoolID != "":
		return b.covers(ledger.Escrow(s.PoolID), o.Over(beyond))
	default:
		return wallet.Available >= o.Over(beyond), nil
	}
}

// covers reports whether an account has the amount, without what running calls hold.
func (b *Book) covers(id ledger.AccountID, amount ledger.Amount) (bool, error) {
	account, held, err := b.ledger.Balance(id)
	return err == nil && account.Available()-held >= amount, err
}
