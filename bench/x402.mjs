// A server beside which the metered one is measured: Express with the middleware of https://www.npmjs.com/package/@x402/express, in front of a
// proxy to the upstream. Every call is paid by x402's scheme "exact".
//
//	node x402.mjs FOLDER PORT UPSTREAM FACILITATOR
//
// FOLDER is where the packages are. GET /payment returns a payment that a client has signed, for the header Payment-Signature.
import http from "node:http";
import { createRequire } from "node:module";

const [folder, port, upstream, facilitator] = process.argv.slice(2);
const require = createRequire(`${folder}/`);
const express = require("express");
const { paymentMiddleware, x402ResourceServer } = require("@x402/express");
const { HTTPFacilitatorClient } = require("@x402/core/server");
const { x402Client, x402HTTPClient } = require("@x402/core/client");
const { ExactEvmScheme: Server } = require("@x402/evm/exact/server");
const { ExactEvmScheme: Client } = require("@x402/evm/exact/client");
const { generatePrivateKey, privateKeyToAccount } = require("viem/accounts");

const network = "eip155:8453";
const accepts = { scheme: "exact", price: "$0.000001", network, payTo: "0x1111111111111111111111111111111111111111", maxTimeoutSeconds: 86400 };
const server = new x402ResourceServer(new HTTPFacilitatorClient({ url: facilitator })).register(network, new Server());

const app = express();
app.disable("x-powered-by");
app.disable("etag");
app.get("/payment", async (_, res) => {
	const client = new x402HTTPClient(new x402Client().register(network, new Client(privateKeyToAccount(generatePrivateKey()))));
	const refused = await fetch(`http://127.0.0.1:${port}/wallet/json4k`);
	const asked = client.getPaymentRequiredResponse((name) => refused.headers.get(name), await refused.json());
	res.send(client.encodePaymentSignatureHeader(await client.createPaymentPayload(asked))["PAYMENT-SIGNATURE"]);
});
app.use(paymentMiddleware({ "GET /wallet/*": { accepts } }, server));
const agent = new http.Agent({ keepAlive: true });
app.use((req, res) => {
	const { "payment-signature": _, ...headers } = req.headers;
	const proxied = http.request(`http://${upstream}${req.originalUrl}`, { agent, method: req.method, headers }, (answer) => {
		res.writeHead((res.statusCode = answer.statusCode), answer.headers);
		answer.pipe(res);
	});
	proxied.on("error", () => res.sendStatus(502));
	req.pipe(proxied);
});

app.listen(port, "127.0.0.1");
