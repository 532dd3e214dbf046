"""Performance: what a forecast earns depends on its score. A score of 0.9 earns the whole price, 0.7 earns 70%. For less, the client requests
a refund, which the payee may dispute.

If TALLYGATE_OPERATOR_KEY is set, the dispute is resolved too.
"""

import os
from decimal import Decimal

from scene import expect, newcomer, reckon, refused, say
from tallygate import Agent, create_escrow, release_escrow, release_partial, request_refund

PRICE = Decimal("1.00")


def pay_by_score(escrow, score, client):
    """Pays what a forecast has earned by its score, and returns the escrow."""
    if score >= 0.9:
        return release_escrow(escrow, by=client)
    if score >= 0.7:
        release_partial(escrow, PRICE * Decimal("0.70"), memo=f"70% for a score of {score}", by=client)
    return request_refund(escrow, reason=f"a score of {score}", by=client)


def forecast(client, oracle, score):
    """Locks the price of a forecast that turns out to have this score, and has the client decide."""
    escrow = create_escrow(oracle.id, PRICE, memo="forecast", by=client)["escrow_id"]
    return pay_by_score(escrow, score, client)


print(f"Performance: up to {PRICE} for a forecast")
client, oracle = newcomer("client", money=True), newcomer("oracle")

for score, agreed, paid in [(0.95, False, "1"), (0.9, False, "1"), (0.89, True, "0.7"), (0.7, True, "0.7"), (0.3, True, "0")]:
    escrow = forecast(client, oracle, score)
    if agreed:
        expect("status", escrow["status"], "refund_requested")
        escrow = oracle.refund(escrow["escrow_id"])
    say(f"score {score}: {escrow['released']} paid, {escrow['refunded']} back")
    expect("paid", escrow["released"], paid)
    expect("back", Decimal(escrow["refunded"]), PRICE - Decimal(paid))
reckon(client=(client, "96.6"), oracle=(oracle, "3.4"))

disputed = forecast(client, oracle, 0.69)["escrow_id"]
oracle.call("POST", f"/escrow/{disputed}/dispute", {"reason": "the score is 0.71 by my reckoning"})
expect("status", client.status(disputed)["status"], "disputed")
refused("409 invalid_status", client.release, disputed)
refused("409 invalid_status", oracle.refund, disputed)
say("score 0.69: disputed; the money is frozen until the operator decides")
reckon(client=(client, "95.6"), oracle=(oracle, "3.4"))

if "TALLYGATE_OPERATOR_KEY" in os.environ:
    operator = Agent(os.environ["TALLYGATE_OPERATOR_KEY"])
    decision = {"to_payee": "0.70", "to_payer": "0.30", "note": "0.71 it is"}
    after = operator.call("POST", f"/escrow/{disputed}/resolve", decision)
    say(f"the operator decides: {after['released']} paid, {after['refunded']} back")
    expect("status", after["status"], "settled")
    reckon(client=(client, "95.9"), oracle=(oracle, "4.1"))
