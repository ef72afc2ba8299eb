/**
 * Draws a cache graph as a Mermaid flowchart, which many Markdown viewers show.
 *
 * Source: mermaid.js.org, "Flowcharts - Basic Syntax" (entity codes, subgraphs).
 */
import type { CacheGraph, GraphLayer } from "./cache-graph.ts";
import { shortDigest } from "./digest.ts";
import { cacheLabel, layerTrees, linkLabel, recordLines, sizeText } from "./inspect-labels.ts";
import type { LayerTree } from "./inspect-labels.ts";

/**
 * What Mermaid draws unless its page allows more (`maxEdges`, `maxTextSize`); a
 * chart cannot allow it itself.
 */
const MERMAID_LIMITS = { links: 500, characters: 50_000 } as const;

/** Writes a graph as a `flowchart`. The same graph always gives the same text. */
export function graphMermaid(graph: CacheGraph): string {
  const trees = Map.groupBy(layerTrees(graph), ({ cache }) => cache);
  const records = Map.groupBy(graph.records.keys(), (at) => graph.records[at]?.cache);
  const several = graph.caches.length > 1;
  const lines = ["flowchart LR"];
  graph.caches.forEach((cache, index) => {
    if (several)
      lines.push(`  subgraph cache${index}[${quoted(cacheLabel(cache))}]`, "  direction LR");
    for (const at of records.get(index) ?? []) lines.push(recordNode(graph, at));
    for (const tree of trees.get(index) ?? [])
      for (const line of treeNodes(graph, tree)) lines.push(line);
    if (several) lines.push("  end");
  });
  for (const { from, to, input, selector } of graph.links)
    lines.push(`  r${from} -->|${quoted(linkLabel(input, selector))}| r${to}`);
  graph.records.forEach(({ results }, at) => {
    for (const { layer, chain } of results)
      for (const below of chain ?? [layer]) lines.push(`  r${at} -.-> l${below}`);
  });
  lines.push("  classDef empty stroke-dasharray:4 3", "");
  return lines.join("\n");
}

/**
 * Tells when Mermaid will refuse a chart with its own settings.
 *
 * @param text What {@link graphMermaid} made of the graph.
 */
export function mermaidWarning(
  { layers, records, links }: CacheGraph,
  text: string,
): string | undefined {
  const results = records.flatMap((record) => record.results);
  const count =
    links.length +
    layers.filter(({ parent }) => parent !== null).length +
    results.reduce((sum, { chain }) => sum + (chain?.length ?? 1), 0);
  return count > MERMAID_LIMITS.links || text.length > MERMAID_LIMITS.characters
    ? `The chart has ${count} links and ${text.length} characters: Mermaid draws at most ${MERMAID_LIMITS.links} and ${MERMAID_LIMITS.characters} unless maxEdges and maxTextSize are raised; --format dot and --format html have no limit`
    : undefined;
}

function recordNode(graph: CacheGraph, at: number): string {
  const record = graph.records[at] as CacheGraph["records"][number];
  const label = quoted(...recordLines(graph, record));
  return `  r${at}(${label})${record.results.length === 0 ? ":::empty" : ""}`;
}

/** The layers on one base layer; a frame goes around more than one. */
function treeNodes(graph: CacheGraph, { layers }: LayerTree): string[] {
  const nodes = layers.flatMap((at) => {
    const { digest, size, parent } = graph.layers[at] as GraphLayer;
    const node = `  l${at}[${quoted(shortDigest(digest), sizeText(size))}]`;
    return parent === null ? node : [node, `  l${parent} --> l${at}`];
  });
  if (layers.length === 1) return nodes;
  return [
    `  subgraph layers${layers[0]}["${layers.length} layers"]`,
    "  direction LR",
    ...nodes,
    "  end",
  ];
}

/**
 * A quoted label of lines. A quote would end it, and Mermaid takes other characters
 * in it for HTML, Markdown or entities: all but the plainest are written as codes.
 */
function quoted(...lines: string[]): string {
  const escaped = lines.map((line) =>
    line.replace(/[^A-Za-z0-9 .,/@_-]/gu, (character) => `#${character.codePointAt(0)};`),
  );
  return `"${escaped.join("<br/>")}"`;
}
