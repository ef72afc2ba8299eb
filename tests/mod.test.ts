import { expect, test } from "bun:test";
import { join } from "node:path";
import manifest from "../package.json" with { type: "json" };
import {
  convertCache,
  copyContent,
  DEFAULT_LIMITS,
  LayoutDirectory,
  LayoutDirectoryWriter,
  noProgress,
  openStore,
  openWriter,
  readCache,
} from "../src/mod.ts";
import { layoutFaults, readIndex } from "./helpers/layout.ts";
import { fixture, tempFolder } from "./helpers/temp.ts";

test("package.json exports the module", async () => {
  const path = join(import.meta.dir, "..", manifest.exports);
  expect(await Bun.file(path).exists()).toBe(true);
});

test("a cache is read as the module's example reads it", async () => {
  const limits = DEFAULT_LIMITS;
  const store = await LayoutDirectory.open(fixture("app-oci-index"), {
    limits,
  });
  const { descriptor } = await store.resolve({ name: "latest" });
  const set = await readCache(store, descriptor, { limits });
  expect(set.shape).toBe("oci-index");
  expect(set.caches[0]?.config.records).toHaveLength(14);
});

test("a cache is converted as the example of convertCache does it", async () => {
  const limits = DEFAULT_LIMITS;
  const target = join(tempFolder(), "converted");
  const store = await LayoutDirectory.open(fixture("app-oci-index"), { limits });
  const { descriptor } = await store.resolve({ name: "latest" });
  const set = await readCache(store, descriptor, { limits });
  const writer = await LayoutDirectoryWriter.open(target, { create: true });
  const made = await convertCache(store, set, writer, { shape: "image-manifest" });
  await writer.close();
  const { manifests } = readIndex(target);
  expect(manifests[0].digest).toBe(readIndex(fixture("app-image-manifest")).manifests[0].digest);
  expect(made?.descriptor.digest).toBe(manifests[0].digest);
  expect(layoutFaults(target)).toEqual([]);
});

test("content is copied with what the module exports", async () => {
  const limits = DEFAULT_LIMITS;
  const target = join(tempFolder(), "copy");
  const store = await LayoutDirectory.open(fixture("app-oci-index"), { limits });
  const { descriptor } = await store.resolve({ name: "latest" });
  const writer = await LayoutDirectoryWriter.open(target, { create: true });
  const names = [{ kind: "set" as const, name: { refName: "latest" } }];
  await copyContent(store, [{ descriptor, names }], writer, {
    limits,
    jobs: 4,
    progress: noProgress,
  });
  await writer.close();
  expect(readIndex(target).manifests[0].digest).toBe(descriptor.digest);
  expect(layoutFaults(target)).toEqual([]);
});

/** Types that every program has. */
const BUILT_IN = new Set(
  "AbortSignal Array AsyncIterable Error Map Omit Partial Pick Promise Readonly ReadonlyMap ReadonlySet ReadableStream Record Set Uint8Array".split(
    " ",
  ),
);

const SOURCE = join(import.meta.dir, "..", "src");
const text = (file: string): Promise<string> => Bun.file(join(SOURCE, file)).text();
const namesIn = (list: string): string[] =>
  list
    .split(",")
    .map((name) => name.trim())
    .filter((name) => name !== "");

test("every exported function can be called with exported types", async () => {
  const module = await text("mod.ts");
  const statements = [...module.matchAll(/export (type )?\{([^}]*)\} from "\.\/([\w-]+\.ts)"/g)];
  const exported = new Set(statements.flatMap(([, , list = ""]) => namesIn(list)));
  const missing: string[] = [];
  let functions = 0;
  for (const [, isType, list = "", file = ""] of statements) {
    if (isType) continue;
    const source = await text(file);
    for (const name of namesIn(list)) {
      const declared = new RegExp(`export (?:async )?function ${name}\\b([^]*?)\\{\\n`).exec(
        source,
      );
      if (!declared) continue;
      functions++;
      const signature = (declared[1] as string).replace(/"[^"]*"|= \{[^}]*\}|\/\/.*/g, "");
      for (const [type] of signature.matchAll(/\b[A-Z][A-Za-z]+\b/g))
        if (!BUILT_IN.has(type) && !exported.has(type)) missing.push(`${name}: ${type}`);
    }
  }
  expect(functions).toBeGreaterThan(20);
  expect(missing).toEqual([]);
});

test("a location is opened, read and written with the command line's defaults", async () => {
  const store = await openStore(fixture("app-oci-index"));
  const { descriptor } = await store.resolve({ name: "latest" });
  const set = await readCache(store, descriptor);
  const target = join(tempFolder(), "copy");
  const writer = await openWriter(target);
  const made = await convertCache(store, set, writer, {
    limits: DEFAULT_LIMITS,
    jobs: 2,
    progress: noProgress,
    shape: "image-manifest",
    names: [{ kind: "set", name: { refName: "main" } }],
    inPlace: false,
    checkBlobs: false,
  });
  await writer.close();
  expect(made?.descriptor.digest).toBe(
    readIndex(fixture("app-image-manifest")).manifests[0].digest,
  );
  expect(layoutFaults(target)).toEqual([]);
  await store.close();
});
