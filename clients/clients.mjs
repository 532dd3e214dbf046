// The official clients, used as their documentation says, with only a base URL and a key. Each of them can
//
//   whole()       make a call, and return the result
//   stream(each)  make a call with a stream, call each with each piece, and hang up when that returns false
//
// and its errors have the status.
import Anthropic from "@anthropic-ai/sdk";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { GoogleGenAI } from "@google/genai";
import { GoogleGenAI as GoogleGenAI3 } from "@google/genai-3";
import { ChatOpenAI } from "@langchain/openai";
import { Mistral } from "@mistralai/mistralai";
import { generateText, streamText } from "ai";
import { CohereClientV2 } from "cohere-ai";
import Groq from "groq-sdk";
import { Ollama } from "ollama";
import OpenAI from "openai";

const model = "test-1";
const messages = [{ role: "user", content: "hello" }];

// pieces reads a stream. hangUp closes the connection, if leaving the loop does not.
async function pieces(stream, each, hangUp = () => {}) {
	let left = false;
	try {
		for await (const piece of stream) {
			if (each(piece) !== false) continue;
			left = true;
			hangUp();
			break;
		}
	} catch (error) {
		if (!left) throw error; // some clients report their own hanging up
	}
}

// vercel makes a client of Vercel's ai, whose streams are aborted by a signal.
const vercel = (provider) => (base, key) => {
	const languageModel = provider(base, key);
	return {
		async whole() {
			const { text, usage, finishReason } = await generateText({ model: languageModel, prompt: "hello" });
			return { text, usage, finishReason };
		},
		async stream(each) {
			const hangUp = new AbortController();
			let failure;
			const { fullStream } = streamText({ model: languageModel, prompt: "hello", abortSignal: hangUp.signal, onError: ({ error }) => (failure = error) });
			for await (const part of fullStream) {
				if (part.type === "error") throw part.error;
				if (!["text-delta", "finish"].includes(part.type)) continue;
				if (each(part.type === "finish" ? [part.finishReason, part.totalUsage] : part.text) === false) {
					hangUp.abort();
					break;
				}
			}
			if (failure) throw failure;
		},
	};
};

// genai makes a client of Google's, of one version.
const genai = (GoogleGenAI) => (base, key) => {
	const client = new GoogleGenAI({ apiKey: key, httpOptions: { baseUrl: base } });
	const plain = ({ candidates, usageMetadata, modelVersion, responseId }) => ({ candidates, usageMetadata, modelVersion, responseId });
	return {
		whole: async () => plain(await client.models.generateContent({ model, contents: "hello" })),
		stream: async (each) => {
			const hangUp = new AbortController();
			const stream = await client.models.generateContentStream({ model, contents: "hello", config: { abortSignal: hangUp.signal } });
			await pieces(stream, (piece) => each(plain(piece)), () => hangUp.abort());
		},
	};
};

export const clients = {
	openai: (base, key) => {
		const client = new OpenAI({ baseURL: base + "/v1", apiKey: key });
		return {
			whole: () => client.chat.completions.create({ model, messages }),
			stream: async (each) => pieces(await client.chat.completions.create({ model, messages, stream: true }), each),
		};
	},
	"openai, with usage": (base, key) => {
		const client = new OpenAI({ baseURL: base + "/v1", apiKey: key });
		return {
			whole: () => client.chat.completions.create({ model, messages }),
			stream: async (each) => pieces(await client.chat.completions.create({ model, messages, stream: true, stream_options: { include_usage: true } }), each),
		};
	},
	"openai, responses": (base, key) => {
		const client = new OpenAI({ baseURL: base + "/v1", apiKey: key });
		return {
			whole: () => client.responses.create({ model, input: "hello" }),
			stream: async (each) => pieces(await client.responses.create({ model, input: "hello", stream: true }), each),
		};
	},
	"@anthropic-ai/sdk": (base, key) => {
		const client = new Anthropic({ baseURL: base, apiKey: key });
		return {
			whole: () => client.messages.create({ model, max_tokens: 1000, messages }),
			stream: async (each) => pieces(await client.messages.create({ model, max_tokens: 1000, messages, stream: true }), each),
		};
	},
	"@google/genai": genai(GoogleGenAI),
	"@google/genai 3": genai(GoogleGenAI3),
	"ai, @ai-sdk/openai": vercel((base, key) => createOpenAI({ baseURL: base + "/v1", apiKey: key })(model)),
	"ai, @ai-sdk/openai, chat": vercel((base, key) => createOpenAI({ baseURL: base + "/v1", apiKey: key }).chat(model)),
	"ai, @ai-sdk/anthropic": vercel((base, key) => createAnthropic({ baseURL: base + "/v1", apiKey: key })(model)),
	"ai, @ai-sdk/openai-compatible": vercel((base, key) => createOpenAICompatible({ name: "test", baseURL: base + "/v1", apiKey: key })(model)),
	"@langchain/openai": (base, key) => {
		const client = new ChatOpenAI({ model, apiKey: key, maxRetries: 2, /* of 6, over a minute and a half */ configuration: { baseURL: base + "/v1" } });
		const plain = ({ content, usage_metadata, response_metadata }) => ({ content, usage_metadata, response_metadata });
		return {
			whole: async () => plain(await client.invoke("hello")),
			stream: async (each) => {
				const hangUp = new AbortController();
				await pieces(await client.stream("hello", { signal: hangUp.signal }), (piece) => each(plain(piece)), () => hangUp.abort());
			},
		};
	},
	ollama: (base, key) => {
		const client = new Ollama({ host: base, headers: { Authorization: `Bearer ${key}` } });
		return {
			whole: () => client.chat({ model, messages }),
			stream: async (each) => {
				const stream = await client.chat({ model, messages, stream: true });
				await pieces(stream, each, () => stream.abort());
			},
		};
	},
	"@mistralai/mistralai": (base, key) => {
		const client = new Mistral({ serverURL: base, apiKey: key });
		return {
			whole: () => client.chat.complete({ model, messages }),
			stream: async (each) => pieces(await client.chat.stream({ model, messages }), each),
		};
	},
	"cohere-ai": (base, key) => {
		const client = new CohereClientV2({ environment: base, token: key });
		return {
			whole: () => client.chat({ model, messages }),
			stream: async (each) => {
				const hangUp = new AbortController();
				await pieces(await client.chatStream({ model, messages }, { abortSignal: hangUp.signal }), each, () => hangUp.abort());
			},
		};
	},
	"groq-sdk": (base, key) => {
		const client = new Groq({ baseURL: base, apiKey: key });
		return {
			whole: () => client.chat.completions.create({ model, messages }),
			stream: async (each) => pieces(await client.chat.completions.create({ model, messages, stream: true }), each),
		};
	},
};

// statusOf returns the status in a client's error, whose name differs between clients.
export function statusOf(error) {
	if (error.lastError) error = error.lastError; // of Vercel's, after its own retries
	return error.status ?? error.statusCode ?? error.status_code;
}
