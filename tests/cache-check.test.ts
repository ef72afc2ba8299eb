import { describe, expect, test } from "bun:test";
import {
  assertCacheConfig,
  checkCacheConfig,
  inputsFirst,
  layerChain,
  layerDepths,
} from "../src/cache-check.ts";
import type { CacheConfig, CacheRecord } from "../src/cache-types.ts";
import { failure } from "./helpers/errors.ts";
import { CACHE_FIXTURES, fixtureCaches } from "./helpers/fixture-caches.ts";
import { fakeDigest, generateCache } from "./helpers/generated-cache.ts";

const TIME = "2026-01-01T00:00:00Z";

/** A table of layers with these parents. */
function layers(...parents: number[]): CacheConfig["layers"] {
  return parents.map((parent, i) => ({ blob: fakeDigest(`${i}`), parent }));
}

/** A record; each number of an input is a link, each of `on` the layer of a result. */
function record(digest: string, inputs: number[][] = [], on: number[] = []): CacheRecord {
  return {
    digest,
    inputs: inputs.map((links) => links.map((link) => ({ selector: "", link }))),
    results: on.map((layer) => ({ layer, createdAt: TIME })),
    chains: [],
  };
}

const LENGTH = 100_000;

const BAD: [string, CacheConfig, [code: string, message: string, at: string]][] = [
  [
    "a result on a layer that is not there",
    { layers: layers(-1), records: [record("a", [], [1])] },
    ["LAYER_INDEX", "invalid layer index 1", "records 0"],
  ],
  [
    "a result on layer -1",
    { layers: layers(-1), records: [record("a", [], [-1])] },
    ["LAYER_INDEX", "invalid layer index -1", "records 0"],
  ],
  [
    "a chain with a layer that is not there",
    {
      layers: layers(-1),
      records: [{ ...record("a"), chains: [{ layers: [0, 7], createdAt: TIME }] }],
    },
    ["LAYER_INDEX", "invalid layer index 7", "records 0"],
  ],
  [
    "a parent that is not there",
    { layers: layers(-1, 9), records: [record("a", [], [1])] },
    ["LAYER_INDEX", "invalid layer index 9", "layers 1"],
  ],
  [
    "a parent below -1",
    { layers: layers(-2), records: [] },
    ["LAYER_INDEX", "invalid layer index -2", "layers 0"],
  ],
  [
    "a layer that is its own parent",
    { layers: layers(0), records: [record("a", [], [0])] },
    ["LAYER_LOOP", "invalid looping layer", "layers 0"],
  ],
  [
    "layers that are each other's ancestors",
    { layers: layers(1, 2, 0, 0), records: [record("a", [], [3])] },
    ["LAYER_LOOP", "invalid looping layer", "layers 2"],
  ],
  [
    "a link to a record that is not there",
    { layers: [], records: [record("a", [[1]])] },
    ["RECORD_INDEX", "invalid record ID: 1", "records 0"],
  ],
  [
    "a link to record -1",
    { layers: [], records: [record("a", [[-1]])] },
    ["RECORD_INDEX", "invalid record ID: -1", "records 0"],
  ],
  [
    "a record that is its own input",
    { layers: [], records: [record("a", [[0]])] },
    ["RECORD_LOOP", "invalid looping record", "records 0"],
  ],
  [
    "records that are each other's ancestors",
    {
      layers: [],
      records: [record("r"), record("a", [[0, 2]]), record("b", [[1]])],
    },
    ["RECORD_LOOP", "invalid looping record", "records 2"],
  ],
  [
    "an input without alternatives",
    { layers: [], records: [record("r"), record("a", [[0], []])] },
    ["INPUT_EMPTY", "invalid empty input for record 1", "records 1"],
  ],
  [
    "an input from a session-unique record",
    { layers: [], records: [record("random:x"), record("a", [[0]])] },
    ["INPUT_RANDOM", "failed to add record 1: invalid dependency type <nil> for a", "records 1"],
  ],
];

describe("checkCacheConfig", () => {
  test.each(BAD)("finds %s", (_title, config, [code, message, at]) => {
    const problems = checkCacheConfig(config);
    expect(
      problems.map((each) => [each.code, each.message, `${each.place} ${each.index}`]),
    ).toEqual([[code, message, at]]);
  });

  test("finds nothing in what BuildKit wrote", () => {
    for (const { name, config } of fixtureCaches(...CACHE_FIXTURES))
      expect([name, checkCacheConfig(config)]).toEqual([name, []]);
  });

  test("finds nothing in generated caches and in an empty one", () => {
    expect(checkCacheConfig({ layers: [], records: [] })).toEqual([]);
    for (let seed = 0; seed < 20; seed++)
      expect(checkCacheConfig(generateCache(seed, 300).config)).toEqual([]);
  });

  test("takes a session-unique record that nothing links to, and parents after children", () => {
    const config = {
      layers: layers(2, -1, 1),
      records: [record("random:x"), record("a", [[2]], [0]), record("r")],
    };
    expect(checkCacheConfig(config)).toEqual([]);
  });

  test("reports each broken layer once, and first what BuildKit meets first", () => {
    const config = {
      layers: layers(-1, 5, 1, 1, 4),
      records: [record("a", [[1]], [2, 3]), record("b", [[9]], [3])],
    };
    expect(checkCacheConfig(config).map(({ message }) => message)).toEqual([
      "invalid record ID: 9",
      "invalid layer index 5",
      "invalid looping layer",
    ]);
  });

  test("follows chains of any length", () => {
    const up = Array.from({ length: LENGTH }, (_layer, i) => i - 1);
    const down = Array.from({ length: LENGTH }, (_layer, i) => (i + 1 < LENGTH ? i + 1 : -1));
    const ring = Array.from({ length: LENGTH }, (_layer, i) => (i + 1) % LENGTH);
    const chain = (links: number[]): CacheRecord[] =>
      links.map((link, i) => record(`r${i}`, link === -1 ? [] : [[link]], [i]));
    for (const parents of [up, down]) {
      const config = { layers: layers(...parents), records: chain(parents) };
      expect(checkCacheConfig(config)).toEqual([]);
      expect(inputsFirst(config.records)).toHaveLength(LENGTH);
      expect(Math.max(...layerDepths(config))).toBe(LENGTH - 1);
    }
    const config = { layers: layers(...ring), records: chain(ring) };
    expect(checkCacheConfig(config).map(({ code }) => code)).toEqual(["RECORD_LOOP", "LAYER_LOOP"]);
  });
});

describe("assertCacheConfig", () => {
  test("throws the first problem in BuildKit's words", async () => {
    const config = { layers: [], records: [record("r"), record("a", [[]])] };
    const error = await failure(() => assertCacheConfig(config, 'cache config "x"'));
    expect(error.code).toBe("CACHE_INVALID");
    expect(error.message).toBe(
      'Cannot use cache config "x": invalid empty input for record 1 (in records, entry 1)',
    );
  });

  test("lets a sound config pass", () => {
    assertCacheConfig(generateCache(1, 50).config, "it");
  });
});

test("inputsFirst gives each record after all that it links to", () => {
  const { records } = generateCache(3, 1000).config;
  const order = inputsFirst(records);
  expect(order.toSorted((a, b) => a - b)).toEqual([...records.keys()]);
  const places = new Map(order.map((at, place) => [at, place]));
  for (const [at, { inputs }] of records.entries())
    for (const { link } of inputs.flat())
      expect(places.get(link) as number).toBeLessThan(places.get(at) as number);
});

describe("layerDepths", () => {
  test("counts the layers below", () => {
    const config = { layers: layers(2, -1, 1, 1), records: [] };
    expect(layerDepths(config)).toEqual([2, 0, 1, 1]);
  });

  test("takes a parent that cannot be followed for none", () => {
    const config = { layers: layers(9, 0, 3, 2), records: [] };
    const depths = layerDepths(config);
    expect(depths.slice(0, 2)).toEqual([0, 1]);
    expect(depths.slice(2).toSorted()).toEqual([0, 1]);
  });
});

describe("layerChain", () => {
  test("gives the bottom first", () => {
    const config = { layers: layers(2, -1, 1), records: [] };
    expect(layerChain(config, 0)).toEqual([1, 2, 0]);
    expect(layerChain(config, 1)).toEqual([1]);
  });

  test.each([
    ["invalid looping layer", layers(1, 0), 0],
    ["invalid layer index 4", layers(4), 0],
    ["invalid layer index 3", layers(-1), 3],
  ])("refuses with %p", async (message, table, index) => {
    const error = await failure(() => layerChain({ layers: table, records: [] }, index));
    expect(error.code).toBe("CACHE_INVALID");
    expect(error.message).toEndWith(message);
  });
});
