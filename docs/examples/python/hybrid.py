"""Hybrid: a base price that includes a number of units, and a pool that pays further units, one by one. A week lasts some seconds here;
--hours 168 makes it a real one."""

from decimal import Decimal

from scene import expect, hours_of_a_week, newcomer, reckon, refused, say, wait_for_week
from tallygate import WEEK, Refused, create_escrow, release_escrow, release_partial, request_refund


class HybridBillingAgent:
    """Pays a provider for a period at a time, from the customer's side."""

    def __init__(self, base_units=1000, base_price="5.00", overage_per_unit="0.01", *, overage_units=500, period_hours=WEEK, by=None):
        self.base_units = base_units
        self.base_price = base_price
        self.overage_per_unit = overage_per_unit
        self.overage_units = overage_units
        self.period_hours = period_hours
        self.by = by

    def start_billing_period(self, provider_id):
        """Locks the base price and the pool in two escrows. Both expire at the end of the period: the base is released to the
        provider, and what is left of the pool is refunded, since its memo names it a pool. The pool is locked first: if locking the
        base then fails, the pool comes back by itself."""
        self.used = 0
        pool = Decimal(self.overage_per_unit) * self.overage_units
        self.pool = create_escrow(provider_id, pool, f"overage_pool:{self.overage_units}_units", self.period_hours, by=self.by)["escrow_id"]
        self.base = create_escrow(provider_id, self.base_price, f"base:{self.base_units}_units", self.period_hours, by=self.by)["escrow_id"]

    def charge_unit(self):
        """Counts a unit, and pays for it if it is beyond the base. It raises Refused if the pool is used up: no payment, no unit."""
        if self.used >= self.base_units:
            release_partial(self.pool, self.overage_per_unit, memo=f"unit {self.used + 1}", by=self.by)
        self.used += 1

    def end_period(self):
        """Ends the period now: the base is paid whatever was used, and a refund of the rest of the pool is requested."""
        for act, escrow in (release_escrow, self.base), (request_refund, self.pool):
            try:
                act(escrow, by=self.by)
            except Refused as refusal:
                if refusal.code != "invalid_status":  # nothing is left, or it had expired already
                    raise


def customer(period_hours=WEEK):
    """A new customer in a new period."""
    agent = HybridBillingAgent(base_units=1000, base_price="5.00", overage_per_unit="0.01", period_hours=period_hours, by=newcomer("customer", money=True))
    agent.start_billing_period(provider.id)
    return agent


def use(agent, units):
    for _ in range(units):
        agent.charge_unit()


def end(agent):
    """Ends a customer's period. The provider agrees to refund the rest of the pool."""
    agent.end_period()
    if provider.status(agent.pool)["status"] == "refund_requested":
        provider.refund(agent.pool)


def over(agent):
    statuses = {provider.status(escrow)["status"] for escrow in (agent.base, agent.pool)}
    return "open" not in statuses


hours = hours_of_a_week()
print("Hybrid: 5.00 for 1000 units, 0.01 for each of up to 500 more")
provider = newcomer("provider")

# Two customers do nothing at the end of their week.
idle, late = customer(hours), customer(hours)
use(late, 1001)

exact = customer()
expect("auto_release_hours", exact.by.status(exact.pool)["auto_release_hours"], 168)
use(exact, 1000)
end(exact)
say("1000 units: the base is paid, the pool comes back whole")
reckon(exact=(exact.by, "95"))

above = customer()
use(above, 1001)
end(above)
say("1001 units: the base and 0.01 of the pool are paid")
reckon(above=(above.by, "94.99"))

greedy = customer()
use(greedy, 1500)
refusal = refused("422 exceeds_remaining", greedy.charge_unit)
expect("units", greedy.used, 1500)
say(f"the 1501st unit: {refusal.problem['detail']}")
end(greedy)
reckon(greedy=(greedy.by, "90"))

wait_for_week("the end of the week", lambda: over(idle) and over(late), hours)
say("the week is over: the clock has paid the base of the other two, and given back what they left in the pool")
reckon(idle=(idle.by, "95"), late=(late.by, "94.99"), provider=(provider, "30.02"))
