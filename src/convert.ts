/**
 * Converts a build cache from one shape to another. Only the small top document
 * differs between shapes, so a conversion in place moves no blob at all.
 *
 * Source: BuildKit cache/remotecache/export.go; FORMATS: one cache config has one
 * document in each shape.
 */
import { tmpdir } from "node:os";
import type { CacheShape } from "./cache-manifest.ts";
import type { DroppedResults } from "./cache-prune.ts";
import { cacheAsStored } from "./cache-read.ts";
import type { CacheSet } from "./cache-read.ts";
import { DEFAULT_JOBS, mapLimit } from "./concurrency.ts";
import type { ContentReader, ContentWriter, NameUpdate, PutOptions } from "./content-store.ts";
import { copyBlobs } from "./copy.ts";
import type { TransferOptions } from "./copy.ts";
import type { Descriptor } from "./descriptor.ts";
import type { Digest } from "./digest.ts";
import { DEFAULT_LIMITS } from "./documents.ts";
import {
  checkPresence,
  configBlob,
  distinctBlobs,
  layersInPlace,
  planCache,
  shapesToTry,
} from "./plan.ts";
import type { CachePlanOptions, LayerMover, Plan, WrittenPlan } from "./plan.ts";
import { noProgress } from "./progress.ts";
import type { CompressionChoice } from "./recompress.ts";

/** What a conversion comes to. */
export interface ConversionOptions {
  /** `auto` keeps the shape and falls back to an image manifest where a registry refuses it. */
  shape: CacheShape | "auto";
  /** The target is the store that the cache was read from. */
  inPlace?: boolean | undefined;
  /**
   * In place, look at each blob's presence and size first. A registry does that
   * itself when it takes the manifest.
   */
  checkBlobs?: boolean | undefined;
  compression?: CompressionChoice | undefined;
  /** Where recompressed layers wait before they are written; the system's own folder unless told otherwise. */
  tempFolder?: string | undefined;
  /** Join the leaves of the cache where BuildKit's import could lose a link of it. */
  heal?: boolean | undefined;
  /** Join no leaves of what several caches are merged into. */
  exact?: boolean | undefined;
  /** Drop the results that need one of these blobs. */
  missing?: ReadonlySet<Digest> | undefined;
}

/** A conversion that is ready to be written. */
export interface ConversionPlan extends Omit<Plan, "descriptor"> {
  /** Undefined where it is known only once layers are recompressed. */
  descriptor: Descriptor | undefined;
  /** The joining record is new, or joins other leaves than before. */
  healed: boolean;
  /** What goes for the blobs that are missing. */
  dropped: DroppedResults | undefined;
  /** The result is the very document that the cache was read from. */
  isSame: boolean;
}

/**
 * Plans a conversion. What only some of them need, to merge, to heal and to drop, is not
 * loaded for the others.
 *
 * @returns Undefined for a cache without layers, which BuildKit does not export either.
 * @throws {CacheportError} CACHE_INVALID when BuildKit would refuse the cache
 */
export async function planConversion(
  source: ContentReader,
  set: CacheSet,
  options: ConversionOptions,
): Promise<ConversionPlan | undefined> {
  const { missing, exact = false, compression, inPlace = false } = options;
  let cache = cacheAsStored(set) ?? (await import("./merge.ts")).toCache(set, { exact });
  const dropped = missing && (await import("./cache-prune.ts")).dropBlobs(cache, missing);
  if (dropped) cache = dropped.cache;
  const asked = options.heal ? (await import("./merge.ts")).healed(cache) : cache;
  const isHealed =
    asked.config.joined !== undefined &&
    !Bun.deepEquals(asked.config.joined, set.caches[0]?.config.joined);
  const planOptions: CachePlanOptions = {
    shapes: shapesToTry(set.shape, options.shape),
    move: inPlace ? inPlaceMover(source, options) : copyMover(source),
    configStore: source,
    inPlace,
  };
  const plan = planCache(asked, planOptions);
  if (!plan) return undefined;
  const facts = { healed: isHealed, dropped: dropped?.dropped };
  if (!compression) {
    const isSame = plan.descriptor.digest === set.descriptor.digest;
    return { ...plan, ...facts, isSame };
  }
  return {
    ...plan,
    ...facts,
    isSame: false,
    descriptor: undefined,
    async write(writer, write) {
      const { recompressCache } = await import("./recompress.ts");
      const { tempFolder = tmpdir() } = options;
      const { bytes: configBytes, descriptor: configDescriptor } = configBlob(asked);
      const parts = { ...asked, configBytes, configDescriptor };
      const made = await recompressCache(source, parts, compression, writer, {
        ...write,
        tempFolder,
      });
      try {
        const cache = made.changed === 0 ? asked : { config: made.config, layers: made.layers };
        const recompressed = planCache(cache, planOptions) as Plan;
        const written = await recompressed.write(writer, write);
        // What was recompressed is in the target already when its turn to be copied comes.
        const { copied, skipped, bytes } = written.counts;
        return {
          ...written,
          counts: {
            copied: copied + made.changed,
            skipped: skipped - made.changed,
            bytes: bytes + made.changedBytes,
          },
        };
      } finally {
        await made.dispose();
      }
    },
  };
}

/** Copies layers from the store that has them. */
function copyMover(source: ContentReader): LayerMover {
  return (writer, layers, options) => copyBlobs(source, layers, writer, options);
}

function inPlaceMover(
  source: ContentReader,
  { checkBlobs = false, compression }: ConversionOptions,
): LayerMover {
  if (!checkBlobs || compression) return layersInPlace();
  return layersInPlace((layers, { jobs }) =>
    checkPresence(source, layers, {
      jobs,
      verb: "convert",
    }),
  );
}

/**
 * The blobs of some caches that their store has not, or not in the right size.
 *
 * @param options.jobs Blobs that are looked at at once.
 */
export async function findMissing(
  source: ContentReader,
  layers: readonly Descriptor[],
  { jobs }: { jobs: number },
): Promise<Set<Digest>> {
  const missing = new Set<Digest>();
  await mapLimit(distinctBlobs(layers), jobs, async (blob) => {
    if ((await source.stat(blob)) !== blob.size && !blob.urls?.length) missing.add(blob.digest);
  });
  return missing;
}

/** How to convert at once; all of it may be left out. */
export interface ConvertOptions
  extends Partial<ConversionOptions>, Partial<TransferOptions>, Pick<PutOptions, "onNames"> {
  /** What the result is called: `latest` unless told otherwise. */
  names?: readonly NameUpdate[] | undefined;
}

/**
 * Converts a cache and names the result. In place, only documents are read and
 * written; the blobs are looked at by their size alone.
 *
 * @returns What was made; undefined for a cache without layers, which BuildKit
 *   does not export either.
 * @throws {CacheportError} CACHE_INVALID, BLOB_MISSING, SIZE_MISMATCH, REGISTRY_REJECTED, ...
 * @example
 * const store = await LayoutDirectory.open("./cache", { limits: DEFAULT_LIMITS });
 * const { descriptor } = await store.resolve({ name: "latest" });
 * const set = await readCache(store, descriptor, { limits: DEFAULT_LIMITS });
 * const writer = await LayoutDirectoryWriter.open("./converted", { create: true });
 * await convertCache(store, set, writer, { shape: "image-manifest" });
 * await writer.close();
 */
export async function convertCache(
  source: ContentReader,
  set: CacheSet,
  writer: ContentWriter,
  options: ConvertOptions = {},
): Promise<WrittenPlan | undefined> {
  const { shape = "image-manifest" } = options;
  const plan = await planConversion(source, set, { ...options, shape });
  return plan?.write(writer, {
    ...withTransferDefaults(options),
    names: options.names ?? [{ kind: "set", name: { refName: "latest" } }],
  });
}

/** The options of a transfer with what is left out. */
function withTransferDefaults<T extends Partial<TransferOptions>>(options: T): T & TransferOptions {
  return {
    ...options,
    limits: options.limits ?? DEFAULT_LIMITS,
    jobs: options.jobs ?? DEFAULT_JOBS,
    progress: options.progress ?? noProgress,
  };
}
