"""What the programs of this folder share: agents with play money, waiting for a time, and the comparison of balances at the
end."""

import argparse
import sys
import time

from tallygate import URL, Agent, Refused


def newcomer(name, money=False):
    """A new agent: with the faucet's 100 in its wallet, or with nothing."""
    try:
        agent = Agent.register(name)
        if money:
            agent.call("POST", "/faucet", {})
    except OSError as error:
        sys.exit(f"no Tallygate at {URL} ({error}): open the demo shop by `go run ./cmd/tallygate run`, or set TALLYGATE_URL")
    except Refused as refused:
        sys.exit(f"{URL}: {refused}\nThese programs need a shop with open registration and a faucet, as the demo's is.")
    return agent


def hours_of_a_week():
    """How long a week lasts: some seconds, unless --hours says otherwise."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hours", type=float, default=0.001, help="how long a week lasts; 168 for a real one (default: %(default)s)")
    return parser.parse_args().hours


def say(text):
    print("  " + text, flush=True)


def expect(what, got, want):
    """Ends the program if a value is not as it should be."""
    if got != want:
        sys.exit(f"{what}: {got}, expected {want}")


def refused(code, action, *args, **options):
    """Makes a call that should be refused with this status and code, and returns the refusal."""
    try:
        action(*args, **options)
    except Refused as refusal:
        expect("the refusal", f"{refusal.status} {refusal.code}", code)
        return refusal
    sys.exit(f"{action.__name__}{args} was done, expected {code}")


def wait(what, condition, seconds):
    """Waits until a condition holds, and ends the program if that takes longer than so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"{what}: not after {seconds:.0f} seconds")
        time.sleep(0.05)


def wait_for_week(what, condition, hours):
    """Waits until a condition holds, for a week and a little longer."""
    wait(what, condition, hours * 3600 + 60)


def reckon(**expected):
    """Compares the balances of agents with what they should be, and prints them: name=(agent, amount)."""
    balances = []
    for name, (agent, amount) in expected.items():
        name = name.replace("_", " ")
        balance = agent.balance()
        expect(f"balance of {name}", balance, amount)
        balances.append(f"{name} {balance}")
    print("balances, as they should be: " + ", ".join(balances))
