import { describe, expect, test } from "bun:test";
import { checkCacheConfig, layerChain } from "../src/cache-check.ts";
import { encodeCacheConfig } from "../src/cache-config.ts";
import type { CacheConfig, CacheRecord } from "../src/cache-types.ts";
import { dropUnused, normalizeCacheConfig, recordIdentities } from "../src/cache-order.ts";
import { failure } from "./helpers/errors.ts";
import { CACHE_FIXTURES, fixtureCaches } from "./helpers/fixture-caches.ts";
import { fakeDigest, generateCache, shuffle } from "./helpers/generated-cache.ts";

const text = (config: CacheConfig): string => new TextDecoder().decode(encodeCacheConfig(config));

const root = (digest: string): CacheRecord => ({
  digest,
  inputs: [],
  results: [],
  chains: [],
});
const step = (digest: string, ...inputs: number[][]): CacheRecord => ({
  ...root(digest),
  inputs: inputs.map((links) => links.map((link) => ({ selector: "", link }))),
});

describe("normalizeCacheConfig", () => {
  const caches = fixtureCaches(...CACHE_FIXTURES);

  test("there are fixtures, grown and repeated layers among them", () => {
    expect(caches.length).toBeGreaterThanOrEqual(17);
  });

  test.each(caches.map((cache) => [cache.name, cache] as const))(
    "gives %s the very bytes that BuildKit wrote",
    (_name, { config, configBytes }) => {
      const bytes = encodeCacheConfig(normalizeCacheConfig(config));
      expect(Buffer.from(bytes).equals(configBytes)).toBe(true);
    },
  );

  test.each(caches.map((cache) => [cache.name, cache] as const))(
    "gives %s BuildKit's bytes from any other order",
    (_name, cache) => {
      for (let seed = 0; seed < 5; seed++) {
        const { config } = shuffle(cache, seed);
        const bytes = encodeCacheConfig(normalizeCacheConfig(config));
        expect(Buffer.from(bytes).equals(cache.configBytes)).toBe(true);
      }
    },
  );

  test("does not depend on the order before, repeats nothing and loses nothing", () => {
    for (let seed = 0; seed < 4; seed++) {
      const cache = generateCache(seed, 1500);
      const before = text(cache.config);
      const normal = normalizeCacheConfig(cache.config);
      expect(text(cache.config)).toBe(before);
      expect(checkCacheConfig(normal)).toEqual([]);
      expect(text(normalizeCacheConfig(normal))).toBe(text(normal));
      expect(text(normalizeCacheConfig(shuffle(cache, seed + 100).config))).toBe(text(normal));
      expect(recordIdentities(normal.records).toSorted()).toEqual(
        recordIdentities(cache.config.records).toSorted(),
      );
      const chains = (config: CacheConfig): string[] =>
        [...config.layers.keys()].map((at) =>
          layerChain(config, at)
            .map((layer) => config.layers[layer]?.blob)
            .join(),
        );
      expect(chains(normal).toSorted()).toEqual(chains(cache.config).toSorted());
    }
  });

  test("sorts layers by blob, then by their parent's new place", () => {
    const [a, b, c] = ["a", "b", "c"].map(fakeDigest).toSorted() as [
      ReturnType<typeof fakeDigest>,
      ReturnType<typeof fakeDigest>,
      ReturnType<typeof fakeDigest>,
    ];
    const config = {
      layers: [
        { blob: c, parent: 3 },
        { blob: a, parent: 5 },
        { blob: a, parent: 4 },
        { blob: a, parent: -1 },
        { blob: b, parent: -1 },
        { blob: b, parent: 3 },
        { blob: a, parent: 0 },
      ],
      records: [],
    };
    expect(normalizeCacheConfig(config).layers).toEqual([
      { blob: a, parent: -1 },
      { blob: a, parent: 4 },
      { blob: a, parent: 5 },
      { blob: a, parent: 6 },
      { blob: b, parent: -1 },
      { blob: b, parent: 0 },
      { blob: c, parent: 0 },
    ]);
  });

  test("sorts records by digest, inputs, alternatives, selector and linked digest", () => {
    const config = {
      layers: [],
      records: [
        step("m", [3, 2]),
        step("m", [3], [2]),
        { ...root("m"), inputs: [[{ selector: "s", link: 2 }]] },
        root("z"),
        step("m", [3]),
      ],
    };
    config.records[2] = root("b");
    config.records.push({
      ...root("m"),
      inputs: [[{ selector: "s", link: 2 }]],
    });
    const { records } = normalizeCacheConfig(config);
    expect(records.map(({ digest, inputs }) => [digest, inputs])).toEqual([
      ["b", []],
      ["m", [[{ selector: "", link: 5 }]]],
      ["m", [[{ selector: "s", link: 0 }]]],
      [
        "m",
        [
          [
            { selector: "", link: 0 },
            { selector: "", link: 5 },
          ],
        ],
      ],
      ["m", [[{ selector: "", link: 5 }], [{ selector: "", link: 0 }]]],
      ["z", []],
    ]);
  });

  test("tells records apart that differ only far below", () => {
    const records = [root("x"), root("y"), ...[0, 1].map((below) => step("same", [below]))];
    for (let level = 0; level < 5; level++)
      records.push(step("same", [records.length - 2]), step("same", [records.length - 1]));
    const cache = { config: { layers: [], records }, layers: [] };
    const normal = text(normalizeCacheConfig(cache.config));
    for (let seed = 0; seed < 20; seed++)
      expect(text(normalizeCacheConfig(shuffle(cache, seed).config))).toBe(normal);
  });

  test("keeps layers that nothing needs and repeats of one chain", () => {
    const blob = fakeDigest("blob");
    const config = {
      layers: [
        { blob, parent: -1 },
        { blob, parent: -1 },
      ],
      records: [],
    };
    expect(normalizeCacheConfig(config)).toEqual(config);
  });

  test("sorts a chain of 100000 layers of one blob", () => {
    const blob = fakeDigest("blob");
    const layers = Array.from({ length: 100_000 }, (_layer, i) => ({
      blob,
      parent: i + 1 < 100_000 ? i + 1 : -1,
    }));
    const normal = normalizeCacheConfig({ layers, records: [] });
    expect(normal.layers.every(({ parent }, at) => parent === at - 1)).toBe(true);
  });

  test("refuses what BuildKit refuses", async () => {
    const config = { layers: [], records: [step("a", [0])] };
    const error = await failure(() => normalizeCacheConfig(config));
    expect(error.code).toBe("CACHE_INVALID");
  });
});

test("dropUnused leaves out what no result and no chain needs", () => {
  const layer = (name: string, parent: number) => ({
    blob: fakeDigest(name),
    parent,
  });
  const createdAt = "2026-01-01T00:00:00Z";
  const config = {
    layers: [
      layer("unused top", 3),
      layer("top", 3),
      layer("unused", -1),
      layer("bottom", -1),
      layer("chained", 2),
    ],
    records: [
      { ...root("a"), results: [{ layer: 1, createdAt }] },
      { ...root("b"), chains: [{ layers: [3], createdAt }] },
    ],
  };
  expect(dropUnused(config)).toEqual({
    layers: [layer("top", 1), layer("bottom", -1)],
    records: [
      { ...root("a"), results: [{ layer: 0, createdAt }] },
      { ...root("b"), chains: [{ layers: [1], createdAt }] },
    ],
  });
});

describe("recordIdentities", () => {
  test("do not depend on positions, order of alternatives or results", () => {
    const one = [root("a"), root("b"), step("s", [0, 1])];
    const other = [step("s", [2, 1]), root("a"), root("b")];
    other[0]?.results.push({ layer: 0, createdAt: "2026-01-01T00:00:00Z" });
    expect(recordIdentities(other)[0]).toBe(recordIdentities(one)[2] as string);
  });

  test("depend on digests, selectors, inputs and what is below", () => {
    const identities = recordIdentities([
      root("a"),
      root("b"),
      step("s", [0]),
      step("s", [1]),
      step("s", [0, 1]),
      step("s", [0], [1]),
      step("t", [0]),
      step("s", [2]),
      step("s", [3]),
      { ...root("s"), inputs: [[{ selector: "x", link: 0 }]] },
    ]);
    expect(new Set(identities).size).toBe(10);
  });
});
