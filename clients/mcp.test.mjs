// MCP: the protocol's own conformance suite and official client, against a server of the Go SDK, with and without a meter.
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { CreateMessageRequestSchema } from "@modelcontextprotocol/sdk/types.js";
import { build, freePort, startGate } from "./gate.mjs";

let dir, server, address, gate;
before(async () => {
	dir = mkdtempSync(join(tmpdir(), "tallygate-mcp-"));
	address = `127.0.0.1:${await freePort()}`;
	const binary = build(dir, "MCP_SERVER", "github.com/modelcontextprotocol/go-sdk/conformance/everything-server");
	server = spawn(binary, ["-http", address, "-stateless=false"], { stdio: "ignore" });
	process.on("exit", () => server.kill("SIGKILL"));
	gate = await startGate(address, address);
});
after(async () => {
	await gate?.stop();
	server.kill();
	if (server.exitCode === null) await once(server, "exit");
	rmSync(dir, { recursive: true, force: true });
});

// conformance runs the suite against a server, and returns a line for each scenario.
async function conformance(url) {
	const here = (name) => fileURLToPath(new URL(name, import.meta.url));
	const args = ["--import", here("conformance-loader.mjs"), here("node_modules/@modelcontextprotocol/conformance/dist/index.js"), "server", "--url", url];
	const out = await new Promise((resolve) => execFile(process.execPath, args, { cwd: dir }, (_, stdout, stderr) => resolve(stdout + stderr)));
	return out.split("=== SUMMARY ===")[1].split("\n").filter((line) => /^[✓✗]/.test(line));
}

test("conformance, before and behind a meter", { timeout: 120_000 }, async (t) => {
	const key = await gate.agent("conformance", "10");
	const direct = await conformance(`http://${address}/`);
	assert.ok(direct.length >= 30, `${direct.length} scenarios`);
	assert.deepEqual(direct.filter((line) => !line.startsWith("✓")), []);
	assert.deepEqual(await conformance(`${gate.base}/mcp-tools?key=${key}`), direct);
	const charges = await gate.charges(key);
	assert.ok(charges.some((charge) => charge.amount === "0.01"));
	assert.ok(charges.every((charge) => charge.amount === "0.01" || charge.amount === "0"), "a tool that fails is free");
	t.diagnostic(`${direct.length} scenarios, ${charges.length} charges`);
});

test("the official client, whose server samples in the middle of a call", { timeout: 60_000 }, async () => {
	const key = await gate.agent("client", "1");
	const call = async (url, key) => {
		const client = new Client({ name: "test", version: "1" }, { capabilities: { sampling: {} } });
		client.setRequestHandler(CreateMessageRequestSchema, () => ({ model: "m", role: "assistant", content: { type: "text", text: "sampled" } }));
		await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers: { authorization: `Bearer ${key}` } } }));
		const result = await client.callTool({ name: "test_sampling", arguments: { prompt: "hello" } });
		await client.ping();
		await client.close();
		return result;
	};
	const direct = await call(`http://${address}/`, "key");
	assert.match(JSON.stringify(direct), /sampled/);
	assert.deepEqual(await call(`${gate.base}/mcp-tools`, key), direct);
	assert.deepEqual((await gate.charges(key)).map((charge) => charge.amount), ["0.01"]);
});

test("a poor client is told in words", { timeout: 60_000 }, async () => {
	const key = await gate.agent("poor");
	const client = new Client({ name: "test", version: "1" });
	await client.connect(new StreamableHTTPClientTransport(new URL(`${gate.base}/mcp-tools`), { requestInit: { headers: { authorization: `Bearer ${key}` } } }));
	await assert.rejects(client.callTool({ name: "test_simple_text", arguments: {} }), /Not enough money/);
	await client.close();
});
