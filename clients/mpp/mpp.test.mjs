// Payments by MPP with the unmodified reference client. Stripe is a fake one, which takes a shared payment token once, and executes one request for
// an idempotency key. A caller has no account and no key.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { EventSourceParserStream } from "eventsource-parser/stream";
import { Credential, Method, Receipt, z } from "mppx";
import { Mppx, stripe } from "mppx/client";
import { validate } from "mppx/discovery";
import { build, freePort } from "../gate.mjs";

const secretKey = "sk_test_of_the_clients";
const operator = "operator-key-of-the-clients";

const listen = async (handler) => {
	const server = http.createServer(handler).listen(0, "127.0.0.1");
	await once(server, "listening");
	return { url: `http://127.0.0.1:${server.address().port}`, stop: () => (server.closeAllConnections(), server.close()) };
};
const textOf = async (stream) => (await stream.toArray()).join("");

// startStripe is Stripe's API, as far as the gate asks it.
async function startStripe() {
	const tokens = new Map(); // what each may still pay
	const payments = [];
	const executed = new Map(); // answers by idempotency key
	const server = await listen(async (req, res) => {
		const answer = (status, body) => res.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
		const form = new URLSearchParams(await textOf(req.setEncoding("utf8")));
		if (req.headers.authorization !== `Bearer ${secretKey}`) return answer(401, { error: { type: "invalid_request_error", message: "key" } });
		const token = req.url.match(/^\/v1\/shared_payment\/granted_tokens\/(\w+)$/)?.[1];
		if (token) {
			const most = tokens.get(token);
			if (most === undefined) return answer(404, { error: { type: "invalid_request_error", message: "no such token" } });
			return answer(200, { id: token, deactivated_at: most ? null : 1, usage_limits: { currency: "usd", max_amount: most } });
		}
		assert.equal(req.url, "/v1/payment_intents");
		const key = req.headers["idempotency-key"];
		if (!executed.has(key)) {
			const amount = Number(form.get("amount"));
			assert.ok(tokens.get(form.get("shared_payment_granted_token")) >= amount);
			tokens.set(form.get("shared_payment_granted_token"), 0);
			payments.push(amount);
			executed.set(key, { id: `pi_${payments.length}`, object: "payment_intent", status: "succeeded", amount });
		}
		answer(200, executed.get(key));
	});
	return {
		...server,
		payments,
		// grant makes a token, as the payer's agent does.
		grant(amount) {
			const id = `spt_${tokens.size + 1}`;
			tokens.set(id, amount);
			return id;
		},
	};
}

// startProvider streams an answer, and holds its end back until it is released.
async function startProvider() {
	const held = [];
	const chunk = (content, more) => `data: ${JSON.stringify({ id: "c1", object: "chat.completion.chunk", model: "test-1", choices: [{ index: 0, delta: { content }, finish_reason: null }], ...more })}\n\n`;
	const server = await listen(async (req, res) => {
		assert.equal(req.headers.authorization, undefined, "the provider is shown a credential");
		const body = JSON.parse(await textOf(req.setEncoding("utf8")));
		if (!body.stream) {
			res.setHeader("content-type", "application/json");
			return res.end(JSON.stringify({ id: "c1", object: "chat.completion", model: "test-1", choices: [{ index: 0, message: { role: "assistant", content: "Hello" }, finish_reason: "stop" }], usage: { prompt_tokens: 1000, completion_tokens: 200, total_tokens: 1200 } }));
		}
		res.setHeader("content-type", "text/event-stream");
		res.write(chunk("Hello"));
		res.write(chunk(" there"));
		await new Promise((resolve) => held.push(resolve));
		res.write(chunk("."));
		res.write(`data: ${JSON.stringify({ id: "c1", object: "chat.completion.chunk", model: "test-1", choices: [], usage: { prompt_tokens: 1000, completion_tokens: 200, total_tokens: 1200 } })}\n\n`);
		res.end("data: [DONE]\n\n");
	});
	return { ...server, release: () => held.splice(0).forEach((resolve) => resolve()) };
}

const caddyfile = (dir, port, api, provider) => `{
	admin off
	auto_https off
	tallygate {
		ledger bolt ${dir}/ledger.db
		operator_key ${operator}
		currency USD
		rail mpp {
			secret ${randomBytes(32).toString("hex")}
			top_up 1
			method stripe {
				secret_key ${secretKey}
				network_id profile_1
				api ${api}
			}
			method test
		}
	}
}
:${port} {
	bind 127.0.0.1
	tallygate
	handle /dear/* {
		meter {
			payee dear
			price 1.50 per call
		}
		reverse_proxy ${provider}
	}
	handle /v1/* {
		meter {
			payee llm
			tariff {
				model * {
					input 3 per 1M tokens
					output 15 per 1M tokens
				}
			}
		}
		reverse_proxy ${provider}
	}
}
`;

let api, provider, base, gate, dir;
before(async () => {
	dir = mkdtempSync(join(tmpdir(), "tallygate-mpp-"));
	[api, provider] = [await startStripe(), await startProvider()];
	const port = await freePort();
	base = `http://127.0.0.1:${port}`;
	writeFileSync(join(dir, "Caddyfile"), caddyfile(dir, port, api.url, provider.url));
	const env = { ...process.env, XDG_DATA_HOME: join(dir, "data"), XDG_CONFIG_HOME: join(dir, "config") };
	gate = spawn(build(dir, "TALLYGATE", "./cmd/tallygate"), ["run", "--config", join(dir, "Caddyfile")], { env, stdio: ["ignore", "ignore", "pipe"] });
	let log = "";
	gate.stderr.on("data", (piece) => (log += piece));
	process.on("exit", () => gate.kill("SIGKILL"));
	for (;;) {
		if (gate.exitCode !== null) throw new Error("the gate did not start:\n" + log);
		try {
			await fetch(base + "/api/v1/tariffs");
			break;
		} catch {
			await new Promise((resolve) => setTimeout(resolve, 50));
		}
	}
});
after(async () => {
	if (gate && gate.exitCode === null) {
		gate.kill("SIGTERM");
		await once(gate, "exit");
	}
	api?.stop();
	provider?.stop();
	rmSync(dir, { recursive: true, force: true });
});

const price = 0.006; // of the usage that the provider always states
const post = (body, headers) => ({ method: "POST", headers: { "content-type": "application/json", ...headers }, body: JSON.stringify({ model: "test-1", max_tokens: 200, messages: [{ role: "user", content: "hello" }], ...body }) });
const chat = () => `${base}/v1/chat/completions`;
const balanceOf = async (key) => Number((await (await fetch(base + "/api/v1/wallet", { headers: { authorization: `Bearer ${key}` } })).json()).balance);

const byCard = () => Mppx.create({ polyfill: false, methods: [stripe.charge({ paymentMethod: "pm_card_visa", createToken: async ({ amount, currency, networkId }) => {
	assert.deepEqual([currency, networkId], ["usd", "profile_1"]);
	return api.grant(Number(amount));
} })] });

test("a charge by Stripe, then calls by the key that the answer brought", { timeout: 60_000 }, async () => {
	const before = api.payments.length;
	const response = await byCard().fetch(chat(), post());
	assert.equal(response.status, 200);
	assert.equal((await response.json()).choices[0].message.content, "Hello");
	const receipt = Receipt.fromResponse(response);
	assert.deepEqual([receipt.method, receipt.status, receipt.reference], ["stripe", "success", `pi_${api.payments.length}`]);
	const key = response.headers.get("authorization").replace("Bearer ", "");
	assert.equal(await balanceOf(key), 1 - price);

	// The client keeps the key in a header of its own. It pays again only when the credit does not reach.
	const next = await byCard().fetch(chat(), post({}, { "tallygate-key": key }));
	assert.equal(next.status, 200);
	assert.equal(api.payments.length, before + 1);
	const dear = await byCard().fetch(`${base}/dear/v1/chat/completions`, post({}, { "tallygate-key": key }));
	assert.equal(dear.status, 200);
	assert.equal(api.payments.length, before + 2);
	assert.equal(await balanceOf(key), Number((1 + api.payments.at(-1) / 100 - 2 * price - 1.5).toFixed(3)), "all in one wallet");
});

test("a stream arrives event by event", { timeout: 60_000 }, async () => {
	const response = await byCard().fetch(chat(), post({ stream: true, stream_options: { include_usage: true } }));
	assert.equal(response.status, 200);
	assert.equal(Receipt.fromResponse(response).status, "success");
	const seen = [];
	for await (const event of response.body.pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream())) {
		seen.push(event.data);
		if (seen.length === 1) provider.release(); // the provider sends the rest only now, so this event has passed the gate alone
	}
	assert.equal(seen.at(-1), "[DONE]");
	assert.equal(seen.length, 5);
});

// A session of the method test, as a client of that method is written with the reference client.
const session = () => {
	const secret = randomBytes(32);
	const id = createHash("sha256").update(secret).digest("hex");
	let opened = false;
	const method = Method.from({ name: "test", intent: "session", schema: {
		credential: { payload: z.object({ action: z.string() }) },
		request: z.object({ amount: z.string(), currency: z.string(), depositAmount: z.string() }),
	} });
	const client = Method.toClient(method, {
		async createCredential({ challenge }) {
			assert.equal(challenge.request.depositAmount, "100");
			const preimage = secret.toString("hex");
			const payload = opened ? { action: "bearer", sessionId: id, preimage } : { action: "open", preimage, token: "a-token-of-this-test" };
			opened = true;
			return Credential.serialize({ challenge, payload });
		},
	});
	return { id, mppx: Mppx.create({ polyfill: false, methods: [client] }) };
};

test("a session is paid for once, and drawn from", { timeout: 60_000 }, async () => {
	const { id, mppx } = session();
	for (const n of [1, 2, 3]) {
		const response = await mppx.fetch(chat(), post());
		assert.equal(response.status, 200);
		assert.equal(Number(response.headers.get("tallygate-balance")), Number((1 - n * price).toFixed(3)));
		assert.equal(Receipt.fromResponse(response).reference, id);
	}
});

test("the reference client finds what is sold, and how to pay", { timeout: 60_000 }, async () => {
	const doc = await (await fetch(base + "/openapi.json")).json();
	assert.deepEqual(validate(doc), []);
	const offers = doc.paths["/v1/{path}"].post["x-payment-info"].offers;
	assert.deepEqual(offers.map(({ method, intent, currency }) => [method, intent, currency]), [["stripe", "charge", "usd"], ["test", "charge", "usd"], ["stripe", "session", "usd"], ["test", "session", "usd"]]);
});
