/**
 * Speed and memory beside other tools: the same work, in turn, in one run.
 *
 *   npm run bench -- [--only GROUP,...] [--rounds N] [--megabytes N] [--json FILE] [--check FILE]
 *
 * Each row shows medians over the rounds: wall and processor seconds, peak memory of the
 * largest process, and how many times as long as cacheport the other tool takes. Tools that
 * are not there are left out; the interop peers are used where PEERS_RUN names them.
 *
 * Without --check nothing here passes or fails. With it, the run is compared with a stored
 * one (--json) by ratios, since no two machines are equally fast: cacheport's time over the
 * fastest other tool's in the same group, or over this machine's own speed at hashing where
 * there is no other tool. A row that grew by more than --tolerance (default 0.15) fails.
 */
import { createHash } from "node:crypto";
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { makeCache } from "./bench-data.ts";
import * as folder from "./bench-folder.ts";
import * as registry from "./bench-registry.ts";
import { measure, median } from "./bench-run.ts";
import type { Bench, Row } from "./bench-run.ts";

const { values } = parseArgs({
  options: {
    only: { type: "string" },
    rounds: { type: "string", default: "3" },
    megabytes: { type: "string", default: "1500" },
    json: { type: "string" },
    check: { type: "string" },
    tolerance: { type: "string", default: "0.15" },
  },
});

const work = mkdtempSync(join(tmpdir(), "cacheport-bench-"));
chmodSync(work, 0o755);
const bench: Bench = {
  cacheport: join(import.meta.dir, "..", "dist", "cacheport"),
  work,
  rounds: Number(values.rounds),
  megabytes: Number(values.megabytes),
  peers: process.env["PEERS_RUN"],
  registry: process.env["PEERS_REGISTRY"],
  rows: [],
  entry: 0,
};
const clear = (): void => rmSync(join(work, "out"), { recursive: true, force: true });

const groups: Record<string, (bench: Bench, clear: () => void) => Promise<void>> = {
  startup: folder.startGroups,
  convert: folder.convertGroups,
  archive: folder.archiveGroups,
  folder: folder.folderGroups,
  registry: registry.registryGroups,
  small: registry.smallBlobGroups,
  slow: registry.slowLinkGroups,
  verify: folder.verifyGroups,
  recompress: folder.recompressGroups,
  records: folder.recordGroups,
};

/** What --json stores. */
interface Run {
  /** Seconds that this machine takes to hash 256 MiB on one core. */
  hashing: number;
  rows: Row[];
}

/** How fast this machine is, in a figure that no tool has a part in. */
function hashingSeconds(): number {
  const bytes = new Uint8Array(32 * 2 ** 20);
  const times = [1, 2, 3].map(() => {
    const start = performance.now();
    const hash = createHash("sha256");
    for (let n = 0; n < 8; n++) hash.update(bytes);
    hash.digest();
    return (performance.now() - start) / 1000;
  });
  return median(times);
}

/** cacheport's rows as ratios that can be held against those of another machine. */
function ratios({ rows, hashing }: Run): Map<string, number> {
  const found = new Map<string, number>();
  for (const row of rows) {
    if (!row.name.startsWith("cacheport")) continue;
    const others = rows.filter(
      ({ group, name }) => group === row.group && !name.startsWith("cacheport"),
    );
    const best = Math.min(...others.map(({ wall }) => wall));
    found.set(`${row.group}: ${row.name}`, row.wall / (others.length > 0 ? best : hashing));
  }
  return found;
}

function check(now: Run, path: string): void {
  const before = ratios(JSON.parse(readFileSync(path, "utf8")) as Run);
  const limit = 1 + Number(values.tolerance);
  console.log(`\ncompared with ${path}`);
  for (const [row, ratio] of ratios(now)) {
    const old = before.get(row);
    if (old === undefined) continue;
    const change = ratio / old;
    const isSlower = change > limit;
    if (isSlower) process.exitCode = 1;
    console.log(`  ${change.toFixed(2)} ${isSlower ? "SLOWER" : "      "} ${row}`);
  }
}

const model = cpus()[0]?.model ?? "unknown processor";
console.log(`${model}, ${availableParallelism()} cores; medians of ${bench.rounds} rounds`);
try {
  const { peers, megabytes } = bench;
  if (peers) {
    const runs = [];
    for (let n = 0; n < 9; n++)
      runs.push(await measure(bench, { name: "true", command: [peers, "true"] }));
    bench.entry = median(runs.map(({ wall }) => wall));
    const milliseconds = (bench.entry * 1000).toFixed(1);
    console.log(`${milliseconds} ms to enter the peers' tree are taken off their times`);
  }
  const each = Math.floor((megabytes * 1e6) / 12);
  const wanted = values.only?.split(",");
  makeCache(
    join(work, "cache"),
    Array.from({ length: 12 }, () => each),
  );
  for (const [name, run] of Object.entries(groups))
    if (!wanted || wanted.includes(name)) await run(bench, clear);
  const run: Run = { hashing: hashingSeconds(), rows: bench.rows };
  if (values.json) writeFileSync(values.json, `${JSON.stringify(run, null, 2)}\n`);
  if (values.check) check(run, values.check);
} finally {
  rmSync(work, { recursive: true, force: true });
}
