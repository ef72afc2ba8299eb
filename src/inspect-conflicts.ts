/**
 * Records of one cache that hold several results with different content: a cache into which
 * several builds were exported has them of steps that do not give the same bytes each time.
 * BuildKit takes one of the results, and what was built on another one is not found then
 * (buildkit#6418). Between several caches, see cache-donors.ts.
 */
import type { LoadedCache } from "./cache-read.ts";
import type { RecordName } from "./explain-names.ts";
import { recordNameText } from "./explain-names.ts";
import type { Digest } from "./digest.ts";
import { shortDigest } from "./digest.ts";
import { formatTable } from "./cli-table.ts";

/** A record with results that differ. */
export interface OwnConflict {
  /** Position of the cache in an index of caches. */
  cache: number;
  /** Position of the record in its cache. */
  record: number;
  digest: string;
  /** What the record is, as far as it is known. */
  names: string[];
  /** The blob of each result's top layer, the newest first. */
  results: { layer: Digest; createdAt: string }[];
}

/** Finds the records of caches whose own results differ, in the order of the records. */
export function findOwnConflicts(
  caches: readonly LoadedCache[],
  namesOf: (cache: number) => ReadonlyMap<number, readonly RecordName[]>,
): OwnConflict[] {
  return caches.flatMap(({ config }, cache) =>
    config.records.flatMap(({ digest, results, chains }, record) => {
      const tops = [
        ...results.map(({ layer, createdAt }) => ({ top: layer, createdAt })),
        ...chains.map(({ layers, createdAt }) => ({ top: layers.at(-1), createdAt })),
      ].flatMap(({ top, createdAt }) => {
        const layer = top === undefined ? undefined : config.layers[top]?.blob;
        return layer === undefined ? [] : [{ layer, createdAt }];
      });
      if (new Set(tops.map(({ layer }) => layer)).size < 2) return [];
      const names = (namesOf(cache).get(record) ?? []).map(recordNameText);
      const newest = tops.toSorted((a, b) => (a.createdAt < b.createdAt ? 1 : -1));
      return [{ cache, record, digest, names: [...new Set(names)], results: newest }];
    }),
  );
}

/** A table of conflicts, or the sentence that there are none. */
export function ownConflictText(
  conflicts: readonly OwnConflict[],
  options: { colors: boolean },
): string {
  if (conflicts.length === 0) return "\nNo record has results that differ\n";
  const rows = conflicts.map(({ digest, names, results }) => [
    names.join(", ") || shortDigest(digest),
    results.map(({ layer, createdAt }) => `${shortDigest(layer)} of ${createdAt}`).join(", "),
  ]);
  const records = conflicts.length === 1 ? "1 record has" : `${conflicts.length} records have`;
  const table = formatTable([{ title: "RECORD" }, { title: "RESULTS" }], rows, options);
  return `\n${records} results that differ; BuildKit takes one, and misses what was built on another:\n${table}`;
}
