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
import { compareTimeTexts } from "./cache-time.ts";
import type { CacheRecord } from "./cache-types.ts";
import type { Digest } from "./digest.ts";
import { compareBytes } from "./go-json.ts";

/** Whose results are taken: those of the cache with the newest one of a chain, or of the one given first. */
export type Preference = "newest" | "first";

/** What is known of a result: when it was made, and the positions of the caches that have it. */
export interface Donor {
  createdAt: string;
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

/** Tells whether caches do not agree on a record: the newest result of one is not that of another. */
export function isDisputed(results: readonly Donor[]): boolean {
  const first = results[0]?.caches;
  return results.some(({ caches }) => caches.some((cache) => !first?.includes(cache)));
}

/** What is known of the records on which caches do not agree. */
export interface Settlement<D extends Donor> {
  conflicts: Conflict[];
  /** Results of records that stand in another order now; the first are to stay. */
  moved: Map<number, D[]>;
}

/**
 * Settles which results are to stay where caches do not agree: those of one cache for all
 * records of a chain; where that cache has none for a record, its results stay as they are.
 * Two results are the same when all blobs below are.
 *
 * @param records All records, links among them.
 * @param disputed The records that {@link isDisputed}, with their results, the newest first.
 * @param resultsOf The results of any record, the newest first.
 * @param prefer Undefined to leave each record's newest.
 */
export function settleConflicts<D extends Donor>(
  records: readonly CacheRecord[],
  disputed: ReadonlyMap<number, D[]>,
  resultsOf: (at: number) => D[],
  prefer: Preference | undefined,
): Settlement<D> {
  const moved = new Map<number, D[]>();
  if (disputed.size === 0) return { conflicts: [], moved };
  const differs = (at: number): boolean => disputed.has(at);
  const known = (at: number): D[] => disputed.get(at) ?? resultsOf(at);
  const conflicts = findChains(records, differs).flatMap((chain, number) => {
    const chosen = prefer && chooseDonor(records, chain, known, prefer);
    return chain.filter(differs).map((at): Conflict => {
      const own = disputed.get(at) as D[];
      const best = own.findIndex(({ caches }) => caches.includes(chosen ?? -1));
      if (best > 0) moved.set(at, [own[best] as D, ...own.toSpliced(best, 1)]);
      const [kept] = moved.get(at) ?? own;
      return {
        digest: records[at]?.digest as string,
        chain: number,
        results: newestOfEach(own, kept),
      };
    });
  });
  return { conflicts, moved };
}

/** The newest result of each cache, in the order of the caches. */
function newestOfEach<D extends Donor>(
  results: readonly D[],
  kept: D | undefined,
): Conflict["results"] {
  const found: Conflict["results"] = [];
  for (const result of results) {
    for (const cache of result.caches) {
      if (found.some((other) => other.cache === cache)) continue;
      found.push({
        cache,
        layer: result.top,
        createdAt: result.createdAt,
        kept: result === kept,
      });
    }
  }
  return found.sort((a, b) => a.cache - b.cache);
}

/** The cache whose results are to stay in a chain. */
function chooseDonor(
  records: readonly CacheRecord[],
  chain: readonly number[],
  resultsOf: (at: number) => readonly Donor[],
  prefer: Preference,
): number {
  let first = Infinity;
  let newest: Candidate | undefined;
  for (const at of chain) {
    const digest = records[at]?.digest ?? "";
    const results = resultsOf(at);
    const [best] = results;
    if (!best) continue;
    if (prefer === "first") {
      for (const { caches } of results) first = Math.min(first, ...caches);
      continue;
    }
    const candidate = { caches: best.caches, createdAt: best.createdAt, rank: 0, digest };
    if (!newest || compareCandidates(candidate, newest) < 0) newest = candidate;
  }
  if (prefer === "first") return first;
  const [only, ...others] = newest?.caches ?? [];
  if (others.length === 0) return only as number;
  // Several caches have the newest one: whichever of them has the next one, too.
  const sorted = chain
    .flatMap((at) =>
      resultsOf(at).map(({ caches, createdAt }, rank) => {
        return { caches, createdAt, rank, digest: records[at]?.digest ?? "" };
      }),
    )
    .sort(compareCandidates);
  let left = new Set(sorted[0]?.caches);
  for (const { caches } of sorted) {
    const both = caches.filter((cache) => left.has(cache));
    if (both.length > 0) left = new Set(both);
    if (left.size < 2) break;
  }
  return [...left][0] as number;
}

/** What {@link chooseDonor} chooses from. */
interface Candidate {
  caches: readonly number[];
  createdAt: string;
  /** Place among the results of its record. */
  rank: number;
  digest: string;
}

/** The newest first. */
function compareCandidates(a: Candidate, b: Candidate): number {
  return (
    compareTimeTexts(b.createdAt, a.createdAt) ||
    compareBytes(a.digest, b.digest) ||
    a.rank - b.rank
  );
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
