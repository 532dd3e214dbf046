"""Runs the Python of a page on billing patterns as it stands, with tallygate.py as the functions that the page leaves to its reader. The
page is the first argument. It is not in this repository; its text is read, never changed."""

import asyncio
import os
import re
import sys
from types import SimpleNamespace

import tallygate
from scene import expect, newcomer, reckon, say

page = open(sys.argv[1], encoding="utf-8").read()


def part(begin, end):
    """The text between two headings."""
    return page.split(f"\n{begin}\n", 1)[1].split(f"\n{end}\n", 1)[0]


def pattern(n):
    """The snippet of a pattern, which follows the word Implementation."""
    return part(f"Pattern {n}", f"Pattern {n + 1}").split("\nImplementation\n", 1)[1]


def run(code, names=None, **given):
    """Runs a snippet with the functions of tallygate.py and what else the page takes as given, and returns its names."""
    names = {} if names is None else names
    exec("from tallygate import *", names)
    names |= given
    exec(compile(code, sys.argv[1], "exec"), names)
    return names


def acting(agent):
    """Has the functions act for an agent, as they do in a program that was started with its key."""
    os.environ["TALLYGATE_KEY"] = agent.key
    return agent


client, provider = newcomer("client", money=True), newcomer("provider")


def lock(amount):
    return acting(client).lock(provider.id, amount)["escrow_id"]


client.call("PUT", f"/wallet/allowances/{provider.id}", {"amount": "0.001"})
acting(provider)
call = run(pattern(1), execute_query=lambda query: f"what is known of {query}")["api_call"]
expect("the answer", asyncio.run(call(client.id, "owls")), "what is known of owls")
reckon(client=(client, "99.999"), provider=(provider, "0.001"))

escrow = lock("1.00")
charge_for_tokens = run(pattern(2))["charge_for_tokens"]
charge_for_tokens(escrow, 13)
charge_for_tokens(escrow, 987)
expect("released", client.status(escrow)["released"], "0.002")
provider.refund(escrow)
say("1000 tokens are paid")

acting(client)
run(pattern(3), provider=provider.id)
weekly = client.call("GET", "/escrow")["escrows"][0]
expect("the week", [weekly[name] for name in ("amount", "memo", "auto_release_hours", "on_expiry")], ["10", "weekly_subscription", 168, "release"])
provider.refund(weekly["escrow_id"])
say("a week is locked")

escrow = lock("10.00")
run(pattern(4), esc_id=escrow, verify_milestone=lambda name: name != "final_accepted")
expect("released", client.status(escrow)["released"], "7.5")
provider.refund(escrow)
say("two milestones of three are paid")

escrow = lock("1.00")


def receive_unit():
    """The 120th unit is the service's last."""
    stream["service_active"] = stream["counter"] < 119
    return "unit"


stream = {"receive_unit": receive_unit, "service_active": True, "counter": 0, "BATCH_SIZE": 50, "batch_amount": "0.01", "esc": escrow}
run(pattern(5), stream)
expect("units", stream["counter"], 120)
expect("released", client.status(escrow)["released"], "0.02")
provider.refund(escrow)
say("two batches are paid")

for score, released, status in (0.95, "1", "released"), (0.7, "0.7", "open"), (0.3, "0", "refund_requested"):
    escrow = lock("1.00")
    run(pattern(6), agent=SimpleNamespace(execute=lambda task: task), task="a forecast", evaluate_quality=lambda result: score, esc_id=escrow)
    after = client.status(escrow)
    expect(f"for a score of {score}", (after["released"], after["status"]), (released, status))
    if status != "released":
        provider.refund(escrow)
say("a forecast is paid by its score")
reckon(client=(client, "90.777"), provider=(provider, "9.223"))

customer = acting(newcomer("customer", money=True))
hybrid = run(re.split(r"\nPython — [^\n]*\n", part("Pattern 7", "Pattern Comparison Matrix"))[1])["HybridBillingAgent"]()
hybrid.start_billing_period(provider.id)
for _ in range(1002):
    hybrid.charge_unit()
hybrid.end_period()
expect("the pool", [customer.status(hybrid.overage_escrow)[name] for name in ("released", "remaining", "on_expiry")], ["0.02", "4.98", "refund"])
reckon(customer=(customer, "90"), provider=(provider, "14.243"))

helper = run(part("Universal Escrow Helper Class", "Start Building Your Billing System"))["PurpleFleaBilling"](customer.key)
helper.base = f"{tallygate.URL}/api/v1"  # the class has the address of its own service
escrow = helper.lock(provider.id, "2.00", memo="work", auto_hours=24)["escrow_id"]
helper.release(escrow, "0.50")
expect("remaining", helper.status(escrow)["remaining"], "1.5")
expect("status", helper.refund(escrow, "0.25")["status"], "refund_requested")
expect("status", helper.release(escrow)["status"], "released")
reckon(customer=(customer, "88"), provider=(provider, "16.243"))
