/**
 * A part of a cache graph to draw: what leads to a record or to a step, so many steps
 * back, or the layers alone.
 */
import { firstRecords } from "./cache-graph.ts";
import type { CacheGraph, GraphRecord, GraphResult } from "./cache-graph.ts";
import { printable } from "./cli-text.ts";
import { isDigest, shortDigest } from "./digest.ts";
import { CacheportError } from "./errors.ts";
import type { Build, BuildStep } from "./explain-build.ts";
import type { CacheLabels } from "./explain-labels.ts";
import { stepPlaceText } from "./explain-names.ts";
import { shortKey } from "./inspect-labels.ts";

/** Which part is drawn. */
export interface GraphPart {
  /** The start of a record's or a layer's digest, or the line of a step: `12`, `Dockerfile:12`. */
  root?: string | undefined;
  /** How many links to go back from the root; as far as there are any when undefined. */
  depth?: number | undefined;
  layersOnly?: boolean;
}

/** What the nodes of a graph are named by. */
export interface GraphNames {
  /** Of each cache of the graph. */
  labels: readonly CacheLabels[];
  builds: readonly Build[];
}

/** How many digests a message lists. */
const LISTED = 5;

/**
 * Takes a part out of a graph, with positions of its own.
 *
 * @throws {CacheportError} NAME_NOT_FOUND, NAME_AMBIGUOUS, USAGE for the root
 */
export function graphPart(
  graph: CacheGraph,
  { root, depth, layersOnly = false }: GraphPart,
  names: GraphNames,
): CacheGraph {
  const part =
    root === undefined
      ? graph
      : subgraph(graph, leadingTo(graph, findRoots(graph, root, names), depth));
  if (!layersOnly) return part;
  const layers = part.layers.map((layer) => {
    const name = names.labels[layer.cache]?.layer(layer.digest);
    return name === undefined ? layer : { ...layer, names: [name] };
  });
  return { caches: part.caches, layers, records: [], links: [] };
}

/** The records from which links lead to some records, and these. */
function leadingTo(graph: CacheGraph, roots: readonly number[], depth = Infinity): Set<number> {
  const into = Map.groupBy(graph.links, ({ to }) => to);
  const found = new Set(roots);
  let last: readonly number[] = roots;
  for (let steps = 0; steps < depth && last.length > 0; steps++) {
    const before = last.flatMap((at) => (into.get(at) ?? []).map(({ from }) => from));
    last = [...new Set(before)].filter((at) => !found.has(at));
    for (const at of last) found.add(at);
  }
  return found;
}

/** Some records of a graph, the links between them, and the layers that their results stand on. */
function subgraph(graph: CacheGraph, kept: ReadonlySet<number>): CacheGraph {
  const isUsed = new Set<number>();
  for (const at of kept)
    for (const { layer, chain } of graph.records[at]?.results ?? [])
      for (const top of chain ?? [layer])
        for (let below: number | null = top; below !== null && !isUsed.has(below);) {
          isUsed.add(below);
          below = graph.layers[below]?.parent ?? null;
        }
  const recordAt = places([...graph.records.keys()].filter((at) => kept.has(at)));
  const layerAt = places([...graph.layers.keys()].filter((at) => isUsed.has(at)));
  const cacheAt = places([
    ...new Set([...recordAt.keys()].map((at) => (graph.records[at] as GraphRecord).cache)),
  ]);
  const moveResult = ({ layer, chain, ...rest }: GraphResult): GraphResult => ({
    ...rest,
    layer: layerAt.get(layer) as number,
    ...(chain && { chain: chain.map((at) => layerAt.get(at) as number) }),
  });
  return {
    caches: graph.caches.filter((_, at) => cacheAt.has(at)),
    layers: graph.layers
      .filter((_, at) => layerAt.has(at))
      .map((layer) => ({
        ...layer,
        cache: cacheAt.get(layer.cache) as number,
        parent: layer.parent === null ? null : (layerAt.get(layer.parent) as number),
      })),
    records: graph.records
      .filter((_, at) => recordAt.has(at))
      .map((record) => ({
        ...record,
        cache: cacheAt.get(record.cache) as number,
        results: record.results.map(moveResult),
      })),
    links: graph.links.flatMap((link) => {
      const [from, to] = [recordAt.get(link.from), recordAt.get(link.to)];
      return from === undefined || to === undefined ? [] : { ...link, from, to };
    }),
  };
}

const places = (kept: readonly number[]): Map<number, number> =>
  new Map(kept.map((old, at) => [old, at]));

/** The records that a root stands for: all with one digest, or all of the steps on a line. */
function findRoots(graph: CacheGraph, root: string, names: GraphNames): number[] {
  // More digits are the start of a digest.
  const [, file, line] = /^(?:(?!sha\d+:)(.+):)?(\d{1,5})$/.exec(root) ?? [];
  return line === undefined
    ? findByDigest(graph, root)
    : findByLine(graph, root, { file, line: Number(line) }, names);
}

function findByLine(
  graph: CacheGraph,
  root: string,
  { file, line }: { file: string | undefined; line: number },
  { labels, builds }: GraphNames,
): number[] {
  if (builds.length === 0)
    throw new CacheportError("USAGE", `${action(root)}: without a build no line is known`, {
      hint: `Name the build with --build${file === undefined ? ", or write sha256: before the start of a digest" : ""}`,
    });
  // A builder's place may end where a here-document begins; the instruction has all its lines.
  const isOnLine = ({ place, instruction }: BuildStep): boolean =>
    place !== undefined &&
    (file ?? place.file) === place.file &&
    place.line <= line &&
    line <= Math.max(place.endLine, instruction?.endLine ?? 0);
  const steps = builds.flatMap((build) => build.steps.filter(isOnLine));
  const found = new Set(steps.map(stepPlaceText));
  const firsts = firstRecords(graph);
  const roots = [...graph.records.keys()].filter((at) => {
    const { cache } = graph.records[at] as GraphRecord;
    const ofRecord = labels[cache]?.names.get(at - (firsts[cache] as number)) ?? [];
    return ofRecord.some(({ place }) => place !== null && found.has(place));
  });
  if (roots.length > 0) return roots;
  throw new CacheportError(
    "NAME_NOT_FOUND",
    `${action(root)}: ${found.size > 0 ? "the cache has no record of the step on that line" : "the build has no step on that line"}`,
    {
      hint: "cacheport explain shows the steps of a build, their lines and which are in the cache",
    },
  );
}

function findByDigest(graph: CacheGraph, root: string): number[] {
  const starts = (digest: string): boolean =>
    digest.startsWith(root) ||
    (isDigest(digest) && digest.slice(digest.indexOf(":") + 1).startsWith(root));
  const all = new Set([...graph.records, ...graph.layers].map(({ digest }) => digest));
  // A key of a builder's own may be the start of another one.
  const digests = all.has(root) ? [root] : [...all].filter(starts);
  const [digest, ...others] = digests;
  if (root === "" || digest === undefined)
    throw new CacheportError(
      "NAME_NOT_FOUND",
      `${action(root)}: no digest of a record or a layer starts with it`,
      { hint: "--format json lists the digests of all records" },
    );
  if (others.length > 0) {
    const shown = digests.slice(0, LISTED).map((one) => shortKey(one));
    const rest = digests.length - shown.length;
    throw new CacheportError(
      "NAME_AMBIGUOUS",
      `${action(root)}: ${digests.length} digests start with it`,
      {
        hint: `Write more of the digest: ${shown.join(", ")}${rest > 0 ? `, ... and ${rest} more` : ""}`,
      },
    );
  }
  const isRoot = ({ digest: own, results }: GraphRecord): boolean =>
    own === digest || results.some(({ layer }) => graph.layers[layer]?.digest === digest);
  const roots = [...graph.records.keys()].filter((at) => isRoot(graph.records[at] as GraphRecord));
  if (roots.length > 0) return roots;
  throw new CacheportError(
    "NAME_NOT_FOUND",
    `${action(root)}: no record has layer ${shortDigest(digest)} on top of a result`,
    { hint: "Name a layer above it, or a record" },
  );
}

const action = (root: string): string => `Cannot draw what leads to "${printable(root)}"`;
