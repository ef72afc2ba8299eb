/** Merges caches of several stores and writes the result: one cache, or an index of them. */
import { encodeCacheManifest } from "./cache-manifest.ts";
import type { CacheShape } from "./cache-manifest.ts";
import { mapLimit } from "./concurrency.ts";
import type { ContentReader, ContentWriter, NameUpdate } from "./content-store.ts";
import { encodeCache, publishCache, toWritable } from "./convert.ts";
import type { WritableCache } from "./convert.ts";
import { copyBlobs } from "./copy.ts";
import type { TransferCounts, TransferOptions } from "./copy.ts";
import type { Descriptor, Platform } from "./descriptor.ts";
import { digestOf } from "./digest.ts";
import type { Digest } from "./digest.ts";
import { encodeImageIndex } from "./image-index.ts";
import { OCI_INDEX } from "./media-types.ts";
import { mergeCaches } from "./cache-merge.ts";
import { formatPlatform, normalizePlatform } from "./platform.ts";
import type { LoadedCache } from "./cache-read.ts";

/** A cache and the store that its blobs are in. */
export interface CacheSource {
  store: ContentReader;
  cache: LoadedCache;
}

/** A cache for one platform. */
export interface PlatformSource extends CacheSource {
  platform: Platform;
}

/** How to write a merge. */
export interface MergeOptions extends TransferOptions {
  names: readonly NameUpdate[];
}

/** A merge that is ready to be written. */
export interface MergePlan {
  descriptor: Descriptor;
  shape: CacheShape | "index-of-caches";
  /** The cache, or the one of each platform in the order of their texts. */
  parts: MergePart[];
  /**
   * Writes it, children first, and names it. The shape may be a later one of those
   * that were wanted, and the descriptor another one then.
   *
   * @throws {CacheportError} BLOB_MISSING, DIGEST_MISMATCH, REGISTRY_REJECTED, ...;
   *   nothing is named then
   */
  write(
    writer: ContentWriter,
    options: MergeOptions,
  ): Promise<Pick<MergePlan, "descriptor" | "shape"> & { counts: TransferCounts }>;
}

/** One cache of a merge. */
export interface MergePart {
  /** Undefined for a merge that is no index. */
  platform: Platform | undefined;
  cache: WritableCache;
  manifest: { bytes: Uint8Array; descriptor: Descriptor };
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
): MergePlan | undefined {
  const cache = mergeSources(sources);
  if (cache.layers.length === 0) return undefined;
  const [shape] = shapes as [CacheShape];
  const manifest = encode(cache, shape);
  return {
    descriptor: manifest.descriptor,
    shape,
    parts: [{ platform: undefined, cache, manifest }],
    async write(writer, options) {
      const { signal, names } = options;
      const counts = await copyParts(sources, cache, writer, options);
      const made = await publishCache(cache, shapes, names, writer, signal);
      return { ...made, counts };
    },
  };
}

/**
 * Puts caches side by side in an index, one for each platform; those of one platform
 * are merged. BuildKit does not import such an index; `--platform` takes one cache
 * out of it again.
 *
 * @returns Undefined when none of the caches has a layer.
 * @throws {CacheportError} CACHE_INVALID when BuildKit would refuse one of them
 */
export function planIndex(sources: readonly PlatformSource[]): MergePlan | undefined {
  const groups = groupByPlatform(sources).filter(({ cache }) => cache.layers.length > 0);
  if (groups.length === 0) return undefined;
  const parts = groups.map(({ platform, cache }) => ({
    platform,
    cache,
    manifest: encode(cache, "image-manifest"),
  }));
  const bytes = encodeImageIndex({
    mediaType: OCI_INDEX,
    manifests: parts.map(({ manifest, platform }) => ({
      ...manifest.descriptor,
      platform,
    })),
  });
  const descriptor = {
    mediaType: OCI_INDEX,
    digest: digestOf(bytes),
    size: bytes.length,
  };
  const shape = "index-of-caches";
  return {
    descriptor,
    shape,
    parts,
    async write(writer, options) {
      const { signal, names } = options;
      const counts: TransferCounts = { copied: 0, skipped: 0, bytes: 0 };
      for (const { cache, members } of groups)
        addCounts(counts, await copyParts(members, cache, writer, options));
      for (const { manifest } of parts) await writer.put(manifest.descriptor, manifest, { signal });
      await writer.publish([{ descriptor, bytes, names }], { signal });
      return { descriptor, shape, counts };
    },
  };
}

/** One cache for each platform, with the sources that it was made of. */
function groupByPlatform(sources: readonly PlatformSource[]): {
  platform: Platform;
  cache: WritableCache;
  members: PlatformSource[];
}[] {
  const groups = Map.groupBy(
    sources.map((source) => ({
      ...source,
      platform: normalizePlatform(source.platform),
    })),
    ({ platform }) => formatPlatform(platform),
  );
  return [...groups.keys()].sort().map((key) => {
    const members = groups.get(key) as [PlatformSource, ...PlatformSource[]];
    const [{ platform, cache }] = members;
    if (members.length > 1) return { platform, members, cache: mergeSources(members) };
    const { shape, manifest: descriptor } = cache;
    const only = toWritable({ shape, descriptor, caches: [cache] });
    return { platform, members, cache: only };
  });
}

function mergeSources(sources: readonly CacheSource[]): WritableCache {
  const caches = sources.map(({ cache }) => cache);
  const name = (position: number): string => {
    const { store, cache } = sources[position] as CacheSource;
    return `cache "${cache.manifest.digest}" in "${store.location}"`;
  };
  return encodeCache(mergeCaches(caches, { name }));
}

function encode(
  { configDescriptor: config, layers }: WritableCache,
  shape: CacheShape,
): MergePart["manifest"] {
  return encodeCacheManifest({ config, layers }, shape);
}

/** Copies the layers of a merge from where they are, and its config. */
async function copyParts(
  sources: readonly CacheSource[],
  { layers, configDescriptor, configBytes }: WritableCache,
  writer: ContentWriter,
  options: MergeOptions,
): Promise<TransferCounts> {
  const counts: TransferCounts = { copied: 0, skipped: 0, bytes: 0 };
  for (const [store, blobs] of await chooseStores(sources, layers, options))
    addCounts(counts, await copyBlobs(store, blobs, writer, options));
  await writer.put(configDescriptor, { bytes: configBytes }, { signal: options.signal });
  return counts;
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
