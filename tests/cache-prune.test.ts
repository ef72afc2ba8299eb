import { describe, expect, test } from "bun:test";
import { checkCacheConfig, layerChain } from "../src/cache-check.ts";
import { encodeCacheConfig } from "../src/cache-config.ts";
import type { CacheConfig, CacheRecord } from "../src/cache-types.ts";
import { normalizeCacheConfig, recordIdentities } from "../src/cache-order.ts";
import type { Cache } from "../src/cache-layers.ts";
import { parseCacheTime } from "../src/cache-time.ts";
import { totalSize } from "../src/descriptor.ts";
import type { Descriptor } from "../src/descriptor.ts";
import type { Digest } from "../src/digest.ts";
import { ANNOTATION_CREATED_AT } from "../src/media-types.ts";
import { pruneCache } from "../src/cache-prune.ts";
import type { PruneLimits } from "../src/cache-prune.ts";
import { failure } from "./helpers/errors.ts";
import { CACHE_FIXTURES, fixtureCaches } from "./helpers/fixture-caches.ts";
import { cacheOf, fakeDigest, generateCache, random, shuffle } from "./helpers/generated-cache.ts";

/** Generated times count from here, in seconds. */
const START = Date.UTC(2026, 0, 1);
const at = (seconds: number): number => START + seconds * 1000;

/** Gives the blobs of a cache sizes by name. */
function sized(cache: Cache, sizes: Record<string, number>): Cache {
  const bySize = new Map(Object.entries(sizes).map(([name, size]) => [fakeDigest(name), size]));
  return {
    config: cache.config,
    layers: cache.layers.map((layer) => ({
      ...layer,
      size: bySize.get(layer.digest) ?? 1,
    })),
  };
}

/** The digests of the records that have a result. */
function cached({ config }: Cache): string[] {
  return config.records
    .filter(({ results, chains }) => results.length + chains.length > 0)
    .map(({ digest }) => digest)
    .toSorted();
}

function distinct(layers: readonly Descriptor[]): Descriptor[] {
  return [...new Map(layers.map((each) => [each.digest, each])).values()];
}

/** Two branches on one base: `old` of 100 s, `new` of 200 s; a tool on its own. */
const TREE = sized(
  cacheOf({
    source: [],
    base: [["source"], ["base"], 10],
    old: [["base"], ["base", "old"], 100],
    oldest: [["old"], ["base", "old", "oldest"], 101],
    new: [["base"], ["base", "new"], 200],
    newest: [["new", "tool"], ["base", "new", "newest"], 201],
    tool: [["source"], ["tool"], 5],
  }),
  { base: 1000, old: 100, oldest: 10, new: 200, newest: 20, tool: 500 },
);
const ALL = ["base", "new", "newest", "old", "oldest", "tool"];

const LIMITS: [string, Partial<PruneLimits>, string[], size: number][] = [
  ["no limit", {}, ALL, 1830],
  ["a size that all fit in", { maxSize: 1830 }, ALL, 1830],
  ["an age that none has", { maxAge: 300_000 }, ALL, 1830],
  [
    "a size below all: the oldest that costs something goes",
    { maxSize: 1829 },
    ["base", "new", "newest", "old", "oldest"],
    1330,
  ],
  [
    "a size for one branch: the newest stays, with what it stands on",
    { maxSize: 1220 },
    ["base", "new", "newest"],
    1220,
  ],
  ["a size for less than a branch: the top goes", { maxSize: 1219 }, ["base", "new"], 1200],
  ["a size for the tool only", { maxSize: 999 }, ["tool"], 500],
  ["a size for nothing", { maxSize: 0 }, [], 0],
  [
    "an age: what a younger result stands on is not old",
    { maxAge: 50_000 },
    ["base", "new", "newest"],
    1220,
  ],
  ["an age of nothing", { maxAge: 0 }, [], 0],
  ["an age and a size", { maxAge: 202_000, maxSize: 1310 }, ["base", "new", "newest"], 1220],
  ["a number alone is the limit", { keepNewest: 1 }, ["base", "new", "newest"], 1220],
  [
    "a number with an age saves from the age",
    { keepNewest: 3, maxAge: 0 },
    ["base", "new", "newest", "old", "oldest"],
    1330,
  ],
  [
    "a number with a size saves from the size",
    { keepNewest: 1, maxSize: 600 },
    ["base", "new", "newest"],
    1220,
  ],
  ["a number of nothing", { keepNewest: 0 }, [], 0],
  ["a number of more than all", { keepNewest: 99 }, ALL, 1830],
  [
    "a layer: what stands on it goes with it",
    { dropLayers: [fakeDigest("new")] },
    ["base", "old", "oldest", "tool"],
    1610,
  ],
  ["the base", { dropLayers: [fakeDigest("base")] }, ["tool"], 500],
  [
    "a layer, even if it is the newest",
    { dropLayers: [fakeDigest("newest")], keepNewest: 1 },
    ["base", "new"],
    1200,
  ],
  ["a layer that is not there", { dropLayers: [fakeDigest("x")] }, ALL, 1830],
];

describe("pruneCache", () => {
  test.each(LIMITS)("%s", (_title, limits, expected, size) => {
    const pruned = pruneCache(TREE, { now: at(202), ...limits });
    expect(cached(pruned)).toEqual(expected);
    expect(pruned.size).toBe(size);
    expect(totalSize(distinct(pruned.layers))).toBe(size);
    expect(pruned.dropped.bytes).toBe(1830 - size);
    expect(totalSize(pruned.dropped.layers)).toBe(1830 - size);
    expect(pruned.dropped.results).toBe(ALL.length - expected.length);
    if (expected === ALL) {
      expect(pruned.config).toBe(TREE.config);
      expect(pruned.layers).toBe(TREE.layers);
    }
  });

  test("the key of a step without a result stays when it leads to one", () => {
    const pruned = pruneCache(TREE, { now: at(202), keepNewest: 1 });
    const { records } = pruned.config;
    expect(records.map(({ digest }) => digest).toSorted()).toEqual([
      "base",
      "new",
      "newest",
      "source",
      "tool",
    ]);
    expect(pruned.dropped).toMatchObject({ records: 2, results: 3 });
    const before = recordIdentities(TREE.config.records);
    for (const identity of recordIdentities(records)) expect(before).toContain(identity);
  });

  test("of the same age the largest goes", () => {
    const cache = sized(cacheOf({ a: [[], ["a"], 1], b: [[], ["b"], 1], c: [[], ["c"], 1] }), {
      a: 10,
      b: 30,
      c: 20,
    });
    const kept = (maxSize: number) => cached(pruneCache(cache, { now: at(2), maxSize }));
    expect(kept(59)).toEqual(["a", "c"]);
    expect(kept(29)).toEqual(["a"]);
  });

  test("a blob in several places is counted once", () => {
    const cache = sized(
      cacheOf({
        a: [[], ["a", "same"], 2],
        b: [[], ["b", "same"], 1],
      }),
      { a: 1, b: 1, same: 100 },
    );
    const pruned = pruneCache(cache, { now: at(3), maxSize: 102 });
    expect(pruned.config).toBe(cache.config);
    expect(pruned.size).toBe(102);
    expect(cached(pruneCache(cache, { now: at(3), maxSize: 101 }))).toEqual(["a"]);
  });

  test("a result without a time has that of its layer, else it is the oldest and has no age", () => {
    const cache = cacheOf({
      a: [[], ["a"]],
      b: [[], ["b"]],
      c: [[], ["c"], 9],
    });
    for (const record of cache.config.records.slice(0, 2))
      for (const result of record.results) result.createdAt = "0001-01-01T00:00:00Z";
    const layers = cache.layers.map((layer) =>
      layer.digest === fakeDigest("b")
        ? {
            ...layer,
            annotations: { [ANNOTATION_CREATED_AT]: "2026-01-01T00:00:05Z" },
          }
        : layer,
    );
    const prune = (limits: Partial<PruneLimits>) =>
      cached(pruneCache({ config: cache.config, layers }, { now: at(10), ...limits }));
    expect(prune({ maxAge: 4000 })).toEqual(["a", "c"]);
    expect(prune({ maxAge: 5000 })).toEqual(["a", "b", "c"]);
    expect(prune({ keepNewest: 2 })).toEqual(["b", "c"]);
  });

  test("several results of one record go one by one", () => {
    const cache = cacheOf({ a: [[], ["new"], 9], b: [[], ["old"], 1] });
    const [a, b] = cache.config.records as [CacheRecord, CacheRecord];
    const both = { ...a, results: [...a.results, ...b.results] };
    const config = { layers: cache.config.layers, records: [both] };
    const pruned = pruneCache({ config, layers: cache.layers }, { now: at(9), maxAge: 1000 });
    expect(pruned.config.records[0]?.results).toEqual([
      { layer: 0, createdAt: "2026-01-01T00:00:09Z" },
    ]);
    expect(pruned.config.layers).toHaveLength(1);
    expect(pruned.dropped).toMatchObject({ records: 0, results: 1 });
  });

  test("chains are results too", () => {
    const cache = cacheOf({ a: [[], ["x", "y"], 1], b: [[], ["z"], 2] });
    const [a, b] = cache.config.records as [CacheRecord, CacheRecord];
    a.results = [];
    a.chains = [{ layers: [0, 1], createdAt: "2026-01-01T00:00:01Z" }];
    const limits = { now: at(2), keepNewest: 1 };
    expect(cached(pruneCache(cache, limits))).toEqual(["b"]);
    b.results = [{ layer: 2, createdAt: "2026-01-01T00:00:00Z" }];
    const pruned = pruneCache(cache, limits);
    expect(cached(pruned)).toEqual(["a"]);
    expect(pruned.config.records[0]?.chains[0]?.layers).toHaveLength(2);
    expect(cached(pruneCache(cache, { now: at(2), dropLayers: [fakeDigest("x")] }))).toEqual(["b"]);
  });

  test("a layer that nothing needs goes when the size asks for it, and only then", () => {
    const cache = cacheOf({ a: [[], ["a"], 1], b: [[], ["b"], 1] });
    const config = {
      layers: cache.config.layers,
      records: cache.config.records.slice(0, 1),
    };
    const whole = sized({ config, layers: cache.layers }, { a: 1, b: 1 });
    expect(pruneCache(whole, { now: at(2), maxSize: 2 }).config).toBe(config);
    const pruned = pruneCache(whole, { now: at(2), maxSize: 1 });
    expect(pruned.layers.map(({ digest }) => digest)).toEqual([fakeDigest("a")]);
    expect(pruned.dropped).toMatchObject({ records: 0, results: 0, bytes: 1 });
  });

  test("a result with a blob that is not listed is lost, but changes nothing by itself", () => {
    const cache = cacheOf({ a: [[], ["a"], 1], b: [[], ["b"], 2] });
    const layers = cache.layers.slice(0, 1);
    const lost = { config: cache.config, layers };
    expect(pruneCache(lost, { now: at(2), maxAge: 2000 }).config).toBe(cache.config);
    const pruned = pruneCache(lost, { now: at(2), keepNewest: 0 });
    expect(pruned.config).toEqual({ layers: [], records: [] });
  });

  test("what BuildKit refuses is refused", async () => {
    const bad = cacheOf({ r: [["r"]] });
    const error = await failure(() => pruneCache(bad, { now: 0 }));
    expect(error.code).toBe("CACHE_INVALID");
  });
});

/** The blobs of each result, by the identity of its record. */
function blobsOf({ layers, records }: CacheConfig): Map<string, Digest[]> {
  const identities = recordIdentities(records);
  const all = new Map<string, Digest[]>();
  records.forEach(({ results, chains }, index) => {
    const tops = [...results.map(({ layer }) => [layer]), ...chains.map((chain) => chain.layers)];
    for (const [i, top] of tops.entries())
      all.set(
        `${identities[index]} ${i}`,
        top.flatMap((layer) =>
          layerChain({ layers, records }, layer).map((each) => layers[each]?.blob as Digest),
        ),
      );
  });
  return all;
}

describe("a pruned cache", () => {
  const next = random(99);
  for (let seed = 1; seed <= 6; seed++) {
    const cache = generateCache(seed, 800);
    const whole = totalSize(distinct(cache.layers));
    const before = blobsOf(cache.config);

    test(`of generated records keeps every rule (seed ${seed})`, () => {
      const limits: PruneLimits[] = [
        { now: at(8000), maxSize: Math.floor(whole * next()) },
        { now: at(8000), maxAge: 8_000_000 * next() },
        { now: at(8000), keepNewest: Math.floor(300 * next()) },
        {
          now: at(8000),
          maxSize: Math.floor(whole * next()),
          maxAge: 8_000_000 * next(),
          dropLayers: [0, 1, 2].map(
            () => cache.layers[Math.floor(next() * cache.layers.length)]?.digest as Digest,
          ),
        },
      ];
      for (const limit of limits) {
        const pruned = pruneCache(cache, limit);
        const { config, layers, dropped } = pruned;
        expect(checkCacheConfig(config)).toEqual([]);
        expect(encodeCacheConfig(normalizeCacheConfig(config))).toEqual(encodeCacheConfig(config));
        expect(layers.map(({ digest }) => digest)).toEqual(config.layers.map(({ blob }) => blob));
        const kept = blobsOf(config);
        const blobs = new Set(layers.map(({ digest }) => digest));
        const size = totalSize(distinct(layers));
        expect(size).toBe(pruned.size);
        expect(size + dropped.bytes).toBe(whole);
        expect(size).toBeLessThanOrEqual(limit.maxSize ?? Infinity);
        expect(dropped.records).toBe(cache.config.records.length - config.records.length);
        expect(dropped.results).toBe(before.size - kept.size);
        for (const [key, chain] of kept) expect(before.get(key)).toEqual(chain);
        for (const blob of limit.dropLayers ?? []) expect(blobs.has(blob)).toBe(false);

        // Each record leads to a result.
        const needed = new Set<number>();
        for (const [index, { results, chains }] of config.records.entries())
          if (results.length + chains.length > 0) needed.add(index);
        for (const index of needed)
          for (const { link } of config.records[index]?.inputs.flat() ?? []) needed.add(link);
        expect(needed.size).toBe(config.records.length);

        // What costs nothing has stayed, and of what is young enough nothing more fits.
        const sizes = new Map(cache.layers.map((each) => [each.digest, each.size]));
        for (const [key, chain] of before) {
          if (kept.has(key)) continue;
          const missing = new Set(chain).difference(blobs);
          expect(missing.size).toBeGreaterThan(0);
          if (limit.maxAge !== undefined || limit.maxSize === undefined) continue;
          const cost = [...missing].reduce((sum, blob) => sum + (sizes.get(blob) ?? 0), 0);
          expect(size + cost).toBeGreaterThan(limit.maxSize);
        }
        // The same from any order, and nothing more the second time.
        expect(pruneCache(shuffle(cache, seed + 50), limit).config).toEqual(config);
        if (limit.keepNewest === undefined) expect(pruneCache(pruned, limit).config).toBe(config);
      }
    });
  }

  test("keeps the newest results, whatever else goes", () => {
    const cache = generateCache(11, 500);
    const times = (config: CacheConfig) =>
      config.records
        .flatMap(({ results, chains }) => [...results, ...chains])
        .map(({ createdAt }) => parseCacheTime(createdAt).milliseconds)
        .toSorted((a, b) => b - a);
    for (const keepNewest of [1, 10, 100]) {
      const pruned = pruneCache(cache, {
        now: at(1e9),
        maxSize: 0,
        maxAge: 0,
        keepNewest,
      });
      expect(times(pruned.config).slice(0, keepNewest)).toEqual(
        times(cache.config).slice(0, keepNewest),
      );
    }
  });
});

test.each(fixtureCaches(...CACHE_FIXTURES).map((cache) => [cache.name, cache] as const))(
  "limits that hold nothing back leave %s as it is",
  (_name, cache) => {
    const limits = {
      now: Date.UTC(2027, 0, 1),
      maxSize: totalSize(cache.layers),
      maxAge: 1e12,
      keepNewest: 1,
      dropLayers: [fakeDigest("no such layer")],
    };
    const pruned = pruneCache(cache, limits);
    expect(pruned.config).toBe(cache.config);
    expect(pruned.layers).toBe(cache.layers);
    const half = pruneCache(cache, {
      now: 0,
      maxSize: Math.floor(pruned.size / 2),
    });
    expect(half.size).toBeLessThanOrEqual(pruned.size / 2);
  },
);
