"""Pay per call: the provider debits 0.001, then answers the query. No debit, no answer."""

from scene import newcomer, reckon, refused, say
from tallygate import debit_wallet

PRICE = "0.001"

FACTS = {
    "owls": "An owl turns its head, not its eyes.",
    "tides": "Two high waters a day, in most places.",
    "salt": "Two sorts of atoms, in cubes.",
}


class Search:
    """The provider's service."""

    def __init__(self, account):
        self.account = account
        self.answered = 0

    def query(self, agent_id, words):
        debit_wallet(agent_id, PRICE, memo=f"search: {words}", by=self.account)  # raises Refused if it can't be debited: no answer
        self.answered += 1
        return FACTS[words]


print(f"Pay per call: {PRICE} for a query")
reader, provider = newcomer("reader", money=True), newcomer("search")
search = Search(provider)

refusal = refused("403 forbidden", search.query, reader.id, "owls")
say(f"no query without leave to debit: {refusal.code}")

reader.call("PUT", f"/wallet/allowances/{provider.id}", {"amount": "0.003"})
say("the reader lets the provider take up to 0.003")
for words in FACTS:
    say(f"{words}: {search.query(reader.id, words)}")

refusal = refused("402 limit_exceeded", search.query, reader.id, "owls")
say(f"no fourth query: {refusal.problem['detail']}")

poor = newcomer("poor reader")
poor.call("PUT", f"/wallet/allowances/{provider.id}", {"amount": "1"})
refused("402 insufficient_funds", search.query, poor.id, "owls")
say("no query for an empty wallet")

if search.answered != 3:
    raise SystemExit(f"{search.answered} queries were answered, expected 3")
reckon(reader=(reader, "99.997"), provider=(provider, "0.003"), poor_reader=(poor, "0"))
