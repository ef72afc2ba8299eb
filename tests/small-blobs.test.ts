/** Copies of many small blobs: how often the disk is waited for, and in which order things happen. */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { OCI_LAYER, OCI_MANIFEST } from "../src/media-types.ts";
import { BINARY } from "./helpers/binary.ts";
import { addBlob, layoutFaults, writeLayout } from "./helpers/layout.ts";
import { fixtureCopy, tempFolder } from "./helpers/temp.ts";

/** A layout with one manifest of many layers. */
function layoutOf(count: number): string {
  const layout = tempFolder();
  const layers = Array.from({ length: count }, (_, i) => addBlob(layout, `layer ${i}`, OCI_LAYER));
  const config = addBlob(layout, {}, "application/vnd.oci.empty.v1+json");
  const manifest = { schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers };
  const { digest, size } = addBlob(layout, manifest);
  const annotations = { "org.opencontainers.image.ref.name": "x" };
  writeLayout(layout, [{ mediaType: OCI_MANIFEST, digest, size, annotations }]);
  return layout;
}

/** Copies a layout into a new folder. @returns The system calls in their order, without the rest */
function traceCopy(count: number, inject: string[] = []): { calls: string[]; target: string } {
  const source = layoutOf(count);
  const log = join(tempFolder(), "trace");
  const target = join(tempFolder(), "target");
  const trace = ["strace", "-f", "-qq", "-e", "trace=fsync,fdatasync,syncfs,rename", ...inject];
  const command = [BINARY, "copy", `${source}:x`, target, "-q"];
  const run = Bun.spawnSync([...trace, "-o", log, ...command]);
  expect(run.stderr.toString()).toBe("");
  expect(run.exitCode).toBe(0);
  expect(layoutFaults(target)).toEqual([]);
  const lines = readFileSync(log, "utf8").split("\n");
  return { calls: lines.filter((line) => /\b(?:f\w*sync|syncfs|rename)\(/.test(line)), target };
}

const syncs = (calls: string[]): string[] => calls.filter((call) => !call.includes("rename("));

describe.skipIf(Bun.which("strace") === null)("many small blobs", () => {
  test("cost as many syncs as few", () => {
    const [few, many] = [traceCopy(50), traceCopy(200)];
    expect(syncs(many.calls).length).toBe(syncs(few.calls).length);
    expect(syncs(many.calls).length).toBeLessThan(12);
  });

  test("are on the disk before they have their names, and these before the index has its own", () => {
    const { calls } = traceCopy(50);
    const blobs = calls.map((call, i) => (/rename\(.*\/blobs\//.test(call) ? i : -1));
    const index = calls.findIndex((call) => /rename\(.*\/index\.json"/.test(call));
    const synced = calls.findIndex((call) => call.includes("syncfs("));
    expect(blobs.filter((i) => i >= 0)).toHaveLength(52);
    expect(synced).toBeGreaterThanOrEqual(0);
    expect(Math.min(...blobs.filter((i) => i >= 0))).toBeGreaterThan(synced);
    expect(index).toBeGreaterThan(Math.max(...blobs));
    // The folder with the names of the blobs.
    expect(syncs(calls.slice(Math.max(...blobs), index)).length).toBeGreaterThan(0);
  });

  test("are synced one by one where a file system cannot be synced as a whole", () => {
    const { calls } = traceCopy(50, ["-e", "inject=syncfs:error=EPERM"]);
    const first = calls.findIndex((call) => /rename\(.*\/blobs\//.test(call));
    expect(syncs(calls.slice(0, first)).length).toBeGreaterThanOrEqual(50);
  });
});

test.skipIf(Bun.which("strace") === null)(
  "the lock that BuildKit tries once is not held while the disk is waited for",
  async () => {
    const layout = fixtureCopy("grown");
    const log = join(tempFolder(), "trace");
    const trace = ["strace", "-f", "-qq", "-e", "trace=flock,fsync,rename,unlink", "-o", log];
    const run = Bun.spawnSync([...trace, BINARY, "tag", `${layout}:main`, "other"]);
    expect(run.exitCode).toBe(0);
    const calls = readFileSync(log, "utf8").split("\n");
    const put = calls.findIndex((call) => /rename\(.*\/index\.json"\)/.test(call));
    const taken = calls.slice(0, put).findLastIndex((call) => /flock\(.* = 0/.test(call));
    const given = calls.findIndex((call, i) => i > put && call.includes("index.json.lock"));
    expect(Math.min(put, taken, given)).toBeGreaterThan(0);
    expect(calls.slice(taken + 1, given).filter((call) => !call.includes("rename("))).toEqual([]);
    expect(calls.filter((call) => /\bfsync\(/.test(call)).length).toBeGreaterThanOrEqual(2);
  },
);
