import { describe, expect, test } from "bun:test";
import { cacheGraph } from "../src/cache-graph.ts";
import { graphMermaid, mermaidWarning } from "../src/inspect-mermaid.ts";
import { cacheOf, generateCache } from "./helpers/generated-cache.ts";
import { graphSource, HOSTILE_TEXTS } from "./helpers/graph-source.ts";

/** The whole of Mermaid's grammar that a chart may need. */
const LINES = [
  /^flowchart LR$/,
  /^subgraph (?:(?:cache|layers)\d+|legend)\["LABEL"\]$/,
  /^direction LR$/,
  /^end$/,
  /^[rk]\d+\("LABEL"\)(?::::empty)?$/,
  /^[lk]\d+\["LABEL"\]$/,
  /^(?:l\d+ --> l|k\d+ --> k)\d+$/,
  /^(?:r\d+ -->\|"LABEL"\| r|k\d+ -->\|"LABEL"\| k)\d+$/,
  /^(?:r\d+ -\.-> l|k\d+ -\.-> k)\d+$/,
  /^classDef empty stroke-dasharray:4 3$/,
];
/** Plain characters, entity codes and the line break: nothing that Mermaid gives a meaning. */
const LABEL = /"(?:[A-Za-z0-9 .,/@_-]|#\d+;|<br\/>)*"/g;

const unknownLines = (text: string): string[] =>
  text
    .trimEnd()
    .split("\n")
    .map((line) => line.trim().replaceAll(LABEL, '"LABEL"'))
    .filter((line) => !LINES.some((known) => known.test(line)));

describe("graphMermaid()", () => {
  test("records, links with input and selector, layers in their chains", () => {
    const cache = cacheOf({
      a: [[], ["base"]],
      b: [["a/sel"], ["base", "top"]],
      c: [["a", "b"]],
    });
    const text = graphMermaid(cacheGraph([graphSource(cache)]));
    const lines = text.split("\n").map((line) => line.trim());
    expect(lines).toContain('r2("c<br/>no result"):::empty');
    expect(lines).toContain('r0 -->|"0 sel"| r1');
    expect(lines).toContain('r1 -->|"1"| r2');
    expect(lines).toContain("l0 --> l1");
    expect(lines).toContain("r1 -.-> l1");
  });

  test.each([1, 2, 3])("generated cache %d: nothing but known lines", (seed) => {
    const one = graphSource(generateCache(seed, 300));
    expect(unknownLines(graphMermaid(cacheGraph([one])))).toEqual([]);
    expect(unknownLines(graphMermaid(cacheGraph([one, one])))).toEqual([]);
    expect(unknownLines(graphMermaid(cacheGraph([one]), { legend: true }))).toEqual([]);
  });

  test("texts from outside are written as codes", () => {
    const records = HOSTILE_TEXTS.map((text, at) => ({
      digest: text,
      results: [],
      chains: [],
      inputs: at === 0 ? [] : [[{ selector: text, link: at - 1 }]],
    }));
    const cache = { config: { layers: [], records }, layers: [] };
    const platform = { os: 'li"nux', architecture: "]end" };
    const graph = cacheGraph([graphSource(cache, platform), graphSource(cache, platform)]);
    const text = graphMermaid(graph);
    expect(unknownLines(text)).toEqual([]);
    expect(text).toContain('subgraph cache0["li#34;nux/#93;end"]');
    expect(text).toContain('r0("a#34;b<br/>no result")');
  });
});

test("mermaidWarning() speaks up where Mermaid's own limits are passed", () => {
  const warn = (size: number): string | undefined => {
    const graph = cacheGraph([graphSource(generateCache(4, size))]);
    return mermaidWarning(graph, graphMermaid(graph));
  };
  expect(warn(20)).toBeUndefined();
  expect(warn(1000)).toContain("--format html");
});
