import { describe, expect, test } from "bun:test";
import { encodeCacheConfig, parseCacheConfig } from "../src/cache-config.ts";
import { findFirstLoss, healCache } from "../src/cache-heal.ts";
import { findImportLosses } from "../src/cache-import.ts";
import { JOINING_DIGEST } from "../src/cache-joining.ts";
import { mergeCaches } from "../src/cache-merge.ts";
import { normalizeCacheConfig } from "../src/cache-order.ts";
import type { CacheConfig, CacheRecord } from "../src/cache-types.ts";
import { CACHE_FIXTURES, fixtureCaches } from "./helpers/fixture-caches.ts";
import {
  cacheOf,
  fakeDigest,
  generateCache,
  random,
  shuffle,
  shuffled,
} from "./helpers/generated-cache.ts";
import { allLinks, importedLinks, leavesOf, permutations } from "./helpers/import-model.ts";
import type { StoredRecord } from "./helpers/import-model.ts";

/** The records of a config as they are stored. */
function storedRecords(config: CacheConfig): StoredRecord[] {
  return JSON.parse(new TextDecoder().decode(encodeCacheConfig(config))).records ?? [];
}

/** How many links an import loses, for each of some orders of the leaves. */
function losses(config: CacheConfig, orders?: (leaves: number[]) => number[][]): number[] {
  const records = storedRecords(config);
  const total = allLinks(records).size;
  return (orders ?? permutations)(leavesOf(records)).map(
    (order) => total - importedLinks(records, order).size,
  );
}

const read = (config: CacheConfig): CacheConfig =>
  parseCacheConfig(encodeCacheConfig(config), "it");

/** Two platforms: one shared step, two steps on it for each, a last step of both. */
const PLATFORMS = cacheOf({
  shared: [],
  "a 1": [["shared"], ["a1"], 1],
  "a 2": [["shared"], ["a2"], 2],
  "a end": [["a 1", "a 2"], ["a3"], 3],
  "b 1": [["shared"], ["b1"], 4],
  "b 2": [["shared"], ["b2"], 5],
  "b end": [["b 1", "b 2"], ["b3"], 6],
}).config;

describe("an import of several leaves", () => {
  test("loses links of the cache that BuildKit wrote for two platforms", () => {
    const [leaves] = fixtureCaches("leaves");
    const config = leaves?.config as CacheConfig;
    expect(losses(config)).toEqual([2, 2]);
    const found = findImportLosses(config);
    expect(found).toMatchObject({ links: 24, orders: 2, isComplete: true, losing: 2, most: 2 });
    expect(found.lost.length).toBe(4);
    expect(found.lost.every(({ orders }) => orders === 1)).toBeTrue();
    expect(found.records.length).toBeGreaterThan(0);
  });

  test("loses the second link from what an earlier leaf has stored", () => {
    const found = findImportLosses(PLATFORMS);
    const digests = found.lost.map(({ record }) => PLATFORMS.records[record]?.digest);
    expect(digests).toEqual(["a 2", "b 2"]);
    const missing = found.records.map(({ record }) => PLATFORMS.records[record]?.digest);
    expect(missing).toEqual(["a 2", "a end", "b 2", "b end"]);
    expect(found.records.map(({ orders }) => orders)).toEqual([1, 1, 1, 1]);
  });

  test("loses nothing where only one link leads to a leaf of its own", () => {
    const { config } = cacheOf({
      shared: [],
      "a 1": [["shared"]],
      "a end": [["a 1"]],
      "b 1": [["shared"]],
      "b end": [["b 1"]],
    });
    expect(Math.max(...losses(config))).toBe(0);
    expect(findFirstLoss(config)).toBeUndefined();
    expect(healCache(config)).toBe(config);
    expect(findImportLosses(config)).toMatchObject({ links: 4, orders: 0, lost: [], records: [] });
  });

  test("loses a second selector of one input as well", () => {
    const { config } = cacheOf({
      shared: [],
      "a end": [["shared/x", "shared/y"]],
      "b end": [["shared"]],
    });
    expect(losses(config).toSorted()).toEqual([0, 1]);
    expect(findFirstLoss(config)).toBeDefined();
  });

  test("a record with another way to be found is not missing", () => {
    const { config } = cacheOf({
      shared: [],
      content: [],
      "a 1": [["shared"]],
      "a 2": [["shared|content"]],
      "a end": [["a 1", "a 2"]],
      "b end": [["shared"]],
    });
    const found = findImportLosses(config);
    expect(found.lost.length).toBe(1);
    expect(found.records).toEqual([]);
  });

  test("is predicted for every generated cache, link by link and order by order", () => {
    let losing = 0;
    let healthy = 0;
    for (let seed = 1; seed <= 300; seed++) {
      const { config } = generateCache(seed, 4 + (seed % 12));
      const records = storedRecords(config);
      const leaves = leavesOf(records);
      if (leaves.length > 5) continue;
      const found = findImportLosses(config);
      const counts = losses(config);
      expect(found.losing, `seed ${seed}`).toBe(counts.filter((count) => count > 0).length);
      expect(found.most, `seed ${seed}`).toBe(Math.max(...counts));
      expect(findFirstLoss(config) !== undefined, `seed ${seed}`).toBe(found.losing > 0);
      const lost = new Map<string, number>();
      for (const order of permutations(leaves)) {
        const kept = importedLinks(records, order);
        for (const link of allLinks(records))
          if (!kept.has(link)) lost.set(link, (lost.get(link) ?? 0) + 1);
      }
      const predicted = found.lost.map(({ link, input, selector, record, orders }) => [
        `${link} ${input} ${selector} ${record}`,
        orders,
      ]);
      expect(new Map(predicted as [string, number][])).toEqual(lost);
      if (found.losing > 0) losing++;
      else healthy++;
    }
    expect(losing).toBeGreaterThan(50);
    expect(healthy).toBeGreaterThan(20);
  });
});

describe("a healed cache", () => {
  test("loses nothing in any order of its leaves", () => {
    for (let seed = 1; seed <= 200; seed++) {
      const { config } = generateCache(seed, 4 + (seed % 12));
      const healed = healCache(config);
      expect(leavesOf(storedRecords(healed)).length <= 6).toBeTrue();
      expect(Math.max(...losses(healed)), `seed ${seed}`).toBe(0);
    }
  });

  test("loses nothing in random orders of a large one", () => {
    const next = random(7);
    const orders = (leaves: number[]) => Array.from({ length: 20 }, () => shuffled(leaves, next));
    const { config } = generateCache(7, 3000);
    expect(Math.max(...losses(config, orders))).toBeGreaterThan(0);
    expect(Math.max(...losses(healCache(config), orders))).toBe(0);
    const found = findImportLosses(config);
    expect(found.isComplete).toBeFalse();
    expect(found.losing).toBe(found.orders);
  });

  test("has one record more, the last one, and all other bytes of BuildKit's", () => {
    const [leaves] = fixtureCaches("leaves");
    const before = JSON.parse(new TextDecoder().decode(leaves?.configBytes));
    const healed = encodeCacheConfig(healCache(leaves?.config as CacheConfig));
    const after = JSON.parse(new TextDecoder().decode(healed));
    expect(after.layers).toEqual(before.layers);
    expect(after.records.slice(0, -1)).toEqual(before.records);
    expect(after.records.at(-1)).toEqual({
      digest: `sha256:${"f".repeat(64)}`,
      inputs: leavesOf(before.records).map((link) => [{ link }]),
    });
  });

  test("heals to itself, and reads and writes to the same bytes", () => {
    for (let seed = 1; seed <= 100; seed++) {
      const { config } = generateCache(seed, 20);
      const healed = healCache(config);
      const bytes = encodeCacheConfig(healed);
      const again = parseCacheConfig(bytes, "it");
      expect(again).toEqual(read(healed));
      expect(healCache(again)).toBe(again);
      expect(encodeCacheConfig(again)).toEqual(bytes);
      expect(encodeCacheConfig(normalizeCacheConfig(again))).toEqual(bytes);
    }
  });

  test("of records in no order of BuildKit's gets one that does not depend on theirs", () => {
    for (let seed = 1; seed <= 50; seed++) {
      const cache = generateCache(seed, 30);
      const bytes = encodeCacheConfig(healCache(cache.config));
      expect(encodeCacheConfig(healCache(shuffle(cache, seed).config))).toEqual(bytes);
    }
  });

  test("merged with itself is itself, without the joining record until it is healed", () => {
    const cache = mergeCaches([generateCache(3, 40)]);
    const healed = { ...cache, config: read(healCache(cache.config)) };
    expect(healed.config.joined?.length).toBeGreaterThan(1);
    const merged = mergeCaches([healed, healed]);
    expect(merged.config.joined).toBeUndefined();
    expect(encodeCacheConfig(healCache(merged.config))).toEqual(encodeCacheConfig(healed.config));
  });

  test("that grew is joined anew, with one joining record", () => {
    const healed = healCache(PLATFORMS);
    const grown = {
      ...healed,
      records: [...healed.records],
    };
    const shared = healed.records.findIndex(({ digest }) => digest === "shared");
    const add = (digest: string, links: number[]): number =>
      grown.records.push({
        digest,
        results: [],
        chains: [],
        inputs: links.map((link) => [{ selector: "", link }]),
      }) - 1;
    add("c end", [add("c 1", [shared]), add("c 2", [shared])]);
    expect(Math.max(...losses(grown))).toBeGreaterThan(0);
    const again = healCache(grown);
    expect(again.joined?.length).toBe(3);
    const joining = storedRecords(again).filter(({ digest }) => digest === JOINING_DIGEST);
    expect(joining.length).toBe(1);
    expect(Math.max(...losses(again))).toBe(0);
  });

  test("joins no session-unique key, which no import keeps", () => {
    const records = [
      ...PLATFORMS.records,
      { digest: "random:1", results: [], chains: [], inputs: [] } satisfies CacheRecord,
    ];
    const healed = healCache({ ...PLATFORMS, records });
    expect(healed.joined?.map((at) => healed.records[at]?.digest)).toEqual(["a end", "b end"]);
  });
});

describe("a joining record", () => {
  test("stands where BuildKit's sort puts it, before keys that come after it", () => {
    const records = PLATFORMS.records.map((record) => ({
      ...record,
      digest: `sha512:${record.digest}`,
    }));
    const healed = healCache({ ...PLATFORMS, records });
    const stored = storedRecords(healed);
    expect(stored[0]?.digest).toBe(JOINING_DIGEST);
    expect(Math.max(...losses(healed))).toBe(0);
    expect(read(healed)).toEqual(healed);
    expect(stored.map(({ digest = "" }) => digest)).toEqual(
      stored.map(({ digest = "" }) => digest).toSorted(),
    );
  });

  test("is none when it has a result, a selector, alternatives, or is itself an input", () => {
    const digest = JOINING_DIGEST;
    const base = { digest: "base", inputs: [] };
    const other = { digest: "other", inputs: [] };
    for (const records of [
      [
        base,
        {
          digest,
          inputs: [[{ link: 0 }]],
          layers: [{ layer: 0, createdAt: "2026-01-01T00:00:00Z" }],
        },
      ],
      [base, { digest, inputs: [[{ link: 0, selector: "x" }]] }],
      [base, other, { digest, inputs: [[{ link: 0 }, { link: 1 }]] }],
      [base, { digest, inputs: [[{ link: 0 }]] }, { digest: "user", inputs: [[{ link: 1 }]] }],
      [base, { digest, inputs: [[{ link: 9 }]] }],
      [base, { digest, inputs: [[{ link: 1 }]] }],
      [
        { digest: "random:1", inputs: [] },
        { digest, inputs: [[{ link: 0 }]] },
      ],
    ]) {
      const text = JSON.stringify({ layers: [{ blob: fakeDigest("x"), parent: -1 }], records });
      const parsed = parseCacheConfig(new TextEncoder().encode(text), "it");
      expect(parsed.joined).toBeUndefined();
      expect(parsed.records.length).toBe(records.length);
    }
  });

  test("of another tool in any place is known and written where it belongs", () => {
    const stored = {
      layers: [],
      records: [
        { digest: JOINING_DIGEST, inputs: [[{ link: 2 }], [{ link: 1 }]] },
        { digest: "a" },
        { digest: "b", inputs: [[{ link: 3 }]] },
        { digest: "c" },
      ],
    };
    const parsed = parseCacheConfig(new TextEncoder().encode(JSON.stringify(stored)), "it");
    expect(parsed.records.map(({ digest }) => digest)).toEqual(["a", "b", "c"]);
    expect(parsed.records[1]?.inputs).toEqual([[{ selector: "", link: 2 }]]);
    expect(parsed.joined).toEqual([1, 0]);
    expect(storedRecords(parsed).at(-1)?.digest).toBe(JOINING_DIGEST);
  });
});

test("caches of one build with one target have nothing to heal", () => {
  for (const { config, name } of fixtureCaches(...CACHE_FIXTURES)) {
    const expected = Math.max(...losses(config)) > 0;
    expect(findFirstLoss(config) !== undefined, name).toBe(expected);
  }
});

/** Steps of a chain of hubs, each with a leaf of its own: as many sets of leaves as there are. */
function hubs(count: number, branches: number): CacheConfig {
  const records: CacheRecord[] = [];
  const add = (digest: string, links: number[]): number =>
    records.push({
      digest,
      results: [],
      chains: [],
      inputs: links.map((link) => [{ selector: "", link }]),
    }) - 1;
  let hub = add("hub", []);
  for (let at = 0; at < count; at++) {
    for (let branch = 0; branch < branches; branch++) add(`leaf ${at} ${branch}`, [hub]);
    hub = add(`hub ${at}`, [hub]);
  }
  return { layers: [], records };
}

test("what is judged grows with the cache, not with its square", () => {
  // 20,000 records each: many leaves on one record, and a chain with a leaf at each step.
  for (const config of [hubs(1, 20_000), hubs(10_000, 1), generateCache(5, 20_000).config]) {
    expect(findFirstLoss(config) !== undefined).toBe(config.records[0]?.digest !== "hub");
  }
});
