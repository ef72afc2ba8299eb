/**
 * What `mode=max` costs: a cache of an image's build beside the image itself. With
 * `mode=min` BuildKit exports the layers of the image alone, so what the cache has beyond
 * them is what `mode=max` adds.
 */
import type { ContentReader } from "./content-store.ts";
import { totalSize } from "./descriptor.ts";
import type { Descriptor } from "./descriptor.ts";
import type { Digest } from "./digest.ts";
import { isCacheportError } from "./errors.ts";
import { parseImageConfig } from "./image-config.ts";
import { ANNOTATION_UNCOMPRESSED } from "./media-types.ts";
import { walk } from "./walk.ts";
import type { WalkOptions } from "./walk.ts";

/** The layers of an image, or of the images of an index. */
export interface ImageLayers {
  /** As they are stored there. */
  blobs: ReadonlySet<Digest>;
  /** What they unpack to. */
  diffIds: ReadonlySet<Digest>;
}

/** Bytes of a cache's layers, each counted once. */
export interface ModeCost {
  /** Layers that are the image's too: what `mode=min` exports. */
  min: { layers: number; bytes: number };
  /** The others: what `mode=max` adds. */
  added: { layers: number; bytes: number };
}

/**
 * Compares a cache with an image. A layer is the same when its blob is, or when it unpacks
 * to the same: an image may be compressed in another way.
 *
 * @param layers Of the cache.
 */
export function modeCost(layers: readonly Descriptor[], image: ImageLayers): ModeCost {
  const distinct = [...new Map(layers.map((layer) => [layer.digest, layer])).values()];
  const isOfImage = ({ digest, annotations }: Descriptor): boolean =>
    image.blobs.has(digest) ||
    image.diffIds.has((annotations?.[ANNOTATION_UNCOMPRESSED] ?? "") as Digest);
  const [min, added] = [distinct.filter(isOfImage), distinct.filter((each) => !isOfImage(each))];
  return {
    min: { layers: min.length, bytes: totalSize(min) },
    added: { layers: added.length, bytes: totalSize(added) },
  };
}

/**
 * Reads which layers an image has; of an index those of all its images.
 *
 * @throws {CacheportError} whatever {@link walk} throws
 */
export async function readImageLayers(
  reader: ContentReader,
  descriptor: Descriptor,
  options: WalkOptions,
): Promise<ImageLayers> {
  const blobs = new Set<Digest>();
  const diffIds = new Set<Digest>();
  for (const { document } of await walk(reader, [descriptor], options)) {
    if (!document || document.isIndex) continue;
    for (const { digest } of document.layers) blobs.add(digest);
    if (!document.config?.mediaType.endsWith("+json")) continue;
    try {
      const bytes = await reader.read(document.config, options.limits.config);
      const what = `image config "${document.config.digest}"`;
      for (const diffId of parseImageConfig(bytes, what).diffIds) diffIds.add(diffId as Digest);
    } catch (error) {
      // An attestation has no diffIDs that could be read.
      if (!isCacheportError(error, "DOCUMENT_INVALID")) throw error;
    }
  }
  return { blobs, diffIds };
}
