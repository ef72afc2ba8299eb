/**
 * Runs the tests: builds the binary where a test drives it, hands the rest to `bun test`,
 * and ends with the ten slowest tests.
 *
 *   test.ts [FILE or option of bun test...]
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { ROOT } from "./compile.ts";

/** How many of the slowest are named. */
const SLOWEST = 10;
/** A pure module's tests are a matter of milliseconds: below this nothing is worth naming, in seconds. */
const WORTH_NAMING = 0.5;

const args = process.argv.slice(2);
const files = args.filter((arg) => arg.endsWith(".ts") && existsSync(join(ROOT, arg)));
if (files.length === 0 || files.some(drivesBinary)) {
  const { status } = bun(["scripts/build.ts"]);
  if (status !== 0) process.exit(status ?? 1);
}
const folder = mkdtempSync(join(tmpdir(), "cacheport-tests-"));
const report = join(folder, "report.xml");
try {
  const options = ["--timeout", "120000", "--reporter=junit", `--reporter-outfile=${report}`];
  const { status } = bun(["test", ...options, ...args]);
  if (existsSync(report)) nameSlowest(readFileSync(report, "utf8"));
  process.exitCode = status ?? 1;
} finally {
  rmSync(folder, { recursive: true, force: true });
}

function bun(command: readonly string[]): { status: number | null } {
  return spawnSync(process.execPath, command, { cwd: ROOT, stdio: "inherit" });
}

/** Tells whether a test file, or a helper that it imports, names the compiled binary. */
function drivesBinary(file: string): boolean {
  const seen = new Set([resolve(ROOT, file)]);
  for (const path of seen) {
    const text = readFileSync(path, "utf8");
    if (path.endsWith("/helpers/binary.ts") || text.includes('"dist"')) return true;
    for (const [, target] of text.matchAll(/from "(\.{1,2}\/[^"]+\.ts)"/g)) {
      const next = resolve(dirname(path), target as string);
      if (next.startsWith(join(ROOT, "tests")) && existsSync(next)) seen.add(next);
    }
  }
  return false;
}

function nameSlowest(xml: string): void {
  const cases = [...xml.matchAll(/<testcase name="([^"]*)"[^>]* time="([\d.]+)" file="([^"]*)"/g)];
  const slow = cases
    .map(([, name, time, file]) => ({ name, file, seconds: Number(time) }))
    .filter(({ seconds }) => seconds >= WORTH_NAMING)
    .toSorted((a, b) => b.seconds - a.seconds)
    .slice(0, SLOWEST);
  if (slow.length === 0) return;
  console.log("\nThe slowest tests:");
  for (const { name, file, seconds } of slow)
    console.log(`${seconds.toFixed(1).padStart(7)} s  ${file}: ${unescape(name ?? "")}`);
}

function unescape(text: string): string {
  const names: Record<string, string> = { lt: "<", gt: ">", quot: '"', apos: "'", amp: "&" };
  return text.replace(/&(lt|gt|quot|apos|amp);/g, (_, name: string) => names[name] as string);
}
