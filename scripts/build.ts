/**
 * Builds dist/cacheport: one file with the runtime in it.
 *
 *   build.ts [--target linux-arm64] [--outfile dist/cacheport-linux-arm64]
 */
import { basename, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { compile, executableName, parseTarget, ROOT } from "./compile.ts";

const { values } = parseArgs({
  options: { target: { type: "string" }, outfile: { type: "string" } },
});
const target = values.target === undefined ? undefined : parseTarget(values.target);
const outfile = resolve(values.outfile ?? join(ROOT, "dist", executableName(target)));
await compile(outfile, target);
const megabytes = (Bun.file(outfile).size / 1e6).toFixed(1);
console.log(`Built ${basename(outfile)} (${megabytes} MB)`);
