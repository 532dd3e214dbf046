// What pages do besides showing what the server sends: times in the reader's zone, charts of tables, and pages that renew themselves when the
// server says that something has changed.
"use strict";

(() => {
	const format = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

	const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });

	// fromNow says in words when a time will be.
	function fromNow(at) {
		const seconds = (at - Date.now()) / 1000;
		const [unit, length] = [["day", 86400], ["hour", 3600], ["minute", 60]].find(([, length]) => seconds >= 2 * length) ?? ["second", 1];
		return relative.format(Math.round(seconds / length), unit);
	}

	function localTimes(root) {
		for (const element of root.querySelectorAll("time[datetime]:not([title])")) {
			element.title = element.textContent;
			const at = new Date(element.dateTime);
			element.textContent = format.format(at) + (at > Date.now() ? ` (${fromNow(at)})` : "");
		}
	}

	// draw shows the sums of a table by day. The table stays: it has the exact amounts.
	function draw(table) {
		const days = [], sums = [];
		for (const row of table.tBodies[0].rows) {
			if (row.cells.length < 4) return;
			days.push(Date.parse(row.cells[0].textContent) / 1000);
			sums.push(Number(row.cells[2].textContent));
		}
		if (days.length < 2) return;
		const order = days.map((_, i) => i).sort((a, b) => days[a] - days[b]);
		const place = document.createElement("div");
		place.className = "chart";
		place.setAttribute("aria-hidden", "true"); // the table says the same
		table.parentElement.before(place);
		const color = getComputedStyle(table).color;
		const bar = getComputedStyle(document.documentElement).getPropertyValue("--bar").trim();
		const axis = { stroke: color, grid: { stroke: "#8883" }, ticks: { stroke: "#8883" } };
		const chart = new uPlot({
			width: Math.max(place.clientWidth, 200), height: 200, tzDate: (at) => uPlot.tzDate(new Date(at * 1000), "UTC"),
			legend: { show: false }, series: [{}, { stroke: bar, width: 2, fill: bar + "33", points: { show: true } }],
			scales: { y: { range: (_, __, most) => [0, most || 1] } }, axes: [axis, { ...axis, size: 80 }],
		}, [order.map((i) => days[i]), order.map((i) => sums[i])], place);
		new ResizeObserver(() => chart.setSize({ width: Math.max(place.clientWidth, 200), height: 200 })).observe(place);
	}

	function enhance(root) {
		localTimes(root);
		for (const code of root.querySelectorAll("[data-copy]")) copyButton(code, code.dataset.copy, (button) => code.after(" ", button));
		for (const table of root.querySelectorAll("table[data-chart]")) draw(table);
	}

	const live = () => document.getElementById("live");
	const withoutStream = 15_000; // how often a page renews itself that gets no stream
	let source = null, mark = "", wanted = false, running = false, began = 0, earliest = 0, waiting = 0;

	// renew replaces the part of the page that shows what changes, but not while the reader uses it, or sees none of it. A page that is costly to
	// make renews less often. What changes while it renews is got afterwards: the request that runs may have been answered before.
	function renew() {
		wanted = true;
		clearTimeout(waiting);
		if (running || document.hidden || live().contains(document.activeElement)) return;
		const wait = earliest - performance.now();
		if (wait > 0) {
			waiting = setTimeout(renew, wait);
			return;
		}
		wanted = false;
		running = true;
		began = performance.now();
		htmx.trigger(live(), "renew");
	}

	function showStream(open) {
		document.querySelector(".stream").hidden = !open;
	}

	// listen opens the stream of a page that is seen: a browser opens only a few connections to one server.
	function listen() {
		if (source || document.hidden) return;
		source = new EventSource(`${live().dataset.stream}?since=${encodeURIComponent(mark)}`);
		source.addEventListener("open", () => showStream(true));
		source.addEventListener("changed", (event) => {
			mark = event.lastEventId;
			renew();
		});
		source.addEventListener("ended", () => {
			source.close();
			location.reload(); // which leads to the login
		});
		source.addEventListener("error", () => {
			showStream(false);
			if (source.readyState !== EventSource.CLOSED) return; // the browser connects again
			source = null;
			setTimeout(() => {
				renew();
				listen();
			}, withoutStream);
		});
	}

	function follow() {
		if (!live()) return;
		mark = live().dataset.mark;
		document.addEventListener("visibilitychange", () => {
			if (document.hidden) {
				source?.close();
				source = null;
				showStream(false);
			} else {
				listen();
				if (wanted) renew();
			}
		});
		document.addEventListener("focusout", () => setTimeout(() => wanted && renew()));
		listen();
	}

	// part returns a part of another page of this server.
	async function part(url, id) {
		const answer = await fetch(url, { headers: { "Accept": "text/html" } });
		const page = new DOMParser().parseFromString(await answer.text(), "text/html");
		return answer.ok ? page.getElementById(id) : null;
	}

	function add(place, name, text) {
		const element = document.createElement(name);
		element.textContent = text ?? "";
		place.append(element);
		return element;
	}

	function showHeaders(place, title, headers) {
		const names = Object.keys(headers ?? {}).sort();
		if (!names.length) return;
		const details = add(place, "details");
		add(details, "summary", title);
		add(details, "pre", names.map((name) => `${name}: ${headers[name]}`).join("\n")).tabIndex = 0;
		details.open = names.some((name) => name.startsWith("Tallygate-"));
	}

	// tell shows what a call answers, as it comes.
	function tell(place) {
		const most = 200_000; // characters of an answer that are shown
		let body = null, text = null, shown = 0;
		return async (frame) => {
			if (frame.step) add(place, "h3", frame.step);
			if (frame.problem) add(place, "p", `${frame.problem.title} ${frame.problem.detail}`).className = "problem";
			if (frame.status) {
				add(place, "p", `Status ${frame.status}`).className = "status";
				showHeaders(place, "Headers", frame.headers);
				body = null;
				text = new TextDecoder();
			}
			if (frame.body) {
				if (!body) {
					body = add(place, "pre");
					body.tabIndex = 0;
					shown = 0;
				}
				const piece = text.decode(Uint8Array.from(atob(frame.body), (c) => c.charCodeAt(0)), { stream: true });
				if (shown < most) body.append(piece.slice(0, most - shown));
				shown += piece.length;
			}
			if (frame.end) showHeaders(place, "Trailers", frame.headers);
			if (frame.broken) add(place, "p", "The answer broke off.").className = "problem";
			if (frame.charge) {
				add(place, "h3", "The charge");
				const charge = await part(place.charges + frame.charge, "live");
				const section = add(place, "div", charge ? "" : "This call was not charged.");
				if (charge) section.append(...charge.childNodes);
				localTimes(section);
			}
		};
	}

	// send makes the call that a form describes.
	async function send(form, place) {
		const given = Object.fromEntries(new FormData(form));
		const key = form.querySelector("[data-name=key]"); // without a name, so that no form of the page puts it into an address
		if (key) given.key = key.value;
		place.replaceChildren();
		place.charges = form.dataset.charges;
		const show = tell(place);
		const answer = await fetch(form.dataset.send, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(given) });
		if (!answer.ok || !(answer.headers.get("Content-Type") ?? "").includes("ndjson")) {
			if (answer.redirected) location.reload(); // the session has ended
			return show({ problem: { title: "This was not sent.", detail: await answer.text() } });
		}
		const text = new TextDecoder();
		let rest = "";
		for (const reader = answer.body.getReader(); ;) {
			const { done, value } = await reader.read();
			if (done) break;
			const lines = (rest + text.decode(value, { stream: true })).split("\n");
			rest = lines.pop();
			for (const line of lines) await show(JSON.parse(line));
		}
	}

	// tryOut lets forms send their calls, and shows each as code.
	function tryOut() {
		for (const form of document.querySelectorAll("form.trial[data-send]")) {
			const button = form.querySelector(".send"), place = form.parentElement.querySelector(".answer");
			button.hidden = false;
			button.addEventListener("click", async () => {
				if (!form.reportValidity()) return;
				button.disabled = true;
				try {
					await send(form, place);
				} catch (error) {
					add(place, "p", `The connection broke: ${error.message}`).className = "problem";
				}
				button.disabled = false;
				const query = new URLSearchParams(new FormData(form));
				const code = await part(`${form.action}?${query}`, "snippets");
				if (code) document.getElementById("snippets").replaceWith(code);
				copying();
			});
		}
	}

	// copyButton makes a button that copies the text of an element. Browsers have a clipboard only for pages that came by HTTPS, or from this
	// machine.
	function copyButton(element, what, place) {
		if (!navigator.clipboard) return;
		const button = document.createElement("button");
		button.type = "button";
		button.className = "copy";
		button.textContent = "Copy";
		button.setAttribute("aria-label", `Copy ${what}`);
		button.addEventListener("click", async () => {
			await navigator.clipboard.writeText(element.textContent);
			button.textContent = "Copied";
		});
		place(button);
	}

	// copying puts a button at each program.
	function copying() {
		for (const code of document.querySelectorAll("#snippets pre")) {
			copyButton(code, code.parentElement.querySelector("summary").textContent, (button) => code.before(button));
		}
	}

	document.addEventListener("DOMContentLoaded", () => {
		enhance(document);
		follow();
		tryOut();
		copying();
	});
	// Without its part that renews, the answer is the login: the session has ended.
	document.addEventListener("htmx:beforeSwap", (event) => {
		if (event.detail.xhr.responseText.includes('id="live"')) return;
		event.detail.shouldSwap = false;
		location.reload();
	});
	document.addEventListener("htmx:afterSwap", () => {
		enhance(live());
		earliest = performance.now() + 5 * (performance.now() - began);
	});
	// Only now does the new part hear that it is to renew.
	document.addEventListener("htmx:afterSettle", () => {
		running = false;
		if (wanted) renew();
	});
	document.addEventListener("htmx:afterRequest", (event) => {
		if (event.detail.successful) return;
		running = false;
		wanted = true;
		waiting = setTimeout(renew, withoutStream);
	});
})();
