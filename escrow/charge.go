package escrow

import (
	"time"

	"github.com/tallygate/tallygate/escrow/ledger"
)

// Charge is what one metered call cost, and why.
type Charge struct {
	RequestID  string
	Payer      string
	Payee      string
	Route      string
	Pattern    string
	API        string
	Model      string
	Units      map[string]string
	UnitPrices map[string]string
	Amount     ledger.Amount
	Commission ledger.Amount // out of Amount
	Refunded   ledger.Amount // out of Amount, commission included
	Source     string        // "stated" or "estimated"
	Cut        string        // "none", "client", "upstream", "funds", or "crash": recovered after the gateway died in the middle
	Status     string        // "charged", "partly_refunded", "refunded"
	EscrowID   string        // empty when the wallet paid
	Suspect    bool
	HTTPStatus int
	Duration   time.Duration
	Tags       map[string]string
	CreatedAt  time.Time
	Balance    ledger.Amount // after it: what is available in the wallet, or what remains in the escrow
}
