package gateway

import (
	"net/http"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/ledger"
)

// challenge offers the rails to a caller that was refused for want of money.
func (g *Gateway) challenge(http.Header, *arrival, *ledger.Refusal) {}

// confirm tells in the header of a charged answer what the rails have to say of it.
func (g *Gateway) confirm(http.Header, escrow.Charge) {}

// Rail is a way to pay at the metered route itself.
type Rail interface{}
