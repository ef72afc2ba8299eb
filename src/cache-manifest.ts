/**
 * The top document of a cache, in the three shapes that BuildKit exports and the
 * one more that it imports.
 *
 * Source: BuildKit cache/remotecache/export.go (NewExportableCache, Finalize) and
 * import.go (Resolve).
 */
import type { Descriptor } from "./descriptor.ts";
import { digestOf } from "./digest.ts";
import { CacheportError } from "./errors.ts";
import { encodeImageIndex } from "./image-index.ts";
import type { ImageIndex } from "./image-index.ts";
import { encodeImageManifest } from "./image-manifest.ts";
import type { ImageManifest } from "./image-manifest.ts";
import {
  CACHE_CONFIG,
  DOCKER_LIST,
  DOCKER_MANIFEST,
  OCI_INDEX,
  OCI_MANIFEST,
  toDockerLayerType,
  toOciLayerType,
} from "./media-types.ts";

/** The shapes that a cache can be written in. */
export const CACHE_SHAPES = ["image-manifest", "oci-index", "docker-list"] as const;

/** A shape that a cache can be written in. */
export type CacheShape = (typeof CACHE_SHAPES)[number];

/** Any shape that a cache can be read from. */
export type ReadableShape = CacheShape | "docker-manifest" | "inline" | "index-of-caches";

/** Bytes over which BuildKit reads no manifest and no cache config (readBlob in import.go). */
export const IMPORT_LIMIT = 1024 * 1024;

/** A cache's top document: its shape and the content that it lists. */
export interface CacheManifest {
  shape: CacheShape | "docker-manifest";
  mediaType: string;
  config: Descriptor;
  /** In the document's order, repeated ones too. */
  layers: Descriptor[];
}

/** The shape of each top media type, and back. */
const SHAPE_TYPES: Record<CacheShape, string> = {
  "image-manifest": OCI_MANIFEST,
  "oci-index": OCI_INDEX,
  "docker-list": DOCKER_LIST,
};
const TYPE_SHAPES: Record<string, CacheManifest["shape"]> = {
  [OCI_MANIFEST]: "image-manifest",
  [OCI_INDEX]: "oci-index",
  [DOCKER_LIST]: "docker-list",
  [DOCKER_MANIFEST]: "docker-manifest",
};

/**
 * Finds the cache in a document: in a list the cache config is the last entry of its type,
 * wherever it stands; in a manifest only `config` counts.
 *
 * @param mediaType What BuildKit takes the document for: one without a type is Docker's.
 * @returns The cache; undefined when the document is no cache of its own.
 */
export function cacheIn(
  mediaType: string,
  document: Pick<ImageIndex, "manifests"> | Pick<ImageManifest, "config" | "layers">,
): CacheManifest | undefined {
  const shape = TYPE_SHAPES[mediaType] as CacheManifest["shape"];
  if ("manifests" in document) {
    const { manifests } = document;
    const config = manifests.findLast((entry) => entry.mediaType === CACHE_CONFIG);
    if (!config) return undefined;
    const layers = manifests.filter((entry) => entry.mediaType !== CACHE_CONFIG);
    return { shape, mediaType, config, layers };
  }
  const { config, layers } = document;
  if (config?.mediaType !== CACHE_CONFIG) return undefined;
  return { shape, mediaType, config, layers };
}

/** The descriptor of a cache config: BuildKit gives it a media type and nothing more. */
export function describeCacheConfig(bytes: Uint8Array): Descriptor {
  return {
    mediaType: CACHE_CONFIG,
    digest: digestOf(bytes),
    size: bytes.length,
  };
}

/**
 * Writes a cache's top document, byte for byte as BuildKit would have exported it.
 * The layers keep their order and their repetitions; only their media types follow
 * the shape.
 *
 * @returns The document and its own descriptor.
 * @throws {CacheportError} CACHE_INVALID for a cache without layers
 */
export function encodeCacheManifest(
  cache: { config: Descriptor; layers: readonly Descriptor[] },
  shape: CacheShape,
): { bytes: Uint8Array; descriptor: Descriptor } {
  if (cache.layers.length === 0) {
    throw new CacheportError(
      "CACHE_INVALID",
      `Cannot write cache "${cache.config.digest}": it has no layers`,
    );
  }
  const mediaType = SHAPE_TYPES[shape];
  const mapType = shape === "docker-list" ? toDockerLayerType : toOciLayerType;
  const layers = cache.layers.map((layer) => ({
    ...layer,
    mediaType: mapType(layer.mediaType),
  }));
  const bytes =
    shape === "image-manifest"
      ? encodeImageManifest({ mediaType, config: cache.config, layers })
      : encodeImageIndex({ mediaType, manifests: [...layers, cache.config] });
  return {
    bytes,
    descriptor: { mediaType, digest: digestOf(bytes), size: bytes.length },
  };
}
