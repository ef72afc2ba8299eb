/** What `explain` asks a registry for: the documents of the cache, and no layer that it does not need. */
import { beforeAll, expect, test } from "bun:test";
import { vector } from "./helpers/explain-vectors.ts";
import { readDocument, readIndex } from "./helpers/layout.ts";
import { started } from "./helpers/registry-client.ts";
import { ask, load } from "./helpers/registry-commands.ts";
import { TestRegistry } from "./helpers/test-registry.ts";

let registry: TestRegistry;
beforeAll(async () => {
  registry = await started(TestRegistry.start());
});

const layout = vector("ci-app", "A", "cache");

/** The cache of the vectors; its base layer is in no folder and in no request. */
function loaded(name: string): string {
  const { digest } = readIndex(layout).manifests[0];
  const manifest = readDocument(layout, digest);
  const repository = registry.repository(name);
  try {
    load(registry, name, layout, "main");
  } catch {
    // The base layer is left out of the vectors: the rest is put by hand.
    registry.addManifest(name, manifest, "main");
    for (const blob of [manifest.config, ...manifest.layers]) {
      const file = Bun.file(`${layout}/blobs/${blob.digest.replace(":", "/")}`);
      if (file.size > 0) repository.blobs.set(blob.digest, new Uint8Array(0));
    }
  }
  return `${registry.domain}/${name}:main`;
}

async function fill(name: string): Promise<string> {
  const at = loaded(name);
  const repository = registry.repository(name);
  for (const digest of repository.blobs.keys()) {
    const bytes = await Bun.file(`${layout}/blobs/${digest.replace(":", "/")}`).bytes();
    repository.blobs.set(digest, bytes);
  }
  return at;
}

const { digest } = readIndex(layout).manifests[0];
const { config } = readDocument(layout, digest);
/** The layer of `COPY . .`. */
const COPY_LAYER = readDocument(layout, config.digest).layers;

test("the same build reads the manifest and the config, and no layer", async () => {
  const at = await fill("team/same");
  const run = await ask(registry, [
    "explain",
    at,
    "--build",
    vector("ci-app", "A", "metadata.json"),
    "--context",
    vector("ci-app", "A", "context"),
    "--json",
  ]);
  expect([run.code, run.stderr]).toEqual([0, ""]);
  expect(run.json().summary).toMatchObject({ hit: 9, miss: 0, maybe: 0 });
  expect(run.requests).toEqual([
    "GET team/same/manifests/main",
    `GET team/same/blobs/${config.digest}`,
  ]);
});

test("a changed file reads the one layer that tells which", async () => {
  const at = await fill("team/changed");
  const run = await ask(registry, [
    "explain",
    at,
    "--build",
    vector("ci-app", "B-app", "metadata.json"),
    "--context",
    vector("ci-app", "B-app", "context"),
    "--json",
  ]);
  expect([run.code, run.stderr]).toEqual([0, ""]);
  const step = run.json().steps.find(({ line }: any) => line === 8);
  expect(step.why[0].files).toMatchObject([{ path: "src/app.js", change: "content" }]);
  const layers = run.requests.slice(2);
  expect(layers).toHaveLength(1);
  expect(COPY_LAYER.map(({ blob }: any) => `GET team/changed/blobs/${blob}`)).toContain(layers[0]!);
});

test("a layer that is gone from the registry is no failure: the key alone tells that files differ", async () => {
  const at = await fill("team/gone");
  const { blobs } = registry.repository("team/gone");
  for (const blob of blobs.keys()) if (blob !== config.digest) blobs.delete(blob);
  const run = await ask(registry, [
    "explain",
    at,
    "--build",
    vector("ci-app", "B-app", "metadata.json"),
    "--context",
    vector("ci-app", "B-app", "context"),
  ]);
  expect(run.code).toBe(0);
  expect(run.stdout).toMatch(/COPY \. \. +MISS +files of the context differ/);
});
