package escrow

import "github.com/tallygate/tallygate/escrow/ledger"

// stain follows faucet money, so that nobody earns a reputation with it. An account that has faucet money always pays with that first, and
// then the receiving account has it. stain returns how much of the transfer is faucet money. Without a faucet this is one look-up.
func (t *Tx) stain(tr ledger.Transfer) (part ledger.Amount, err error) {
	if tr.Debit == ledger.World {
		if tr.Kind != kindFaucet {
			return 0, nil
		}
		part = tr.Amount
	} else {
		had, err := t.stained(tr.Debit)
		if err != nil || had == 0 {
			return 0, err
		}
		part = min(had, tr.Amount)
		if err := t.putStained(tr.Debit, had-part); err != nil {
			return 0, err
		}
	}
	if tr.Credit == ledger.World || tr.Credit == ledger.Commission {
		return part, nil
	}
	had, err := t.stained(tr.Credit)
	if err != nil {
		return 0, err
	}
	return part, t.putStained(tr.Credit, had+part)
}

func (t *Tx) stained(id ledger.AccountID) (amount ledger.Amount, err error) {
	_, err = load(t.ledger, stainTable.key(string(id)), &amount)
	return amount, err
}

func (t *Tx) putStained(id ledger.AccountID, amount ledger.Amount) error {
	if amount == 0 {
		t.ledger.Delete(stainTable.key(string(id)))
		return nil
	}
	return t.put(stainTable.key(string(id)), amount)
}
