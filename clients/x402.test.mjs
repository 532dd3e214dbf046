// Payments by x402 with the unmodified clients of versions 1 and 2. The facilitator is the official one, over a chain in memory that checks every
// signature. A caller has no account and no key: only a wallet.
import assert from "node:assert/strict";
import { once } from "node:events";
import http from "node:http";
import { after, before, test } from "node:test";
import { EventSourceParserStream } from "eventsource-parser/stream";
import { generatePrivateKey, privateKeyToAccount } from "viem/accounts";
import { wrapFetchWithPayment, wrapFetchWithPaymentFromConfig, decodePaymentResponseHeader, x402Client, x402HTTPClient } from "@x402/fetch";
import { appendPaymentIdentifierToExtensions, generatePaymentId } from "@x402/extensions/payment-identifier";
import { createSIWxClientHook } from "@x402/extensions/sign-in-with-x";
import { ExactEvmScheme } from "@x402/evm";
import { UptoEvmScheme } from "@x402/evm/upto/client";
import { wrapFetchWithPayment as wrapV1, decodeXPaymentResponse, createSigner } from "x402-fetch";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import { asset, payTo, startFacilitator } from "./facilitator.mjs";
import { startGate } from "./gate.mjs";
import { startUpstream } from "./upstream.mjs";

// startTools runs a server of MCP with one tool, which says what it was sent beside its arguments.
async function startTools() {
	const server = http.createServer(async (req, res) => {
		const mcp = new McpServer({ name: "tools", version: "1" });
		mcp.registerTool("search", { description: "searches" }, async ({ _meta }) => ({ content: [{ type: "text", text: `found; _meta: ${JSON.stringify(_meta ?? {})}` }] }));
		const transport = new StreamableHTTPServerTransport({ sessionIdGenerator: undefined });
		await mcp.connect(transport);
		await transport.handleRequest(req, res);
	}).listen(0, "127.0.0.1");
	await once(server, "listening");
	return { address: `127.0.0.1:${server.address().port}`, stop: () => (server.closeAllConnections(), server.close()) };
}

let upstream, tools, facilitator, gate;
before(async () => {
	upstream = await startUpstream();
	tools = await startTools();
	facilitator = await startFacilitator();
	gate = await startGate(upstream.address, tools.address, { url: facilitator.url, asset, payTo });
});
after(async () => {
	await gate?.stop();
	tools?.stop();
	facilitator?.stop();
	upstream?.stop();
});

// newPayer makes a wallet with money on the chain, and the clients of both versions for it.
async function newPayer(units = 1_000_000) {
	const secret = generatePrivateKey();
	const account = privateKeyToAccount(secret);
	facilitator.chain.give(account.address, units);
	return {
		account,
		agent: `x402:${account.address.toLowerCase()}`,
		paid: () => facilitator.chain.transfers.filter(({ from }) => from === account.address).reduce((sum, { value }) => sum + value, 0n),
		v2: (inner = fetch) => wrapFetchWithPaymentFromConfig(inner, { schemes: [{ network: "eip155:8453", client: new ExactEvmScheme(account) }] }),
		v1: async (inner = fetch) => wrapV1(inner, await createSigner("base", secret)),
		balance() {
			return gate.balance(this.agent);
		},
	};
}

const chat = { model: "test-1", messages: [{ role: "user", content: "hello" }] };
const post = (body) => ({ method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });

for (const [version, client, header, decode] of [
	["2", (payer) => payer.v2(), "payment-response", decodePaymentResponseHeader],
	["1", (payer) => payer.v1(), "x-payment-response", decodeXPaymentResponse],
]) {
	test(`version ${version}: a call at a fixed price, then one by the key that the first answer brought`, { timeout: 60_000 }, async () => {
		const payer = await newPayer();
		const pay = await client(payer);
		const response = await pay(`${gate.base}/calls/v1/chat/completions`, post(chat));
		assert.equal(response.status, 200);
		assert.equal((await response.json()).choices[0].message.content, "Hello there, my friend.");
		const receipt = decode(response.headers.get(header));
		assert.equal(receipt.success, true);
		assert.equal(receipt.payer.toLowerCase(), payer.account.address.toLowerCase());
		assert.match(receipt.transaction, /^0x[0-9a-f]{64}$/);
		assert.equal(payer.paid(), 100_000n);
		assert.equal(await payer.balance(), "0.06");

		const key = response.headers.get("authorization");
		const next = await pay(`${gate.base}/calls/v1/chat/completions`, { ...post(chat), headers: { authorization: key, "content-type": "application/json" } });
		assert.equal(next.status, 200);
		assert.equal(payer.paid(), 100_000n, "the credit pays");
		assert.equal(await payer.balance(), "0.02");
	});

	test(`version ${version}: a stream that is metered by the token arrives event by event`, { timeout: 60_000 }, async () => {
		const payer = await newPayer();
		const pay = await client(payer);
		const response = await pay(`${gate.base}/held/v1/chat/completions`, post({ ...chat, stream: true, max_tokens: 500, stream_options: { include_usage: true } }));
		assert.equal(response.status, 200);
		const events = [];
		for await (const event of response.body.pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream())) {
			events.push(event.data);
			if (events.length === 4) upstream.release(); // the provider sends the rest only now, so these four did not wait for it
		}
		assert.equal(events.at(-1), "[DONE]");
		assert.deepEqual(JSON.parse(events.at(-2)).usage.completion_tokens, 200);
		assert.equal(await payer.balance(), "0.094", "1000 tokens in, 200 out");
	});

	test(`version ${version}: a wallet without money is not served, and pays nothing`, { timeout: 60_000 }, async () => {
		const payer = await newPayer(99_999);
		const response = await (await client(payer))(`${gate.base}/calls/v1/chat/completions`, post(chat));
		assert.equal(response.status, 402);
		assert.equal((await response.json()).code, "payment_refused");
		assert.equal(payer.paid(), 0n);
	});

	test(`version ${version}: a provider that fails keeps nothing`, { timeout: 60_000 }, async () => {
		const payer = await newPayer();
		const response = await (await client(payer))(`${gate.base}/down/v1/chat/completions`, post(chat));
		assert.equal(response.status, 502);
		assert.equal(decode(response.headers.get(header)).success, true);
		assert.equal(payer.paid(), 100_000n);
		assert.equal(await payer.balance(), "0.1");
	});
}

test("a lost answer can be had again with the same payment, which is not paid twice", { timeout: 60_000 }, async () => {
	const payer = await newPayer();
	const sent = [];
	const loses = async (input, init) => {
		const request = new Request(input, init);
		sent.push(request.clone());
		const response = await fetch(request);
		if (response.status === 200) throw new TypeError("the answer is lost");
		return response;
	};
	await assert.rejects(payer.v2(loses)(`${gate.base}/calls/v1/chat/completions`, post(chat)), /lost/);
	const again = await fetch(sent.at(-1));
	assert.equal(again.status, 200);
	assert.equal(again.headers.get("idempotency-replayed"), "true");
	assert.equal((await again.json()).choices[0].message.content, "Hello there, my friend.");
	assert.equal(payer.paid(), 100_000n);
	assert.equal(await payer.balance(), "0.06");
	assert.equal((await gate.chargesOf(payer.agent)).length, 1);
});

test("a price that the credit does not reach is asked for", { timeout: 60_000 }, async () => {
	const payer = await newPayer(10_000_000);
	// 20,000 tokens out cost at most 0.30, which is more than a top-up of 0.10
	const response = await payer.v2()(`${gate.base}/ok/v1/chat/completions`, post({ ...chat, max_tokens: 20_000 }));
	assert.equal(response.status, 200, await response.clone().text());
	assert.equal(await payer.balance(), String(Number(payer.paid()) / 1e6 - 0.006));
});

test("a payment identifier is paid once", { timeout: 60_000 }, async () => {
	const payer = await newPayer();
	const id = generatePaymentId();
	const client = new x402Client().register("eip155:8453", new ExactEvmScheme(payer.account));
	client.onBeforePaymentCreation(async ({ paymentRequired }) => appendPaymentIdentifierToExtensions(paymentRequired.extensions, id));
	const pay = wrapFetchWithPayment(fetch, client);
	const call = () => pay(`${gate.base}/calls/v1/chat/completions`, post(chat));
	assert.equal((await call()).status, 200);
	assert.equal((await call()).status, 409, "the client has signed another payment for the same identifier");
	assert.equal(payer.paid(), 100_000n);
	assert.equal(await payer.balance(), "0.06");
});

test("who has paid signs in, and spends what is left before it pays again", { timeout: 60_000 }, async () => {
	const payer = await newPayer();
	const client = new x402HTTPClient(new x402Client().register("eip155:8453", new ExactEvmScheme(payer.account)));
	client.onPaymentRequired(createSIWxClientHook(payer.account));
	const pay = wrapFetchWithPayment(fetch, client);
	const paid = [];
	for (let n = 0; n < 4; n++) {
		const response = await pay(`${gate.base}/calls/v1/chat/completions`, post(chat));
		assert.equal(response.status, 200, await response.clone().text());
		paid.push([String(payer.paid()), await payer.balance()]);
	}
	assert.deepEqual(paid, [["100000", "0.06"], ["100000", "0.02"], ["200000", "0.08"], ["200000", "0.04"]]);
});

test("a tool is paid inside of MCP, by a client without a key", { timeout: 60_000 }, async () => {
	const payer = await newPayer();
	const wallet = new x402Client().register("eip155:8453", new ExactEvmScheme(payer.account));
	const client = new Client({ name: "test", version: "1" });
	await client.connect(new StreamableHTTPClientTransport(new URL(`${gate.base}/mcp-tools`)));
	assert.deepEqual((await client.listTools()).tools.map(({ name }) => name), ["search"]);
	const refused = await client.callTool({ name: "search", arguments: {} });
	assert.equal(refused.isError, true);
	assert.deepEqual(JSON.parse(refused.content[0].text), refused.structuredContent);
	const payment = await wallet.createPaymentPayload(refused.structuredContent);
	const paid = await client.callTool({ name: "search", arguments: {}, _meta: { "x402/payment": payment } });
	await client.close();
	assert.match(paid.content[0].text, /^found/);
	assert.doesNotMatch(paid.content[0].text, /x402/, "the server of the tool is not shown the payment");
	assert.equal(payer.paid(), 100_000n);
	assert.equal(await payer.balance(), "0.09");
});

test("the scheme upto: what was metered is paid, after the call", { timeout: 60_000 }, async () => {
	const payer = await newPayer();
	const pay = wrapFetchWithPaymentFromConfig(fetch, { schemes: [{ network: "eip155:8453", client: new UptoEvmScheme(payer.account) }] });
	const response = await pay(`${gate.base}/ok/v1/chat/completions`, post({ ...chat, max_tokens: 500 }));
	assert.equal(response.status, 200, await response.clone().text());
	const receipt = decodePaymentResponseHeader(response.headers.get("payment-response"));
	const [charge] = await gate.chargesOf(payer.agent);
	assert.equal(receipt.success, true);
	assert.equal(receipt.amount, String(payer.paid()));
	assert.equal(Number(charge.amount), Number(payer.paid()) / 1e6, "what was charged is what was paid");
	assert.ok(payer.paid() > 0n && payer.paid() < 100_000n, `paid ${payer.paid()}`);
	assert.equal(await payer.balance(), "0");

	const down = await pay(`${gate.base}/down/v1/chat/completions`, post(chat));
	assert.equal(down.status, 502);
	assert.equal((await gate.chargesOf(payer.agent)).length, 1);
	assert.equal(Number(charge.amount), Number(payer.paid()) / 1e6, "a provider that fails is not paid");
});
