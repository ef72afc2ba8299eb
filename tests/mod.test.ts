import { expect, test } from "bun:test";
import { join } from "node:path";
import manifest from "../package.json" with { type: "json" };
import { DEFAULT_LIMITS, LayoutDirectory, readCache } from "../src/mod.ts";
import { fixture } from "./helpers/temp.ts";

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
