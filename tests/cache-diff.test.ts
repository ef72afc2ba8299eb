import { describe, expect, test } from "bun:test";
import type { Cache } from "../src/cache-layers.ts";
import { diffCaches } from "../src/cache-diff.ts";
import type { RecordMiss } from "../src/cache-diff.ts";
import { mergeCaches } from "../src/cache-merge.ts";
import { failure } from "./helpers/errors.ts";
import { CACHE_FIXTURES, fixtureCaches } from "./helpers/fixture-caches.ts";
import { cacheOf, fakeDigest, generateCache, partOf, shuffle } from "./helpers/generated-cache.ts";

/** A miss in a few words: `digest reason nearest/steps cause`. */
function brief({ digest, reason, nearest, cause }: RecordMiss): string {
  const near = nearest ? `${nearest.own.digest}/${nearest.steps}` : "-";
  return `${digest} ${reason} ${near} ${cause.digest}`;
}

const briefs = (misses: RecordMiss[]): string[] => misses.map(brief).toSorted();

describe("diffCaches", () => {
  const BASE = {
    image: [],
    "file:1": [],
    deps: [["image"], ["deps"], 1],
    copy: [["deps", "file:1"], ["deps", "copy"], 2],
    build: [["copy"], ["deps", "copy", "build"], 3],
  } as Parameters<typeof cacheOf>[0];

  test("finds nothing between a cache and itself in another order", () => {
    for (const cache of [
      cacheOf(BASE),
      generateCache(3, 500),
      ...fixtureCaches(...CACHE_FIXTURES),
    ]) {
      const difference = diffCaches(cache, shuffle(cache, 8));
      expect(difference.records.onlyA).toEqual([]);
      expect(difference.records.onlyB).toEqual([]);
      expect(difference.records.results).toEqual([]);
      expect(difference.records.both).toBe(cache.config.records.length);
    }
    const cache = cacheOf(BASE);
    expect(diffCaches(cache, cache)).toMatchObject({
      equal: true,
      digests: { both: 5, onlyA: 0, onlyB: 0 },
      layers: { both: { count: 3 }, onlyA: [], onlyB: [], onlyABytes: 0 },
    });
  });

  test("says that a file differs, and that this is why later steps were not cached", () => {
    const changed = cacheOf({
      image: [],
      "file:2": [],
      deps: [["image"], ["deps"], 1],
      copy: [["deps", "file:2"], ["deps", "copy 2"], 5],
      build: [["copy"], ["deps", "copy 2", "build 2"], 6],
    });
    const difference = diffCaches(cacheOf(BASE), changed);
    expect(difference.equal).toBe(false);
    expect(briefs(difference.records.onlyA)).toEqual([
      "build inputs deps/2 file:1",
      "copy inputs deps/1 file:1",
      "file:1 content - file:1",
    ]);
    expect(briefs(difference.records.onlyB)).toEqual([
      "build inputs deps/2 file:2",
      "copy inputs deps/1 file:2",
      "file:2 content - file:2",
    ]);
    const copy = difference.records.onlyA.find(({ digest }) => digest === "copy");
    expect(copy).toEqual({
      index: 3,
      digest: "copy",
      createdAt: "2026-01-01T00:00:02Z",
      reason: "inputs",
      nearest: {
        own: { index: 2, digest: "deps" },
        other: { index: 2, digest: "deps" },
        steps: 1,
      },
      parting: {
        other: { index: 3, digest: "copy" },
        inputs: [
          {
            input: 1,
            own: [{ index: 1, digest: "file:1" }],
            other: [{ index: 1, digest: "file:2" }],
          },
        ],
      },
      cause: { index: 1, digest: "file:1", reason: "content" },
    });
    expect(difference.records.both).toBe(2);
    expect(difference.digests).toEqual({ both: 4, onlyA: 1, onlyB: 1 });
  });

  test("says that a step's definition differs", () => {
    const changed = cacheOf({
      image: [],
      "file:1": [],
      deps: [["image"], ["deps"], 1],
      copy: [["deps", "file:1"], ["deps", "copy"], 2],
      "build -O2": [["copy"], ["deps", "copy", "build 2"], 3],
    });
    const difference = diffCaches(cacheOf(BASE), changed);
    expect(briefs(difference.records.onlyA)).toEqual(["build definition copy/1 build"]);
    expect(briefs(difference.records.onlyB)).toEqual(["build -O2 definition copy/1 build -O2"]);
  });

  test("an input that moved to another record that both have is its own cause", () => {
    const one = cacheOf({ a: [], b: [], s: [["a"]] });
    const other = cacheOf({ a: [], b: [], s: [["b"]] });
    expect(briefs(diffCaches(one, other).records.onlyA)).toEqual(["s inputs a/1 s"]);
  });

  test("records that share an alternative in every input are the same", () => {
    const one = cacheOf({ a: [], b: [], c: [], s: [["a|b"]], t: [["s"]] });
    const other = cacheOf({ a: [], b: [], c: [], s: [["b|c"]], t: [["s"]] });
    expect(diffCaches(one, other).records).toEqual({
      both: 5,
      onlyA: [],
      onlyB: [],
      results: [],
    });
  });

  test("the counterpart is the one that agrees in most inputs", () => {
    const one = cacheOf({ a: [], b: [], c: [], s: [["a", "b", "c"]] });
    const other = cacheOf({
      a: [],
      b: [],
      x: [],
      "s#1": [["x", "x", "x"]],
      "s#2": [["a", "b", "x"]],
    });
    const [miss] = diffCaches(one, other).records.onlyA.filter(({ digest }) => digest === "s");
    expect(miss?.parting?.other.index).toBe(4);
    expect(miss?.parting?.inputs.map(({ input }) => input)).toEqual([2]);
  });

  test("a record with another result, or a result in one cache only", () => {
    const one = cacheOf({ a: [[], ["x"]], b: [[], ["y"]], c: [] });
    const other = cacheOf({ a: [[], ["z"]], b: [], c: [[], ["y"]] });
    const { records, layers, equal, size } = diffCaches(one, other);
    expect(equal).toBe(false);
    expect(records.results.map(({ a, aLayer, bLayer }) => [a.digest, aLayer, bLayer])).toEqual([
      ["a", fakeDigest("x"), fakeDigest("z")],
      ["b", fakeDigest("y"), null],
      ["c", null, fakeDigest("y")],
    ]);
    expect(layers.onlyA.map(({ digest }) => digest)).toEqual([fakeDigest("x")]);
    expect(layers.onlyB.map(({ digest }) => digest)).toEqual([fakeDigest("z")]);
    expect(layers.both.count).toBe(1);
    expect(size.a).toBe(layers.both.bytes + layers.onlyABytes);
    expect(size.b).toBe(layers.both.bytes + layers.onlyBBytes);
  });

  test("layers are counted once each", () => {
    const cache = cacheOf({ a: [[], ["x", "same"]], b: [[], ["y", "same"]] });
    const none: Cache = { config: { layers: [], records: [] }, layers: [] };
    const { layers, size } = diffCaches(cache, none);
    expect(layers.onlyA).toHaveLength(3);
    expect(size).toEqual({ a: layers.onlyABytes, b: 0 });
  });

  test("two builds of one project part in the fixtures", () => {
    const caches = fixtureCaches("grown");
    const named = (name: string): Cache => caches.find((cache) => cache.name === name) as Cache;
    const difference = diffCaches(named("grown:main"), named("grown:feature"));
    expect(difference.records.both).toBeGreaterThan(0);
    expect(difference.records.onlyA.length).toBeGreaterThan(0);
    for (const miss of difference.records.onlyA) expect(miss.cause.reason).not.toBe("inputs");
    expect(JSON.parse(JSON.stringify(difference))).toEqual(difference);
  });

  test("between generated parts it agrees with their merge", () => {
    for (let seed = 1; seed <= 3; seed++) {
      const whole = generateCache(seed, 1000);
      const a = mergeCaches([partOf(whole, seed + 20, 0.05)]);
      const b = mergeCaches([partOf(whole, seed + 40, 0.05)]);
      const merged = mergeCaches([a, b]);
      const { records } = diffCaches(a, b);
      const back = diffCaches(b, a);
      expect(back.records.onlyA).toEqual(records.onlyB);
      expect(back.records.onlyB).toEqual(records.onlyA);
      expect(diffCaches(a, merged).records.onlyA).toEqual([]);
      expect(diffCaches(b, merged).records.onlyA).toEqual([]);
      expect(diffCaches(merged, a).records.both).toBe(new Set(a.config.records).size);
      for (const miss of records.onlyA) {
        const { digest } = a.config.records[miss.index] as { digest: string };
        expect(miss.digest).toBe(digest);
        expect(miss.nearest?.steps ?? 1).toBeGreaterThan(0);
        if (miss.nearest) expect(miss.nearest.own.digest).toBe(miss.nearest.other.digest);
      }
    }
  });

  test("what BuildKit refuses is refused", async () => {
    const bad = cacheOf({ r: [["r"]] });
    const error = await failure(() => diffCaches(cacheOf({}), bad));
    expect(error.code).toBe("CACHE_INVALID");
    expect(error.message).toContain("second cache");
  });
});
