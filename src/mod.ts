/**
 * cacheport as a library: the pieces that its commands are made of. What is exported
 * here is kept until the next major version; everything else may change at any time.
 *
 * @example
 * const store = await openStore("./cache");
 * const { descriptor } = await store.resolve({ name: "latest" });
 * const set = await readCache(store, descriptor);
 * console.log(set.shape, set.caches[0]?.config.records.length);
 *
 * @module
 */
export { checkCacheConfig, layerChain, layerDepths } from "./cache-check.ts";
export type { CacheProblem } from "./cache-check.ts";
export { encodeCacheConfig, parseCacheConfig } from "./cache-config.ts";
export type { CacheConfig, CacheLayer, CacheRecord } from "./cache-types.ts";
export { CACHE_SHAPES, encodeCacheManifest } from "./cache-manifest.ts";
export type { CacheManifest, CacheShape } from "./cache-manifest.ts";
export { normalizeCacheConfig } from "./cache-order.ts";
export type { Cache, CacheBlob } from "./cache-layers.ts";
export type {
  BlobLocation,
  BlobSource,
  ContentReader,
  ContentWriter,
  EntryName,
  NamedEntry,
  NameQuery,
  NameUpdate,
  PutOptions,
  PutOutcome,
  Resolved,
  Root,
  Store,
} from "./content-store.ts";
export { convertCache } from "./convert.ts";
export type { ConvertOptions } from "./convert.ts";
export { copyContent } from "./copy.ts";
export type { CopyRoot, TransferCounts, TransferOptions } from "./copy.ts";
export type { WrittenPlan } from "./plan.ts";
export { noProgress } from "./progress.ts";
export type { ProgressReporter, ProgressTask } from "./progress.ts";
export { healCache } from "./cache-heal.ts";
export { findImportLosses } from "./cache-import.ts";
export type { ImportLosses, LostLink } from "./cache-import.ts";
export { findConflicts, mergeCaches } from "./cache-merge.ts";
export type { MergeOptions } from "./cache-merge.ts";
export type { Conflict, Preference } from "./cache-donors.ts";
export type { CompressionChoice } from "./recompress.ts";
export type { Descriptor, Platform } from "./descriptor.ts";
export { diffCaches } from "./cache-diff.ts";
export type { CacheDifference } from "./cache-diff.ts";
export { digestOf, isDigest, parseDigest } from "./digest.ts";
export type { Digest, DigestAlgorithm } from "./digest.ts";
export { parseCacheManifest, parseDocument } from "./document.ts";
export type { Document } from "./document.ts";
export { DEFAULT_LIMITS } from "./documents.ts";
export type { DocumentLimits } from "./documents.ts";
export { CacheportError, EXIT_CODES, isCacheportError } from "./errors.ts";
export type { ErrorCode } from "./errors.ts";
export { collectGarbage } from "./gc.ts";
export type { GarbageOptions, GarbageReport } from "./gc.ts";
export { inspect } from "./inspect.ts";
export type { Inspected } from "./inspect.ts";
export { LayoutArchive } from "./archive-reader.ts";
export { LayoutArchiveWriter } from "./archive-writer.ts";
export { LayoutDirectory, LayoutDirectoryWriter } from "./layout-directory.ts";
export { matchPlatform, parsePlatform } from "./platform.ts";
export { pruneCache } from "./cache-prune.ts";
export type { PruneLimits, PrunedCache } from "./cache-prune.ts";
export { readCache } from "./cache-read.ts";
export type { CacheSet, LoadedCache } from "./cache-read.ts";
export {
  canonicalName,
  familiarReference,
  formatReference,
  normalizeReference,
  parseReference,
} from "./reference.ts";
export type { NormalizedReference, Reference } from "./reference.ts";
export type { ObjectPlace } from "./object-place.ts";
export { ObjectStore } from "./object-store.ts";
export type { ObjectSettings } from "./object-store.ts";
export { RegistryRepository } from "./registry.ts";
export { verifyStore } from "./verify.ts";
export type { VerifyOptions, VerifyResult } from "./verify.ts";
export { walk } from "./walk.ts";
export type { ContentNode, WalkOptions } from "./walk.ts";
export { openStore, openWriter } from "./location-library.ts";
export type { OpenOptions } from "./location-library.ts";
