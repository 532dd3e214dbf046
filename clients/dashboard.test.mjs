// The pages that people see, in a real browser: each way through them, without errors, without findings of axe-core of its serious kinds, narrow
// and wide, light and dark, and with JavaScript turned off. CHROMIUM names the browser; SCREENSHOTS a folder, to make the pictures of docs/.
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";
import { startGate } from "./gate.mjs";
import { startUpstream } from "./upstream.mjs";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const executablePath = process.env.CHROMIUM ?? ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find(existsSync);

let upstream, gate, browser, alice, bob;
before(async () => {
	assert.ok(executablePath, "there is no Chromium: install Debian's package chromium, or name one by CHROMIUM");
	upstream = await startUpstream();
	gate = await startGate(upstream.address);
	alice = await gate.agent("alice", "50");
	bob = await gate.agent("bob", "5");
	for (let i = 0; i < 3; i++) await call(alice);
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
const ofOperator = ["", "charges", "escrows", "agents", "agents/alice", "disputes", "bookings", "webhooks", "audit", "shop"];
const sizes = [360, 1440];
const schemes = ["light", "dark"];

for (const width of sizes) {
	for (const colorScheme of schemes) {
		test(`all pages, ${width} wide, ${colorScheme}`, { timeout: 120_000 }, async () => {
			for (const [key, paths] of [[alice, ofAgents], [gate.operator, ofOperator]]) {
				const { context, page, faults } = await look({ viewport: { width, height: 900 }, colorScheme }, key);
				for (const path of paths) {
					const answer = await page.goto(`${gate.base}/dashboard/${path}`);
					assert.equal(answer.status(), 200, path);
					await check(page, width);
					if (process.env.SCREENSHOTS && width === 1440 && key === alice && ["", "spending"].includes(path)) {
						await page.screenshot({ path: join(process.env.SCREENSHOTS, `dashboard-${path || "overview"}-${colorScheme}.png`) });
					}
				}
				assert.deepEqual(faults, []);
				await context.close();
			}
			const { context, page, faults } = await look({ viewport: { width, height: 900 }, colorScheme });
			for (const path of ["/dashboard/login", "/problems/insufficient_funds", "/dashboard/docs/", "/dashboard/docs/problems", "/dashboard/docs/reference"]) {
				assert.equal((await page.goto(gate.base + path)).status(), 200, path);
				await check(page, width);
			}
			assert.deepEqual(faults, []);
			await context.close();
		});
	}
}

for (const javaScriptEnabled of [true, false]) {
	test(`the ways through, with JavaScript ${javaScriptEnabled ? "on" : "off"}`, { timeout: 120_000 }, async () => {
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
