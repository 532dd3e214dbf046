// Command paypertoken shows pay per token: 0.002 for 1000 tokens, released from an escrow answer by answer.
package main

import (
	"github.com/tallygate/tallygate/docs/examples/go/scene"
)

const pricePer1K = 0.002

// answers are the number of tokens of each answer, and the total that the escrow has released after it.
var answers = []struct {
	tokens   int
	released string
}{{13, "0.000026"}, {1, "0.000028"}, {986, "0.002"}, {1234, "0.004468"}, {100_000, "0.204468"}}

func main() {
	scene.Title("Pay per token: %v for 1000 tokens", pricePer1K)
	writer, model := scene.Customer("writer"), scene.Provider("model")
	escrow := scene.Must(writer.Lock(model.ID, "1.00", "a week of answers", 0))
	for _, answer := range answers {
		after := scene.Must(writer.ChargeForTokens(escrow.ID, answer.tokens, pricePer1K))
		scene.Say("an answer of %d tokens: %s released so far", answer.tokens, after.Released)
		scene.Expect("released", after.Released, answer.released)
	}

	_, err := writer.ChargeForTokens(escrow.ID, 1_000_000, pricePer1K)
	scene.Say("a million more: %s", scene.Refused("422 exceeds_remaining", err))

	back := scene.Must(model.Refund(escrow.ID, "", "not used"))
	scene.Say("the model gives the rest back: %s", back.Refunded)
	scene.Expect("status", back.Status, "settled")
	scene.Reckon(
		scene.Balance{Name: "writer", Agent: writer, Amount: "99.795532"},
		scene.Balance{Name: "model", Agent: model, Amount: "0.204468"},
	)
}
