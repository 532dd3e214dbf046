// Command streaming shows streaming micropayments: a listener releases money after each batchSize units, for as long as it listens and the
// service goes on.
package main

import (
	"fmt"

	"github.com/tallygate/tallygate/docs/examples/go/scene"
	"github.com/tallygate/tallygate/docs/examples/go/tallygate"
)

const (
	batchSize = 50 // units
	price     = "0.0002"
)

// feed is the provider's service. It goes on while it is paid; at most one batch is unpaid.
type feed struct {
	account     tallygate.Agent
	breaksAfter int // units; 0: never
	sent        int
}

// next sends a unit. It returns false if the service has ended.
func (f *feed) next(escrow string) bool {
	if f.breaksAfter > 0 && f.sent == f.breaksAfter {
		return false
	}
	if f.sent%batchSize == 0 {
		scene.Expect("paid so far", scene.Must(f.account.Status(escrow)).Released, tallygate.Times(price, f.sent))
	}
	f.sent++
	return true
}

// listen listens until it has enough or the service ends, and gets back what it did not use.
func listen(listener tallygate.Agent, service *feed, enough int) tallygate.Escrow {
	escrow := scene.Must(listener.Lock(service.account.ID, "1.00", "live feed", 0))
	heard := 0
	for heard < enough && service.next(escrow.ID) {
		if heard++; heard%batchSize == 0 {
			scene.Must(listener.ReleasePartial(escrow.ID, tallygate.Times(price, batchSize), fmt.Sprintf("units to %d", heard)))
		}
	}
	if rest := heard % batchSize; rest > 0 {
		scene.Must(listener.ReleasePartial(escrow.ID, tallygate.Times(price, rest), fmt.Sprintf("units to %d, the last", heard)))
	}
	scene.Must(listener.Refund(escrow.ID, "", "no more is heard"))
	after := scene.Must(service.account.Refund(escrow.ID, "", "agreed"))
	scene.Say("%d units heard, %s paid, %s back", heard, after.Released, after.Refunded)
	scene.Expect("paid", after.Released, tallygate.Times(price, heard))
	return after
}

func main() {
	scene.Title("Streaming: %s a unit, paid in batches of %d", price, batchSize)
	listener, provider := scene.Customer("listener"), scene.Provider("feed")

	listen(listener, &feed{account: provider}, 437)
	scene.Reckon(scene.Balance{Name: "listener", Agent: listener, Amount: "99.9126"}, scene.Balance{Name: "provider", Agent: provider, Amount: "0.0874"})

	listen(listener, &feed{account: provider, breaksAfter: 120}, 437)
	scene.Say("that feed broke: what came of it is paid, and nothing more")
	scene.Reckon(scene.Balance{Name: "listener", Agent: listener, Amount: "99.8886"}, scene.Balance{Name: "provider", Agent: provider, Amount: "0.1114"})

	scene.Expect("status", listen(listener, &feed{account: provider}, 0).Status, "refunded")
	scene.Reckon(scene.Balance{Name: "listener", Agent: listener, Amount: "99.8886"}, scene.Balance{Name: "provider", Agent: provider, Amount: "0.1114"})
}
