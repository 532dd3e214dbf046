// What pages do besides showing what the server sends: times in the reader's zone, charts of tables, and pages that renew themselves.
"use strict";

(() => {
	const format = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

	function localTimes(root) {
		for (const element of root.querySelectorAll("time[datetime]:not([title])")) {
			element.title = element.textContent;
			element.textContent = format.format(new Date(element.dateTime));
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
		for (const table of root.querySelectorAll("table[data-chart]")) draw(table);
	}

	document.addEventListener("DOMContentLoaded", () => enhance(document));
	// What a reader uses is not replaced, nor what nobody sees.
	document.addEventListener("htmx:beforeRequest", (event) => {
		if (document.hidden || event.detail.elt.contains(document.activeElement)) event.preventDefault();
	});
	// Without its part that renews, the answer is the login: the session has ended.
	document.addEventListener("htmx:beforeSwap", (event) => {
		if (event.detail.xhr.responseText.includes('id="live"')) return;
		event.detail.shouldSwap = false;
		location.reload();
	});
	document.addEventListener("htmx:afterSwap", () => enhance(document.getElementById("live") ?? document));
})();
