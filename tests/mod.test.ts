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
