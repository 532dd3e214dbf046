// Node before 22 has no fs.globSync, which the conformance suite imports for a command that is not used here.
import { register } from "node:module";

const hooks = `
const shim = "data:text/javascript," + encodeURIComponent('export * from "node:fs"; export { default } from "node:fs"; export const globSync = undefined;');
export const resolve = (name, context, next) =>
	(name === "fs" || name === "node:fs") && context.parentURL?.includes("/@modelcontextprotocol/conformance/") ? { url: shim, shortCircuit: true } : next(name, context);
`;
if (!("globSync" in (await import("node:fs")))) register("data:text/javascript," + encodeURIComponent(hooks));
