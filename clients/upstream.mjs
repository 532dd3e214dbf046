// A provider made for these tests. It speaks the wire formats of the clients in this suite, and always gives the same answer. The first part of
// the path says what it does:
//
//   ok/…          answers
//   slow/…        streams, with a pause in the middle
//   held/…        streams, and sends the last two events only when it is released
//   empty/…       answers {}, from which nobody can tell what it used
//   flaky429/ID/… answers 429 once for each ID, and then as ok does; flaky503 likewise
import http from "node:http";
import { once } from "node:events";
import { WebSocketServer } from "ws";

const words = ["Hello", " there", ", my", " friend."];
const text = words.join("");
const model = "test-1";

const sse = (events) => events.map(([name, data]) => (name ? `event: ${name}\n` : "") + `data: ${typeof data === "string" ? data : JSON.stringify(data)}\n\n`);
const lines = (events) => events.map((data) => JSON.stringify(data) + "\n");

const chatUsage = { prompt_tokens: 1000, completion_tokens: 200, total_tokens: 1200 };
function chat(body) {
	const base = { id: "chatcmpl-1", created: 1700000000, model };
	if (!body.stream) {
		return { json: { ...base, object: "chat.completion", choices: [{ index: 0, message: { role: "assistant", content: text }, finish_reason: "stop" }], usage: chatUsage } };
	}
	const chunk = (choices, more) => [null, { ...base, object: "chat.completion.chunk", choices, ...more }];
	const events = words.map((content, i) => chunk([{ index: 0, delta: i ? { content } : { role: "assistant", content }, finish_reason: null }]));
	events.push(chunk([{ index: 0, delta: {}, finish_reason: "stop" }]));
	if (body.stream_options?.include_usage) events.push(chunk([], { usage: chatUsage }));
	events.push([null, "[DONE]"]);
	return { sse: sse(events) };
}

function responses(body) {
	const part = (text) => ({ type: "output_text", text, annotations: [] });
	const item = (content, status) => ({ type: "message", id: "msg_1", role: "assistant", status, content });
	const response = (status, output, usage) => ({ id: "resp_1", object: "response", created_at: 1700000000, status, model, output, usage, parallel_tool_calls: true, tools: [] });
	const usage = { input_tokens: 1000, input_tokens_details: { cached_tokens: 0 }, output_tokens: 200, output_tokens_details: { reasoning_tokens: 0 }, total_tokens: 1200 };
	const done = response("completed", [item([part(text)], "completed")], usage);
	if (!body.stream) return { json: done };
	let n = 0;
	const event = (type, data) => [type, { type, sequence_number: n++, ...data }];
	const at = { item_id: "msg_1", output_index: 0, content_index: 0 };
	return {
		sse: sse([
			event("response.created", { response: response("in_progress", [], null) }),
			event("response.output_item.added", { output_index: 0, item: item([], "in_progress") }),
			event("response.content_part.added", { ...at, part: part("") }),
			...words.map((delta) => event("response.output_text.delta", { ...at, delta, logprobs: [] })),
			event("response.output_text.done", { ...at, text, logprobs: [] }),
			event("response.content_part.done", { ...at, part: part(text) }),
			event("response.output_item.done", { output_index: 0, item: item([part(text)], "completed") }),
			event("response.completed", { response: done }),
		]),
	};
}

function messages(body) {
	const message = { id: "msg_1", type: "message", role: "assistant", model, stop_sequence: null };
	if (!body.stream) {
		return { json: { ...message, content: [{ type: "text", text }], stop_reason: "end_turn", usage: { input_tokens: 1000, output_tokens: 200 } } };
	}
	const event = (type, data) => [type, { type, ...data }];
	return {
		sse: sse([
			event("message_start", { message: { ...message, content: [], stop_reason: null, usage: { input_tokens: 1000, output_tokens: 1 } } }),
			event("content_block_start", { index: 0, content_block: { type: "text", text: "" } }),
			...words.map((text) => event("content_block_delta", { index: 0, delta: { type: "text_delta", text } })),
			event("content_block_stop", { index: 0 }),
			event("message_delta", { delta: { stop_reason: "end_turn", stop_sequence: null }, usage: { output_tokens: 200 } }),
			event("message_stop", {}),
		]),
	};
}

function gemini(streamed) {
	const usageMetadata = { promptTokenCount: 1000, candidatesTokenCount: 200, totalTokenCount: 1200 };
	const answer = (text, more) => ({ candidates: [{ content: { role: "model", parts: [{ text }] }, index: 0, ...more }], modelVersion: model, responseId: "r1", usageMetadata });
	if (!streamed) return { json: answer(text, { finishReason: "STOP" }) };
	return { sse: sse(words.map((word, i) => [null, answer(word, i === words.length - 1 ? { finishReason: "STOP" } : {})])).map((event) => event.replace(/\n/g, "\r\n")) };
}

function ollama(body) {
	const base = { model, created_at: "2026-01-01T00:00:00Z" };
	const end = { done: true, done_reason: "stop", prompt_eval_count: 1000, eval_count: 200 };
	if (body.stream === false) return { json: { ...base, message: { role: "assistant", content: text }, ...end } };
	return {
		kind: "application/x-ndjson",
		sse: lines([...words.map((content) => ({ ...base, message: { role: "assistant", content }, done: false })), { ...base, message: { role: "assistant", content: "" }, ...end }]),
	};
}

function cohere(body) {
	const usage = { billed_units: { input_tokens: 1000, output_tokens: 200 }, tokens: { input_tokens: 1000, output_tokens: 200 } };
	if (!body.stream) return { json: { id: "c1", finish_reason: "COMPLETE", message: { role: "assistant", content: [{ type: "text", text }] }, usage } };
	const event = (type, data) => [type, { type, ...data }];
	return {
		sse: sse([
			event("message-start", { id: "c1", delta: { message: { role: "assistant", content: [], tool_plan: "", tool_calls: [], citations: [] } } }),
			event("content-start", { index: 0, delta: { message: { content: { type: "text", text: "" } } } }),
			...words.map((text) => event("content-delta", { index: 0, delta: { message: { content: { text } } } })),
			event("content-end", { index: 0 }),
			event("message-end", { delta: { finish_reason: "COMPLETE", usage } }),
		]),
	};
}

function answerTo(path, body) {
	if (path.endsWith("/chat/completions")) return chat(body);
	if (path.endsWith("/responses")) return responses(body);
	if (path.endsWith("/messages")) return messages(body);
	if (path.endsWith(":generateContent")) return gemini(false);
	if (path.endsWith(":streamGenerateContent")) return gemini(true);
	if (path.endsWith("/api/chat")) return ollama(body);
	if (path.endsWith("/v2/chat")) return cohere(body);
}

// odd writes the same stream in other ways that the specification of event streams allows.
const odd = {
	crlf: (s) => s.replace(/\n/g, "\r\n"),
	cr: (s) => s.replace(/\n/g, "\r"),
	mark: (s) => "\ufeff" + s,
	comments: (s) => ": hello\n\n" + s.replace(/\n\n/g, "\n: between\n\n: and on\n\n"),
	fields: (s) => "retry: 10\nid: 7\n\n" + s.replace(/data: /g, "data:"),
	bytes: (s) => s,
};

export async function startUpstream() {
	const seen = new Set();
	const held = []; // what releases streams
	const server = http.createServer(async (req, res) => {
		let raw = "";
		for await (const piece of req) raw += piece;
		const path = new URL(req.url, "http://upstream").pathname;
		const [, mode, id] = path.split("/");
		const flaky = mode.match(/^flaky(\d+)$/);
		if (flaky && !seen.has(mode + id)) {
			seen.add(mode + id);
			res.writeHead(Number(flaky[1]), { "content-type": "application/json", "retry-after": "0", "retry-after-ms": "1" });
			return res.end(JSON.stringify({ error: { message: "try again", type: "overloaded", code: Number(flaky[1]), status: "UNAVAILABLE" } }));
		}
		if (mode === "empty") {
			res.writeHead(200, { "content-type": "application/json" });
			return res.end("{}");
		}
		const body = raw ? JSON.parse(raw) : {};
		const answer = answerTo(path, body);
		if (!answer) return res.writeHead(404).end("no such path: " + path);
		if (answer.json) {
			res.writeHead(200, { "content-type": "application/json" });
			return res.end(JSON.stringify(answer.json));
		}
		res.writeHead(200, { "content-type": answer.kind ?? "text/event-stream" });
		if (mode === "odd") {
			const all = Buffer.from(odd[id](answer.sse.join("")));
			for (let i = 0; i < all.length; i += id === "bytes" ? 1 : 7) {
				if (!res.write(all.subarray(i, i + (id === "bytes" ? 1 : 7)))) await once(res, "drain");
			}
			return res.end();
		}
		for (const [i, event] of answer.sse.entries()) {
			res.write(event);
			if (mode === "slow" && i === answer.sse.length - 3) await new Promise((resolve) => setTimeout(resolve, 1000));
			if (mode === "held" && i === answer.sse.length - 3) await new Promise((resolve) => held.push(resolve));
			await new Promise(setImmediate);
		}
		res.end();
	});
	const sockets = new WebSocketServer({ server });
	const closes = [];
	sockets.on("connection", (socket) => {
		socket.on("message", (data) => (String(data) === "close" ? socket.close(4002, "server") : socket.send(String(data))));
		socket.on("close", (code, reason) => closes.push(`${code} ${reason}`));
	});
	server.listen(0, "127.0.0.1");
	await once(server, "listening");
	return {
		address: `127.0.0.1:${server.address().port}`,
		closes,
		release: () => held.splice(0).forEach((resolve) => resolve()),
		stop() {
			sockets.close();
			for (const socket of sockets.clients) socket.terminate();
			server.closeAllConnections();
			server.close();
		},
	};
}
