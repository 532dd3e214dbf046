package escrow

import (
	"context"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Affordable reports whether the call that an order describes could begin now. It holds nothing, opens no escrow and renews no subscription,
// so a moment later the answer may be different. If the key may not pay the payee, or one of the payer's limits does not leave enough,
// the error is that refusal: forbidden or limit_exceeded.
func (b *Book) Affordable(ctx context.Context, o CallOrder) (bool, error) {
	wallet, err := b.Wallet(ctx, o.By.Agent)
	if err != nil || o.By.Agent == "" {
		return false, err
	}
	if err := o.By.mayPay(o.Payee); err != nil {
		return false, err
	}
	switch o.From {
	case FromEscrow:
		return b.escrowCovers(ctx, o, wallet)
	case FromSubscription:
		return b.subscriptionCovers(ctx, o, wallet)
	default:
		return b.walletCovers(ctx, o, wallet)
	}
}

func (b *Book) walletCovers(ctx context.Context, o CallOrder, wallet Wallet) (bool, error) {
	credit, err := b.creditFor(o)
	if err != nil || plus(wallet.Available, credit) < o.Least {
		return false, err
	}
	return b.withinLimits(ctx, o, nil)
}

// creditFor is how much credit the call that an order describes may use.
func (b *Book) creditFor(o CallOrder) (ledger.Amount, error) {
	if !o.Credit {
		return 0, nil
	}
	return b.UsableCredit(o.By.Agent, o.Payee)
}

// withinLimits reports whether the limits of the payer leave what the call spends at first: from an escrow or, where that is nil, from the wallet.
// If they don't, the error is the refusal.
func (b *Book) withinLimits(ctx context.Context, o CallOrder, from *Escrow) (bool, error) {
	claim, err := b.claimLimits(ctx, o.By.Key, o.spends(from))
	if err != nil {
		return false, err
	}
	claim.end()
	return true, nil
}

// Penniless reports whether an agent can't pay a payee anything: its wallet is empty, none of its escrows contains money, it has no running
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

func (b *Book) escrowCovers(ctx context.Context, o CallOrder, wallet Wallet) (bool, error) {
	credit, err := b.creditFor(o)
	if err != nil {
		return false, err
	}
	escrows, err := b.openEscrows(o.By.Agent, o.Payee)
	if err != nil {
		return false, err
	}
	money := max(0, o.Least-credit)
	var limited error
	for _, e := range escrows {
		if e.over(b.Now()) {
			continue
		}
		if covers, err := b.covers(e.Account(), money); !covers || err != nil {
			if err != nil {
				return false, err
			}
			continue
		}
		within, err := b.withinLimits(ctx, o, e)
		if within || !IsRefusal(err, LimitExceeded) {
			return within, err
		}
		limited = err
	}
	if credit > 0 && credit >= max(o.Least, o.Most) {
		return b.withinLimits(ctx, o, nil)
	}
	if o.Open == 0 || wallet.Available < money || limited != nil {
		return false, limited
	}
	return b.withinLimits(ctx, o, nil)
}

func (b *Book) subscriptionCovers(ctx context.Context, o CallOrder, wallet Wallet) (bool, error) {
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
		o.Least = o.Over(beyond)
		credit, err := b.creditFor(o)
		if err != nil {
			return false, err
		}
		if covers, err := b.covers(ledger.Escrow(s.PoolID), max(0, o.Least-credit)); !covers || err != nil {
			return covers, err
		}
		pool, err := b.storedEscrow(s.PoolID)
		if err != nil {
			return false, err
		}
		return b.withinLimits(ctx, o, pool)
	default:
		o.Least = o.Over(beyond)
		return b.walletCovers(ctx, o, wallet)
	}
}

// covers reports whether an account has the amount, without what running calls hold.
func (b *Book) covers(id ledger.AccountID, amount ledger.Amount) (bool, error) {
	account, held, err := b.ledger.Balance(id)
	return err == nil && account.Available()-held >= amount, err
}
