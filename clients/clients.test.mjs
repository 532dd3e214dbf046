// Each official client, directly against a provider and through the gate: the same result to the last piece, and errors as the client expects.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { clients, statusOf } from "./clients.mjs";
import { startGate } from "./gate.mjs";
import { startUpstream } from "./upstream.mjs";

let upstream, gate;
before(async () => {
	upstream = await startUpstream();
	gate = await startGate(upstream.address);
	// The first request finds out that nobody listens there.
	const key = await gate.agent("first", "1");
	await fetch(`${gate.base}/gone/v1/chat/completions`, { method: "POST", headers: { authorization: `Bearer ${key}` }, body: '{"model":"test-1","messages":[]}' });
});
after(async () => {
	await gate?.stop();
	upstream?.stop();
});

// The price, by the suite's tariff, of the usage that the provider always states.
const price = "0.006";
const asData = (value) => JSON.parse(JSON.stringify(value));

async function all(client) {
	const pieces = [];
	await client.stream((piece) => void pieces.push(asData(piece)));
	return pieces;
}

async function eventually(what, condition) {
	for (;;) {
		const found = await condition();
		if (found) return found;
		await new Promise((resolve) => setTimeout(resolve, 20));
	}
}

async function failure(promise) {
	try {
		await promise;
	} catch (error) {
		return error;
	}
	assert.fail("it did not fail");
}

let count = 0;
const nextID = () => `c${++count}`;

describe("clients", { concurrency: true, timeout: 120_000 }, () => {
	for (const [name, make] of Object.entries(clients)) {
		describe(name, { concurrency: true }, () => {
			test("the same whole answer", async () => {
				const key = await gate.agent(nextID(), "1");
				const direct = asData(await make(`http://${upstream.address}/ok`, "key").whole());
				assert.deepEqual(asData(await make(`${gate.base}/ok`, key).whole()), direct);
				assert.deepEqual((await gate.charges(key)).map((charge) => [charge.amount, charge.source, charge.cut]), [[price, "stated", "none"]]);
			});

			test("the same stream, to the last piece", async () => {
				const key = await gate.agent(nextID(), "1");
				const direct = await all(make(`http://${upstream.address}/ok`, "key"));
				assert.ok(direct.length > 3, `${direct.length} pieces`);
				assert.deepEqual(await all(make(`${gate.base}/ok`, key)), direct);
				assert.deepEqual((await gate.charges(key)).map((charge) => [charge.amount, charge.source, charge.cut]), [[price, "stated", "none"]]);
			});

			test("401 and 402 are told in words", async () => {
				for (const [key, status, words] of [["tg_wrong", 401, /A valid key is needed/], [await gate.agent(nextID()), 402, /Not enough money/]]) {
					for (const ask of [(client) => client.whole(), (client) => client.stream(() => {})]) {
						const error = await failure(ask(make(`${gate.base}/ok`, key)));
						assert.equal(statusOf(error), status);
						assert.match(error.message, words);
						assert.doesNotMatch(error.message, /\\\\"/, "JSON within JSON");
					}
				}
			});

			test("409 under an idempotency key that was used", async () => {
				const key = await gate.agent(nextID(), "1");
				const client = make(`${gate.base}/again`, key);
				await client.whole();
				const error = await failure(client.whole());
				assert.equal(statusOf(error), 409);
				assert.match(error.lastError?.message ?? error.message, /The idempotency key was used before/);
				assert.equal((await gate.charges(key)).length, 1);
			});

			for (const [path, status, words] of [
				["down", 502, /The provider did not answer/],
				["gone", 503, /The provider is not available/],
			]) {
				test(`${status} of a provider that is not there`, async () => {
					const key = await gate.agent(nextID(), "1");
					const error = await failure(make(`${gate.base}/${path}`, key).whole());
					assert.equal(statusOf(error), status);
					assert.match(error.lastError?.message ?? error.message, words);
					assert.deepEqual(await gate.charges(key), []);
				});
			}

			test("429 of the gate's own, and the client's own retries", async () => {
				const key = await gate.agent(nextID(), "1");
				for (let i = 0; i < 60; i++) { // answers whose usage is not known are withheld, and not without end
					const response = await fetch(`${gate.base}/empty/v1/chat/completions`, {
						method: "POST", headers: { authorization: `Bearer ${key}`, "content-type": "application/json" }, body: JSON.stringify({ model: "test-1", messages: [] }),
					});
					if (response.status === 429) break;
					assert.equal(response.status, 502);
				}
				const client = make(`${gate.base}/ok`, key);
				try {
					const through = asData(await client.whole());
					assert.deepEqual(through, asData(await make(`http://${upstream.address}/ok`, "key").whole()), "a retry, when it was time");
				} catch (error) {
					assert.equal(statusOf(error), 429);
					assert.match(error.lastError?.message ?? error.message, /too many answers to this agent were withheld|Too many/i);
				}
			});

			for (const status of [429, 503]) {
				test(`a provider's ${status}, and the client's own retries`, async () => {
					const id = nextID();
					const key = await gate.agent(id, "1");
					const outcome = async (base, key) => {
						try {
							return asData(await make(base, key).whole());
						} catch (error) {
							return statusOf(error);
						}
					};
					const direct = await outcome(`http://${upstream.address}/flaky${status}/${id}direct`, "key");
					const through = await outcome(`${gate.base}/flaky${status}/${id}`, key);
					assert.deepEqual(through, direct);
					assert.equal((await gate.charges(key)).length, through === status ? 0 : 1, "charges");
				});
			}

			test("hanging up in mid-stream", async () => {
				const key = await gate.agent(nextID(), "1");
				let seen = 0;
				await make(`${gate.base}/slow`, key).stream(() => ++seen < 2);
				assert.ok(seen >= 1);
				const [charge] = await eventually("a charge", async () => {
					const charges = await gate.charges(key);
					return charges.length > 0 && charges;
				});
				assert.equal(charge.cut, "client");
			});
		});
	}
});
