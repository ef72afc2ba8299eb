/** Merges caches of several stores and writes the result: one cache, or an index of them. */
import { encodeCacheManifest } from "./cache-manifest.ts";
import type { CacheShape } from "./cache-manifest.ts";
import type {
  ContentReader,
  ContentWriter,
  NameUpdate,
} from "./content-store.ts";
import { encodeCache, publishCache } from "./convert.ts";
import type { ConvertResult } from "./convert.ts";
import { copyBlobs } from "./copy.ts";
import type { TransferCounts, TransferOptions } from "./copy.ts";
import type { Descriptor, Platform } from "./descriptor.ts";
import { digestOf } from "./digest.ts";
import { encodeImageIndex } from "./image-index.ts";
import { OCI_INDEX } from "./media-types.ts";
import { mergeCaches } from "./merge-caches.ts";
import type { LoadedCache } from "./read-cache.ts";

/** A cache and the store that its blobs are in. */
export interface CacheSource {
  store: ContentReader;
  cache: LoadedCache;
}

/** How to write the result. */
export interface MergeOptions extends TransferOptions {
  names: readonly NameUpdate[];
}

/**
 * Says what a merge would write, without writing.
 *
 * @returns Undefined when none of the sources has a layer.
 */
export function planMerge(
  sources: readonly CacheSource[],
  shape: CacheShape = "image-manifest",
): { descriptor: Descriptor; shape: CacheShape } | undefined {
  const merged = encodeCache(mergeCaches(sources.map(({ cache }) => cache)));
  if (merged.layers.length === 0) return undefined;
  const { configDescriptor: config, layers } = merged;
  return {
    descriptor: encodeCacheManifest({ config, layers }, shape).descriptor,
    shape,
  };
}

/**
 * Writes several caches as one.
 *
 * @returns Undefined when none of them has a layer.
 * @throws {CacheportError} CACHE_INVALID, BLOB_MISSING, ...
 */
export async function mergeInto(
  sources: readonly CacheSource[],
  shapes: readonly CacheShape[],
  writer: ContentWriter,
  options: MergeOptions,
): Promise<ConvertResult | undefined> {
  const merged = encodeCache(mergeCaches(sources.map(({ cache }) => cache)));
  if (merged.layers.length === 0) return undefined;
  const counts = await copyMergedBlobs(sources, merged.layers, writer, options);
  await writer.put(
    merged.configDescriptor,
    { bytes: merged.configBytes },
    { signal: options.signal },
  );
  const published = await publishCache(
    merged,
    shapes,
    options.names,
    writer,
    options.signal,
  );
  return { ...published, counts };
}

/** Copies each blob from the first source that has it. */
async function copyMergedBlobs(
  sources: readonly CacheSource[],
  layers: readonly Descriptor[],
  writer: ContentWriter,
  options: MergeOptions,
): Promise<TransferCounts> {
  const wanted = new Map(layers.map((layer) => [layer.digest, layer]));
  const counts: TransferCounts = { copied: 0, skipped: 0, bytes: 0 };
  for (const { store, cache } of sources) {
    const own = cache.layers.filter((layer) => wanted.delete(layer.digest));
    const { copied, skipped, bytes } = await copyBlobs(
      store,
      own,
      writer,
      options,
    );
    counts.copied += copied;
    counts.skipped += skipped;
    counts.bytes += bytes;
  }
  return counts;
}

/**
 * Writes several caches side by side: an index of cache manifests, one for each
 * platform. BuildKit does not import such an index itself; `--platform` takes one
 * cache out of it again.
 *
 * @param platforms One for each source; undefined where none is known.
 */
export async function indexInto(
  sources: readonly CacheSource[],
  platforms: readonly (Platform | undefined)[],
  writer: ContentWriter,
  options: MergeOptions,
): Promise<{
  descriptor: Descriptor;
  shape: "index-of-caches";
  counts: TransferCounts;
}> {
  const counts: TransferCounts = { copied: 0, skipped: 0, bytes: 0 };
  for (const { store, cache } of sources) {
    const blobs = await copyBlobs(store, cache.layers, writer, options);
    counts.copied += blobs.copied;
    counts.skipped += blobs.skipped;
    counts.bytes += blobs.bytes;
    await writer.put(
      cache.configDescriptor,
      { bytes: cache.configBytes },
      { signal: options.signal },
    );
    const { bytes, descriptor } = platformManifest(cache);
    await writer.put(descriptor, { bytes }, { signal: options.signal });
  }
  const { bytes, descriptor, shape } = planIndex(sources, platforms);
  await writer.publish([{ descriptor, bytes, names: options.names }], {
    signal: options.signal,
  });
  return { descriptor, shape, counts };
}

/** The index of caches that {@link indexInto} writes. */
export function planIndex(
  sources: readonly CacheSource[],
  platforms: readonly (Platform | undefined)[],
): { descriptor: Descriptor; shape: "index-of-caches"; bytes: Uint8Array } {
  const manifests = sources.map(({ cache }, position) => ({
    ...platformManifest(cache).descriptor,
    platform: platforms[position],
  }));
  const bytes = encodeImageIndex({ mediaType: OCI_INDEX, manifests });
  const descriptor = {
    mediaType: OCI_INDEX,
    digest: digestOf(bytes),
    size: bytes.length,
  };
  return { descriptor, shape: "index-of-caches", bytes };
}

function platformManifest({ configDescriptor: config, layers }: LoadedCache) {
  return encodeCacheManifest({ config, layers }, "image-manifest");
}
