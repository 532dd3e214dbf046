"""Payroll: one employer pays many employees every week, each by a subscription without a plan. The wage of a week is locked when the week
begins and paid when it ends. A week lasts some seconds here; --hours 168 makes it a real one."""

from scene import expect, hours_of_a_week, newcomer, reckon, say, wait_for_week
from tallygate import end_subscription, subscribe

WAGES = {"ada": "20.00", "ben": "15.00", "cyd": "12.50", "dan": "1.00"}

hours = hours_of_a_week()
print("Payroll: " + ", ".join(f"{name} {wage}" for name, wage in WAGES.items()) + " a week")
employer = newcomer("employer", money=True)
staff = {name: newcomer(name) for name in WAGES}
contracts = {name: subscribe(staff[name].id, wage, hours, f"wage of {name}", by=employer)["subscription_id"] for name, wage in WAGES.items()}
end_subscription(contracts["dan"], by=staff["dan"])
expect("the employer's balance", employer.balance(), "51.5")
say("the first week's wages are locked; dan has given notice")


def status(name):
    return employer.call("GET", f"/subscriptions/{contracts[name]}")["status"]


def paid(name):
    """The amounts that have come into the wallet, one for each payday."""
    entries = staff[name].call("GET", "/wallet/entries")["entries"]
    return [entry["amount"] for entry in entries if not entry["amount"].startswith("-")]


wait_for_week("dan's last day", lambda: status("dan") == "ended", hours)
say(f"dan has left, with {paid('dan')}")
wait_for_week("the second payday", lambda: all(status(name) == "suspended" for name in ("ada", "ben", "cyd")), 2 * hours)
for name in ("ada", "ben", "cyd"):
    say(f"{name} got {paid(name)}")
expect("paydays", {name: len(paid(name)) for name in staff}, {"ada": 2, "ben": 2, "cyd": 2, "dan": 1})
say("the employer's money does not cover a third week: the contracts are suspended, and no wage is locked in part")
for name in ("ada", "ben", "cyd"):
    end_subscription(contracts[name], by=employer)

reckon(employer=(employer, "4"), ada=(staff["ada"], "40"), ben=(staff["ben"], "30"), cyd=(staff["cyd"], "25"), dan=(staff["dan"], "1"))
