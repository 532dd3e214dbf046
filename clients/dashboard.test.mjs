// The pages that people see, in a real browser: each way through them, without errors, without findings of axe-core of its serious kinds, narrow
// and wide, light and dark, and with JavaScript turned off. CHROMIUM names the browser. SCREENSHOTS names a folder for the pictures of docs/:
//
//   SCREENSHOTS=../docs node --test dashboard.test.mjs
import assert from "node:assert/strict";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";
import { startGate } from "./gate.mjs";
import { startUpstream } from "./upstream.mjs";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const executablePath = process.env.CHROMIUM ?? ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find(existsSync);

let upstream, gate, browser, alice, bob, llm;
before(async () => {
	assert.ok(executablePath, "there is no Chromium: install Debian's package chromium, or name one by CHROMIUM");
	upstream = await startUpstream();
	gate = await startGate(upstream.address);
	alice = await gate.agent("alice", "50");
	bob = await gate.agent("bob", "5");
	for (let i = 0; i < 3; i++) await call(alice);
	llm = await gate.key("llm");
	browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
});
after(async () => {
	await browser?.close();
	await gate?.stop();
	upstream?.stop();
});

async function call(key) {
	const answer = await fetch(gate.base + "/v1/chat/completions", {
		method: "POST", headers: { "content-type": "application/json", authorization: `Bearer ${key}`, "tallygate-tag": "team=owls" },
		body: JSON.stringify({ model: "test-1", messages: [{ role: "user", content: "hello" }] }),
	});
	assert.equal(answer.status, 200, await answer.text());
}

// look opens a page as somebody with these settings, and returns it. What goes wrong on it is in faults.
async function look(settings, key) {
	const context = await browser.newContext(settings);
	context.setDefaultTimeout(60_000);
	const page = await context.newPage();
	const faults = [];
	page.on("console", (message) => message.type() === "error" && faults.push(`${page.url()}: ${message.text()}`));
	page.on("pageerror", (error) => faults.push(`${page.url()}: ${error.message}`));
	page.on("request", (request) => request.url().startsWith(gate.base) || request.url().startsWith("data:") || faults.push(`asks ${request.url()}`));
	if (key) {
		await page.goto(gate.base + "/dashboard/");
		await page.getByLabel("Your key").fill(key);
		await page.getByRole("button", { name: "Log in" }).click();
		await page.getByRole("button", { name: "Log out" }).waitFor();
	}
	return { context, page, faults };
}

// pictures are those that docs/ shows.
const pictures = ["overview-light", "overview-dark", "books-light", "try-light"];

// picture keeps a picture of what a page shows, if it is wanted.
async function picture(page, name) {
	if (!process.env.SCREENSHOTS || !pictures.includes(name)) return;
	await page.setViewportSize({ width: 1200, height: 900 });
	const session = await page.context().newCDPSession(page);
	const { data } = await session.send("Page.captureScreenshot", { format: "webp", quality: 70 });
	writeFileSync(join(process.env.SCREENSHOTS, `dashboard-${name}.webp`), Buffer.from(data, "base64"));
	await page.setViewportSize({ width: 1440, height: 900 });
}

// check asks axe-core about the page, and whether it is wider than its window.
async function check(page, width) {
	const { found, wide } = await page.evaluate(`${axe}; axe.run().then((result) => ({
		found: result.violations.filter((v) => ["serious", "critical"].includes(v.impact)).map((v) => v.id + ": " + v.nodes.map((n) => n.html.slice(0, 200)).join(" | ")),
		wide: document.documentElement.scrollWidth,
	}))`);
	assert.deepEqual(found, [], page.url());
	assert.ok(wide <= width, `${page.url()} is ${wide} wide`);
}

const ofAgents = ["", "spending", "statement", "charges", "escrows", "subscriptions", "earnings", "keys", "limits", "webhooks", "shop"];
const ofOperator = ["", "charges", "charges?suspect=true", "escrows", "agents", "agents/alice", "disputes", "withheld", "bookings", "webhooks", "audit", "shop"];
const sizes = [360, 1440];
const schemes = ["light", "dark"];

for (const width of sizes) {
	for (const colorScheme of schemes) {
		test(`all pages, ${width} wide, ${colorScheme}`, { timeout: 300_000 }, async () => {
			for (const [key, paths] of [[alice, ofAgents], [gate.operator, ofOperator]]) {
				const { context, page, faults } = await look({ viewport: { width, height: 900 }, colorScheme }, key);
				for (const path of paths) {
					const answer = await page.goto(`${gate.base}/dashboard/${path}`);
					assert.equal(answer.status(), 200, path);
					await check(page, width);
					if (key === gate.operator && path === "") {
						const names = await page.locator(".facts dt").allInnerTexts();
						for (const name of ["State", "Verified", "Ledger's file", "Last commit", "Commits since this server began", "Work that is due"]) assert.ok(names.includes(name), name);
						await page.getByRole("button", { name: "Copy the head of the chain" }).waitFor();
						assert.equal(await page.locator("table", { hasText: "Top payers" }).locator("tbody th").first().innerText(), "alice");
					}
					if (width === 1440 && path === "") await picture(page, key === alice ? `overview-${colorScheme}` : `books-${colorScheme}`);
				}
				assert.deepEqual(faults, []);
				await context.close();
			}
			const { context, page, faults } = await look({ viewport: { width, height: 900 }, colorScheme });
			for (const path of ["/dashboard/login", "/dashboard/shop", "/problems/insufficient_funds", "/dashboard/docs/", "/dashboard/docs/problems", "/dashboard/docs/reference"]) {
				assert.equal((await page.goto(gate.base + path)).status(), 200, path);
				await check(page, width);
			}
			assert.deepEqual(faults, []);
			await context.close();
		});
	}
}

for (const javaScriptEnabled of [true, false]) {
	test(`the ways through, with JavaScript ${javaScriptEnabled ? "on" : "off"}`, { timeout: 300_000 }, async () => {
		const { context, page, faults } = await look({ javaScriptEnabled }, alice);
		const field = (name, value) => page.getByLabel(name).fill(value);
		const press = (name) => page.getByRole("button", { name, exact: true }).click();

		// how a charge came about
		await page.getByRole("link", { name: "Charges", exact: true }).click();
		await page.locator("a[href*='/charges/req_']").first().click();
		await page.getByText("Usage x prices").waitFor();

		// a key, shown once
		await page.getByRole("link", { name: "Keys", exact: true }).click();
		await field("Name", "of the browser");
		await press("Make the key");
		const made = (await page.locator(".secret code").innerText()).trim();
		assert.match(made, /^tg_/);
		await call(made);
		await page.getByRole("link", { name: "Keys", exact: true }).click();
		assert.ok(!(await page.content()).includes(made), "the key is shown twice");

		// an escrow, and a part of it released
		await page.getByRole("link", { name: "Escrows", exact: true }).click();
		await page.locator("[name=to_agent_id]").fill("bob");
		await page.locator("form[action*=create-escrow] [name=amount]").fill("2");
		await page.locator("form[action*=create-escrow] button").click();
		await page.getByText("The money is locked").waitFor();
		const other = await look({ javaScriptEnabled }, bob);
		await other.page.goto(gate.base + "/dashboard/escrows");
		await other.page.getByText("alice").first().waitFor();
		assert.ok(!(await other.page.content()).includes("llm"), "bob sees whom alice pays");
		await other.context.close();

		// the way out: the session has ended
		await press("Log out");
		await page.goto(gate.base + "/dashboard/charges");
		await page.getByLabel("Your key").waitFor();
		assert.deepEqual([...faults, ...other.faults], []);
		await context.close();
	});
}

test("a wrong key, and keys that end", { timeout: 60_000 }, async () => {
	const { context, page } = await look({});
	await page.goto(gate.base + "/dashboard/");
	await page.getByLabel("Your key").fill("tg_wrong");
	await page.getByRole("button", { name: "Log in" }).click();
	await page.getByRole("alert").waitFor();
	const cookies = await context.cookies();
	assert.deepEqual(cookies, []);
	await context.close();
	const session = await look({}, bob);
	const [cookie] = await session.context.cookies();
	assert.ok(cookie.httpOnly && cookie.sameSite === "Strict" && !cookie.value.includes(bob), "the cookie");
	await session.context.close();
});

for (const width of sizes) {
	for (const colorScheme of schemes) {
		test(`calls from the pages, ${width} wide, ${colorScheme}`, { timeout: 300_000 }, async () => {
			const settings = { viewport: { width, height: 900 }, colorScheme };
			const ask = async (page, path) => {
				await page.goto(`${gate.base}/dashboard/${path}`);
				await page.getByLabel("Method").selectOption("POST");
				await page.getByLabel("Path", { exact: true }).fill("/v1/chat/completions");
				await page.getByLabel("Body, as JSON").fill('{"model": "test-1", "messages": [{"role": "user", "content": "it\'s me"}]}');
				await page.getByRole("button", { name: "Send" }).click();
				await page.locator(".answer").getByText("Usage x prices").waitFor().catch(async (error) => {
					throw new Error(`the page shows: ${await page.locator(".answer").innerText()}`, { cause: error });
				});
			};

			// Try it: the answer, the charge, and the call as code
			const { context, page, faults } = await look(settings, alice);
			await ask(page, "shop");
			const answer = page.locator(".answer");
			assert.match(await answer.innerText(), /Status 200[^]*Hello there, my friend\.[^]*The charge/);
			assert.ok(!(await page.content()).includes(alice), "the page has the key");
			await page.locator("#snippets").getByText("it'\\''s me").waitFor();
			const charged = await answer.getByText(/^req_/).first().innerText();
			await page.locator(`#live a[href$="${charged}"]`).waitFor(); // in the list of the last charges, by the stream
			await check(page, width);
			if (width === 1440) {
				await page.locator("#try").scrollIntoViewIfNeeded();
				await page.evaluate(() => document.getElementById("try").scrollIntoView());
				await picture(page, `try-${colorScheme}`);
			}
			await context.close();

			// the test call of a provider: the refusal, the paid answer, the charge, and what is left
			const provider = await look(settings, llm);
			await ask(provider.page, "earnings");
			await provider.page.locator(".answer").getByText("goes back to you").waitFor();
			assert.match(await provider.page.locator(".answer").innerText(), /Status 402[^]*insufficient_funds[^]*You lend[^]*Status 200[^]*The charge/);
			await check(provider.page, width);
			await provider.context.close();
			assert.deepEqual([...faults, ...provider.faults], []);
		});
	}
}

test("a visitor registers, and calls", { timeout: 60_000 }, async () => {
	const { context, page, faults } = await look({});
	await page.goto(gate.base + "/dashboard/shop");
	await page.getByLabel("Name of your agent").fill("visitor");
	await page.getByRole("button", { name: "Register" }).click();
	assert.match(await page.locator(".secret code").innerText(), /^tg_/);
	await page.getByLabel("Method").selectOption("POST");
	await page.getByLabel("Path", { exact: true }).fill("/v1/chat/completions");
	await page.getByLabel("Body, as JSON").fill('{"model": "test-1", "messages": [{"role": "user", "content": "hello"}]}');
	await page.getByRole("button", { name: "Send" }).click();
	await page.locator(".answer p").first().waitFor();
	assert.match(await page.locator(".answer").innerText(), /^Status 402/); // it has no money yet
	assert.deepEqual(faults, []);
	await context.close();
});

test("without JavaScript, a call is shown as code", { timeout: 60_000 }, async () => {
	const { context, page, faults } = await look({ javaScriptEnabled: false }, alice);
	await page.goto(gate.base + "/dashboard/shop");
	assert.ok(!(await page.getByRole("button", { name: "Send" }).isVisible()));
	await page.getByLabel("Path", { exact: true }).fill("/v1/models");
	await page.getByLabel("Method").selectOption("GET");
	await page.getByLabel("Body, as JSON").fill("");
	await page.getByRole("button", { name: "Show as code" }).click();
	await page.locator("#snippets").getByText(`curl -i ${gate.base}/v1/models`).waitFor();
	assert.deepEqual(faults, []);
	await context.close();
});

test("an open page hears of changes, and ends with its session", { timeout: 60_000 }, async () => {
	const { context, page, faults } = await look({}, alice);
	await page.goto(gate.base + "/dashboard/charges");
	await page.getByText("Live", { exact: true }).waitFor();
	const newest = () => page.locator("#live a[href*='/charges/req_']").first().innerText();
	for (let before = await newest(), n = 0; n < 2; n++, before = await newest()) { // the first time, and again with what was put in its place
		await call(alice);
		await page.waitForFunction((id) => document.querySelector("#live a[href*='/charges/req_']").textContent !== id, before);
	}

	// what changes while the page renews itself is not missed
	await page.evaluate(() => {
		window.heard = 0;
		new EventSource("/dashboard/events").addEventListener("changed", () => window.heard++);
	});
	let asked, release;
	const renewing = new Promise((resolve) => (asked = resolve)), released = new Promise((resolve) => (release = resolve));
	await page.route("**/dashboard/charges", async (route) => {
		const response = await route.fetch();
		asked();
		await released;
		await route.fulfill({ response });
	}, { times: 1 });
	await call(alice);
	await renewing;
	const heard = await page.evaluate(() => window.heard);
	await call(alice);
	await page.waitForFunction((n) => window.heard > n, heard);
	const [last] = await gate.charges(alice);
	release();
	await page.locator(`#live a[href$="${last.request_id}"]`).waitFor();

	// what the reader uses is not replaced under the hand
	await page.locator("#live a").first().focus();
	const held = await newest();
	await call(alice);
	const other = await context.newPage();
	await other.goto(gate.base + "/dashboard/charges");
	await other.getByText("Live", { exact: true }).waitFor();
	assert.equal(await newest(), held);
	await page.bringToFront();
	await page.getByLabel("Payee").focus();
	await page.waitForFunction((id) => document.querySelector("#live a[href*='/charges/req_']").textContent !== id, held);

	await other.getByRole("button", { name: "Log out" }).click();
	await page.getByLabel("Your key").waitFor();
	assert.deepEqual(faults, []);
	await context.close();
});
