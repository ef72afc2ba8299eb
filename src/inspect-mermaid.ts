/**
 * A cache graph as a Mermaid flowchart, which many Markdown viewers show.
 *
 * Source: mermaid.js.org, "Flowcharts - Basic Syntax" (entity codes, subgraphs).
 */
import type { CacheGraph } from "./cache-graph.ts";
import { countLines, drawGraph } from "./inspect-graph.ts";
import type { Dialect, DrawOptions } from "./inspect-graph.ts";

/**
 * What Mermaid draws unless its page allows more (`maxEdges`, `maxTextSize`); a
 * chart cannot allow it itself.
 */
const MERMAID_LIMITS = { links: 500, characters: 50_000 } as const;

/** The lines of a `flowchart`. */
const MERMAID: Dialect = {
  whole: {
    open: ["flowchart LR"],
    close: ["  classDef empty stroke-dasharray:4 3"],
  },
  quoted,
  cacheFrame: (cache, label) => subgraph(`cache${cache}`, label),
  layersFrame: (base, label) => subgraph(`layers${base}`, label),
  legendFrame: (label) => subgraph("legend", label),
  record: (node, label, isEmpty) => `  ${node}(${label})${isEmpty ? ":::empty" : ""}`,
  layer: (node, label) => `  ${node}[${label}]`,
  input: (from, to, label) => `  ${from} -->|${label}| ${to}`,
  result: (from, to) => `  ${from} -.-> ${to}`,
  above: (below, layer) => `  ${below} --> ${layer}`,
};

/** Writes a graph as a `flowchart`. The same graph always gives the same text. */
export function graphMermaid(graph: CacheGraph, options?: DrawOptions): string {
  return drawGraph(graph, MERMAID, options);
}

/**
 * Tells when Mermaid will refuse a chart with its own settings.
 *
 * @param text What {@link graphMermaid} made of the graph.
 */
export function mermaidWarning(graph: CacheGraph, text: string): string | undefined {
  const count = countLines(graph);
  return count > MERMAID_LIMITS.links || text.length > MERMAID_LIMITS.characters
    ? `The chart has ${count} links and ${text.length} characters: Mermaid draws at most ${MERMAID_LIMITS.links} and ${MERMAID_LIMITS.characters} unless maxEdges and maxTextSize are raised; --root, --depth and --layers-only draw less, and --format html has no limit`
    : undefined;
}

function subgraph(name: string, label: string) {
  return { open: [`  subgraph ${name}[${label}]`, "  direction LR"], close: ["  end"] };
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
