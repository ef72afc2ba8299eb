/** Names of steps wherever records and layers are shown: diff, prune, ls --tree. */
import { expect, test } from "bun:test";
import { cpSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { cacheport } from "./helpers/binary.ts";
import { vector } from "./helpers/explain-vectors.ts";
import { addBlob, readDocument, readIndex, writeLayout } from "./helpers/layout.ts";
import { tempFolder } from "./helpers/temp.ts";

const cache = vector("ci-app", "A", "cache");
const build = vector("ci-app", "A", "metadata.json");

test("diff --build names the records that only one cache has", async () => {
  const other = vector("multi-stage", "A", "cache");
  const run = await cacheport(["diff", cache, other, "--build", build, "--all"]);
  expect([run.code, run.stderr]).toEqual([0, ""]);
  expect(run.stdout).toMatch(/^COPY \. \. \(Dockerfile:8\) /m);
  const value = (await cacheport(["diff", cache, other, "--build", build, "--json"])).json();
  const names = value.records.onlyA.map(({ name }: any) => name);
  expect(names).toContain("RUN --network=none ls -la (Dockerfile:16)");
});

test("prune --build says which steps go", async () => {
  const copy = join(tempFolder(), "cache");
  cpSync(cache, copy, { recursive: true });
  // The vectors leave the base layer out; it is not read here.
  const base = "68e127356c3e7679e5d5bcb42ab97f7ba2031465d7792da8a2d46588e68e5cfe";
  writeFileSync(join(copy, "blobs", "sha256", base), new Uint8Array(1137191));
  const args = ["prune", copy, "--keep-newest", "2", "--dry-run", "--build", build];
  const run = await cacheport(args);
  expect(run.code).toBe(0);
  expect(run.stdout).toContain("RUN --network=none --mount=type=cache,target=/root/.npm");
  const { droppedSteps } = (await cacheport([...args, "--json"])).json();
  expect(droppedSteps).toContain("COPY . . (Dockerfile:8)");
});

test("merge --build names the steps of which the caches have other results", async () => {
  const copy = join(tempFolder(), "cache");
  cpSync(cache, copy, { recursive: true });
  const document = readDocument(copy, readIndex(copy).manifests[0].digest);
  const config = readDocument(copy, document.config.digest);
  // Each result stands on another layer than in the first cache.
  for (const { layers = [] } of config.records)
    for (const result of layers) result.layer = (result.layer + 1) % config.layers.length;
  const changed = { ...document, config: addBlob(copy, config, document.config.mediaType) };
  writeLayout(copy, [addBlob(copy, changed, document.mediaType)]);
  const args = ["merge", cache, copy, join(tempFolder(), "new"), "--dry-run", "--build", build];
  const run = await cacheport(args);
  expect([run.code, run.stderr]).toEqual([0, ""]);
  expect(run.stdout).toMatch(/^COPY \. \. \(Dockerfile:8\) /m);
  const { conflicts } = (await cacheport([...args, "--json"])).json();
  expect(conflicts.map(({ name }: any) => name)).toContain("COPY . . (Dockerfile:8)");
  const wrong = await cacheport([...args.slice(0, -1), "./no-such-build.json"]);
  expect(wrong.code).toBe(3);
});

test("ls --tree --build names the layers", async () => {
  const run = await cacheport(["ls", cache, "--tree", "--build", build]);
  expect(run.code).toBe(0);
  expect(run.stdout).toMatch(/ {2}COPY \. \. \(Dockerfile:8\)$/m);
  expect(run.stdout).toMatch(/ {2}FROM docker\.io\/library\/base:latest \(Dockerfile:1\)$/m);
});
