/**
 * The cache that stands inside an image's config (`--cache-to type=inline`).
 *
 * Source: BuildKit cache/remotecache/import.go (importInlineCache,
 * parseCreatedLayerInfo).
 */
import { encodeCacheConfig, parseCacheRecords } from "./cache-config.ts";
import type { Cache, CacheBlob } from "./cache-layers.ts";
import type { CacheConfig } from "./cache-types.ts";
import { describeCacheConfig } from "./cache-manifest.ts";
import type { Descriptor } from "./descriptor.ts";
import { parseDigest } from "./digest.ts";
import { CacheportError } from "./errors.ts";
import type { ImageConfig } from "./image-config.ts";
import { ANNOTATION_CREATED_AT, ANNOTATION_UNCOMPRESSED } from "./media-types.ts";

/** An inline cache in the form of any other: a cache config and a descriptor for each layer. */
export interface InlineCache extends Cache {
  /** As BuildKit would write it; no store has it. */
  blob: CacheBlob;
}

/**
 * Takes the cache out of an image: its layers are the image's layers, each on top
 * of the one before, and the records refer to them by their position.
 *
 * @param layers The layers of the image's manifest.
 * @param what The image, for the message.
 * @returns The cache; undefined for an image without one, or without layers, or
 *   whose config does not match its manifest (an attestation).
 * @throws {CacheportError} DOCUMENT_INVALID, CACHE_INVALID
 */
export function readInlineCache(
  image: ImageConfig,
  layers: readonly Descriptor[],
  what: string,
): InlineCache | undefined {
  if (image.inlineCache === undefined || layers.length === 0) return undefined;
  if (image.diffIds.length !== layers.length) return undefined;
  const records = parseCacheRecords(
    decodeBase64(image.inlineCache, what),
    `inline cache of ${what}`,
  );
  const config: CacheConfig = {
    layers: layers.map(({ digest }, position) => ({
      blob: digest,
      parent: position - 1,
    })),
    records,
  };
  const bytes = encodeCacheConfig(config);
  return {
    config,
    blob: { bytes, descriptor: describeCacheConfig(bytes) },
    layers: describeLayers(image, layers),
  };
}

/** Adds what a cache's descriptors carry and an image's do not: diffID and creation time. */
function describeLayers(image: ImageConfig, layers: readonly Descriptor[]): Descriptor[] {
  const steps = image.history.filter((entry) => !entry.emptyLayer);
  return layers.map((layer, position) => {
    const created = steps[position]?.created;
    return {
      ...layer,
      annotations: {
        ...layer.annotations,
        [ANNOTATION_UNCOMPRESSED]: parseDigest(image.diffIds[position] as string),
        ...(created ? { [ANNOTATION_CREATED_AT]: created } : {}),
      },
    };
  });
}

function decodeBase64(text: string, what: string): Uint8Array {
  const bytes = Buffer.from(text, "base64");
  if (bytes.toString("base64") === text) return bytes;
  throw new CacheportError(
    "CACHE_INVALID",
    `Cannot read the inline cache of ${what}: moby.buildkit.cache.v0 is not base64`,
  );
}
