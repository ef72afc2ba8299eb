/**
 * What a write of a cache comes to, before anything is written: convert, merge and prune
 * make a plan, and what a dry run prints is the plan that would be written.
 */
import { encodeCacheConfig } from "./cache-config.ts";
import type { Cache, CacheBlob } from "./cache-layers.ts";
import { CACHE_SHAPES, describeCacheConfig, encodeCacheManifest } from "./cache-manifest.ts";
import type { CacheShape, ReadableShape } from "./cache-manifest.ts";
import { tidyAfter } from "./cache-records.ts";
import { mapLimit } from "./concurrency.ts";
import type {
  BlobSource,
  ContentReader,
  ContentWriter,
  NameUpdate,
  PutOptions,
} from "./content-store.ts";
import type { TransferCounts, TransferOptions } from "./copy.ts";
import { bareDescriptor } from "./descriptor.ts";
import type { Descriptor, Platform } from "./descriptor.ts";
import { sizeMismatch } from "./digest.ts";
import { CacheportError, isCacheportError } from "./errors.ts";

/** A cache, or an index of caches, that is ready to be written. */
export interface Plan {
  /** Of the top document. */
  descriptor: Descriptor;
  shape: ReadableShape;
  /** The cache, or the one of each platform. */
  parts: PlanPart[];
  /**
   * Writes it, children first, and names it. The shape may be a later one of those
   * that were wanted, and the descriptor another one then.
   *
   * @throws {CacheportError} BLOB_MISSING, SIZE_MISMATCH, DIGEST_MISMATCH,
   *   REGISTRY_REJECTED, NAME_CHANGED, ...; nothing is named then
   */
  write(writer: ContentWriter, options: WriteOptions): Promise<WrittenPlan>;
}

/** One cache of a plan. */
export interface PlanPart {
  /** Undefined for a plan that is no index. */
  platform: Platform | undefined;
  cache: Cache;
  config: CacheBlob;
  manifest: CacheBlob;
}

/** How to write a plan. */
export interface WriteOptions extends TransferOptions, Pick<PutOptions, "onNames"> {
  names: readonly NameUpdate[];
}

/** What was written. */
export interface WrittenPlan {
  descriptor: Descriptor;
  shape: ReadableShape;
  counts: TransferCounts;
}

/** Brings the layers of a cache to where it is written; says how many it moved. */
export type LayerMover = (
  writer: ContentWriter,
  layers: readonly Descriptor[],
  options: WriteOptions,
) => Promise<TransferCounts>;

/** How a cache is planned. */
export interface CachePlanOptions {
  /** At least one; the first that the target takes is written. */
  shapes: readonly CacheShape[];
  move: LayerMover;
  /** The store that has the config as a blob, where that is not the target. */
  configStore?: ContentReader | undefined;
  /** The target has the config of a cache that was not changed. */
  inPlace?: boolean | undefined;
}

/**
 * Plans one cache.
 *
 * @returns Undefined for a cache without layers, which BuildKit does not export either.
 */
export function planCache(cache: Cache, options: CachePlanOptions): Plan | undefined {
  if (cache.config.layers.length === 0 || cache.layers.length === 0) return undefined;
  const { shapes, move, configStore, inPlace = false } = options;
  const [shape] = shapes as [CacheShape];
  const part = planPart(cache, shape);
  return {
    descriptor: part.manifest.descriptor,
    shape,
    parts: [part],
    async write(writer, write) {
      const counts = await move(writer, cache.layers, write);
      if (!inPlace || !cache.blob || writer.wantsConfig) {
        const source: BlobSource = cache.blob && configStore ? { store: configStore } : part.config;
        await writer.put(part.config.descriptor, source, { signal: write.signal });
      }
      return { ...(await publishShape(part, shapes, writer, write)), counts };
    },
  };
}

/** A cache with its documents. */
export function planPart(cache: Cache, shape: CacheShape, platform?: Platform): PlanPart {
  const config = configBlob(cache);
  return { platform, cache, config, manifest: encodePart(config, cache, shape) };
}

function encodePart({ descriptor }: CacheBlob, { layers }: Cache, shape: CacheShape): CacheBlob {
  return encodeCacheManifest({ config: descriptor, layers }, shape);
}

/** The config of a cache as a blob: the one that is stored, else as BuildKit would write it. */
export function configBlob({ config, blob }: Cache): CacheBlob {
  if (blob) return { bytes: blob.bytes, descriptor: bareDescriptor(blob.descriptor) };
  tidyAfter(config.records.length);
  const bytes = encodeCacheConfig(config);
  return { bytes, descriptor: describeCacheConfig(bytes) };
}

/** Writes the top document and names it, in the first of some shapes that the target takes. */
async function publishShape(
  part: PlanPart,
  shapes: readonly CacheShape[],
  writer: ContentWriter,
  { names, signal, onNames }: WriteOptions,
): Promise<{ shape: CacheShape; descriptor: Descriptor }> {
  for (const [position, shape] of shapes.entries()) {
    const { bytes, descriptor } =
      position === 0 ? part.manifest : encodePart(part.config, part.cache, shape);
    try {
      await writer.publish([{ descriptor, bytes, names }], { signal, onNames });
      return { shape, descriptor };
    } catch (error) {
      const isLast = position === shapes.length - 1;
      if (isLast || !isCacheportError(error, "REGISTRY_REJECTED")) throw error;
    }
  }
  throw new CacheportError("INTERNAL", "Cannot write a cache in no shape");
}

/** What every registry takes, and BuildKit's own default since 0.21. */
const DEFAULT_SHAPE: CacheShape = "image-manifest";

/**
 * The shapes to try, the best first.
 *
 * @param current The shape that the cache has.
 * @param wanted `auto` keeps the shape and falls back to an image manifest where a
 *   registry refuses it.
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
 * Moves nothing, for a cache that is changed where it is.
 *
 * @param check Looks at the layers first.
 */
export function layersInPlace(
  check?: (layers: readonly Descriptor[], options: WriteOptions) => Promise<void>,
): LayerMover {
  return async (_writer, layers, options) => {
    await check?.(layers, options);
    return { copied: 0, skipped: distinctBlobs(layers).length, bytes: 0 };
  };
}

/**
 * Checks that a store has every layer in the right size, without opening one.
 *
 * @param options.verb What is to be done, for the message.
 * @throws {CacheportError} BLOB_MISSING, SIZE_MISMATCH
 */
export async function checkPresence(
  source: ContentReader,
  layers: readonly Descriptor[],
  { jobs, verb }: { jobs: number; verb: string },
): Promise<void> {
  await mapLimit(distinctBlobs(layers), jobs, async (blob) => {
    const size = await source.stat(blob);
    if (size !== undefined && size !== blob.size) throw sizeMismatch(blob, size);
    if (size === undefined && !blob.urls?.length) {
      throw new CacheportError(
        "BLOB_MISSING",
        `Cannot ${verb} cache in "${source.location}": its layer ${blob.digest} is missing`,
        { hint: { do: "drop-missing" } },
      );
    }
  });
}

/** Each digest once. */
export function distinctBlobs(layers: readonly Descriptor[]): Descriptor[] {
  return [...new Map(layers.map((layer) => [layer.digest, layer])).values()];
}
