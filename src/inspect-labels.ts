/** What the nodes and links of a drawn cache graph are called. All texts are safe to show. */
import type { CacheGraph, GraphCache, GraphLayer, GraphRecord } from "./cache-graph.ts";
import { isDigest, shortDigest } from "./digest.ts";
import { formatPlatform } from "./platform.ts";
import { printable, truncate } from "./cli-text.ts";
import { formatBytes } from "./units.ts";

/**
 * SHA-256 of `/`, the selector for the whole of an input.
 *
 * Source: BuildKit cache/remotecache/v1/chains.go treats it apart.
 */
const WHOLE_INPUT = "sha256:8a5edab282632443219e051e4ade2d1d5bbc671c781051bf1437897cbdfea0f1";

/** Columns of a record's name in a drawing. */
const NAME_WIDTH = 60;

/** A key or a selector in few characters. */
export function shortKey(text: string): string {
  if (text === WHOLE_INPUT) return "/";
  return isDigest(text) ? shortDigest(text) : truncate(printable(text), 24);
}

/** A record's name in at most so many columns; the place at its end stays. */
export function cutName(name: string, width: number): string {
  const safe = printable(name);
  const [place = ""] = / \([^()\s]+:\d+\)$/.exec(safe) ?? [];
  if (place.length + 12 > width) return truncate(safe, width);
  return truncate(safe.slice(0, safe.length - place.length), width - place.length) + place;
}

/** The two lines of a record's node: its key, then its results and the size of the newest one's top layer. */
export function recordLines(
  graph: CacheGraph,
  { digest, results, name }: GraphRecord,
): [key: string, results: string] {
  const [first] = results;
  const key = name === undefined ? shortKey(digest) : cutName(name, NAME_WIDTH);
  if (!first) return [key, "no result"];
  const count = results.length === 1 ? "1 result" : `${results.length} results`;
  return [key, `${count}, ${sizeText(graph.layers[first.layer]?.size)}`];
}

/** The lines of a layer's node: its step where it is known, its digest, its size. */
export function layerLines({ digest, size, names: [name] = [] }: GraphLayer): string[] {
  const lines = [shortDigest(digest), sizeText(size)];
  return name === undefined ? lines : [cutName(name, NAME_WIDTH), ...lines];
}

/** The size of a layer, or that it is missing. */
export function sizeText(size: number | null | undefined): string {
  return typeof size === "number" ? formatBytes(size) : "missing";
}

/** What stands at a link: the number of the input, and the selector where there is one. */
export function linkLabel(input: number, selector: string): string {
  return selector === "" ? `${input}` : `${input} ${shortKey(selector)}`;
}

/** What one of several caches is called. */
export function cacheLabel({ platform, digest }: GraphCache): string {
  return platform ? printable(formatPlatform(platform)) : shortDigest(digest);
}

/** The layers of one cache that stand on one base layer, directly or not. */
export interface LayerTree {
  cache: number;
  /** Positions in the graph's layers, parents before children. */
  layers: number[];
}

/** The layers of a graph by the base layer that they stand on, in the order of the base layers. */
export function layerTrees({ layers }: CacheGraph): LayerTree[] {
  const byDepth = [...layers.keys()].sort(
    (a, b) => (layers[a]?.depth ?? 0) - (layers[b]?.depth ?? 0) || a - b,
  );
  const trees = new Map<number, LayerTree>();
  const bases = new Int32Array(layers.length);
  for (const at of byDepth) {
    const { parent, cache } = layers[at] as CacheGraph["layers"][number];
    const base = parent === null ? at : (bases[parent] as number);
    bases[at] = base;
    const tree = trees.get(base);
    if (tree) tree.layers.push(at);
    else trees.set(base, { cache, layers: [at] });
  }
  return [...trees.values()];
}
