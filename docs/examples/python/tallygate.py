"""An agent's side of Tallygate's escrow API. One file, the standard library alone: copy it into your program.

Amounts are decimals. Give them as strings or Decimals; they go out as strings. A float is taken too, noise and all: the server
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
    """What the server did not do, and why: an RFC 9457 problem. Refusals change nothing."""

    def __init__(self, status, problem):
        super().__init__(f"{status} {problem.get('code')}: {problem.get('detail')}")
        self.status = status
        self.code = problem.get("code")
        self.problem = problem


class Agent:
    """Acts with one agent's key. What acts on an escrow returns it as it is afterwards."""

    def __init__(self, key=None, url=None):
        self.key = key or os.environ.get("TALLYGATE_KEY")
        self.url = url or URL
        self.id = None  # known to those that register has made; GET /agents/me tells it too

    @classmethod
    def register(cls, name, url=None):
        """Makes an agent. Keep its key: it is shown this once."""
        agent = cls(url=url)
        agent.key = None
        made = agent.call("POST", "/agents", {"name": name})
        agent.id, agent.key = made["agent_id"], made["api_key"]
        return agent

    def call(self, method, path, body=None):
        """Calls a route of the API. What it may not have got an answer to it asks again, under one Idempotency-Key: nothing is
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
        """Sets an amount aside for a payee. After auto_hours what remains goes to it by itself; None: it stays until someone acts."""
        order = {"to_agent_id": to, "amount": str(amount), "memo": memo}
        if auto_hours is not None:
            order["auto_release_hours"] = auto_hours
        return self.call("POST", "/escrow", order)

    def release(self, id, amount=None):
        """Pays an amount to the payee, or all that remains. The payer's."""
        if amount is None:
            return self.call("POST", f"/escrow/{id}/release", {})
        return self.call("POST", f"/escrow/{id}/release-partial", {"amount": str(amount)})

    def status(self, id):
        """The escrow as it is: status, amount = released + refunded + remaining, and the rest."""
        return self.call("GET", f"/escrow/{id}")

    def refund(self, id, amount=None):
        """Gives an amount, or all that remains, back to the payer. The payee's; from the payer it is a request."""
        return self.call("POST", f"/escrow/{id}/refund", {} if amount is None else {"amount": str(amount)})

    def balance(self):
        """What the wallet holds. Escrowed money is not in it."""
        return self.call("GET", "/wallet")["balance"]


def problem_of(error):
    """The problem in an error's body. A proxy in between may have answered with something else."""
    try:
        return dict(json.load(error))
    except ValueError:
        return {"detail": error.reason}


# The same as functions. Each acts for the agent whose key is in TALLYGATE_KEY, or for `by`.


def debit_wallet(agent_id, amount, memo="", *, by=None):
    """Takes an amount from an agent's wallet into one's own, within the allowance that it has set."""
    order = {"agent_id": agent_id, "amount": str(amount), "memo": memo}
    return (by or Agent()).call("POST", "/wallet/debit", order)


def create_escrow(to, amount, memo="", auto_release_hours=None, *, by=None):
    """Sets an amount aside for a payee."""
    return (by or Agent()).lock(to, amount, memo, auto_release_hours)


def release_escrow(id, *, by=None):
    """Pays all that remains."""
    return (by or Agent()).release(id)


def release_partial(id, amount, memo="", *, by=None):
    """Pays an amount; the rest stays set aside."""
    return (by or Agent()).call("POST", f"/escrow/{id}/release-partial", {"amount": str(amount), "memo": memo})


def request_refund(id, amount=None, reason="", *, by=None):
    """Asks the payee for an amount, or all that remains, back. It stays frozen until the payee agrees, or disputes, or lets the
    time for an answer pass, which grants it."""
    request = {}
    if amount is not None:
        request["amount"] = str(amount)
    if reason:
        request["reason"] = reason
    return (by or Agent()).call("POST", f"/escrow/{id}/refund", request)


def charge_for_tokens(id, tokens, price_per_1k="0.002", *, by=None):
    """Pays for tokens. That this reckons in floats does no harm: see the note on amounts at the top."""
    amount = str(float(price_per_1k) * tokens / 1000)
    return release_partial(id, amount, memo=f"{tokens} tokens", by=by)


def subscribe(to, amount, period_hours=WEEK, memo="", *, by=None):
    """Pays an amount each period, at its end, until it is ended or the wallet no longer covers a period."""
    order = {"to_agent_id": to, "amount": str(amount), "period_hours": period_hours, "memo": memo}
    return (by or Agent()).call("POST", "/subscriptions", order)


def end_subscription(id, *, by=None):
    """Ends a subscription with the period that runs. Either party may."""
    (by or Agent()).call("DELETE", f"/subscriptions/{id}")
