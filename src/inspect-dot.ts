/**
 * Draws a cache graph in Graphviz's language: records from left to right in the
 * order in which a build comes to them, the layers of their results in boxes.
 *
 * Source: Graphviz, "DOT Language" (quoted strings) and "escString".
 */
import type { CacheGraph, GraphLayer } from "./cache-graph.ts";
import { shortDigest } from "./digest.ts";
import { cacheLabel, layerTrees, linkLabel, recordLines, sizeText } from "./inspect-labels.ts";
import type { LayerTree } from "./inspect-labels.ts";

/** Writes a graph as a `digraph`. The same graph always gives the same text. */
export function graphDot(graph: CacheGraph): string {
  const trees = Map.groupBy(layerTrees(graph), ({ cache }) => cache);
  const records = Map.groupBy(graph.records.keys(), (at) => graph.records[at]?.cache);
  const several = graph.caches.length > 1;
  const lines = [
    "digraph cache {",
    '  graph [rankdir=LR, fontname="Helvetica", fontsize=10];',
    '  node [shape=box, style=rounded, fontname="Helvetica", fontsize=10];',
    '  edge [fontname="Helvetica", fontsize=9, arrowsize=0.7];',
  ];
  graph.caches.forEach((cache, index) => {
    if (several)
      lines.push(`  subgraph cluster_cache${index} {`, `  label=${quoted(cacheLabel(cache))};`);
    for (const at of records.get(index) ?? []) lines.push(recordNode(graph, at));
    for (const tree of trees.get(index) ?? [])
      for (const line of treeNodes(graph, tree)) lines.push(line);
    if (several) lines.push("  }");
  });
  for (const { from, to, input, selector } of graph.links)
    lines.push(`  r${from} -> r${to} [label=${quoted(linkLabel(input, selector))}];`);
  graph.records.forEach(({ results }, at) => {
    for (const { layer, chain } of results)
      for (const below of chain ?? [layer])
        lines.push(`  r${at} -> l${below} [style=dashed, color=gray50];`);
  });
  lines.push("}", "");
  return lines.join("\n");
}

function recordNode(graph: CacheGraph, at: number): string {
  const record = graph.records[at] as CacheGraph["records"][number];
  const label = quoted(...recordLines(graph, record));
  const style = record.results.length === 0 ? ', style="rounded,dashed"' : "";
  return `  r${at} [label=${label}${style}];`;
}

/** The layers on one base layer; a frame goes around more than one. */
function treeNodes(graph: CacheGraph, { layers }: LayerTree): string[] {
  const nodes = layers.flatMap((at) => {
    const { digest, size, parent } = graph.layers[at] as GraphLayer;
    const label = quoted(shortDigest(digest), sizeText(size));
    const node = `  l${at} [label=${label}, style=filled, fillcolor=gray92, color=gray50];`;
    return parent === null ? node : [node, `  l${parent} -> l${at};`];
  });
  if (layers.length === 1) return nodes;
  return [
    `  subgraph cluster_layers${layers[0]} {`,
    `  label="${layers.length} layers"; color=gray70;`,
    ...nodes,
    "  }",
  ];
}

/**
 * A quoted string of lines. Within it, Graphviz takes a backslash for the start of
 * an escape and an ampersand for that of an HTML entity.
 */
function quoted(...lines: string[]): string {
  const escaped = lines.map((line) =>
    line.replaceAll("&", "&amp;").replaceAll("\\", "\\\\").replaceAll('"', '\\"'),
  );
  return `"${escaped.join("\\n")}"`;
}
