// Command performance shows pay by performance: what a forecast earns depends on its score. A score of 0.9 earns the whole price, 0.7 earns
// 70%. For less, the client requests a refund, which the payee may dispute.
//
// If TALLYGATE_OPERATOR_KEY is set, the dispute is resolved too.
package main

import (
	"fmt"
	"os"

	"github.com/tallygate/tallygate/docs/examples/go/scene"
	"github.com/tallygate/tallygate/docs/examples/go/tallygate"
)

const (
	price = "1.00"
	part  = "0.70" // 70% of it
)

// payByScore pays what a forecast has earned by its score.
func payByScore(client tallygate.Agent, escrow string, score float64) tallygate.Escrow {
	if score >= 0.9 {
		return scene.Must(client.Release(escrow))
	}
	if score >= 0.7 {
		scene.Must(client.ReleasePartial(escrow, part, fmt.Sprintf("70%% for a score of %v", score)))
	}
	return scene.Must(client.Refund(escrow, "", fmt.Sprintf("a score of %v", score)))
}

// forecast locks the price of a forecast that turns out to have this score, and has the client decide.
func forecast(client, oracle tallygate.Agent, score float64) tallygate.Escrow {
	escrow := scene.Must(client.Lock(oracle.ID, price, "forecast", 0))
	return payByScore(client, escrow.ID, score)
}

func main() {
	scene.Title("Performance: up to %s for a forecast", price)
	client, oracle := scene.Customer("client"), scene.Provider("oracle")
	for _, f := range []struct {
		score      float64
		status     string
		paid, back string
	}{
		{0.95, "released", "1", "0"}, {0.9, "released", "1", "0"}, {0.89, "refund_requested", "0.7", "0.3"},
		{0.7, "refund_requested", "0.7", "0.3"}, {0.3, "refund_requested", "0", "1"},
	} {
		escrow := forecast(client, oracle, f.score)
		scene.Expect("status", escrow.Status, f.status)
		if escrow.Status == "refund_requested" {
			escrow = scene.Must(oracle.Refund(escrow.ID, "", "agreed"))
		}
		scene.Say("score %v: %s paid, %s back", f.score, escrow.Released, escrow.Refunded)
		scene.Expect("paid", escrow.Released, f.paid)
		scene.Expect("back", escrow.Refunded, f.back)
	}
	scene.Reckon(scene.Balance{Name: "client", Agent: client, Amount: "96.6"}, scene.Balance{Name: "oracle", Agent: oracle, Amount: "3.4"})
	dispute(client, oracle)
}

func dispute(client, oracle tallygate.Agent) {
	escrow := forecast(client, oracle, 0.69)
	scene.Must(oracle.Dispute(escrow.ID, "the score is 0.71 by my reckoning"))
	_, err := client.Release(escrow.ID)
	scene.Refused("409 invalid_status", err)
	_, err = oracle.Refund(escrow.ID, "", "")
	scene.Refused("409 invalid_status", err)
	scene.Expect("status", scene.Must(client.Status(escrow.ID)).Status, "disputed")
	scene.Say("score 0.69: disputed; the money is frozen until the operator decides")
	scene.Reckon(scene.Balance{Name: "client", Agent: client, Amount: "95.6"}, scene.Balance{Name: "oracle", Agent: oracle, Amount: "3.4"})

	key := os.Getenv("TALLYGATE_OPERATOR_KEY")
	if key == "" {
		return
	}
	operator := tallygate.Agent{URL: scene.URL(), Key: key}
	after := scene.Must(operator.Resolve(escrow.ID, "0.70", "0.30", "0.71 it is"))
	scene.Say("the operator decides: %s paid, %s back", after.Released, after.Refunded)
	scene.Expect("status", after.Status, "settled")
	scene.Reckon(scene.Balance{Name: "client", Agent: client, Amount: "95.9"}, scene.Balance{Name: "oracle", Agent: oracle, Amount: "4.1"})
}
