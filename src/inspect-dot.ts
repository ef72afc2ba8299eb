/**
 * A cache graph in Graphviz's language.
 *
 * Source: Graphviz, "DOT Language" (quoted strings) and "escString".
 */
import type { CacheGraph } from "./cache-graph.ts";
import { drawGraph } from "./inspect-graph.ts";
import type { Dialect, DrawOptions } from "./inspect-graph.ts";

/** The lines of a `digraph`. */
const DOT: Dialect = {
  whole: {
    open: [
      "digraph cache {",
      '  graph [rankdir=LR, fontname="Helvetica", fontsize=10];',
      '  node [shape=box, style=rounded, fontname="Helvetica", fontsize=10];',
      '  edge [fontname="Helvetica", fontsize=9, arrowsize=0.7];',
    ],
    close: ["}"],
  },
  quoted,
  cacheFrame: (cache, label) => cluster(`cache${cache}`, `label=${label};`),
  layersFrame: (base, label) => cluster(`layers${base}`, `label=${label}; color=gray70;`),
  legendFrame: (label) => cluster("legend", `label=${label}; style=dotted;`),
  record: (node, label, isEmpty) =>
    `  ${node} [label=${label}${isEmpty ? ', style="rounded,dashed"' : ""}];`,
  layer: (node, label) =>
    `  ${node} [label=${label}, style=filled, fillcolor=gray92, color=gray50];`,
  input: (from, to, label) => `  ${from} -> ${to} [label=${label}];`,
  result: (from, to) => `  ${from} -> ${to} [style=dashed, color=gray50];`,
  above: (below, layer) => `  ${below} -> ${layer};`,
};

/** Writes a graph as a `digraph`. The same graph always gives the same text. */
export function graphDot(graph: CacheGraph, options?: DrawOptions): string {
  return drawGraph(graph, DOT, options);
}

/**
 * How many columns the lines of a drawing pass together when each node stands one column
 * behind the last one that leads to it. Graphviz puts a bend in every column that a line
 * passes, and its time grows with the bends, faster than they do.
 *
 * Source: Gansner, Koutsofios, North, Vo: "A Technique for Drawing Directed Graphs"
 * (ranks, virtual nodes).
 */
export function passedColumns({ layers, records, links }: CacheGraph): number {
  const count = records.length;
  const lines: [from: number, to: number][] = links.map(({ from, to }) => [from, to]);
  layers.forEach(({ parent }, at) => {
    if (parent !== null) lines.push([count + parent, count + at]);
  });
  records.forEach(({ results }, at) => {
    for (const { layer, chain } of results)
      for (const below of chain ?? [layer]) lines.push([at, count + below]);
  });
  const columns = columnsOf(count + layers.length, lines);
  return lines.reduce(
    // A circle has no columns; Graphviz turns one of its lines round.
    (sum, [from, to]) => sum + Math.max(1, (columns[to] as number) - (columns[from] as number)),
    0,
  );
}

/** The column of each node: one behind the last node that leads to it. */
function columnsOf(nodes: number, lines: readonly [from: number, to: number][]): Int32Array {
  const columns = new Int32Array(nodes);
  const waiting = new Int32Array(nodes);
  const next = Map.groupBy(lines, ([from]) => from);
  for (const [, to] of lines) waiting[to] = (waiting[to] as number) + 1;
  const ready = [...waiting.keys()].filter((node) => waiting[node] === 0);
  // The list grows while it is walked.
  for (const node of ready)
    for (const [, to] of next.get(node) ?? []) {
      columns[to] = Math.max(columns[to] as number, (columns[node] as number) + 1);
      waiting[to] = (waiting[to] as number) - 1;
      if (waiting[to] === 0) ready.push(to);
    }
  return columns;
}

function cluster(name: string, attributes: string) {
  return { open: [`  subgraph cluster_${name} {`, `  ${attributes}`], close: ["  }"] };
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
