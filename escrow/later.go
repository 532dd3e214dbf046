package escrow

import (
	"github.com/tallygate/tallygate/escrow/ledger"
)

// accountIn should be ledger.ReadAccount(r, id), in the same view.
func (b *Book) accountIn(_ ledger.Reader, id ledger.AccountID) (ledger.Account, error) {
	acc, _, err := b.ledger.Balance(id)
	return acc, err
}
