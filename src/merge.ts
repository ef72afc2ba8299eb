/** Merges caches of several stores and writes the result: one cache, or an index of them. */
import type { Conflict, Preference } from "./cache-donors.ts";
import type { Cache } from "./cache-layers.ts";
import type { CacheShape } from "./cache-manifest.ts";
import { healCache } from "./cache-heal.ts";
import { mergeCaches, mergeWithConflicts } from "./cache-merge.ts";
import { isSorted } from "./cache-order.ts";
import { cacheAsStored } from "./cache-read.ts";
import type { CacheSet, LoadedCache } from "./cache-read.ts";
import type { CacheConfig } from "./cache-types.ts";
import { mapLimit } from "./concurrency.ts";
import type { ContentReader } from "./content-store.ts";
import { copyBlobs } from "./copy.ts";
import type { TransferCounts, TransferOptions } from "./copy.ts";
import type { Descriptor, Platform } from "./descriptor.ts";
import { digestOf } from "./digest.ts";
import type { Digest } from "./digest.ts";
import { encodeImageIndex } from "./image-index.ts";
import { OCI_INDEX } from "./media-types.ts";
import { planCache, planPart } from "./plan.ts";
import type { LayerMover, Plan, PlanPart } from "./plan.ts";
import { formatPlatform, normalizePlatform } from "./platform.ts";

/** A cache and the store that its blobs are in. */
export interface CacheSource {
  store: ContentReader;
  cache: LoadedCache;
}

/** A cache for one platform. */
export interface PlatformSource extends CacheSource {
  platform: Platform;
}

/** A merge that is ready to be written. */
export interface MergePlan extends Plan {
  /** Records on which the caches do not agree; their results name sources. */
  conflicts: Conflict[];
}

/** How to merge. */
export interface MergeChoice {
  /** Whose results stay where caches have different ones for records that hang together. */
  prefer?: Preference | undefined;
  /** Join no leaves of the result, even where BuildKit's import could lose a link of it. */
  exact?: boolean | undefined;
}

/**
 * Makes one cache of what was read: a cache as it is, an inline cache with a config
 * of its own, several caches merged.
 *
 * @throws {CacheportError} CACHE_INVALID when BuildKit would refuse it
 */
export function toCache(set: CacheSet, { exact = false } = {}): Cache {
  const stored = cacheAsStored(set);
  if (stored) return stored;
  const merged = mergeCaches(set.caches);
  return exact ? merged : healed(merged);
}

/**
 * A cache without what BuildKit's import could lose of it; the very same one if that is
 * nothing. Descriptors follow the config's layers where there is one for each.
 */
export function healed(cache: Cache): Cache {
  const config = healCache(cache.config);
  if (config === cache.config) return cache;
  const descriptors = new Map(cache.layers.map((layer) => [layer.digest, layer]));
  const layers = config.layers.map(({ blob }) => descriptors.get(blob));
  const isOneForEach =
    layers.length === cache.layers.length && layers.every((layer) => layer !== undefined);
  const isMoved =
    isOneForEach && layers.some((layer, at) => layer?.digest !== cache.layers[at]?.digest);
  return { config, layers: isMoved ? (layers as Descriptor[]) : cache.layers };
}

/**
 * Merges caches into one.
 *
 * @param shapes At least one; the first that the target takes is written.
 * @returns Undefined when none of the caches has a layer.
 * @throws {CacheportError} CACHE_INVALID when BuildKit would refuse one of them
 */
export function planMerge(
  sources: readonly CacheSource[],
  shapes: readonly CacheShape[],
  choice: MergeChoice = {},
): MergePlan | undefined {
  const { cache, conflicts } = mergeSources(sources, choice);
  const plan = planCache(cache, { shapes, move: mover(sources) });
  return plan && { ...plan, conflicts };
}

/**
 * Puts caches side by side in an index, one for each platform; those of one platform
 * are merged. BuildKit does not import such an index; `--platform` takes one cache
 * out of it again.
 *
 * @returns Undefined when none of the caches has a layer.
 * @throws {CacheportError} CACHE_INVALID when BuildKit would refuse one of them
 */
export function planIndex(
  sources: readonly PlatformSource[],
  choice: MergeChoice = {},
): MergePlan | undefined {
  const groups = groupByPlatform(sources, choice).filter(({ cache }) => cache.layers.length > 0);
  if (groups.length === 0) return undefined;
  const parts = groups.map(({ platform, cache }) => planPart(cache, "image-manifest", platform));
  const bytes = encodeImageIndex({
    mediaType: OCI_INDEX,
    manifests: parts.map(({ manifest, platform }) => ({ ...manifest.descriptor, platform })),
  });
  const descriptor = { mediaType: OCI_INDEX, digest: digestOf(bytes), size: bytes.length };
  const shape = "index-of-caches";
  return {
    descriptor,
    shape,
    parts,
    conflicts: groups.flatMap(({ conflicts }) => conflicts),
    async write(writer, options) {
      const { signal, names, onNames } = options;
      const counts: TransferCounts = { copied: 0, skipped: 0, bytes: 0 };
      for (const [at, { cache, members }] of groups.entries()) {
        addCounts(counts, await mover(members)(writer, cache.layers, options));
        const { config } = parts[at] as PlanPart;
        await writer.put(config.descriptor, config, { signal });
      }
      for (const { manifest } of parts) await writer.put(manifest.descriptor, manifest, { signal });
      await writer.publish([{ descriptor, bytes, names }], { signal, onNames });
      return { descriptor, shape, counts };
    },
  };
}

/** One cache for each platform, with the sources that it was made of. */
function groupByPlatform(
  sources: readonly PlatformSource[],
  choice: MergeChoice,
): { platform: Platform; cache: Cache; conflicts: Conflict[]; members: PlatformSource[] }[] {
  const groups = Map.groupBy(
    sources.map((source, position) => ({
      ...source,
      position,
      platform: normalizePlatform(source.platform),
    })),
    ({ platform }) => formatPlatform(platform),
  );
  return [...groups.keys()].sort().map((key) => {
    const members = groups.get(key) as NonNullable<ReturnType<typeof groups.get>>;
    const first = members[0] as PlatformSource;
    const { platform, cache } = first;
    if (members.length > 1) {
      const merged = mergeSources(members, choice);
      const conflicts = merged.conflicts.map((conflict) => ({
        ...conflict,
        results: conflict.results.map((result) => ({
          ...result,
          cache: members[result.cache]?.position ?? -1,
        })),
      }));
      return { platform, members, cache: merged.cache, conflicts };
    }
    const { shape, manifest: descriptor } = cache;
    const only = toCache({ shape, descriptor, caches: [cache] }, choice);
    return { platform, members, cache: only, conflicts: [] };
  });
}

function mergeSources(
  sources: readonly CacheSource[],
  { prefer, exact = false }: MergeChoice,
): { cache: Cache; conflicts: Conflict[] } {
  const caches = sources.map(({ cache }) => cache);
  const name = (position: number): string => {
    const { store, cache } = sources[position] as CacheSource;
    return `cache "${cache.manifest.digest}" in "${store.location}"`;
  };
  const { conflicts, ...merged } = mergeWithConflicts(caches, { name, prefer });
  const cache = exact ? merged : healed(merged);
  return { cache: asItWas(caches, cache) ?? cache, conflicts };
}

/**
 * The cache that was merged with nothing but itself, if nothing of it has changed but the
 * order of its entries: it keeps its bytes.
 */
function asItWas(caches: readonly LoadedCache[], merged: Cache): Cache | undefined {
  const [first] = caches as readonly [LoadedCache];
  const { config, layers, blob } = first;
  const isOne = caches.every(
    (cache) => cache.shape !== "inline" && cache.blob.descriptor.digest === blob.descriptor.digest,
  );
  if (!isOne || !isSorted(config) || layers.length !== merged.layers.length) return undefined;
  const isWhole =
    config.layers.length === merged.config.layers.length &&
    config.records.length === merged.config.records.length &&
    config.joined?.length === merged.config.joined?.length &&
    countResults(config) === countResults(merged.config);
  return isWhole ? { config, layers, blob } : undefined;
}

function countResults({ records }: CacheConfig): number {
  return records.reduce((sum, { results, chains }) => sum + results.length + chains.length, 0);
}

/** Copies layers from the stores that have them. */
function mover(sources: readonly CacheSource[]): LayerMover {
  return async (writer, layers, options) => {
    const counts: TransferCounts = { copied: 0, skipped: 0, bytes: 0 };
    for (const [store, blobs] of await chooseStores(sources, layers, options))
      addCounts(counts, await copyBlobs(store, blobs, writer, options));
    return counts;
  };
}

/**
 * Chooses the store to take each blob from. Of several whose caches list it, the
 * first that has it in a local file is taken, so that nothing is downloaded twice
 * and a blob that one of them has lost does not matter.
 */
async function chooseStores(
  sources: readonly CacheSource[],
  layers: readonly Descriptor[],
  { jobs }: TransferOptions,
): Promise<Map<ContentReader, Descriptor[]>> {
  const holders = new Map<Digest, Set<ContentReader>>();
  for (const { store, cache } of sources) {
    for (const { digest } of cache.layers) {
      const known = holders.get(digest);
      if (known) known.add(store);
      else holders.set(digest, new Set([store]));
    }
  }
  const distinct = new Map(layers.map((layer) => [layer.digest, layer]));
  const chosen = await mapLimit([...distinct.values()], jobs, async (layer) => {
    const stores = [...(holders.get(layer.digest) ?? [])];
    if (stores.length > 1) {
      for (const store of stores) if (await store.locate(layer)) return { store, layer };
    }
    return { store: stores[0] as ContentReader, layer };
  });
  const groups = Map.groupBy(chosen, ({ store }) => store);
  return new Map([...groups].map(([store, group]) => [store, group.map(({ layer }) => layer)]));
}

function addCounts(sum: TransferCounts, part: TransferCounts): void {
  sum.copied += part.copied;
  sum.skipped += part.skipped;
  sum.bytes += part.bytes;
}
