import { describe, expect, test } from "bun:test";
import { cacheGraph } from "../src/cache-graph.ts";
import { graphDot } from "../src/inspect-dot.ts";
import { cacheOf, generateCache } from "./helpers/generated-cache.ts";
import { graphSource, HOSTILE_TEXTS } from "./helpers/graph-source.ts";

const GRAPH = cacheGraph([
  graphSource(
    cacheOf({
      a: [[], ["base"]],
      b: [["a/sel"], ["base", "top"]],
      c: [["a", "b"]],
    }),
  ),
]);

const hostile = () => {
  const records = HOSTILE_TEXTS.map((text, at) => ({
    digest: text,
    results: [],
    chains: [],
    inputs: at === 0 ? [] : [[{ selector: text, link: at - 1 }]],
  }));
  const cache = { config: { layers: [], records }, layers: [] };
  const platform = { os: 'li"nux', architecture: "\\]" };
  return cacheGraph([graphSource(cache, platform), graphSource(cache)]);
};

/** What is between quotes, by Graphviz's own rule: only `\"` does not end it. */
const strings = (text: string): string[] =>
  [...text.matchAll(/"((?:\\[^]|[^"\\])*)"/g)].map((match) => match[1] ?? "");

describe("graphDot()", () => {
  test("records, links with input and selector, layers in their chains", () => {
    const lines = graphDot(GRAPH)
      .split("\n")
      .map((line) => line.trim());
    expect(lines[0]).toBe("digraph cache {");
    expect(lines).toContain('r2 [label="c\\nno result", style="rounded,dashed"];');
    expect(lines.some((line) => /^r1 \[label="b\\n1 result, [\d.]+ \w+"\];$/.test(line))).toBe(
      true,
    );
    expect(lines).toContain('r0 -> r1 [label="0 sel"];');
    expect(lines).toContain('r1 -> r2 [label="1"];');
    expect(lines).toContain("l0 -> l1;");
    expect(lines).toContain("r1 -> l1 [style=dashed, color=gray50];");
  });

  test("the same graph gives the same text", () => {
    const draw = (): string => graphDot(cacheGraph([graphSource(generateCache(3, 200))]));
    expect(draw()).toBe(draw());
  });

  test("texts from outside end no string and control no terminal", () => {
    const text = graphDot(hostile());
    const rest = text.replaceAll(/"(?:\\[^]|[^"\\])*"/g, "S");
    expect(rest).not.toContain('"');
    expect(rest).toMatch(/^[\w\s{}[\]=,;.>-]+$/);
    expect(strings(text)).toContain('li\\"nux/\\\\]');
    expect(strings(text)).toContain("&amp;lt;&amp;quot;\\nno result");
    // oxlint-disable-next-line no-control-regex
    expect(text).not.toMatch(/[\x00-\x09\x0b-\x1f\u202e]/);
  });

  test("a line for each thing: the length grows with the cache, not faster", () => {
    const length = (size: number): number => {
      const graph = cacheGraph([graphSource(generateCache(1, size))]);
      return (
        graphDot(graph).length / (graph.links.length + graph.records.length + graph.layers.length)
      );
    };
    expect(length(4000)).toBeLessThan(length(400) * 1.5);
  });

  test("what layers are called stands on them, hostile texts in their quotes", () => {
    const layers = HOSTILE_TEXTS.map((name, at) => ({
      ...(GRAPH.layers[0] as (typeof GRAPH.layers)[number]),
      parent: at === 0 ? null : at - 1,
      names: [name],
    }));
    const text = graphDot({ ...GRAPH, layers, records: [], links: [] }, { legend: true });
    const rest = text.replaceAll(/"(?:\\[^]|[^"\\])*"/g, "S");
    expect(rest).toMatch(/^[\w\s{}[\]=,;.>-]+$/);
    expect(strings(text).some((label) => label.startsWith('a\\"b\\n'))).toBe(true);
    // oxlint-disable-next-line no-control-regex
    expect(text).not.toMatch(/[\x00-\x09\x0b-\x1f\u202e]/);
  });

  test.skipIf(!Bun.which("dot"))("Graphviz draws it, hostile texts included", async () => {
    for (const graph of [GRAPH, hostile(), cacheGraph([graphSource(generateCache(2, 40))])]) {
      const dot = Bun.spawn(["dot", "-Tsvg"], {
        stdin: Buffer.from(graphDot(graph)),
        stdout: "pipe",
        stderr: "pipe",
      });
      const [svg, errors, code] = await Promise.all([
        new Response(dot.stdout).text(),
        new Response(dot.stderr).text(),
        dot.exited,
      ]);
      expect([code, errors]).toEqual([0, ""]);
      expect(svg.match(/class="node"/g)).toHaveLength(graph.records.length + graph.layers.length);
      expect(svg).not.toContain("<script>");
    }
  });
});
