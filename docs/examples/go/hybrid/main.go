// Command hybrid shows a base price that includes a number of units, and a pool that pays further units, one by one. A week lasts some
// seconds here; --hours 168 makes it a real one.
package main

import (
	"fmt"

	"github.com/tallygate/tallygate/docs/examples/go/scene"
	"github.com/tallygate/tallygate/docs/examples/go/tallygate"
)

// hybridBilling pays a provider for a period at a time, from the customer's side.
type hybridBilling struct {
	customer       tallygate.Agent
	baseUnits      int
	basePrice      string
	overagePerUnit string
	overageUnits   int
	periodHours    float64

	used       int
	base, pool string // escrows
}

// startPeriod locks the base price and the pool in two escrows. Both expire at the end of the period: the base is released to the provider,
// and what is left of the pool is refunded, since its memo names it a pool. The pool is locked first: if locking the base then fails, the
// pool comes back by itself.
func (b *hybridBilling) startPeriod(provider string) error {
	pool, err := b.customer.Lock(provider, tallygate.Times(b.overagePerUnit, b.overageUnits), fmt.Sprintf("overage_pool:%d_units", b.overageUnits), b.periodHours)
	if err != nil {
		return err
	}
	base, err := b.customer.Lock(provider, b.basePrice, fmt.Sprintf("base:%d_units", b.baseUnits), b.periodHours)
	if err != nil {
		return err
	}
	b.used, b.base, b.pool = 0, base.ID, pool.ID
	return nil
}

// chargeUnit counts a unit, and pays for it if it is beyond the base. If the pool is used up the payment is refused: no payment, no unit.
func (b *hybridBilling) chargeUnit() error {
	if b.used >= b.baseUnits {
		if _, err := b.customer.ReleasePartial(b.pool, b.overagePerUnit, fmt.Sprintf("unit %d", b.used+1)); err != nil {
			return err
		}
	}
	b.used++
	return nil
}

// endPeriod ends the period now: the base is paid whatever was used, and a refund of the rest of the pool is requested.
func (b *hybridBilling) endPeriod() error {
	if _, err := b.customer.Release(b.base); err != nil && !tallygate.Refused(err, "invalid_status") { // it had expired already
		return err
	}
	if _, err := b.customer.Refund(b.pool, "", "not used"); err != nil && !tallygate.Refused(err, "invalid_status") { // nothing is left, or it had expired already
		return err
	}
	return nil
}

// inNewPeriod returns a new customer in a new period.
func inNewPeriod(provider tallygate.Agent, hours float64) *hybridBilling {
	b := &hybridBilling{
		customer: scene.Customer("customer"), baseUnits: 1000, basePrice: "5.00",
		overagePerUnit: "0.01", overageUnits: 500, periodHours: hours,
	}
	scene.Do(b.startPeriod(provider.ID))
	return b
}

func (b *hybridBilling) use(units int) {
	for range units {
		scene.Do(b.chargeUnit())
	}
}

// end ends a customer's period. The provider agrees to refund the rest of the pool.
func (b *hybridBilling) end(provider tallygate.Agent) {
	scene.Do(b.endPeriod())
	if scene.Must(provider.Status(b.pool)).Status == "refund_requested" {
		scene.Must(provider.Refund(b.pool, "", "agreed"))
	}
}

func (b *hybridBilling) isOver() bool {
	return scene.Must(b.customer.Status(b.base)).Status != "open" && scene.Must(b.customer.Status(b.pool)).Status != "open"
}

func main() {
	hours := scene.HoursOfAWeek()
	scene.Title("Hybrid: 5.00 for 1000 units, 0.01 for each of up to 500 more")
	provider := scene.Provider("provider")

	// Two customers do nothing at the end of their week.
	idle, late := inNewPeriod(provider, hours), inNewPeriod(provider, hours)
	late.use(1001)

	exact := inNewPeriod(provider, tallygate.Week)
	exact.use(1000)
	exact.end(provider)
	scene.Say("1000 units: the base is paid, the pool comes back whole")
	scene.Reckon(scene.Balance{Name: "exact", Agent: exact.customer, Amount: "95"})

	above := inNewPeriod(provider, tallygate.Week)
	above.use(1001)
	above.end(provider)
	scene.Say("1001 units: the base and 0.01 of the pool are paid")
	scene.Reckon(scene.Balance{Name: "above", Agent: above.customer, Amount: "94.99"})

	greedy := inNewPeriod(provider, tallygate.Week)
	greedy.use(1500)
	scene.Say("the 1501st unit: %s", scene.Refused("422 exceeds_remaining", greedy.chargeUnit()))
	scene.Expect("units", greedy.used, 1500)
	greedy.end(provider)
	scene.Reckon(scene.Balance{Name: "greedy", Agent: greedy.customer, Amount: "90"})

	scene.Wait("the end of the week", hours, func() bool { return idle.isOver() && late.isOver() })
	scene.Say("the week is over: the clock has paid the base of the other two, and given back what they left in the pool")
	scene.Reckon(
		scene.Balance{Name: "idle", Agent: idle.customer, Amount: "95"},
		scene.Balance{Name: "late", Agent: late.customer, Amount: "94.99"},
		scene.Balance{Name: "provider", Agent: provider, Amount: "30.02"},
	)
}
