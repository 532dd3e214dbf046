// A facilitator of x402 for these tests: the official one, unmodified, over a chain that is made up. The chain is one token in memory. It does what the
// token's contract does: it checks each signature itself (EIP-712, EIP-3009), takes each nonce of a payer once, and knows balances.
import http from "node:http";
import { once } from "node:events";
import { getAddress, keccak256, recoverTypedDataAddress, serializeSignature, toHex, verifyTypedData } from "viem";
import { x402Facilitator } from "@x402/core/facilitator";
import { ExactEvmScheme } from "@x402/evm/exact/facilitator";
import { UptoEvmScheme } from "@x402/evm/upto/facilitator";
import { ExactEvmSchemeV1 } from "@x402/evm/exact/v1/facilitator";

export const asset = "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913";
export const payTo = "0x1111111111111111111111111111111111111111";
const types = {
	TransferWithAuthorization: [
		{ name: "from", type: "address" },
		{ name: "to", type: "address" },
		{ name: "value", type: "uint256" },
		{ name: "validAfter", type: "uint256" },
		{ name: "validBefore", type: "uint256" },
		{ name: "nonce", type: "bytes32" },
	],
};
// What a payer signs for the scheme upto: https://github.com/coinbase/x402/blob/main/specs/schemes/upto/scheme_upto_evm.md
const proxyUpTo = "0x4020A4f3b7b90ccA423B9fabCc0CE57C6C240002";
const permitTypes = {
	PermitWitnessTransferFrom: [
		{ name: "permitted", type: "TokenPermissions" },
		{ name: "spender", type: "address" },
		{ name: "nonce", type: "uint256" },
		{ name: "deadline", type: "uint256" },
		{ name: "witness", type: "Witness" },
	],
	TokenPermissions: [
		{ name: "token", type: "address" },
		{ name: "amount", type: "uint256" },
	],
	Witness: [
		{ name: "to", type: "address" },
		{ name: "facilitator", type: "address" },
		{ name: "validAfter", type: "uint256" },
	],
};
const permitDomain = { name: "Permit2", chainId: 8453, verifyingContract: "0x000000000022D473030F116dDEE9F6B43aC78BA3" };
const domain = { name: "USD Coin", version: "2", chainId: 8453, verifyingContract: asset };

class Chain {
	balances = new Map();
	used = new Set();
	transfers = [];

	give(address, units) {
		this.balances.set(getAddress(address), BigInt(units));
	}
	balance(address) {
		return this.balances.get(getAddress(address)) ?? 0n;
	}
	// check does what transferWithAuthorization does before it moves anything.
	async check([from, to, value, validAfter, validBefore, nonce, v, r, s]) {
		const signature = serializeSignature({ r, s, v: BigInt(v) });
		const message = { from, to, value, validAfter, validBefore, nonce };
		const signer = await recoverTypedDataAddress({ domain, types, primaryType: "TransferWithAuthorization", message, signature });
		if (getAddress(signer) !== getAddress(from)) throw new Error("FiatTokenV2: invalid signature");
		const now = BigInt(Math.floor(Date.now() / 1000));
		if (now <= validAfter) throw new Error("FiatTokenV2: authorization is not yet valid");
		if (now >= validBefore) throw new Error("FiatTokenV2: authorization is expired");
		if (this.used.has(from + nonce)) throw new Error("FiatTokenV2: authorization is used or canceled");
		if (this.balance(from) < value) throw new Error("ERC20: transfer amount exceeds balance");
	}
	// checkPermit does what the contract of the scheme upto does before it moves anything. Every payer has approved Permit2.
	async checkPermit([permit, amount, owner, witness, signature]) {
		const message = { ...permit, spender: proxyUpTo, witness };
		const signer = await recoverTypedDataAddress({ domain: permitDomain, types: permitTypes, primaryType: "PermitWitnessTransferFrom", message, signature });
		if (getAddress(signer) !== getAddress(owner)) throw new Error("InvalidSigner");
		if (amount > permit.permitted.amount) throw new Error("AmountExceedsPermitted");
		if (getAddress(permit.permitted.token) !== getAddress(asset)) throw new Error("another token");
		const now = BigInt(Math.floor(Date.now() / 1000));
		if (now < witness.validAfter || now > permit.deadline) throw new Error("SignatureExpired");
		if (this.used.has(owner + permit.nonce)) throw new Error("InvalidNonce");
		if (this.balance(owner) < amount) throw new Error("TRANSFER_FROM_FAILED");
	}
	async movePermit(args) {
		await this.checkPermit(args);
		const [permit, value, from, { to }] = args;
		this.used.add(from + permit.nonce);
		this.balances.set(getAddress(from), this.balance(from) - value);
		this.balances.set(getAddress(to), this.balance(to) + value);
		this.transfers.push({ from, value });
		return keccak256(toHex(from + permit.nonce));
	}
	async move(args) {
		await this.check(args);
		const [from, to, value, , , nonce] = args;
		this.used.add(from + nonce);
		this.balances.set(getAddress(from), this.balance(from) - value);
		this.balances.set(getAddress(to), this.balance(to) + value);
		this.transfers.push({ from, value });
		return keccak256(toHex(from + nonce));
	}
}

// signer is how the official facilitator reaches the chain.
const signer = (chain) => ({
	getAddresses: () => ["0x2222222222222222222222222222222222222222"],
	getCode: async ({ address }) => (getAddress(address) === getAddress(asset) ? "0x60" : undefined),
	async readContract({ functionName, args }) {
		if (functionName === "transferWithAuthorization") return chain.check(args);
		if (functionName === "settle") return chain.checkPermit(args);
		if (functionName === "balanceOf") return chain.balance(args[0]);
		throw new Error(`the chain has no ${functionName}`);
	},
	async writeContract({ functionName, args }) {
		if (functionName === "settle") return chain.movePermit(args);
		if (functionName !== "transferWithAuthorization") throw new Error(`the chain has no ${functionName}`);
		return chain.move(args);
	},
	verifyTypedData: (args) => verifyTypedData(args),
	waitForTransactionReceipt: async () => ({ status: "success" }),
});

// startFacilitator runs the facilitator. Its asked lists what it was asked.
export async function startFacilitator() {
	const chain = new Chain();
	const facilitator = new x402Facilitator()
		.register("eip155:8453", new ExactEvmScheme(signer(chain)))
		.register("eip155:8453", new UptoEvmScheme(signer(chain)))
		.registerV1("base", new ExactEvmSchemeV1(signer(chain)));
	const asked = [];
	const server = http.createServer(async (req, res) => {
		let raw = "";
		for await (const piece of req) raw += piece;
		const what = req.url.slice(1);
		asked.push(what);
		let answer;
		try {
			if (what === "supported") answer = facilitator.getSupported();
			else {
				const { paymentPayload, paymentRequirements } = JSON.parse(raw);
				answer = await facilitator[what](paymentPayload, paymentRequirements);
			}
		} catch (error) {
			res.writeHead(500);
			return res.end(String(error));
		}
		res.writeHead(200, { "content-type": "application/json" });
		res.end(JSON.stringify(answer));
	}).listen(0, "127.0.0.1");
	await once(server, "listening");
	return {
		url: `http://127.0.0.1:${server.address().port}`,
		chain,
		asked,
		stop() {
			server.closeAllConnections();
			server.close();
		},
	};
}
