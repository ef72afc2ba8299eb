/**
 * A cache or an image in another compression. Layers become other blobs; what names
 * them is rewritten up to the top document. What layers unpack to stays the same, so
 * diffIDs, image configs and cache keys do too.
 *
 * BuildKit's `compression=` without `force-compression` touches new layers alone and
 * leaves those of another compression as they are. Here it is asked for by somebody
 * who wants the result in that compression, so it means all layers; force recompresses
 * those as well that have the compression already, for another level.
 */
import { encodeCacheConfig } from "./cache-config.ts";
import type { CacheConfig, CacheLayer } from "./cache-types.ts";
import { describeCacheConfig } from "./cache-manifest.ts";
import { normalizeCacheConfig } from "./cache-order.ts";
import type { ContentReader, ContentWriter } from "./content-store.ts";
import type { Descriptor } from "./descriptor.ts";
import { parseDigest } from "./digest.ts";
import type { Digest } from "./digest.ts";
import { ANNOTATION_UNCOMPRESSED, layerTypeIn } from "./media-types.ts";
import { describeNewBlob, isToRecompress, recompressLayers } from "./recompress-layer.ts";
import type {
  CompressionChoice,
  LayerTask,
  NewBlob,
  RecompressOptions,
} from "./recompress-layer.ts";

export type { CompressionChoice } from "./recompress-layer.ts";

/** The parts of a cache that depend on how its layers are compressed. */
export interface CacheParts {
  config: CacheConfig;
  configBytes: Uint8Array;
  configDescriptor: Descriptor;
  /** In the document's order, repeated ones too. */
  layers: Descriptor[];
}

/** A cache after recompression. */
export interface RecompressedCache extends CacheParts {
  /** Blobs that were made anew and written to the target. */
  changed: number;
  /** Bytes of those. */
  changedBytes: number;
  /** Removes the temporary files; to be called once the target has published, or has failed to. */
  dispose(): Promise<void>;
}

/**
 * Recompresses a cache's layers and writes the new ones to the target. Its other
 * layers, the new cache config and the manifest are left to the caller.
 *
 * The config gets BuildKit's order again, since layers stand in the order of their
 * digests; the descriptors follow it, one for each entry of the config's layers. Each
 * new descriptor says what its layer unpacks to, also where the old one did not.
 *
 * @returns The cache as it was, byte for byte, when no layer has changed.
 * @throws {CacheportError} CACHE_INVALID and what {@link recompressLayers} throws
 */
export async function recompressCache(
  source: ContentReader,
  cache: CacheParts,
  choice: CompressionChoice,
  target: ContentWriter,
  options: RecompressOptions,
): Promise<RecompressedCache> {
  const used = new Set(cache.config.layers.map(({ blob }) => blob));
  const tasks = new Map<Digest, LayerTask & { diffIds: Digest[] }>();
  for (const layer of cache.layers) {
    if (!used.has(layer.digest) || !isToRecompress(layer, choice)) continue;
    const task = tasks.get(layer.digest) ?? { layer, diffIds: [] };
    const diffId = layer.annotations?.[ANNOTATION_UNCOMPRESSED];
    if (diffId !== undefined) task.diffIds.push(parseDigest(diffId));
    tasks.set(layer.digest, task);
  }
  const { blobs, dispose } = await recompressLayers(
    source,
    [...tasks.values()],
    choice,
    target,
    options,
  );
  try {
    return { ...moveCache(cache, blobs), dispose };
  } catch (error) {
    await dispose();
    throw error;
  }
}

/** A cache whose layers have become other blobs. */
function moveCache(
  cache: CacheParts,
  blobs: ReadonlyMap<Digest, NewBlob>,
): Omit<RecompressedCache, "dispose"> {
  const changed = new Map<Digest, number>();
  for (const [old, { digest, size }] of blobs) if (digest !== old) changed.set(digest, size);
  if (changed.size === 0) return { ...cache, changed: 0, changedBytes: 0 };

  const config = normalizeCacheConfig({
    ...cache.config,
    layers: cache.config.layers.map((layer) => moveLayer(layer, blobs.get(layer.blob))),
  });
  const configBytes = encodeCacheConfig(config);
  return {
    config,
    configBytes,
    configDescriptor: describeCacheConfig(configBytes),
    layers: listLayers(
      config,
      cache.layers.map((layer) => moveDescriptor(layer, blobs.get(layer.digest))),
    ),
    changed: changed.size,
    changedBytes: [...changed.values()].reduce((sum, size) => sum + size, 0),
  };
}

/** A layer of the config that stands for its new blob. */
function moveLayer(layer: CacheLayer, blob: NewBlob | undefined): CacheLayer {
  if (!blob) return layer;
  const { annotations } = layer;
  const type = annotations?.mediaType;
  return {
    ...layer,
    blob: blob.digest,
    annotations: annotations && {
      ...annotations,
      mediaType: type && layerTypeIn(type, blob.compression),
      size: blob.size,
    },
  };
}

function moveDescriptor(layer: Descriptor, blob: NewBlob | undefined): Descriptor {
  if (!blob) return layer;
  const moved = describeNewBlob(layer, blob);
  const annotations = {
    ...moved.annotations,
    [ANNOTATION_UNCOMPRESSED]: blob.diffId,
  };
  return { ...moved, annotations };
}

/**
 * The descriptors in the order of the config's layers. Where a blob stands in several
 * places its descriptors are dealt out in their old order, the last one to all that
 * remain; an entry that no descriptor was there for is still without one.
 */
function listLayers(config: CacheConfig, descriptors: readonly Descriptor[]): Descriptor[] {
  const byDigest = Map.groupBy(descriptors, ({ digest }) => digest);
  return config.layers.flatMap(({ blob }) => {
    const left = byDigest.get(blob) ?? [];
    const [next] = left;
    if (left.length > 1) left.shift();
    return next ? [next] : [];
  });
}
