"""Milestones: 10.00 is locked for a text, and released in three parts as each is verified."""

from scene import expect, newcomer, reckon, refused, say
from tallygate import Agent, create_escrow, release_partial

MILESTONES = {"spec_approved": "2.50", "draft_delivered": "5.00", "final_accepted": "2.50"}


def verified(work):
    """Whether the client is content with a part of the work. A real client would read it."""
    return "owls" in work


def by_amount(client: Agent, author: Agent):
    """The parts are an agreement between the two agents: the escrow knows only amounts."""
    escrow = create_escrow(author.id, "10.00", memo="a text on owls", by=client)["escrow_id"]
    work = {
        "spec_approved": ["what it says of owls"],
        "draft_delivered": ["a draft on tides", "a draft on owls"],
        "final_accepted": ["all there is to say of owls"],
    }
    for milestone, amount in MILESTONES.items():
        for attempt in work[milestone]:
            if verified(attempt):
                after = release_partial(escrow, amount, memo=milestone, by=client)
                say(f"{milestone}: {amount} released, {after['remaining']} to come")
            else:
                say(f"{milestone}: not with {attempt}; nothing is released")
    expect("status", client.status(escrow)["status"], "released")


def by_name(client: Agent, author: Agent):
    """The escrow has the parts as milestones: the author delivers them by name, and the client accepts them by name."""
    parts = [{"name": name, "amount": amount} for name, amount in MILESTONES.items()]
    order = {"to_agent_id": author.id, "amount": "10.00", "memo": "a text on tides", "milestones": parts}
    escrow = client.call("POST", "/escrow", order)["escrow_id"]
    refused("422 invalid_request", client.release, escrow, "2.50")
    say("an amount that names no milestone is refused")
    for milestone, amount in MILESTONES.items():
        author.call("POST", f"/escrow/{escrow}/milestones/{milestone}/deliver", {"note": "see the shared folder"})
        refused("403 forbidden", author.call, "POST", f"/escrow/{escrow}/release-partial", {"milestone": milestone})
        delivered = [part["name"] for part in client.status(escrow)["milestones"] if part["status"] == "delivered"]
        expect("delivered", delivered, [milestone])
        after = client.call("POST", f"/escrow/{escrow}/release-partial", {"milestone": milestone})
        say(f"{milestone}: delivered by the author, accepted by the client, {amount} released, {after['remaining']} to come")
    refused("409 invalid_status", client.release, escrow)
    expect("status", client.status(escrow)["status"], "released")


print("Milestones: 10.00 in three parts")
client, author = newcomer("client", money=True), newcomer("author")
by_amount(client, author)
reckon(client=(client, "90"), author=(author, "10"))
by_name(client, author)
reckon(client=(client, "80"), author=(author, "20"))
