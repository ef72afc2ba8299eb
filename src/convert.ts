/**
 * Converts a build cache from one shape to another. Only the small top document
 * differs between shapes, so a conversion in place moves no blob at all.
 *
 * Source: BuildKit cache/remotecache/export.go; FORMATS: one cache config has one
 * document in each shape.
 */
import { assertCacheConfig } from "./cache-check.ts";
import { encodeCacheConfig } from "./cache-config.ts";
import type { CacheConfig } from "./cache-types.ts";
import { CACHE_SHAPES, describeCacheConfig, encodeCacheManifest } from "./cache-manifest.ts";
import type { CacheShape, ReadableShape } from "./cache-manifest.ts";
import type { Cache } from "./cache-order.ts";
import { mapLimit } from "./concurrency.ts";
import type { ContentReader, ContentWriter, NameUpdate } from "./content-store.ts";
import { copyBlobs } from "./copy.ts";
import type { TransferCounts, TransferOptions } from "./copy.ts";
import { bareDescriptor } from "./descriptor.ts";
import type { Descriptor } from "./descriptor.ts";
import { sizeMismatch } from "./digest.ts";
import { CacheportError, isCacheportError } from "./errors.ts";
import { mergeCaches } from "./cache-merge.ts";
import type { CacheSet } from "./cache-read.ts";
import type { CompressionChoice } from "./recompress.ts";

/** What every registry takes, and BuildKit's own default since 0.21. */
const DEFAULT_SHAPE: CacheShape = "image-manifest";

/** A cache that is ready to be written in any shape. */
export interface WritableCache {
  config: CacheConfig;
  /** As BuildKit would write it. */
  configBytes: Uint8Array;
  configDescriptor: Descriptor;
  /** In the order of the document. */
  layers: Descriptor[];
  /** False when the config is the very blob that the source holds. */
  isNewConfig: boolean;
}

/** How to convert. */
export interface ConvertOptions extends TransferOptions {
  /** `auto` keeps the shape and falls back to an image manifest where a registry refuses it. */
  shape: CacheShape | "auto";
  names: readonly NameUpdate[];
  /** The target is the store that the cache was read from. */
  inPlace: boolean;
  /**
   * In place, look at each blob's presence and size first. A registry does that
   * itself when it takes the manifest.
   */
  checkBlobs: boolean;
  compression?: CompressionChoice | undefined;
  /** Where recompressed layers wait before they are written. */
  tempFolder: string;
}

/** What a conversion made. */
export interface ConvertResult {
  descriptor: Descriptor;
  shape: CacheShape;
  counts: TransferCounts;
}

/**
 * Makes one cache of what was read: a cache as it is, an inline cache with a config
 * of its own, several caches merged.
 *
 * @throws {CacheportError} CACHE_INVALID when BuildKit would refuse it
 */
export function toWritable(set: CacheSet): WritableCache {
  for (const cache of set.caches) {
    assertCacheConfig(cache.config, `cache "${cache.manifest.digest}"`);
  }
  const [first] = set.caches;
  if (first && set.caches.length === 1 && first.shape !== "inline") {
    return {
      config: first.config,
      configBytes: first.configBytes,
      configDescriptor: bareDescriptor(first.configDescriptor),
      layers: first.layers,
      isNewConfig: false,
    };
  }
  return encodeCache(mergeCaches(set.caches));
}

/** Gives a cache that was changed its config blob, as BuildKit would write it. */
export function encodeCache({ config, layers }: Cache): WritableCache {
  const configBytes = encodeCacheConfig(config);
  return {
    config,
    layers,
    configBytes,
    configDescriptor: describeCacheConfig(configBytes),
    isNewConfig: true,
  };
}

/**
 * Converts a cache and names the result. In place, only documents are read and
 * written; the blobs are looked at by their size alone.
 *
 * @returns What was made; undefined for a cache without layers, which BuildKit
 *   does not export either.
 * @throws {CacheportError} CACHE_INVALID, BLOB_MISSING, SIZE_MISMATCH, REGISTRY_REJECTED, ...
 */
export async function convertCache(
  source: ContentReader,
  set: CacheSet,
  writer: ContentWriter,
  options: ConvertOptions,
): Promise<ConvertResult | undefined> {
  const cache = toWritable(set);
  if (cache.config.layers.length === 0) return undefined;
  if (!options.compression)
    return writeConverted(source, set, cache, NOTHING_MADE, writer, options);
  const { recompressCache } = await import("./recompress.ts");
  const made = await recompressCache(source, cache, options.compression, writer, options);
  try {
    const isNewConfig = made.changed > 0 || cache.isNewConfig;
    const recompressed = { ...made, isNewConfig };
    return await writeConverted(source, set, recompressed, made, writer, options);
  } finally {
    await made.dispose();
  }
}

const NOTHING_MADE = { changed: 0, changedBytes: 0 };

/**
 * Writes a cache whose new layers are in the target already.
 *
 * @param made How many layers those are, and their bytes.
 */
async function writeConverted(
  source: ContentReader,
  set: CacheSet,
  cache: WritableCache,
  made: { changed: number; changedBytes: number },
  writer: ContentWriter,
  options: ConvertOptions,
): Promise<ConvertResult> {
  let counts: TransferCounts;
  if (options.inPlace) {
    if (options.checkBlobs && !options.compression) {
      await checkPresence(source, cache, {
        ...options,
        verb: "convert",
        hint: "Export the cache again; a build with this cache would fail as well",
      });
    }
    counts = { copied: 0, skipped: distinctBlobs(cache).length, bytes: 0 };
  } else {
    counts = await copyBlobs(source, cache.layers, writer, options);
  }
  // What was recompressed is in the target already when its turn to be copied comes.
  counts.copied += made.changed;
  counts.skipped -= made.changed;
  counts.bytes += made.changedBytes;
  if (!options.inPlace || cache.isNewConfig) {
    const from = cache.isNewConfig ? { bytes: cache.configBytes } : { store: source };
    await writer.put(cache.configDescriptor, from, { signal: options.signal });
  }
  const { shape, descriptor } = await publishCache(
    cache,
    shapesToTry(set.shape, options.shape),
    options.names,
    writer,
    options.signal,
  );
  return { descriptor, shape, counts };
}

/**
 * Says what a conversion would write, without writing.
 *
 * @returns Undefined for a cache without layers.
 */
export function planConversion(
  set: CacheSet,
  shape: CacheShape | "auto",
): { descriptor: Descriptor; shape: CacheShape } | undefined {
  const cache = toWritable(set);
  if (cache.config.layers.length === 0) return undefined;
  const [first] = shapesToTry(set.shape, shape) as [CacheShape];
  const { descriptor } = encodeCacheManifest(
    { config: cache.configDescriptor, layers: cache.layers },
    first,
  );
  return { descriptor, shape: first };
}

/**
 * Writes a cache's top document and names it, in the first of some shapes that the
 * target takes. Its blobs must be there.
 *
 * @throws {CacheportError} REGISTRY_REJECTED when the last shape is refused as well
 */
export async function publishCache(
  cache: WritableCache,
  shapes: readonly CacheShape[],
  names: readonly NameUpdate[],
  writer: ContentWriter,
  signal: AbortSignal | undefined,
): Promise<{ shape: CacheShape; descriptor: Descriptor }> {
  const { configDescriptor: config, layers } = cache;
  for (const [position, shape] of shapes.entries()) {
    const { bytes, descriptor } = encodeCacheManifest({ config, layers }, shape);
    try {
      await writer.publish([{ descriptor, bytes, names }], { signal });
      return { shape, descriptor };
    } catch (error) {
      const isLast = position === shapes.length - 1;
      if (isLast || !isCacheportError(error, "REGISTRY_REJECTED")) throw error;
    }
  }
  throw new CacheportError("INTERNAL", "Cannot write a cache in no shape");
}

/**
 * The shapes to try, the best first.
 *
 * @param current The shape that the cache has.
 */
export function shapesToTry(
  current: ReadableShape | undefined,
  wanted: CacheShape | "auto",
): CacheShape[] {
  if (wanted !== "auto") return [wanted];
  return isWritableShape(current)
    ? [...new Set<CacheShape>([current, DEFAULT_SHAPE])]
    : [DEFAULT_SHAPE];
}

/** The shape in which a cache is written back: its own, or the default for one that cannot be written. */
export function sameShape(current: ReadableShape): CacheShape {
  return isWritableShape(current) ? current : DEFAULT_SHAPE;
}

function isWritableShape(shape: ReadableShape | undefined): shape is CacheShape {
  return (CACHE_SHAPES as readonly (string | undefined)[]).includes(shape);
}

/**
 * Checks that the store has every blob of the cache in the right size, without
 * opening one.
 *
 * @param options.verb What is to be done, for the message.
 * @throws {CacheportError} BLOB_MISSING, SIZE_MISMATCH
 */
export async function checkPresence(
  source: ContentReader,
  cache: WritableCache,
  { jobs, verb, hint }: { jobs: number; verb: string; hint: string },
): Promise<void> {
  await mapLimit(distinctBlobs(cache), jobs, async (blob) => {
    const size = await source.stat(blob);
    if (size !== undefined && size !== blob.size) throw sizeMismatch(blob, size);
    if (size === undefined && !blob.urls?.length) {
      throw new CacheportError(
        "BLOB_MISSING",
        `Cannot ${verb} cache in "${source.location}": its layer ${blob.digest} is missing`,
        { hint },
      );
    }
  });
}

function distinctBlobs({ layers }: WritableCache): Descriptor[] {
  return [...new Map(layers.map((layer) => [layer.digest, layer])).values()];
}
