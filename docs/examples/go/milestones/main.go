// Command milestones shows milestones: 10.00 is locked for a text, and released in three parts as each is verified.
package main

import (
	"strings"

	"github.com/tallygate/tallygate/docs/examples/go/scene"
	"github.com/tallygate/tallygate/docs/examples/go/tallygate"
)

var milestones = []tallygate.Milestone{
	{Name: "spec_approved", Amount: "2.50"},
	{Name: "draft_delivered", Amount: "5.00"},
	{Name: "final_accepted", Amount: "2.50"},
}

// verified reports whether the client is content with a part of the work. A real client would read it.
func verified(work string) bool { return strings.Contains(work, "owls") }

// byAmount: the parts are an agreement between the two agents; the escrow knows only amounts.
func byAmount(client, author tallygate.Agent) {
	escrow := scene.Must(client.Lock(author.ID, "10.00", "a text on owls", 0))
	work := map[string][]string{
		"spec_approved":   {"what it says of owls"},
		"draft_delivered": {"a draft on tides", "a draft on owls"},
		"final_accepted":  {"all there is to say of owls"},
	}
	for _, m := range milestones {
		for _, attempt := range work[m.Name] {
			if !verified(attempt) {
				scene.Say("%s: not with %s; nothing is released", m.Name, attempt)
				continue
			}
			after := scene.Must(client.ReleasePartial(escrow.ID, m.Amount, m.Name))
			scene.Say("%s: %s released, %s to come", m.Name, m.Amount, after.Remaining)
		}
	}
	scene.Expect("status", scene.Must(client.Status(escrow.ID)).Status, "released")
}

// byName: the escrow has the parts as milestones; the author delivers them by name, and the client accepts them by name.
func byName(client, author tallygate.Agent) {
	escrow := scene.Must(client.LockMilestones(author.ID, "10.00", "a text on tides", milestones))
	_, err := client.ReleasePartial(escrow.ID, "2.50", "")
	scene.Refused("422 invalid_request", err)
	scene.Say("an amount that names no milestone is refused")
	for i, m := range milestones {
		scene.Must(author.Deliver(escrow.ID, m.Name, "see the shared folder"))
		_, err := author.Accept(escrow.ID, m.Name)
		scene.Refused("403 forbidden", err)
		scene.Expect(m.Name, scene.Must(client.Status(escrow.ID)).Milestones[i].Status, "delivered")
		after := scene.Must(client.Accept(escrow.ID, m.Name))
		scene.Say("%s: delivered by the author, accepted by the client, %s released, %s to come", m.Name, m.Amount, after.Remaining)
		scene.Expect(m.Name, after.Milestones[i].Status, "accepted")
	}
	scene.Expect("status", scene.Must(client.Status(escrow.ID)).Status, "released")
}

func main() {
	scene.Title("Milestones: 10.00 in three parts")
	client, author := scene.Customer("client"), scene.Provider("author")
	byAmount(client, author)
	scene.Reckon(scene.Balance{Name: "client", Agent: client, Amount: "90"}, scene.Balance{Name: "author", Agent: author, Amount: "10"})
	byName(client, author)
	scene.Reckon(scene.Balance{Name: "client", Agent: client, Amount: "80"}, scene.Balance{Name: "author", Agent: author, Amount: "20"})
}
