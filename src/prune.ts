/** Prunes a cache in the store that it is in: only documents are written, blobs stay. */
import { fitCache } from "./cache-fit.ts";
import { describePruned, pruneCache, pruneCaches } from "./cache-prune.ts";
import type { PrunedCache, PruneLimits } from "./cache-prune.ts";
import type { CacheSet, LoadedCache } from "./cache-read.ts";
import type { ContentReader } from "./content-store.ts";
import { healed } from "./merge.ts";
import { totalSize } from "./descriptor.ts";
import type { Descriptor } from "./descriptor.ts";
import type { DocumentLimits } from "./documents.ts";
import { CacheportError } from "./errors.ts";
import { distinctBlobs, layersInPlace, planCache, planPart, sameShape } from "./plan.ts";
import type { Plan } from "./plan.ts";

/** What pruning comes to. */
export interface PrunePlan extends Plan {
  /**
   * The cache gets smaller, or it stays as it is: the limits hold nothing back
   * (`unchanged`), or leave no result (`empty`).
   */
  kind: "smaller" | "unchanged" | "empty";
  /** The cache that there is afterwards, and what is no longer in it. */
  pruned: PrunedCache;
}

/** How to prune. */
export interface PruneOptions {
  /** Join no leaves of the result, even where BuildKit's import could lose a link of it. */
  exact?: boolean | undefined;
  /** Bring manifest and config under the size that BuildKit imports, in bytes. */
  fit?: number | undefined;
  /** For documents that are read again. */
  limits: DocumentLimits;
  /** What the cache was read from, for messages. */
  location: string;
}

/**
 * Prunes a cache without writing anything. A smaller cache has the shape of the one
 * that it was made of, where that can be written; one that stays as it is gets the
 * names alone.
 *
 * @throws {CacheportError} NOT_SUPPORTED for an inline cache and for an index of
 *   caches, CACHE_INVALID when BuildKit would refuse the cache
 */
export function planPrune(
  source: ContentReader,
  set: CacheSet,
  limits: PruneLimits,
  options: PruneOptions,
): PrunePlan {
  const cache = onlyCache(set, options.location);
  const pruned = pruneCache(cache, limits, `cache "${set.descriptor.digest}"`);
  return planPruned(source, set, cache, pruned, options);
}

/**
 * Prunes several caches of one store under common limits: what they weigh together counts,
 * each blob once.
 *
 * @param sets Each is one cache that can be written back.
 * @param fixed What weighs too and stays.
 * @returns A plan for each.
 * @throws {CacheportError} NOT_SUPPORTED, CACHE_INVALID
 */
export function planPruneAll(
  source: ContentReader,
  sets: readonly CacheSet[],
  fixed: readonly Descriptor[],
  limits: PruneLimits,
  options: PruneOptions,
): PrunePlan[] {
  const caches = sets.map((set) => onlyCache(set, options.location));
  const name = (position: number): string => `cache "${sets[position]?.descriptor.digest}"`;
  return pruneCaches(caches, limits, { fixed, name }).map((pruned, at) =>
    planPruned(source, sets[at] as CacheSet, caches[at] as LoadedCache, pruned, options),
  );
}

function planPruned(
  source: ContentReader,
  set: CacheSet,
  cache: LoadedCache,
  limited: PrunedCache,
  options: PruneOptions,
): PrunePlan {
  const pruned = options.fit === undefined ? limited : fit(set, cache, limited, options);
  if (pruned.config === cache.config)
    return { ...planNames(source, set, cache, options), kind: "unchanged", pruned };
  const smaller = options.exact ? pruned : healed(pruned);
  const plan = planCache(
    { config: smaller.config, layers: smaller.layers },
    { shapes: [sameShape(set.shape)], inPlace: true, move: layersInPlace() },
  );
  if (plan) return { ...plan, kind: "smaller", pruned: { ...pruned, config: smaller.config } };
  const dropped = { records: 0, results: 0, layers: [], bytes: 0 };
  const whole = { ...cache, size: totalSize(cache.layers), dropped };
  return { ...planNames(source, set, cache, options), kind: "empty", pruned: whole };
}

/** Brings the documents of a cache under a size. */
function fit(
  { shape }: CacheSet,
  cache: LoadedCache,
  limited: PrunedCache,
  { fit: limit = Infinity, exact }: PruneOptions,
): PrunedCache {
  const { config, layers } = limited;
  const blob = config === cache.config ? cache.blob : undefined;
  const fitted = fitCache({ config, layers, blob }, limit, (smaller) => {
    if (smaller.layers.length === 0) return { manifest: 0, config: 0 };
    const part = planPart(exact || smaller.blob ? smaller : healed(smaller), sameShape(shape));
    return { manifest: part.manifest.descriptor.size, config: part.config.descriptor.size };
  });
  return fitted.config === config ? limited : describePruned(cache, fitted.config);
}

/** The cache that can be pruned. @throws {CacheportError} NOT_SUPPORTED */
function onlyCache({ shape, caches }: CacheSet, location: string): LoadedCache {
  const [cache] = caches;
  if (cache && shape !== "inline" && shape !== "index-of-caches") return cache;
  const what =
    shape === "inline" ? "its cache is part of an image" : "it is an index of several caches";
  throw new CacheportError("NOT_SUPPORTED", `Cannot prune "${location}": ${what}`, {
    hint: { do: "convert-to-cache", location },
  });
}

/** Further names for a cache that stays as it is. */
function planNames(
  source: ContentReader,
  { descriptor, shape }: CacheSet,
  cache: LoadedCache,
  { limits }: PruneOptions,
): Plan {
  return {
    descriptor,
    shape,
    parts: [],
    async write(writer, { names, signal, onNames }) {
      const bytes = await source.read(descriptor, limits.manifest);
      await writer.publish([{ descriptor, bytes, names }], { signal, onNames });
      const skipped = distinctBlobs(cache.layers).length;
      return { descriptor, shape, counts: { copied: 0, skipped, bytes: 0 } };
    },
  };
}
