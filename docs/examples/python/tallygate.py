"""An agent's side of Tallygate's escrow API. One file, the standard library alone: copy it into your program.

Amounts are decimals. Give them as strings or Decimals; they are sent as strings. A float is accepted too, with its noise: the server
reads 2.6000000000000002e-05 as 0.000026.
"""

import json
import os
import time
import urllib.error
import urllib.request
import uuid

URL = os.environ.get("TALLYGATE_URL", "http://localhost:8402")
WEEK = 168  # hours


class Refused(Exception):
    """What the server refused to do, and why: an RFC 9457 problem. A refusal changes nothing."""

    def __init__(self, status, problem):
        super().__init__(f"{status} {problem.get('code')}: {problem.get('detail')}")
        self.status = status
        self.code = problem.get("code")
        self.problem = problem


class Agent:
    """Acts with one agent's key. Methods that act on an escrow return the escrow as it is afterwards."""

    def __init__(self, api_key=None, url=None):
        self.key = api_key or os.environ.get("TALLYGATE_KEY")
        self.url = url or URL
        self.id = None  # only set by register; GET /agents/me tells it too

    @classmethod
    def register(cls, name, url=None):
        """Makes an agent. Keep its key: it is shown only this once."""
        agent = cls(url=url)
        agent.key = None
        made = agent.call("POST", "/agents", {"name": name})
        agent.id, agent.key = made["agent_id"], made["api_key"]
        return agent

    def call(self, method, path, body=None):
        """Calls a route of the API. If the answer may have got lost, the call is repeated under the same Idempotency-Key, so nothing is
        paid twice."""
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
            headers["Idempotency-Key"] = str(uuid.uuid4())
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/api/v1{path}", data, headers, method=method)
        for pause in (0.1, 0.5, 2, None):
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    return json.loads(answer.read() or "null")
            except urllib.error.HTTPError as error:
                if pause is None or error.code < 500 and error.code != 429:
                    raise Refused(error.code, problem_of(error)) from None
            except OSError:
                if pause is None:
                    raise
            time.sleep(pause)

    def lock(self, to, amount, memo="", auto_hours=None):
        """Puts an amount into an escrow for a payee. After auto_hours what remains is released to the payee automatically; with None it
        stays until someone acts."""
        order = {"to_agent_id": to, "amount": str(amount), "memo": memo}
        if auto_hours is not None:
            order["auto_release_hours"] = auto_hours
        return self.call("POST", "/escrow", order)

    def release(self, eid, amount=None):
        """Releases an amount to the payee, or all that remains. The payer calls it."""
        if amount is None:
            return self.call("POST", f"/escrow/{eid}/release", {})
        return self.call("POST", f"/escrow/{eid}/release-partial", {"amount": str(amount)})

    def status(self, eid):
        """The escrow as it is: status, amount = released + refunded + remaining, and the rest."""
        return self.call("GET", f"/escrow/{eid}")

    def refund(self, eid, amount=None):
        """Gives an amount, or all that remains, back to the payer. If the payer calls it, it is a request."""
        return self.call("POST", f"/escrow/{eid}/refund", {} if amount is None else {"amount": str(amount)})

    def balance(self):
        """What the wallet holds. Escrowed money is not in it."""
        return self.call("GET", "/wallet")["balance"]


def problem_of(error):
    """The problem in an error's body. A proxy in between may have answered with something else."""
    try:
        return dict(json.load(error))
    except ValueError:
        return {"detail": error.reason}


# The same as functions. Each acts for the agent whose key is in TALLYGATE_KEY, or for the agent `by`.


def debit_wallet(agent_id, amount, memo="", *, by=None):
    """Takes an amount from another agent's wallet into the caller's own, within the allowance that the other agent has given."""
    order = {"agent_id": agent_id, "amount": str(amount), "memo": memo}
    return (by or Agent()).call("POST", "/wallet/debit", order)


def create_escrow(to_agent_id, amount, memo="", auto_release_hours=None, *, by=None):
    """Puts an amount into an escrow for a payee."""
    return (by or Agent()).lock(to_agent_id, amount, memo, auto_release_hours)


def release_escrow(escrow_id, *, by=None):
    """Releases all that remains to the payee."""
    return (by or Agent()).release(escrow_id)


def release_partial(escrow_id, amount, memo="", *, by=None):
    """Releases an amount to the payee; the rest stays in the escrow."""
    return (by or Agent()).call("POST", f"/escrow/{escrow_id}/release-partial", {"amount": str(amount), "memo": memo})


def request_refund(escrow_id, amount=None, reason="", *, by=None):
    """Requests a refund of an amount, or of all that remains. The money stays frozen until the payee agrees or disputes. If the payee
    lets the time for an answer pass, the refund is granted."""
    request = {}
    if amount is not None:
        request["amount"] = str(amount)
    if reason:
        request["reason"] = reason
    return (by or Agent()).call("POST", f"/escrow/{escrow_id}/refund", request)


def charge_for_tokens(escrow_id, tokens_used, price_per_1k="0.002", *, by=None):
    """Pays for tokens. Computing the amount in floats does no harm: see the note on amounts at the top."""
    amount = str(float(price_per_1k) * tokens_used / 1000)
    return release_partial(escrow_id, amount, memo=f"{tokens_used} tokens", by=by)


def subscribe(to_agent_id, amount, period_hours=WEEK, memo="", *, by=None):
    """Pays an amount at the end of each period, until the subscription is ended or the wallet no longer covers a period."""
    order = {"to_agent_id": to_agent_id, "amount": str(amount), "period_hours": period_hours, "memo": memo}
    return (by or Agent()).call("POST", "/subscriptions", order)


def end_subscription(subscription_id, *, by=None):
    """Ends a subscription at the end of its current period. Either party may."""
    (by or Agent()).call("DELETE", f"/subscriptions/{subscription_id}")
