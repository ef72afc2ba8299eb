/**
 * Reads a build cache from wherever it is, in every shape that one is met in.
 *
 * Source: BuildKit cache/remotecache/import.go (Resolve, importInlineCache); an
 * index of cache manifests is cacheport's own reading of what `imagetools create`
 * makes of one cache per platform.
 */
import { assertCacheConfig } from "./cache-check.ts";
import { parseCacheConfig } from "./cache-config.ts";
import type { Cache, CacheBlob } from "./cache-layers.ts";
import type { ReadableShape } from "./cache-manifest.ts";
import type { ContentReader } from "./content-store.ts";
import type { Descriptor, Platform } from "./descriptor.ts";
import { parseDocument } from "./document.ts";
import type { Document } from "./document.ts";
import { DEFAULT_LIMITS } from "./documents.ts";
import { CacheportError } from "./errors.ts";
import { isDocumentType } from "./media-types.ts";
import { nameType, walk } from "./walk.ts";
import type { WalkOptions } from "./walk.ts";

/** Bytes of a config from which on memory counts. */
const LARGE = 2 ** 20;

/** One cache: its graph and the blobs that it is made of. */
export interface LoadedCache extends Cache {
  shape: Exclude<ReadableShape, "index-of-caches">;
  /** The document that it was read from. */
  manifest: Descriptor;
  /** The config as it is stored; for an inline cache as BuildKit would write it. */
  blob: CacheBlob;
  /** The platform that an index says it is for. */
  platform: Platform | undefined;
}

/** What a location holds: one cache, or one for each platform. */
export interface CacheSet {
  shape: ReadableShape;
  /** The top document. */
  descriptor: Descriptor;
  /** At least one. */
  caches: LoadedCache[];
}

/**
 * Reads the cache that a descriptor names.
 *
 * @param descriptor A manifest or an index of any type.
 * @throws {CacheportError} NOT_A_CACHE, CACHE_INVALID and whatever {@link walk} throws
 */
export async function readCache(
  reader: ContentReader,
  descriptor: Descriptor,
  options: WalkOptions = { limits: DEFAULT_LIMITS },
): Promise<CacheSet> {
  const found = await tryReadCache(reader, descriptor, options);
  if (found) return found;
  throw new CacheportError(
    "NOT_A_CACHE",
    `Cannot read a cache from "${reader.location}": ${descriptor.digest} is no build cache and holds no inline cache`,
    { hint: { do: "list-names", location: reader.location } },
  );
}

/**
 * The cache that was read, with its config as it is stored.
 *
 * @returns Undefined where one cache has to be made first: of several, or of an inline one.
 * @throws {CacheportError} CACHE_INVALID when BuildKit would refuse one of them
 */
export function cacheAsStored({ caches }: CacheSet): Cache | undefined {
  for (const cache of caches) assertCacheConfig(cache.config, `cache "${cache.manifest.digest}"`);
  const [first] = caches;
  if (!first || caches.length > 1 || first.shape === "inline") return undefined;
  const { config, layers, blob } = first;
  return { config, layers, blob };
}

/** Reads the cache that a descriptor names; undefined when it names something else. */
export async function tryReadCache(
  reader: ContentReader,
  descriptor: Descriptor,
  options: WalkOptions,
): Promise<CacheSet | undefined> {
  const top = await nameType(reader, descriptor, options);
  if (!isDocumentType(top.mediaType)) return undefined;
  const bytes = await reader.read(top, options.limits.manifest);
  const document = parseDocument(bytes, top.mediaType, `manifest "${top.digest}"`);
  const own = await readDocument(reader, top, document, options);
  if (own) return { shape: own.shape, descriptor: top, caches: [own] };

  const nodes = await walk(reader, [top], options);
  const caches: LoadedCache[] = [];
  for (const { descriptor, document } of nodes) {
    if (!document || document.isIndex) continue;
    const cache = await readDocument(reader, descriptor, document, options);
    if (cache) caches.push(cache);
  }
  if (caches.length === 0) return undefined;
  const isInline = caches.every((cache) => cache.shape === "inline");
  return {
    shape: isInline ? "inline" : "index-of-caches",
    descriptor: top,
    caches,
  };
}

/** Reads the cache that one document holds itself, as its own content or inline. */
async function readDocument(
  reader: ContentReader,
  descriptor: Descriptor,
  document: Document,
  options: WalkOptions,
): Promise<LoadedCache | undefined> {
  const common = { manifest: descriptor, platform: descriptor.platform };
  if (document.cache) {
    const { shape, config, layers } = document.cache;
    const configBytes = await reader.read(config, options.limits.config);
    const parsed = parseCacheConfig(configBytes, `cache config "${config.digest}"`);
    // What reading large documents leaves behind is not to be there beside the next cache.
    if (configBytes.length > LARGE) Bun.gc(true);
    return {
      ...common,
      shape,
      config: parsed,
      blob: { bytes: configBytes, descriptor: config },
      layers,
    };
  }
  const { config, layers } = document.manifest ?? { layers: [] };
  if (!config || layers.length === 0 || !config.mediaType.endsWith("+json")) return undefined;
  const configBytes = await reader.read(config, options.limits.config);
  const [{ parseImageConfig }, { readInlineCache }] = await Promise.all([
    import("./image-config.ts"),
    import("./cache-inline.ts"),
  ]);
  const image = parseImageConfig(configBytes, `image config "${config.digest}"`);
  const inline = readInlineCache(image, layers, `image "${descriptor.digest}"`);
  return inline && { ...common, shape: "inline", ...inline };
}
