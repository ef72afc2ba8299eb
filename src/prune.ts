/** Prunes a cache in the store that it is in: only documents are written, blobs stay. */
import { encodeCacheManifest } from "./cache-manifest.ts";
import type { CacheShape, ReadableShape } from "./cache-manifest.ts";
import type { ContentReader, ContentWriter, NameUpdate } from "./content-store.ts";
import { encodeCache, publishCache, sameShape } from "./convert.ts";
import type { WritableCache } from "./convert.ts";
import { totalSize } from "./descriptor.ts";
import type { Descriptor } from "./descriptor.ts";
import type { DocumentLimits } from "./documents.ts";
import { CacheportError } from "./errors.ts";
import { pruneCache } from "./cache-prune.ts";
import type { PrunedCache, PruneLimits } from "./cache-prune.ts";
import type { CacheSet } from "./cache-read.ts";

/** What pruning comes to. */
export type PrunePlan = {
  /** What the name stands for afterwards. */
  descriptor: Descriptor;
  shape: ReadableShape;
  /** The cache that there is afterwards, and what is no longer in it. */
  pruned: PrunedCache;
} & (
  | {
      /** The cache stays as it is: the limits hold nothing back (`unchanged`), or leave no result (`empty`). */
      kind: "unchanged" | "empty";
    }
  | {
      kind: "smaller";
      /** The smaller cache. */
      cache: WritableCache;
      shape: CacheShape;
    }
);

/**
 * Prunes a cache without writing anything. A smaller cache has the shape of the one
 * that it was made of, where that can be written.
 *
 * @param location What it was read from, for messages.
 * @throws {CacheportError} NOT_SUPPORTED for an inline cache and for an index of
 *   caches, CACHE_INVALID when BuildKit would refuse the cache
 */
export function planPrune(
  { shape, descriptor, caches }: CacheSet,
  limits: PruneLimits,
  location: string,
): PrunePlan {
  const [cache] = caches;
  if (!cache || shape === "inline" || shape === "index-of-caches") {
    const what =
      shape === "inline" ? "its cache is part of an image" : "it is an index of several caches";
    throw new CacheportError("NOT_SUPPORTED", `Cannot prune "${location}": ${what}`, {
      hint: { do: "convert-to-cache", location },
    });
  }
  const pruned = pruneCache(cache, limits, `cache "${descriptor.digest}"`);
  if (pruned.config === cache.config) return { kind: "unchanged", pruned, descriptor, shape };
  if (pruned.layers.length === 0) {
    const dropped = { records: 0, results: 0, layers: [], bytes: 0 };
    const whole = { ...cache, size: totalSize(cache.layers), dropped };
    return { kind: "empty", pruned: whole, descriptor, shape };
  }
  const smaller = encodeCache(pruned);
  const written = sameShape(shape);
  const manifest = encodeCacheManifest(
    { config: smaller.configDescriptor, layers: smaller.layers },
    written,
  );
  return {
    kind: "smaller",
    pruned,
    descriptor: manifest.descriptor,
    shape: written,
    cache: smaller,
  };
}

/**
 * Writes what a plan comes to and names it. A cache that stays as it is gets the
 * names alone.
 *
 * @throws {CacheportError} REGISTRY_REJECTED, NAME_CHANGED, NO_SPACE, ...
 */
export async function writePruned(
  reader: ContentReader,
  plan: PrunePlan,
  names: readonly NameUpdate[],
  writer: ContentWriter,
  { limits, signal }: { limits: DocumentLimits; signal?: AbortSignal | undefined },
): Promise<void> {
  if (plan.kind === "smaller") {
    const { cache, shape } = plan;
    const { configDescriptor, configBytes } = cache;
    await writer.put(configDescriptor, { bytes: configBytes }, { signal });
    await publishCache(cache, [shape], names, writer, signal);
    return;
  }
  const { descriptor } = plan;
  const bytes = await reader.read(descriptor, limits.manifest);
  await writer.publish([{ descriptor, bytes, names }], { signal });
}
