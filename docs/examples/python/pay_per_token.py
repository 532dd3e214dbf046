"""Pay per token: 0.002 for 1000 tokens, released from an escrow answer by answer."""

from scene import expect, newcomer, reckon, refused, say
from tallygate import charge_for_tokens, create_escrow

PRICE_PER_1K = "0.002"

# The number of tokens of each answer, and the total that the escrow has released after it.
ANSWERS = [(13, "0.000026"), (1, "0.000028"), (986, "0.002"), (1234, "0.004468"), (100_000, "0.204468")]

print(f"Pay per token: {PRICE_PER_1K} for 1000 tokens")
writer, model = newcomer("writer", money=True), newcomer("model")
escrow = create_escrow(model.id, "1.00", memo="a week of answers", by=writer)["escrow_id"]
for tokens, released in ANSWERS:
    after = charge_for_tokens(escrow, tokens, PRICE_PER_1K, by=writer)
    say(f"an answer of {tokens} tokens: {released} released so far")
    expect("released", after["released"], released)

refusal = refused("422 exceeds_remaining", charge_for_tokens, escrow, 1_000_000, PRICE_PER_1K, by=writer)
say(f"a million more: {refusal.problem['detail']}")

back = model.refund(escrow)
say(f"the model gives the rest back: {back['refunded']}")
expect("status", back["status"], "settled")
reckon(writer=(writer, "99.795532"), model=(model, "0.204468"))
