import { describe, expect, test } from "bun:test";
import { cacheGraph, placeLayers } from "../src/cache-graph.ts";
import { cacheOf, fakeDigest, generateCache } from "./helpers/generated-cache.ts";
import { graphSource } from "./helpers/graph-source.ts";

describe("cacheGraph()", () => {
  test("every record, layer, result and link of a cache is there once", () => {
    const cache = generateCache(11, 400);
    const graph = cacheGraph([graphSource(cache)]);
    const { layers, records } = cache.config;
    expect(graph.layers.map(({ digest }) => digest)).toEqual(layers.map(({ blob }) => blob));
    expect(graph.layers.map(({ parent }) => (parent === null ? -1 : parent))).toEqual(
      layers.map(({ parent }) => parent),
    );
    expect(
      graph.records.map(({ digest, results }) => [
        digest,
        results.map(({ layer, chain, createdAt }) => [chain ?? layer, createdAt]),
      ]),
    ).toEqual(
      records.map(({ digest, results, chains }) => [
        digest,
        [
          ...results.map(({ layer, createdAt }) => [layer, createdAt]),
          ...chains.map((chain) => [chain.layers, chain.createdAt]),
        ],
      ]),
    );
    expect(graph.links).toEqual(
      records.flatMap(({ inputs }, to) =>
        inputs.flatMap((alternatives, input) =>
          alternatives.map(({ link, selector }) => ({
            from: link,
            to,
            input,
            selector,
          })),
        ),
      ),
    );
  });

  test("several caches stand one after the other, positions counted on", () => {
    const a = cacheOf({ x: [[], ["base"]], y: [["x"], ["base", "top"]] });
    const b = cacheOf({ z: [[], ["base", "other"]] });
    const graph = cacheGraph([graphSource(a), graphSource(b)]);
    expect(graph.layers.map(({ cache, parent }) => [cache, parent])).toEqual([
      [0, null],
      [0, 0],
      [1, null],
      [1, 2],
    ]);
    expect(graph.records.at(-1)).toMatchObject({
      cache: 1,
      results: [{ layer: 3 }],
    });
    expect(graph.links).toEqual([{ from: 0, to: 1, input: 0, selector: "" }]);
  });

  test("positions that lead nowhere are left out, loops are opened", () => {
    const createdAt = "2026-01-01T00:00:00Z";
    const config = {
      layers: [
        { blob: fakeDigest("a"), parent: 1 },
        { blob: fakeDigest("b"), parent: 0 },
        { blob: fakeDigest("c"), parent: 9 },
      ],
      records: [
        {
          digest: "r",
          results: [
            { layer: 7, createdAt },
            { layer: 2, createdAt },
          ],
          chains: [
            { layers: [5], createdAt },
            { layers: [], createdAt },
            { layers: [0, 8], createdAt },
          ],
          inputs: [
            [
              { selector: "", link: 4 },
              { selector: "", link: 0 },
            ],
          ],
        },
      ],
    };
    const graph = cacheGraph([graphSource({ config, layers: [] })]);
    expect(graph.records[0]?.results).toEqual([
      { layer: 2, createdAt },
      { layer: 0, chain: [0], createdAt },
    ]);
    expect(graph.links).toEqual([{ from: 0, to: 0, input: 0, selector: "" }]);
    const [first, second, third] = graph.layers;
    expect([first?.parent, second?.parent]).toContain(null);
    expect(third?.parent).toBeNull();
  });
});

describe("placeLayers()", () => {
  test("the manifest's word goes before the config's, and nothing known is null", () => {
    const annotations = {
      mediaType: "application/x",
      diffID: fakeDigest("diff"),
      size: 7,
      createdAt: "2026-01-01T00:00:00Z",
    };
    const config = {
      layers: ["a", "b", "c"].map((name) => ({
        blob: fakeDigest(name),
        parent: -1,
        annotations: name === "c" ? undefined : annotations,
      })),
      records: [],
    };
    const listed = {
      mediaType: "application/y",
      digest: fakeDigest("a"),
      size: 9,
      annotations: { "buildkit/createdat": "2026-02-02T00:00:00Z" },
    };
    const [a, b, c] = placeLayers(config, [listed]);
    expect(a).toMatchObject({
      size: 9,
      mediaType: "application/y",
      diffId: annotations.diffID,
      createdAt: "2026-02-02T00:00:00Z",
    });
    expect(b).toMatchObject({ size: 7, mediaType: "application/x" });
    expect(c).toMatchObject({
      size: null,
      mediaType: null,
      diffId: null,
      createdAt: null,
      depth: 0,
      records: 0,
    });
  });
});
