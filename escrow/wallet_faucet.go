package escrow

import (
	"strconv"
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// faucetRecord is what the faucet gave since the period began.
type faucetRecord struct {
	Since time.Time     `cbor:"1,keyasint"`
	Given ledger.Amount `cbor:"2,keyasint"`
}

// ClaimFaucet gives an agent play money, once. Refused: not_found if there is no faucet, already_exists for the second time, rate_limited
// if the period's budget is used up.
func (t *Tx) ClaimFaucet(by Actor, agent string) (Payment, error) {
	agent, err := t.actsFor(by, "agent_id", agent)
	if err != nil {
		return Payment{}, err
	}
	if t.rules.Faucet == 0 {
		return Payment{}, refuse(NotFound, nil, "there is no faucet here; ask the operator for a deposit")
	}
	record, err := t.agent("agent_id", agent)
	if err != nil {
		return Payment{}, err
	}
	if !record.FaucetAt.IsZero() {
		return Payment{}, refuse(AlreadyExists, nil, "the faucet gives each agent money once, and did so on %s", record.FaucetAt.Format(time.RFC3339))
	}
	if err := t.useFaucetBudget(); err != nil {
		return Payment{}, err
	}
	record.FaucetAt, record.Faucet = t.Now(), t.rules.Faucet
	if err := t.put(agentTable.key(agent), record); err != nil {
		return Payment{}, err
	}
	if err := t.audit(by, "wallet.faucet", agent, t.rules.Faucet.String()); err != nil {
		return Payment{}, err
	}
	return t.pay(kindFaucet, ledger.World, ledger.Wallet(agent), PaymentOrder{Amount: t.rules.Faucet}, agent)
}

func (t *Tx) useFaucetBudget() error {
	if t.rules.FaucetBudget == 0 {
		return nil
	}
	var record faucetRecord
	found, err := load(t.ledger, faucetTable.key(), &record)
	if err != nil {
		return err
	}
	period := t.rules.FaucetPeriod
	if !found || period > 0 && t.Now().Sub(record.Since) >= period {
		record = faucetRecord{Since: t.Now()}
	}
	if record.Given+t.rules.Faucet > t.rules.FaucetBudget {
		fields := map[string]string{}
		if period > 0 {
			fields["retry_after"] = wholeSeconds(record.Since.Add(period).Sub(t.Now()))
		}
		return refuse(RateLimited, fields, "the faucet has given its budget of %s %s", t.rules.FaucetBudget, t.Currency())
	}
	record.Given += t.rules.Faucet
	return t.put(faucetTable.key(), record)
}

// wholeSeconds returns a duration in seconds, rounded up, as in Retry-After.
func wholeSeconds(d time.Duration) string {
	return strconv.FormatInt(int64((max(d, 0)+time.Second-1)/time.Second), 10)
}
