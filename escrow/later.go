package escrow

import (
	"github.com/tallygate/tallygate/escrow/ledger"
)

type eventType string

const (
	escrowCreated         eventType = "escrow.created"
	escrowReleased        eventType = "escrow.released"
	escrowRefunded        eventType = "escrow.refunded"
	escrowRefundRequested eventType = "escrow.refund_requested"
	escrowReopened        eventType = "escrow.refund_withdrawn"
	escrowDisputed        eventType = "escrow.disputed"
	escrowResolved        eventType = "escrow.resolved"
	milestoneDelivered    eventType = "milestone.delivered"
)

func (t *Tx) event(what eventType, e Escrow) error { return nil }

func (t *Tx) notice(id string) error { return nil }

func (t *Tx) subscription(id string) (any, error) { return nil, nil }

func (t *Tx) countCharge(c Charge) error { return nil }

func (t *Tx) spend(by Actor, payer, payee string, amount ledger.Amount) error { return nil }

type limitBook struct{}

func newLimitBook() *limitBook { return &limitBook{} }

type limitHold struct{}

func (b *Book) holdLimits(by Actor, payer, payee string, amount ledger.Amount) (*limitHold, error) {
	return &limitHold{}, nil
}
func (h *limitHold) release()                                  {}
func (h *limitHold) extend(by ledger.Amount) error             { return nil }
func (h *limitHold) extendUpTo(by ledger.Amount) ledger.Amount { return by }
func (h *limitHold) spent(amount ledger.Amount, err error)     {}

// accountIn should be ledger.ReadAccount(r, id), in the same view.
func (b *Book) accountIn(_ ledger.Reader, id ledger.AccountID) (ledger.Account, error) {
	acc, _, err := b.ledger.Balance(id)
	return acc, err
}
