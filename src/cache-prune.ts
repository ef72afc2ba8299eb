/**
 * A smaller cache from a bigger one. What goes are results: what a step gave, with
 * its layers. The keys stay as long as they lead to a result, since a build walks
 * from key to key and needs no result on the way: what remains stays CACHED.
 *
 * The rules, in this order:
 *
 * 1. `dropLayers`: every result that stands on one of these blobs goes.
 * 2. `keepNewest` N: the N newest results stay, whatever the next two rules say.
 *    Given without `maxAge` and `maxSize` it is the limit: all others go.
 * 3. `maxAge`: older results go. A result without a time has the age of its top
 *    layer (`buildkit/createdat`); where neither is known it counts as the oldest
 *    of all, and no age makes it go.
 * 4. `maxSize`: the rest is gone through from the newest to the oldest, of the same
 *    age from the smallest to the largest, then by digest and position, and each
 *    result stays that still fits. So the oldest and the largest go first, and none
 *    that went would have fitted.
 * 5. A result costs only the blobs that no other kept result has. One that costs
 *    nothing stays, whatever its age: the steps below a kept result keep theirs, so
 *    a base that is built once and used daily does not grow old.
 *
 * Records that lead to no result any more go, and so do layers that none needs. A
 * result with a blob that the cache does not list is lost already and goes too.
 */
import { assertCacheConfig, checkCacheConfig } from "./cache-check.ts";
import type { CacheConfig, CacheLayer, CacheRecord } from "./cache-types.ts";
import { foldChains, pickEntries, resultsOf } from "./cache-layers.ts";
import type { Cache, RecordResult } from "./cache-layers.ts";
import { sortUsedEntries } from "./cache-order.ts";
import { compareTimes, isKnownTime, parseCacheTime } from "./cache-time.ts";
import type { CacheTime } from "./cache-time.ts";
import { totalSize } from "./descriptor.ts";
import type { Descriptor } from "./descriptor.ts";
import type { Digest } from "./digest.ts";
import { compareBytes } from "./go-json.ts";
import { ANNOTATION_CREATED_AT } from "./media-types.ts";

/** What holds a cache back. No limit at all changes nothing. */
export interface PruneLimits {
  /** Bytes of all blobs, each counted once; the cache config and the manifest are not counted. */
  maxSize?: number | undefined;
  /** Milliseconds. */
  maxAge?: number | undefined;
  /** The time that ages are counted from, in milliseconds since 1970. */
  now: number;
  /** How many of the newest results stay in any case. They may exceed `maxSize`. */
  keepNewest?: number | undefined;
  /** Blobs to get rid of, with every result that needs them. */
  dropLayers?: readonly Digest[] | undefined;
}

/** What is no longer in a cache. */
export interface DroppedResults {
  records: number;
  results: number;
  /** Blobs that are no longer in the cache, by digest. */
  layers: Descriptor[];
  /** Bytes of those. */
  bytes: number;
}

/** A cache after pruning, and what is no longer in it. */
export interface PrunedCache extends Cache {
  /** Bytes of the blobs that are left, each counted once. */
  size: number;
  dropped: DroppedResults;
}

/**
 * Drops every result that needs one of some blobs.
 *
 * @returns Undefined when none does, and the cache lists none of them.
 * @throws {CacheportError} CACHE_INVALID when BuildKit would refuse the cache
 */
export function dropBlobs(
  cache: Cache,
  blobs: ReadonlySet<Digest>,
): { cache: Cache; dropped: DroppedResults } | undefined {
  const { config, layers, dropped } = pruneCache(cache, { now: 0, dropLayers: [...blobs] });
  return config === cache.config ? undefined : { cache: { config, layers }, dropped };
}

/**
 * Prunes a cache. When the limits hold nothing back, the config and the layers are
 * those that were passed, the very same objects.
 *
 * @param name What the cache is called in messages.
 * @returns The cache with one descriptor for each layer of its config, in their order.
 * @throws {CacheportError} CACHE_INVALID when BuildKit would refuse the cache
 */
export function pruneCache(cache: Cache, limits: PruneLimits, name = "cache"): PrunedCache {
  const [pruned] = pruneCaches([cache], limits, { name: () => name });
  return pruned as PrunedCache;
}

/**
 * Prunes several caches under common limits, as if they were one: what counts is what they
 * weigh together, a blob that several of them have once. Each is as {@link pruneCache}
 * gives it.
 *
 * @param options.fixed What weighs too and stays in any case.
 * @param options.name What the cache at a position is called in messages.
 * @throws {CacheportError} CACHE_INVALID when BuildKit would refuse one of them
 */
export function pruneCaches(
  caches: readonly Cache[],
  limits: PruneLimits,
  options: { fixed?: readonly Descriptor[]; name?: (position: number) => string } = {},
): PrunedCache[] {
  const { fixed = [], name = (position) => `cache ${position + 1}` } = options;
  for (const [position, { config }] of caches.entries()) assertCacheConfig(config, name(position));
  const descriptors = new Map(
    caches.flatMap(({ layers }) => layers.map((each) => [each.digest, each] as const)),
  );
  const size = totalSize([...descriptors.values(), ...fixed]);
  const unwanted = new Set(limits.dropLayers?.filter((digest) => descriptors.has(digest)));
  const all = sideBySide(caches);
  const results = caches.flatMap((cache, at) =>
    listResults(cache, all.layerStarts[at] as number, all.recordStarts[at] as number),
  );
  const kept = chooseResults(all.layers, descriptors, fixed, results, { ...limits, unwanted });
  const isTooLarge = size > (limits.maxSize ?? Infinity);
  return caches.map((cache, at) => {
    const start = all.recordStarts[at] as number;
    const end = all.recordStarts[at + 1] as number;
    const own = results.filter(({ record }) => record >= start && record < end);
    const isLost = own.some((result) => !kept.has(result) && result.isWhole);
    const isUnwanted = cache.layers.some(({ digest }) => unwanted.has(digest));
    if (!isLost && !isUnwanted && !isTooLarge) return asItIs(cache);
    const left = own.filter((result) => kept.has(result));
    return describePruned(cache, withResults(cache.config, start, left));
  });
}

/**
 * The results of a cache that could stay, as positions among all results of its records in
 * their order: from the first to the last that `maxSize` keeps. With the sizes of the blobs
 * that is all that rules 4 and 5 need.
 *
 * @returns Undefined for a cache that BuildKit would refuse, which is not pruned.
 */
export function pruneOrder(cache: Cache): number[] | undefined {
  if (checkCacheConfig(cache.config).length > 0) return undefined;
  const results = listResults(cache, 0, 0);
  const positions = new Map(results.map((result, at) => [result, at]));
  return results
    .filter(({ isWhole }) => isWhole)
    .toSorted(byWorth)
    .map((result) => positions.get(result) as number);
}

/** A cache of which nothing has gone. */
function asItIs(cache: Cache): PrunedCache {
  const dropped = { records: 0, results: 0, layers: [], bytes: 0 };
  return { config: cache.config, layers: cache.layers, size: totalSize(cache.layers), dropped };
}

/**
 * A cache of which only some records and results are left, in BuildKit's order and without
 * the layers that nothing needs any more.
 *
 * @param smaller What is left of its config.
 */
export function describePruned(cache: Cache, smaller: CacheConfig): PrunedCache {
  const descriptors = new Map(cache.layers.map((each) => [each.digest, each]));
  const config = sortUsedEntries(smaller);
  const layers = config.layers.map(({ blob }) => descriptors.get(blob) as Descriptor);
  const left = new Set(layers.map(({ digest }) => digest));
  const gone = [...descriptors.values()].filter(({ digest }) => !left.has(digest));
  gone.sort((a, b) => compareBytes(a.digest, b.digest));
  const bytes = totalSize(gone);
  return {
    config,
    layers,
    size: totalSize(descriptors.values()) - bytes,
    dropped: {
      records: cache.config.records.length - config.records.length,
      results: countResults(cache.config) - countResults(config),
      layers: gone,
      bytes,
    },
  };
}

function countResults({ records }: CacheConfig): number {
  return records.reduce((sum, { results, chains }) => sum + results.length + chains.length, 0);
}

/** The layers of several caches in one table, and where those and the records of each start. */
function sideBySide(caches: readonly Cache[]) {
  const layers: CacheLayer[] = [];
  const layerStarts: number[] = [];
  const recordStarts = [0];
  for (const { config } of caches) {
    const start = layers.length;
    layerStarts.push(start);
    for (const layer of config.layers)
      layers.push({ ...layer, parent: layer.parent === -1 ? -1 : layer.parent + start });
    recordStarts.push((recordStarts.at(-1) as number) + config.records.length);
  }
  return { layers, layerStarts, recordStarts };
}

/** One result of one record. */
interface Result extends RecordResult {
  record: number;
  digest: string;
  time: CacheTime;
  /** Bytes of all its blobs, repeated ones counted again. */
  size: number;
  /** Every blob that it needs is listed. */
  isWhole: boolean;
}

/**
 * The results of a cache.
 *
 * @param firstLayer Where its layers start in the table of all.
 * @param firstRecord The same for its records.
 */
function listResults(cache: Cache, firstLayer: number, firstRecord: number): Result[] {
  const { layers, records } = cache.config;
  const descriptors = new Map(cache.layers.map((each) => [each.digest, each]));
  // Bytes of each layer with all below it; NaN where a blob is not listed.
  const sizes = foldChains<number>(
    layers,
    ({ blob }, below = 0) => below + (descriptors.get(blob)?.size ?? NaN),
  );
  return records.flatMap((entry, record) =>
    resultsOf(entry).map((result): Result => {
      const size = result.layers.reduce((sum, at) => sum + (sizes[at] as number), 0);
      const top = layers[result.layers.at(-1) ?? -1];
      const time = resultTime(result.createdAt, top && descriptors.get(top.blob));
      const isWhole = !Number.isNaN(size);
      const placed = result.layers.map((at) => at + firstLayer);
      return {
        ...result,
        layers: placed,
        record: record + firstRecord,
        digest: entry.digest,
        time,
        size,
        isWhole,
      };
    }),
  );
}

/** When a result was made; inline caches know it of the layer only. */
function resultTime(createdAt: string, top: Descriptor | undefined): CacheTime {
  const time = parseCacheTime(createdAt);
  if (isKnownTime(time)) return time;
  return parseCacheTime(top?.annotations?.[ANNOTATION_CREATED_AT] ?? "");
}

/** Orders results from the one to keep first to the one to keep last (rule 4). */
function byWorth(a: Result, b: Result): number {
  return (
    compareTimes(b.time, a.time) ||
    a.size - b.size ||
    compareBytes(a.digest, b.digest) ||
    a.record - b.record ||
    compareBytes(b.kind, a.kind) ||
    a.index - b.index
  );
}

/** Applies the rules of this file. */
function chooseResults(
  layers: readonly CacheLayer[],
  descriptors: ReadonlyMap<Digest, Descriptor>,
  fixed: readonly Descriptor[],
  results: readonly Result[],
  limits: PruneLimits & { unwanted: ReadonlySet<Digest> },
): Set<Result> {
  const { maxSize, maxAge, now, keepNewest = 0, unwanted } = limits;
  const blobs = new KeptBlobs(layers, descriptors, fixed);
  const stained = foldChains<boolean>(
    layers,
    ({ blob }, below = false) => below || unwanted.has(blob),
  );
  const isStained = ({ layers: needed }: Result): boolean => needed.some((at) => stained[at]);
  const candidates = results
    .filter((result) => result.isWhole && !isStained(result))
    .toSorted(byWorth);

  const isOnlyLimit =
    limits.keepNewest !== undefined && maxAge === undefined && maxSize === undefined;
  const isWanted = ({ time }: Result): boolean =>
    !isOnlyLimit &&
    (maxAge === undefined || !isKnownTime(time) || time.milliseconds >= now - maxAge);

  const kept = new Set<Result>();
  for (const result of candidates.slice(0, keepNewest)) {
    kept.add(result);
    blobs.keep(result, Infinity);
  }
  for (const result of candidates.slice(keepNewest)) {
    if (isWanted(result) && blobs.keep(result, maxSize ?? Infinity)) kept.add(result);
  }
  for (const result of candidates) if (!kept.has(result) && blobs.keep(result, 0)) kept.add(result);
  return kept;
}

/** The blobs of the results that are kept so far, each counted once. */
class KeptBlobs {
  readonly #layers: readonly CacheLayer[];
  readonly #descriptors: ReadonlyMap<Digest, Descriptor>;
  readonly #blobs = new Set<Digest>();
  /** Layers whose whole chain is kept. */
  readonly #whole: Uint8Array;
  #size = 0;

  constructor(
    layers: readonly CacheLayer[],
    descriptors: ReadonlyMap<Digest, Descriptor>,
    fixed: readonly Descriptor[],
  ) {
    this.#layers = layers;
    this.#descriptors = descriptors;
    this.#whole = new Uint8Array(layers.length);
    for (const { digest } of fixed) this.#blobs.add(digest);
    this.#size = totalSize(fixed);
  }

  /**
   * Keeps a result if what it adds still fits; what adds nothing always does.
   *
   * @param limit Bytes of all blobs that are kept.
   */
  keep({ layers }: Result, limit: number): boolean {
    const missing = new Set<Digest>();
    const path: number[] = [];
    let size = 0;
    for (const top of layers) {
      let at = top;
      while (at !== -1 && this.#whole[at] === 0) {
        const { blob, parent } = this.#layers[at] as CacheLayer;
        if (!this.#blobs.has(blob) && !missing.has(blob)) {
          size += this.#descriptors.get(blob)?.size ?? 0;
          missing.add(blob);
          if (this.#size + size > limit) return false;
        }
        path.push(at);
        at = parent;
      }
    }
    for (const blob of missing) this.#blobs.add(blob);
    for (const at of path) this.#whole[at] = 1;
    this.#size += size;
    return true;
  }
}

/**
 * The config with these results only, and the records that lead to one of them.
 *
 * @param start Where its records start in the table of all, which results name.
 */
function withResults(config: CacheConfig, start: number, kept: readonly Result[]): CacheConfig {
  const { layers, records } = config;
  const picked = records.map((): Result[] => []);
  for (const result of kept) picked[result.record - start]?.push(result);

  const needed = new Uint8Array(records.length);
  const open = kept.map(({ record }) => record - start);
  for (let at = open.pop(); at !== undefined; at = open.pop()) {
    if (needed[at] === 1) continue;
    needed[at] = 1;
    for (const input of (records[at] as CacheRecord).inputs)
      for (const { link } of input) open.push(link);
  }
  const smaller = {
    layers,
    records: records.map((record, at) => {
      const own = picked[at] as Result[];
      const has = (kind: Result["kind"], index: number): boolean =>
        own.some((result) => result.kind === kind && result.index === index);
      return {
        ...record,
        results: record.results.filter((_result, index) => has("results", index)),
        chains: record.chains.filter((_chain, index) => has("chains", index)),
      };
    }),
  };
  const left = [...records.keys()].filter((at) => needed[at] === 1);
  return pickEntries(smaller, [...layers.keys()], left);
}
