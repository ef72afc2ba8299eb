import { describe, expect, test } from "bun:test";
import { checkCacheConfig, inputsFirst, layerChain } from "../src/cache-check.ts";
import { encodeCacheConfig } from "../src/cache-config.ts";
import type { CacheConfig, CacheRecord } from "../src/cache-types.ts";
import { normalizeCacheConfig } from "../src/cache-order.ts";
import type { Cache } from "../src/cache-layers.ts";
import { compareTimes, parseCacheTime } from "../src/cache-time.ts";
import { mergeCaches } from "../src/cache-merge.ts";
import { failure } from "./helpers/errors.ts";
import { CACHE_FIXTURES, fixtureCaches } from "./helpers/fixture-caches.ts";
import {
  cacheOf,
  fakeDigest,
  generateCache,
  partOf,
  shuffle,
  timeAfter,
} from "./helpers/generated-cache.ts";

const text = ({ config }: Cache): string => new TextDecoder().decode(encodeCacheConfig(config));

/** The records as text: `digest(x|y/selector, z)`, in order. */
function shape({ config: { records } }: Cache): string[] {
  const name = (record: CacheRecord): string => {
    const inputs = record.inputs.map((input) =>
      input
        .map(
          ({ selector, link }) => name(records[link] as CacheRecord) + (selector && `/${selector}`),
        )
        .toSorted()
        .join("|"),
    );
    return record.digest + (inputs.length > 0 ? `(${inputs.join(", ")})` : "");
  };
  return records.map(name).toSorted();
}

/** For each record of a part, the one of the merge that stands for it: same step, every alternative. */
function findAll(part: CacheConfig, merged: CacheConfig): number[] {
  const byDigest = Map.groupBy(
    merged.records.keys(),
    (at) => (merged.records[at] as CacheRecord).digest,
  );
  const found: number[] = [];
  for (const at of inputsFirst(part.records)) {
    const { digest, inputs } = part.records[at] as CacheRecord;
    found[at] =
      byDigest.get(digest)?.find((candidate) => {
        const record = merged.records[candidate] as CacheRecord;
        return (
          record.inputs.length === inputs.length &&
          inputs.every((input, i) =>
            input.every(({ selector, link }) =>
              record.inputs[i]?.some(
                (each) => each.link === found[link] && each.selector === selector,
              ),
            ),
          )
        );
      }) ?? -1;
  }
  return found;
}

/** Tells whether BuildKit would make one of any two records of a config. */
function hasOverlap({ records }: CacheConfig): boolean {
  const groups = Map.groupBy(records, ({ digest, inputs }) => [digest, inputs.length].join());
  return [...groups.values()].some((group) =>
    group.some((a, i) =>
      group
        .slice(i + 1)
        .some((b) =>
          a.inputs.every((input, at) =>
            input.some(({ selector, link }) =>
              b.inputs[at]?.some((each) => each.link === link && each.selector === selector),
            ),
          ),
        ),
    ),
  );
}

describe("a merge of generated caches", () => {
  for (const seed of [1, 2]) {
    const whole = generateCache(seed, 1000);
    const parts = [0.05, 0.2, 0.1].map((share, i) => partOf(whole, seed * 10 + i, share)) as [
      Cache,
      Cache,
      Cache,
    ];
    const merged = mergeCaches(parts);

    test(`of one cache is that cache in BuildKit's order (seed ${seed})`, () => {
      for (const cache of [whole, ...parts]) {
        const own = mergeCaches([cache]);
        expect(hasOverlap(cache.config)).toBe(false);
        expect(text(own)).toBe(text({ config: normalizeCacheConfig(cache.config), layers: [] }));
        expect(own.layers.map(({ digest }) => digest)).toEqual(
          own.config.layers.map(({ blob }) => blob),
        );
      }
    });

    test(`with itself is itself (seed ${seed})`, () => {
      for (const cache of [whole, merged, ...parts]) {
        const once = mergeCaches([cache]);
        expect(mergeCaches([cache, shuffle(cache, 7)])).toEqual(once);
        expect(mergeCaches([once])).toEqual(once);
      }
    });

    test(`with its parts is the whole (seed ${seed})`, () => {
      expect(text(mergeCaches([merged, parts[1]]))).toBe(text(merged));
    });

    test(`does not depend on the order, of the caches and of what is in them (seed ${seed})`, () => {
      const [a, b, c] = parts;
      for (const order of [
        [a, c, b],
        [b, a, c],
        [b, c, a],
        [c, a, b],
        [c, b, a],
      ])
        expect(mergeCaches(order.map((part) => shuffle(part, 5)))).toEqual(merged);
    });

    test(`does not depend on what is merged first (seed ${seed})`, () => {
      const [a, b, c] = parts;
      expect(mergeCaches([mergeCaches([a, b]), c])).toEqual(merged);
      expect(mergeCaches([a, mergeCaches([b, c])])).toEqual(merged);
      expect(mergeCaches([mergeCaches([a, c]), b])).toEqual(merged);
    });

    test(`is one that BuildKit takes (seed ${seed})`, () => {
      expect(checkCacheConfig(merged.config)).toEqual([]);
      expect(hasOverlap(merged.config)).toBe(false);
    });

    test(`has every record and every result of each part (seed ${seed})`, () => {
      for (const { config } of parts) {
        const found = findAll(config, merged.config);
        expect(found).not.toContain(-1);
        config.records.forEach(({ results, chains }, at) => {
          const target = merged.config.records[found[at] ?? -1];
          const newest = target?.results[0] ?? target?.chains[0];
          for (const { createdAt } of [...results, ...chains])
            expect(
              compareTimes(parseCacheTime(newest?.createdAt ?? ""), parseCacheTime(createdAt)),
            ).toBeGreaterThanOrEqual(0);
          const same = target?.results[0];
          const [own] = results;
          if (own && own.createdAt === same?.createdAt) {
            const blobs = (of: CacheConfig, layer: number) =>
              layerChain(of, layer).map((each) => of.layers[each]?.blob);
            expect(blobs(merged.config, same.layer)).toEqual(blobs(config, own.layer));
          }
        });
      }
    });
  }
});

describe("a merge of what BuildKit wrote", () => {
  const caches = fixtureCaches(...CACHE_FIXTURES);

  test.each(caches.map((cache) => [cache.name, cache] as const))(
    "gives %s its own bytes and descriptors back",
    (_name, cache) => {
      const own = mergeCaches([cache]);
      expect(Buffer.from(encodeCacheConfig(own.config)).equals(cache.configBytes)).toBe(true);
      expect(own.layers).toEqual(cache.layers);
      expect(mergeCaches([cache, cache])).toEqual(own);
    },
  );

  test("has the steps of two builds once where they are the same", () => {
    const named = (name: string): Cache => caches.find((cache) => cache.name === name) as Cache;
    const [main, feature] = [named("grown:main"), named("grown:feature")];
    const merged = mergeCaches([main, feature]);
    expect(checkCacheConfig(merged.config)).toEqual([]);
    for (const { config } of [main, feature])
      expect(findAll(config, merged.config)).not.toContain(-1);
    expect(merged.config.records.length).toBeLessThan(28);
    expect(merged.config.records.length).toBeGreaterThan(14);
    expect(text(mergeCaches([feature, main]))).toBe(text(merged));
  });
});

describe("records become one", () => {
  const A = { a: [], b: [], c: [], x: [], y: [] } as Record<string, []>;

  test.each([
    ["when an alternative is the same", [{ s: [["a|b"]] }, { s: [["b|c"]] }], ["s(a|b|c)"]],
    ["not when no alternative is the same", [{ s: [["a"]] }, { s: [["b"]] }], ["s(a)", "s(b)"]],
    [
      "not when the selector is another one",
      [{ s: [["a/p"]] }, { s: [["a/q"]] }],
      ["s(a/p)", "s(a/q)"],
    ],
    [
      "when an alternative is the same in every input",
      [{ s: [["a|b", "x"]] }, { s: [["b", "x|y"]] }],
      ["s(a|b, x|y)"],
    ],
    [
      "not when one input has nothing in common",
      [{ s: [["a", "x"]] }, { s: [["a", "y"]] }],
      ["s(a, x)", "s(a, y)"],
    ],
    [
      "not when they have another number of inputs",
      [{ s: [["a"]] }, { s: [["a", "x"]] }],
      ["s(a)", "s(a, x)"],
    ],
    [
      "when a third one joins them, and what is built on them too",
      [{ s: [["a"]], t: [["s"]] }, { s: [["b"]], t: [["s"]] }, { s: [["a|b"]] }],
      ["s(a|b)", "t(s(a|b))"],
    ],
    [
      "when only two of them together have what a third one has",
      [{ s: [["a", "y"]] }, { s: [["a|b", "x"]] }, { s: [["b", "x|y"]] }],
      ["s(a|b, x|y)"],
    ],
    [
      "within one cache, as BuildKit does when it reads it",
      [{ "s#1": [["a|b"]], "s#2": [["b|c"]], t: [["s#1"]], "t#2": [["s#2"]] }],
      ["s(a|b|c)", "t(s(a|b|c))"],
    ],
  ] as [string, Record<string, [string[]]>[], string[]][])("%s", (_title, tables, expected) => {
    const caches = tables.map((steps) => cacheOf({ ...A, ...steps }));
    for (const order of [caches, caches.toReversed()]) {
      const steps = shape(mergeCaches(order)).filter((name) => !(name in A));
      expect(steps).toEqual(expected);
    }
  });

  test("even if that makes a loop, which is then broken", () => {
    const first = cacheOf({
      r: [],
      q: [],
      x: [["r"], ["base"]],
      y: [["x|q"], ["one"]],
    });
    const second = cacheOf({
      r: [],
      q: [],
      y: [["q"], ["one"]],
      x: [["r|y"], ["base"]],
      z: [["x"], ["two"]],
    });
    const merged = mergeCaches([first, second]);
    expect(checkCacheConfig(merged.config)).toEqual([]);
    expect(shape(merged)).toEqual(["q", "r", "x(r)", "y(q|x(r))", "z(x(r))"]);
    expect(mergeCaches([second, first])).toEqual(merged);
    expect(mergeCaches([merged, merged])).toEqual(merged);
  });

  test("and a step that changes nothing is no alternative of its own input", () => {
    const first = cacheOf({ r: [], s: [["r"]], "s#2": [["s"]] });
    const second = cacheOf({ r: [], s: [["r"]], "s#2": [["r|s"]] });
    const merged = mergeCaches([first, second]);
    expect(checkCacheConfig(merged.config)).toEqual([]);
    expect(shape(merged)).toEqual(["r", "s(r)"]);
  });

  test("in loops of any length", () => {
    const LENGTH = 30_000;
    const ring = (at: number): [string[], string[]] => [[at === 0 ? "r" : `r|s${at - 1}`], []];
    const first = cacheOf({
      r: [],
      ...Object.fromEntries(Array.from({ length: 300 }, (_step, at) => [`s${at}`, ring(at)])),
    });
    const second = cacheOf({ r: [], s299: [["r"]], s0: [["r|s299"]] });
    const merged = mergeCaches([first, second]);
    expect(checkCacheConfig(merged.config)).toEqual([]);
    expect(merged.config.records).toHaveLength(301);
    const long: CacheRecord[] = Array.from({ length: LENGTH }, (_step, at) => ({
      digest: `s${at}`,
      results: [],
      chains: [],
      inputs: at === 0 ? [] : [[{ selector: "", link: at - 1 }]],
    }));
    const chain = { config: { layers: [], records: long }, layers: [] };
    expect(mergeCaches([chain, chain]).config.records).toHaveLength(LENGTH);
  });
});

describe("results", () => {
  const old = cacheOf({ r: [[], ["old"], 1] });
  const fresh = cacheOf({ r: [[], ["base", "new"], 2] });
  const topBlobs = ({ config }: Cache) =>
    config.records[0]?.results.map(({ layer }) => config.layers[layer]?.blob);

  test("the newest stays, and no layer of the others", () => {
    const merged = mergeCaches([fresh, old]);
    expect(topBlobs(merged)).toEqual([fakeDigest("new")]);
    expect(merged.layers.map(({ digest }) => digest).toSorted()).toEqual(
      [fakeDigest("base"), fakeDigest("new")].toSorted(),
    );
  });

  test("all stay when asked for, the newest first and each once", () => {
    const caches = [old, fresh, old];
    const merged = mergeCaches(caches, { results: "all" });
    expect(topBlobs(merged)).toEqual([fakeDigest("new"), fakeDigest("old")]);
    expect(merged).toEqual(mergeCaches([fresh, old], { results: "all" }));
  });

  test("of the same age stay the same, whatever the order", () => {
    const one = cacheOf({ r: [[], ["one"], 5] });
    const other = cacheOf({ r: [[], ["other"], 5] });
    expect(mergeCaches([one, other])).toEqual(mergeCaches([other, one]));
  });

  test("with a blob that their own cache does not list do not hide others", () => {
    const lost = {
      config: fresh.config,
      layers: fresh.layers.filter(({ digest }) => digest !== fakeDigest("base")),
    };
    expect(topBlobs(mergeCaches([lost, old]))).toEqual([fakeDigest("old")]);
    expect(mergeCaches([lost]).layers).toEqual([]);
  });

  test("may be chains, which are newest or not like any other", () => {
    const chained = cacheOf({ r: [], s: [[], ["a", "b"], 1] });
    chained.config.records[0]?.chains.push({
      layers: [1, 0],
      createdAt: timeAfter(3),
    });
    const merged = mergeCaches([old, chained]);
    const [record] = merged.config.records;
    expect(record?.results).toEqual([]);
    expect(
      record?.chains.map(({ layers }) => layers.map((at) => merged.config.layers[at]?.blob)),
    ).toEqual([[fakeDigest("b"), fakeDigest("a")]]);
  });

  test("share a layer only where the whole chain below is the same", () => {
    const one = cacheOf({ r: [[], ["a", "top"]], s: [[], ["a", "x"]] });
    const other = cacheOf({ t: [[], ["b", "top"]], u: [[], ["a", "x"]] });
    const { config, layers } = mergeCaches([one, other]);
    const blobs = config.layers.map(({ blob }) => blob);
    expect(blobs.filter((blob) => blob === fakeDigest("top"))).toHaveLength(2);
    expect(blobs.filter((blob) => blob === fakeDigest("x"))).toHaveLength(1);
    expect(layers.map(({ digest }) => digest)).toEqual(blobs);
  });
});

test("of descriptors that differ the one that says most is taken, whatever the order", () => {
  const cache = cacheOf({ r: [[], ["a"]] });
  const bare = {
    ...cache,
    layers: cache.layers.map(({ mediaType, digest, size }) => ({
      mediaType,
      digest,
      size,
    })),
  };
  expect(mergeCaches([bare, cache]).layers).toEqual(cache.layers);
  expect(mergeCaches([cache, bare]).layers).toEqual(cache.layers);
});

test("session-unique records are left out", () => {
  const cache = cacheOf({ "random:x": [[], ["a"]], r: [[], ["b"]] });
  expect(shape(mergeCaches([cache]))).toEqual(["r"]);
});

test("layer annotations of object stores are kept", () => {
  const cache = cacheOf({ r: [[], ["a"]] });
  const annotations = { diffID: fakeDigest("x"), createdAt: timeAfter(1) };
  const noted = {
    ...cache,
    config: {
      ...cache.config,
      layers: cache.config.layers.map((layer) => ({ ...layer, annotations })),
    },
  };
  for (const order of [
    [cache, noted],
    [noted, cache],
  ])
    expect(mergeCaches(order).config.layers[0]?.annotations).toEqual(annotations);
});

test("a cache that BuildKit refuses is named", async () => {
  const bad = cacheOf({ r: [["r"]] });
  const error = await failure(() => mergeCaches([cacheOf({ r: [] }), bad]));
  expect(error.code).toBe("CACHE_INVALID");
  expect(error.message).toBe("Cannot use cache 2: invalid looping record (in records, entry 0)");
});

test("the caches that are merged stay as they are, and the merge shares no entry with them", () => {
  const whole = generateCache(4, 300);
  const caches = [partOf(whole, 1, 0.5), partOf(whole, 2, 0.5)];
  const before = structuredClone(caches);
  const merged = mergeCaches(caches);
  expect(caches).toEqual(before);
  for (const record of merged.config.records) {
    record.digest = "";
    for (const input of record.inputs.flat()) input.link = -7;
    for (const result of record.results) result.layer = -7;
  }
  for (const layer of merged.config.layers) layer.parent = -7;
  expect(caches).toEqual(before);
});
