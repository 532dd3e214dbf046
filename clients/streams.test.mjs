// Streams that the specification allows but few providers send must come through the gate as they come directly; and WebSockets.
import assert from "node:assert/strict";
import { once } from "node:events";
import { after, before, test } from "node:test";
import { EventSourceParserStream } from "eventsource-parser/stream";
import WebSocket from "ws";
import { startGate } from "./gate.mjs";
import { startUpstream } from "./upstream.mjs";

let upstream, gate;
before(async () => {
	upstream = await startUpstream();
	gate = await startGate(upstream.address);
});
after(async () => {
	await gate?.stop();
	upstream?.stop();
});

async function events(base, key, path, body) {
	const response = await fetch(base + path, { method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json", authorization: `Bearer ${key}` } });
	assert.equal(response.status, 200);
	const all = [];
	for await (const event of response.body.pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream())) all.push(event);
	return all;
}

const asked = { model: "test-1", stream: true, messages: [{ role: "user", content: "hello" }] };
for (const kind of ["crlf", "cr", "mark", "comments", "fields", "bytes"]) {
	for (const [path, body] of [
		["/v1/chat/completions", { ...asked, stream_options: { include_usage: true } }],
		["/v1/messages", { ...asked, max_tokens: 100 }],
		["/v1/responses", { model: "test-1", stream: true, input: "hello" }],
		["/v2/chat", asked],
		["/v1beta/models/test-1:streamGenerateContent", { contents: [] }],
	]) {
		test(`${path}, ${kind}`, { timeout: 30_000 }, async () => {
			const key = await gate.agent(`${kind}${path}`.replace(/[^a-z0-9]/gi, "-").toLowerCase(), "1");
			const direct = await events(`http://${upstream.address}`, "key", `/odd/${kind}${path}`, body);
			assert.ok(direct.length > 3);
			assert.deepEqual(await events(gate.base, key, `/odd/${kind}${path}`, body), direct);
			assert.deepEqual((await gate.charges(key)).map((charge) => [charge.amount, charge.source, charge.cut]), [["0.006", "stated", "none"]]);
		});
	}
}

for (const [who, closing, code] of [
	["the client", (socket) => socket.close(4001, "client"), "4001 client"],
	["the server", (socket) => socket.send("close"), "4002 server"],
]) {
	test(`a counted WebSocket that ${who} closes`, { timeout: 30_000 }, async () => {
		const key = await gate.agent(who.replace(" ", "-"), "1");
		for (const [base, auth] of [[`ws://${upstream.address}`, "key"], [gate.base.replace("http", "ws"), key]]) {
			upstream.closes.length = 0;
			const socket = new WebSocket(base + "/socket", { headers: { authorization: `Bearer ${auth}` } });
			await once(socket, "open");
			for (const word of ["one", "two"]) {
				socket.send(word);
				const [answer] = await once(socket, "message");
				assert.equal(String(answer), word);
			}
			closing(socket);
			const [seen, reason] = await once(socket, "close");
			assert.equal(`${seen} ${reason}`, code, "the client's side");
			while (upstream.closes.length === 0) await new Promise((resolve) => setTimeout(resolve, 10));
			assert.deepEqual(upstream.closes, [code], "the server's side");
		}
		assert.deepEqual((await gate.charges(key)).map((charge) => [charge.amount, charge.cut]), [["0.02", "none"]]);
	});
}
