/**
 * Draws a cache graph as text: the one walk over records, layers and links, and what a
 * language of drawings has to say for each of them. Records stand from left to right in
 * the order in which a build comes to them, the layers of their results in boxes.
 */
import type { CacheGraph, GraphLayer } from "./cache-graph.ts";
import { cacheLabel, layerLines, layerTrees, linkLabel, recordLines } from "./inspect-labels.ts";
import type { LayerTree } from "./inspect-labels.ts";

/** Lines around a part of a drawing. */
export interface Frame {
  readonly open: readonly string[];
  readonly close: readonly string[];
}

/**
 * How one language writes the things of a drawing, each as one line. A node's name is a
 * letter and a number: the language gives it no meaning. Labels are those of `quoted`.
 */
export interface Dialect {
  readonly whole: Frame;
  /** A label of lines that may hold anything, quotes and signs of the language included. */
  quoted(...lines: string[]): string;
  cacheFrame(cache: number, label: string): Frame;
  /** Around the layers on one base layer, known by its position. */
  layersFrame(base: number, label: string): Frame;
  legendFrame(label: string): Frame;
  record(node: string, label: string, isEmpty: boolean): string;
  layer(node: string, label: string): string;
  /** One record's result is an input of another one. */
  input(from: string, to: string, label: string): string;
  /** A record has a result on a layer. */
  result(from: string, to: string): string;
  /** A layer lies on another one. */
  above(below: string, layer: string): string;
}

/** What is drawn beside the graph. */
export interface DrawOptions {
  /** Add a box that says what the shapes and lines mean. */
  legend?: boolean;
}

/** Draws a graph in a language. The same graph always gives the same text. */
export function drawGraph(
  graph: CacheGraph,
  dialect: Dialect,
  { legend = false }: DrawOptions = {},
): string {
  const trees = Map.groupBy(layerTrees(graph), ({ cache }) => cache);
  const records = Map.groupBy(graph.records.keys(), (at) => graph.records[at]?.cache);
  const lines = [...dialect.whole.open];
  graph.caches.forEach((cache, index) => {
    const nodes = (records.get(index) ?? []).map((at) => recordNode(graph, at, dialect));
    for (const tree of trees.get(index) ?? [])
      for (const line of treeLines(graph, tree, dialect)) nodes.push(line);
    const isFramed = graph.caches.length > 1;
    const frame = isFramed && dialect.cacheFrame(index, dialect.quoted(cacheLabel(cache)));
    for (const line of frame ? framed(frame, nodes) : nodes) lines.push(line);
  });
  for (const { from, to, input, selector } of graph.links)
    lines.push(dialect.input(`r${from}`, `r${to}`, dialect.quoted(linkLabel(input, selector))));
  graph.records.forEach(({ results }, at) => {
    for (const { layer, chain } of results)
      for (const below of chain ?? [layer]) lines.push(dialect.result(`r${at}`, `l${below}`));
  });
  if (legend) lines.push(...legendLines(graph, dialect));
  lines.push(...dialect.whole.close, "");
  return lines.join("\n");
}

/** How many lines a drawing of a graph has between its nodes. */
export function countLines({ layers, records, links }: CacheGraph): number {
  const results = records.flatMap((record) => record.results);
  return (
    links.length +
    layers.filter(({ parent }) => parent !== null).length +
    results.reduce((sum, { chain }) => sum + (chain?.length ?? 1), 0)
  );
}

function recordNode(graph: CacheGraph, at: number, dialect: Dialect): string {
  const record = graph.records[at] as CacheGraph["records"][number];
  const label = dialect.quoted(...recordLines(graph, record));
  return dialect.record(`r${at}`, label, record.results.length === 0);
}

/** The layers on one base layer; a frame goes around more than one. */
function treeLines(graph: CacheGraph, { layers }: LayerTree, dialect: Dialect): string[] {
  const nodes = layers.flatMap((at) => {
    const layer = graph.layers[at] as GraphLayer;
    const node = dialect.layer(`l${at}`, dialect.quoted(...layerLines(layer)));
    return layer.parent === null ? node : [node, dialect.above(`l${layer.parent}`, `l${at}`)];
  });
  const [base, ...others] = layers;
  if (base === undefined || others.length === 0) return nodes;
  return framed(dialect.layersFrame(base, dialect.quoted(`${layers.length} layers`)), nodes);
}

/** What the shapes and lines mean, as far as the drawing has records. */
function legendLines({ records }: CacheGraph, dialect: Dialect): string[] {
  const { quoted } = dialect;
  const layers = [
    dialect.layer("k2", quoted("layer", "digest, size")),
    dialect.layer("k3", quoted("layer", "on the one before")),
    dialect.above("k2", "k3"),
  ];
  const steps = [
    dialect.record("k0", quoted("step or cache key", "results, size of the top layer"), false),
    dialect.record("k1", quoted("step or cache key", "no result of its own"), true),
    dialect.input("k0", "k1", quoted("number of the input, selector")),
    dialect.result("k0", "k3"),
  ];
  return framed(
    dialect.legendFrame(quoted("Legend")),
    records.length === 0 ? layers : [...layers, ...steps],
  );
}

const framed = ({ open, close }: Frame, lines: readonly string[]): string[] => [
  ...open,
  ...lines,
  ...close,
];
