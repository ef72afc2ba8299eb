/**
 * Caches that do not agree: records with the same key and other results. A step that does
 * not give the same bytes each time (it fetches, clones, writes the time) has one result in
 * each cache that was built without the others. What is built on it has keys made of that
 * very content, so a build that takes such a step from one cache and asks for what follows
 * it finds nothing of the other (buildkit#6418).
 *
 * The records that differ, with all that is built on them, fall into chains that hang
 * together through their inputs. Of each chain all results are taken from one cache.
 */
import { inputsFirst } from "./cache-check.ts";
import { compareTimes } from "./cache-time.ts";
import type { CacheTime } from "./cache-time.ts";
import type { CacheRecord } from "./cache-types.ts";
import type { Digest } from "./digest.ts";
import { compareBytes } from "./go-json.ts";

/** Whose results are taken: those of the cache with the newest one of a chain, or of the one given first. */
export type Preference = "newest" | "first";

/** What is known of a result: when it was made, and the positions of the caches that have it. */
export interface Donor {
  createdAt: string;
  time: CacheTime;
  caches: readonly number[];
  /** The blob of the top layer. */
  top: Digest;
}

/** A record that several caches have, with results that differ. */
export interface Conflict {
  digest: string;
  /** Records of one chain have the same number, from 0. */
  chain: number;
  /** What each cache has, in the order of the caches; those that have no result are left out. */
  results: {
    /** Position of the cache. */
    cache: number;
    /** The blob of the top layer. */
    layer: Digest;
    createdAt: string;
    /** This one stays in a merge. */
    kept: boolean;
  }[];
}

/**
 * Finds the records that several caches have with other results, and puts those first that
 * are to stay: of one cache for all records of a chain; where that cache has none for a
 * record, its results stay as they are. Two results are the same when all blobs below are.
 *
 * @param records All records, links among them.
 * @param results For each record its results, the newest first; is changed.
 * @param prefer Undefined to leave each record's newest.
 */
export function settleConflicts(
  records: readonly CacheRecord[],
  results: Donor[][],
  prefer: Preference | undefined,
): Conflict[] {
  const bests = results.map((own) => (own.length < 2 ? undefined : bestOfEach(own)));
  const differs = (at: number): boolean => new Set(bests[at]?.values()).size > 1;
  if (!bests.some((best, at) => best && differs(at))) return [];
  return findChains(records, differs).flatMap((chain, number) => {
    if (prefer) preferDonor(records, results, chain, prefer);
    return chain.filter(differs).map((at): Conflict => {
      const best = bests[at] as Map<number, Donor>;
      return {
        digest: records[at]?.digest as string,
        chain: number,
        results: [...best]
          .sort(([a], [b]) => a - b)
          .map(([cache, donor]) => ({
            cache,
            layer: donor.top,
            createdAt: donor.createdAt,
            kept: donor === results[at]?.[0],
          })),
      };
    });
  });
}

/** The newest result of each cache. */
function bestOfEach(results: readonly Donor[]): Map<number, Donor> {
  const best = new Map<number, Donor>();
  for (const result of results)
    for (const cache of result.caches) if (!best.has(cache)) best.set(cache, result);
  return best;
}

/** Puts the results of one cache first. */
function preferDonor(
  records: readonly CacheRecord[],
  results: Donor[][],
  chain: readonly number[],
  prefer: Preference,
): void {
  const found = chain.flatMap((at) =>
    (results[at] as Donor[]).map((result, rank) => ({
      ...result,
      rank,
      digest: records[at]?.digest ?? "",
    })),
  );
  const chosen = prefer === "first" ? firstDonor(found) : newestDonor(found);
  for (const at of chain) {
    const own = results[at] as Donor[];
    const best = own.findIndex(({ caches }) => caches.includes(chosen));
    if (best > 0) own.unshift(...own.splice(best, 1));
  }
}

function firstDonor(results: readonly Donor[]): number {
  return results.reduce((first, { caches }) => Math.min(first, ...caches), Infinity);
}

/** The cache that has the newest result; of several the one that has the next one, too. */
function newestDonor(results: readonly (Donor & { digest: string; rank: number })[]): number {
  const sorted = results.toSorted(
    (a, b) => compareTimes(b.time, a.time) || compareBytes(a.digest, b.digest) || a.rank - b.rank,
  );
  let left = new Set(sorted[0]?.caches);
  for (const { caches } of sorted) {
    const both = caches.filter((cache) => left.has(cache));
    if (both.length > 0) left = new Set(both);
    if (left.size < 2) break;
  }
  return [...left][0] as number;
}

/**
 * The chains that records hang together in, through each other and through what is built
 * on them. Each is in the order of the records.
 */
function findChains(records: readonly CacheRecord[], differs: (at: number) => boolean): number[][] {
  const isAffected = new Uint8Array(records.length);
  const chainOf = Int32Array.from(records, (_record, at) => at);
  const find = (at: number): number => {
    let root = at;
    while (chainOf[root] !== root) {
      chainOf[root] = chainOf[chainOf[root] as number] as number;
      root = chainOf[root] as number;
    }
    return root;
  };
  for (const at of inputsFirst(records)) {
    const { inputs } = records[at] as CacheRecord;
    if (differs(at)) isAffected[at] = 1;
    for (const alternatives of inputs)
      for (const { link } of alternatives) if (isAffected[link] === 1) isAffected[at] = 1;
    if (isAffected[at] === 0) continue;
    for (const alternatives of inputs) {
      for (const { link } of alternatives)
        if (isAffected[link] === 1) chainOf[find(at)] = find(link);
    }
  }
  const chains = new Map<number, number[]>();
  for (const at of records.keys()) {
    if (isAffected[at] === 0) continue;
    const root = find(at);
    const chain = chains.get(root);
    if (chain) chain.push(at);
    else chains.set(root, [at]);
  }
  return [...chains.values()];
}
