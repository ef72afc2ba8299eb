/**
 * The one seam by which commands name what is in a cache: a record by its step, a layer
 * by the steps whose results stand on it. What nothing explains has no label.
 */
import type { Build } from "./explain-build.ts";
import { nameRecords, recordNameText } from "./explain-names.ts";
import { RecordView } from "./explain-records.ts";
import type { RecordSource } from "./explain-records.ts";

/** What the records and layers of a cache are called. */
export interface CacheLabels {
  /** `RUN npm ci (Dockerfile:12)`; undefined for a record that nothing explains. */
  record(at: number): string | undefined;
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
    layer: (digest) => layers.get(digest),
  };
}
