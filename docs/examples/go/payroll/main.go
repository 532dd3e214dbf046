// Command payroll shows one employer that pays many employees every week, each by a subscription without a plan. The wage of a week is
// locked when the week begins and paid when it ends. A week lasts some seconds here; --hours 168 makes it a real one.
package main

import (
	"github.com/tallygate/tallygate/docs/examples/go/scene"
	"github.com/tallygate/tallygate/docs/examples/go/tallygate"
)

// employee has a wage for each week, and what all of its wages add up to in the end.
type employee struct {
	name, wage, inTheEnd string
	account              tallygate.Agent
	contract             string
}

func main() {
	hours := scene.HoursOfAWeek()
	staff := []*employee{
		{name: "ada", wage: "20.00", inTheEnd: "40"},
		{name: "ben", wage: "15.00", inTheEnd: "30"},
		{name: "cyd", wage: "12.50", inTheEnd: "25"},
		{name: "dan", wage: "1.00", inTheEnd: "1"},
	}
	scene.Title("Payroll: every week")
	employer := scene.Customer("employer")
	for _, e := range staff {
		e.account = scene.Provider(e.name)
		e.contract = scene.Must(employer.Subscribe(e.account.ID, e.wage, "wage of "+e.name, hours)).ID
		scene.Say("%s: %s a week", e.name, e.wage)
	}
	dan := staff[3]
	scene.Do(dan.account.EndSubscription(dan.contract))
	scene.Expect("the employer's balance", scene.Must(employer.Balance()), "51.5")
	scene.Say("the first week's wages are locked; dan has given notice")

	scene.Wait("dan's last day", hours, func() bool { return scene.Must(employer.Subscription(dan.contract)).Status == "ended" })
	scene.Say("dan has left")
	for _, e := range staff[:3] {
		scene.Wait("the second payday of "+e.name, 2*hours, func() bool {
			return scene.Must(employer.Subscription(e.contract)).Status == "suspended"
		})
		scene.Expect("weeks", scene.Must(employer.Subscription(e.contract)).Periods, 2)
	}
	scene.Say("the employer's money does not cover a third week: the contracts are suspended, and no wage is locked in part")

	balances := []scene.Balance{{Name: "employer", Agent: employer, Amount: "4"}}
	for _, e := range staff {
		balances = append(balances, scene.Balance{Name: e.name, Agent: e.account, Amount: e.inTheEnd})
		if e != dan {
			scene.Do(employer.EndSubscription(e.contract))
		}
	}
	scene.Reckon(balances...)
}
