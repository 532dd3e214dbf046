// Command paypercall shows pay per call: the provider debits 0.001, then answers the query. No debit, no answer.
package main

import (
	"github.com/tallygate/tallygate/docs/examples/go/scene"
	"github.com/tallygate/tallygate/docs/examples/go/tallygate"
)

const price = "0.001"

var facts = map[string]string{
	"owls":  "An owl turns its head, not its eyes.",
	"tides": "Two high waters a day, in most places.",
	"salt":  "Two sorts of atoms, in cubes.",
}

// search is the provider's service.
type search struct {
	account  tallygate.Agent
	answered int
}

func (s *search) query(agent, words string) (string, error) {
	if err := s.account.Debit(agent, price, "search: "+words); err != nil {
		return "", err // no debit, no query
	}
	s.answered++
	return facts[words], nil
}

func main() {
	scene.Title("Pay per call: %s for a query", price)
	reader, provider := scene.Customer("reader"), scene.Provider("search")
	service := &search{account: provider}

	_, err := service.query(reader.ID, "owls")
	scene.Refused("403 forbidden", err)
	scene.Say("no query without leave to debit")

	scene.Do(reader.Allow(provider.ID, "0.003"))
	scene.Say("the reader lets the provider take up to 0.003")
	for _, words := range []string{"owls", "tides", "salt"} {
		scene.Say("%s: %s", words, scene.Must(service.query(reader.ID, words)))
	}

	_, err = service.query(reader.ID, "owls")
	scene.Say("no fourth query: %s", scene.Refused("402 limit_exceeded", err))

	poor := scene.Provider("poor reader")
	scene.Do(poor.Allow(provider.ID, "1"))
	_, err = service.query(poor.ID, "owls")
	scene.Refused("402 insufficient_funds", err)
	scene.Say("no query for an empty wallet")

	scene.Expect("queries that were answered", service.answered, 3)
	scene.Reckon(
		scene.Balance{Name: "reader", Agent: reader, Amount: "99.997"},
		scene.Balance{Name: "provider", Agent: provider, Amount: "0.003"},
		scene.Balance{Name: "poor reader", Agent: poor, Amount: "0"},
	)
}
