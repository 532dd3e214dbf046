// The gate of this suite: a real tallygate with a Caddyfile of its own. TALLYGATE names the binary; without it, it is built.
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

const operator = "operator-key-of-the-clients";

// build builds a program of this module, or of one that it needs, unless the environment names it.
export function build(dir, variable, pkg) {
	if (process.env[variable]) return process.env[variable];
	const binary = join(dir, variable.toLowerCase());
	execFileSync("go", ["build", "-o", binary, pkg], { cwd: new URL("..", import.meta.url) });
	return binary;
}

export async function freePort() {
	const server = net.createServer().listen(0, "127.0.0.1");
	await once(server, "listening");
	const { port } = server.address();
	server.close();
	await once(server, "close");
	return port;
}

const rail = (facilitator) => !facilitator ? "" : `rail x402 {
			facilitator ${facilitator.url}
			network eip155:8453
			asset ${facilitator.asset}
			pay_to ${facilitator.payTo}
			top_up 0.10
			upto
		}`;

const caddyfile = (dir, port, upstream, mcp, facilitator) => `{
	admin off
	auto_https off
	tallygate {
		ledger bolt ${dir}/ledger.db
		operator_key ${operator}
		registration open
		${rail(facilitator)}
		tariff test {
			model * {
				input 3 per 1M tokens
				output 15 per 1M tokens
			}
		}
	}
}
:${port} {
	bind 127.0.0.1
	tallygate
	handle /again/* { # each call has the same idempotency key
		request_header Idempotency-Key again
		meter {
			payee again
			tariff test
		}
		reverse_proxy ${upstream}
	}
	handle /down/* { # a provider that is not there
		meter {
			payee down
			tariff test
		}
		reverse_proxy 127.0.0.1:1
	}
	handle /gone/* { # a provider that has been found not to be there
		meter {
			payee gone
			tariff test
		}
		reverse_proxy 127.0.0.1:1 {
			fail_duration 1h
		}
	}
	handle /calls/* {
		meter {
			payee calls
			price 0.04 per call
			keep_responses 1MiB for 1h
		}
		reverse_proxy ${upstream}
	}
	handle /socket {
		meter socket 0.01 per event
		reverse_proxy ${upstream}
	}
	handle /mcp-tools {
		meter {
			payee tools
			tariff {
				tool * 0.01 per call
			}
		}
		reverse_proxy ${mcp ?? upstream}
	}
	handle {
		meter {
			payee llm
			tariff test
		}
		reverse_proxy ${upstream}
	}
}
`;

// startGate runs the gate in front of an upstream, and of an MCP server if one is named. With a facilitator ({url, asset, payTo}), callers may
// pay by x402.
export async function startGate(upstream, mcp, facilitator) {
	const dir = mkdtempSync(join(tmpdir(), "tallygate-clients-"));
	const binary = build(dir, "TALLYGATE", "./cmd/tallygate");
	const port = await freePort();
	writeFileSync(join(dir, "Caddyfile"), caddyfile(dir, port, upstream, mcp, facilitator));
	const env = { ...process.env, XDG_DATA_HOME: join(dir, "data"), XDG_CONFIG_HOME: join(dir, "config") };
	const gate = spawn(binary, ["run", "--config", join(dir, "Caddyfile")], { env, stdio: ["ignore", "ignore", "pipe"] });
	let log = "";
	gate.stderr.on("data", (piece) => (log += piece));
	const ended = once(gate, "exit");
	process.on("exit", () => gate.kill("SIGKILL"));
	const base = `http://127.0.0.1:${port}`;
	for (;;) {
		if (gate.exitCode !== null) throw new Error("the gate did not start:\n" + log);
		try {
			await fetch(base + "/api/v1/tariffs");
			break;
		} catch {
			await new Promise((resolve) => setTimeout(resolve, 50));
		}
	}
	const api = async (method, path, key, body) => {
		const response = await fetch(base + "/api/v1" + path, {
			method, body: body && JSON.stringify(body), headers: { "content-type": "application/json", ...(key && { authorization: `Bearer ${key}` }) },
		});
		if (!response.ok) throw new Error(`${method} ${path}: ${await response.text()}`);
		return response.json();
	};
	return {
		base,
		operator,
		// agent makes an agent with money in its wallet, and returns its key.
		async agent(id, amount) {
			const { api_key: key } = await api("POST", "/agents", null, { agent_id: id });
			if (amount) await api("POST", "/wallet/deposit", operator, { agent_id: id, amount, reference: `first deposit of ${id}` });
			return key;
		},
		// key makes a key of an agent that the configuration names.
		key: async (id) => (await api("POST", "/agents/me/keys", operator, { agent_id: id })).api_key,
		balance: async (id) => (await api("GET", `/wallet?agent_id=${id}`, operator)).balance,
		charges: async (key) => (await api("GET", "/charges", key)).charges,
		chargesOf: async (id) => (await api("GET", `/charges?agent_id=${id}`, operator)).charges,
		async stop() {
			gate.kill("SIGTERM");
			await ended;
			rmSync(dir, { recursive: true, force: true });
		},
	};
}
