package escrow

import (
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// RailPayment is money that came in by a payment rail, which is a network outside the ledger.
type RailPayment struct {
	Rail   string        `cbor:"1,keyasint"` // its name, such as "x402"
	ID     string        `cbor:"2,keyasint"` // the id of the payment; it is never used again on its rail
	Agent  string        `cbor:"3,keyasint"`
	Amount ledger.Amount `cbor:"4,keyasint"`
	At     time.Time     `cbor:"5,keyasint"`
}

// Fund books money that came in by a rail into an agent's wallet. A payment is booked once: for a repetition, first is false and no money
// moves. The agent is created if it does not exist. Refused: already_exists for the same id with another agent or amount, invalid_request.
func (t *Tx) Fund(f RailPayment) (booked RailPayment, first bool, err error) {
	if err := checkRailPayment(f); err != nil {
		return RailPayment{}, false, err
	}
	key := railTable.key(f.Rail, f.ID)
	found, err := load(t.ledger, key, &booked)
	if err != nil {
		return RailPayment{}, false, err
	}
	if found {
		if booked.Agent != f.Agent || booked.Amount != f.Amount {
			return RailPayment{}, false, refuse(AlreadyExists, map[string]string{"rail": f.Rail, "payment_id": f.ID},
				"payment %.80q was booked before, for another agent or of another amount", f.ID)
		}
		return booked, false, nil
	}
	_, exists, err := agentByID(t.ledger, f.Agent)
	if err == nil && !exists {
		_, err = t.addAgent(AgentOrder{ID: f.Agent}, ByRail)
	}
	if err != nil {
		return RailPayment{}, false, err
	}
	f.At = t.Now()
	_, err = t.pay(kindDeposit, ledger.World, ledger.Wallet(f.Agent), PaymentOrder{Amount: f.Amount, Reference: f.ID, Memo: f.Rail}, f.Agent)
	if err != nil {
		return RailPayment{}, false, err
	}
	return f, true, t.put(key, f)
}

func checkRailPayment(f RailPayment) error {
	if f.Rail == "" || len(f.Rail) > maxID || f.ID == "" || len(f.ID) > maxReference {
		return invalid("payment_id", "a payment has a rail of 1 to %d bytes and an id of 1 to %d", maxID, maxReference)
	}
	if err := checkText("rail", f.Rail); err != nil {
		return err
	}
	if err := checkText("payment_id", f.ID); err != nil {
		return err
	}
	return CheckAgentID("agent_id", f.Agent)
}
