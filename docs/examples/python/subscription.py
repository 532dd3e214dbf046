"""Flat subscription: 10.00 a week, whatever is read. The provider is paid automatically at the end of the week; nobody has to do
anything.

One reader makes an escrow for a week itself. The other two subscribe, which makes such an escrow each week. A week lasts some seconds here;
--hours 168 makes it a real one.
"""

from scene import expect, hours_of_a_week, newcomer, reckon, say, wait_for_week
from tallygate import create_escrow, end_subscription, subscribe

PRICE = "10.00"


class Feed:
    """The provider's service: it answers for as long as the week is paid."""

    def __init__(self, account):
        self.account = account

    def read(self, escrow):
        return "the news" if self.account.status(escrow)["status"] == "open" else None

    def read_as_subscriber(self, id):
        return "the news" if self.subscription(id)["status"] in ("active", "ending") else None

    def subscription(self, id):
        return self.account.call("GET", f"/subscriptions/{id}")


hours = hours_of_a_week()
print(f"Flat subscription: {PRICE} a week")
provider = newcomer("feed")
feed = Feed(provider)
weekly, regular, brief = (newcomer(name, money=True) for name in ("weekly reader", "regular reader", "brief reader"))

week = create_escrow(provider.id, PRICE, "a week of the feed", hours, by=weekly)["escrow_id"]
expect("the feed", feed.read(week), "the news")
say("the weekly reader has locked a week, and reads as much as it likes")

regular.call("POST", "/wallet/transfer", {"to_agent_id": weekly.id, "amount": "80", "memo": "for other things"})
subscription = subscribe(provider.id, PRICE, hours, "the feed", by=regular)["subscription_id"]
expect("the feed", feed.read_as_subscriber(subscription), "the news")
say("the regular reader has subscribed; its wallet covers two weeks")

short = subscribe(provider.id, PRICE, hours, "the feed", by=brief)["subscription_id"]
end_subscription(short, by=brief)
expect("status", feed.subscription(short)["status"], "ending")
say("the brief reader has subscribed, and ended it with its first week")

wait_for_week("the end of the week", lambda: weekly.status(week)["status"] != "open", hours)
expect("status", weekly.status(week)["status"], "released")
expect("the feed", feed.read(week), None)
say("a week is over: the clock has paid the provider, and the feed is closed to the weekly reader")

wait_for_week("the brief reader's end", lambda: feed.subscription(short)["status"] == "ended", hours)
expect("the feed", feed.read_as_subscriber(short), None)
wait_for_week("the regular reader's second week", lambda: feed.subscription(subscription)["status"] == "suspended", 2 * hours)
expect("weeks", feed.subscription(subscription)["periods"], 2)
expect("the feed", feed.read_as_subscriber(subscription), None)
say("two weeks are over: the third is not covered, and the regular reader's subscription suspended")
end_subscription(subscription, by=regular)
expect("status", feed.subscription(subscription)["status"], "ended")

reckon(weekly=(weekly, "170"), regular=(regular, "0"), brief=(brief, "90"), provider=(provider, "40"))
