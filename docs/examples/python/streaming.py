"""Streaming: a listener releases money after each BATCH_SIZE units, for as long as it listens and the service goes on."""

from decimal import Decimal

from scene import expect, newcomer, reckon, say
from tallygate import create_escrow, release_partial, request_refund

BATCH_SIZE = 50  # units
PRICE = Decimal("0.0002")  # for a unit


class Feed:
    """The provider's service. It goes on while it is paid; at most one batch is unpaid."""

    def __init__(self, account, breaks_after=None):
        self.account = account
        self.breaks_after = breaks_after
        self.sent = 0
        self.active = True

    def next(self, escrow):
        if self.sent == self.breaks_after:
            self.active = False
            return None
        if self.sent % BATCH_SIZE == 0:
            paid = Decimal(self.account.status(escrow)["released"])
            if paid < self.sent * PRICE:
                raise SystemExit(f"{self.sent} units were sent and only {paid} is paid: the feed stops")
        self.sent += 1
        return f"unit {self.sent}"


def listen(listener, feed, stop_after=None):
    """Listens until it has enough or the service ends, and gets back what it did not use."""
    escrow = create_escrow(feed.account.id, "1.00", memo="live feed", by=listener)["escrow_id"]
    heard = 0
    while heard != stop_after and feed.next(escrow):
        heard += 1
        if heard % BATCH_SIZE == 0:
            release_partial(escrow, BATCH_SIZE * PRICE, memo=f"units to {heard}", by=listener)
    rest = heard % BATCH_SIZE
    if rest:
        release_partial(escrow, rest * PRICE, memo=f"units to {heard}, the last", by=listener)
    request_refund(escrow, reason="no more is heard", by=listener)
    after = feed.account.refund(escrow)  # the provider agrees
    say(f"{heard} units heard, {after['released']} paid, {after['refunded']} back")
    expect("paid", Decimal(after["released"]), heard * PRICE)
    return after


print(f"Streaming: {PRICE} a unit, paid in batches of {BATCH_SIZE}")
listener, provider = newcomer("listener", money=True), newcomer("feed")

listen(listener, Feed(provider), stop_after=437)
reckon(listener=(listener, "99.9126"), provider=(provider, "0.0874"))

feed = Feed(provider, breaks_after=120)
listen(listener, feed)
expect("the feed is active", feed.active, False)
say("that feed broke: what came of it is paid, and nothing more")
reckon(listener=(listener, "99.8886"), provider=(provider, "0.1114"))

expect("status", listen(listener, Feed(provider), stop_after=0)["status"], "refunded")
reckon(listener=(listener, "99.8886"), provider=(provider, "0.1114"))
