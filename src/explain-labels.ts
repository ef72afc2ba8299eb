/**
 * The one seam by which commands name what is in a cache: a record by its step, a layer
 * by the steps whose results stand on it. What nothing explains has no label.
 */
import { firstRecords } from "./cache-graph.ts";
import type { CacheGraph } from "./cache-graph.ts";
import type { Build } from "./explain-build.ts";
import { nameRecords, recordNameText } from "./explain-names.ts";
import type { RecordName } from "./explain-names.ts";
import { RecordView } from "./explain-records.ts";
import type { RecordSource } from "./explain-records.ts";

/** What the records and layers of a cache are called. */
export interface CacheLabels {
  /** `RUN npm ci (Dockerfile:12)`; undefined for a record that nothing explains. */
  record(at: number): string | undefined;
  /** All that a record is, where it is several things; the first one is its label. */
  readonly names: ReadonlyMap<number, readonly RecordName[]>;
  /** The same for a layer, by its digest: the step that made it, or the base image. */
  layer(digest: string): string | undefined;
}

/** Names the records and layers of a cache by the steps of builds. */
export function cacheLabels(source: RecordSource, builds: readonly Build[]): CacheLabels {
  const view = new RecordView(source);
  const names = nameRecords(view, builds);
  const layers = new Map<string, string>();
  const { config } = source;
  for (const [record, [name]] of names) {
    if (!name) continue;
    const { results, chains } = config.records[record] ?? { results: [], chains: [] };
    const tops = [
      ...results.map(({ layer }) => layer),
      ...chains.map((chain) => chain.layers.at(-1)),
      ...(name.layers ?? []),
    ];
    for (const top of tops) {
      const blob = top === undefined ? undefined : config.layers[top]?.blob;
      if (blob !== undefined && !layers.has(blob)) layers.set(blob, recordNameText(name));
    }
  }
  return {
    record(at) {
      const [name] = names.get(at) ?? [];
      return name && recordNameText(name);
    },
    names,
    layer: (digest) => layers.get(digest),
  };
}

/** Gives the records of a graph their names, which the labels of its caches are. */
export function nameGraph(graph: CacheGraph, labels: readonly CacheLabels[]): CacheGraph {
  const firsts = firstRecords(graph);
  const records = graph.records.map((record, at) => {
    const name = labels[record.cache]?.record(at - (firsts[record.cache] ?? 0));
    return name === undefined ? record : { ...record, name };
  });
  return { ...graph, records };
}
