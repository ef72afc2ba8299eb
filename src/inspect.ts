/** Looks inside a cache, an image, an index or an artifact and says what is there. */
import { resultAges } from "./cache-ages.ts";
import type { ResultAges } from "./cache-ages.ts";
import { checkCacheConfig } from "./cache-check.ts";
import { placeLayers } from "./cache-graph.ts";
import type { PlacedLayer } from "./cache-graph.ts";
import { lossText, reportLosses } from "./cache-losses.ts";
import type { LossReport } from "./cache-losses.ts";
import { IMPORT_LIMIT } from "./cache-manifest.ts";
import type { ReadableShape } from "./cache-manifest.ts";
import type { ContentReader } from "./content-store.ts";
import { totalSize } from "./descriptor.ts";
import type { Descriptor, Platform } from "./descriptor.ts";
import type { Digest } from "./digest.ts";
import { parseDocument } from "./document.ts";
import { recordNameText } from "./explain-names.ts";
import type { RecordName } from "./explain-names.ts";
import { parseImageConfig } from "./image-config.ts";
import type { HistoryEntry, ImageConfig } from "./image-config.ts";
import { DOCKER_CONFIG, isDocumentType, OCI_CONFIG } from "./media-types.ts";
import { tryReadCache } from "./cache-read.ts";
import type { CacheSet, LoadedCache } from "./cache-read.ts";
import { nameType } from "./walk.ts";
import type { WalkOptions } from "./walk.ts";

/** A layer in one place of a cache's chains. */
export type InspectedLayer = PlacedLayer;

/** Something that is wrong with a cache. */
export interface InspectedProblem {
  code: string;
  message: string;
}

/** What a record of a cache is. */
export interface InspectedName extends RecordName {
  /** Position in the cache's records. */
  record: number;
}

/** One cache, seen from inside. */
export interface InspectedCache {
  kind: "cache";
  shape: ReadableShape;
  manifest: Descriptor;
  /** Null for several caches in one index. */
  config: Descriptor | null;
  platform: Platform | null;
  /**
   * One for each place in the config's table of layers; one blob may have several.
   * Several caches stand one after the other.
   */
  layers: InspectedLayer[];
  /** Cache keys. */
  records: number;
  /** Leaves that a joining record joins; absent without one. It is no record of the others. */
  joinedLeaves?: number;
  /** Results of all records. */
  results: number;
  ages: ResultAges;
  /** Bytes of the distinct layers that the manifest lists. */
  totalSize: number;
  problems: InspectedProblem[];
  /** What BuildKit's import can lose of it; null for nothing, and for several caches in one index. */
  importLosses: LossReport | null;
  /** What the records are, by their positions; those that nothing explains are left out. */
  names?: InspectedName[];
  /** The caches of an index of caches, or of an index of images with inline caches. */
  caches?: InspectedCache[];
}

/** A layer of an image. */
export interface InspectedImageLayer {
  digest: Digest;
  size: number;
  mediaType: string;
  diffId: string | null;
  createdBy: string | null;
}

/** An image. */
export interface InspectedImage {
  kind: "image";
  manifest: Descriptor;
  config: Descriptor;
  platform: Platform;
  created: string | null;
  layers: InspectedImageLayer[];
  history: HistoryEntry[];
  totalSize: number;
  /** The image's config holds a cache as well. */
  inlineCache: boolean;
}

/** An index of manifests, or an artifact that is neither image nor cache. */
export interface InspectedOther {
  kind: "index" | "artifact";
  manifest: Descriptor;
  artifactType: string | null;
  config: Descriptor | null;
  /** Manifests of an index, layers of an artifact. */
  children: Descriptor[];
  totalSize: number;
}

/** What an inspection gives. */
export type Inspected = InspectedCache | InspectedImage | InspectedOther;

/**
 * Inspects what a descriptor names. An image that holds an inline cache is shown as
 * the image that it is.
 *
 * @throws {CacheportError} BLOB_MISSING, DOCUMENT_INVALID, ...
 */
export async function inspect(
  reader: ContentReader,
  root: Descriptor,
  options: WalkOptions,
): Promise<Inspected> {
  return (await inspectAndRead(reader, root, options)).found;
}

/** {@link inspect}, together with the cache that was read for it, an inline one too. */
export async function inspectAndRead(
  reader: ContentReader,
  root: Descriptor,
  options: WalkOptions,
): Promise<{ found: Inspected; cache: CacheSet | undefined }> {
  const descriptor = await nameType(reader, root, options);
  if (!isDocumentType(descriptor.mediaType))
    return { found: plainBlob(descriptor), cache: undefined };
  const cache = await tryReadCache(reader, descriptor, options);
  const found =
    cache && cache.shape !== "inline"
      ? inspectCache(cache)
      : await inspectDocument(reader, descriptor, options);
  return { found, cache };
}

/** Inspects a document that is no cache. */
async function inspectDocument(
  reader: ContentReader,
  descriptor: Descriptor,
  options: WalkOptions,
): Promise<InspectedImage | InspectedOther> {
  const { mediaType } = descriptor;
  const bytes = await reader.read(descriptor, options.limits.manifest);
  const what = `manifest "${descriptor.digest}"`;
  const document = parseDocument(bytes, mediaType, what);
  const { artifactType, index } = document;
  if (index) {
    return {
      ...plainBlob(descriptor),
      kind: "index",
      artifactType: artifactType ?? null,
      children: index.manifests,
      totalSize: totalSize(index.manifests),
    };
  }
  const { config, layers } = document.manifest ?? { layers: document.layers.map(plainDescriptor) };
  if (config?.mediaType !== OCI_CONFIG && config?.mediaType !== DOCKER_CONFIG) {
    return {
      ...plainBlob(descriptor),
      artifactType: artifactType ?? config?.mediaType ?? null,
      config: config ?? null,
      children: layers,
      totalSize: totalSize(layers),
    };
  }
  const imageBytes = await reader.read(config, options.limits.config);
  const image = parseImageConfig(imageBytes, `image config "${config.digest}"`);
  return {
    kind: "image",
    manifest: descriptor,
    config,
    platform: {
      os: image.os,
      architecture: image.architecture,
      variant: image.variant,
    },
    created: image.created ?? null,
    layers: imageLayers(image, layers),
    history: image.history,
    totalSize: totalSize(layers),
    inlineCache: image.inlineCache !== undefined,
  };
}

/** What a document says of content, without where it stands. */
function plainDescriptor({ isBlob: _isBlob, ...descriptor }: Descriptor): Descriptor {
  return descriptor;
}

function plainBlob(manifest: Descriptor): InspectedOther {
  return {
    kind: "artifact",
    manifest,
    artifactType: null,
    config: null,
    children: [],
    totalSize: manifest.size,
  };
}

function imageLayers(image: ImageConfig, layers: readonly Descriptor[]): InspectedImageLayer[] {
  const steps = image.history.filter((entry) => !entry.emptyLayer);
  return layers.map(({ digest, size, mediaType }, position) => ({
    digest,
    size,
    mediaType,
    diffId: image.diffIds[position] ?? null,
    createdBy: steps[position]?.createdBy ?? null,
  }));
}

/** Describes a cache that was read, or several of them together with each one. */
export function inspectCache(set: CacheSet): InspectedCache {
  const caches = set.caches.map(inspectOne);
  const [first] = caches;
  if (first && caches.length === 1 && set.shape === first.shape) return first;
  return {
    kind: "cache",
    shape: set.shape,
    manifest: set.descriptor,
    config: null,
    platform: null,
    layers: joinLayers(caches),
    records: caches.reduce((sum, cache) => sum + cache.records, 0),
    results: caches.reduce((sum, cache) => sum + cache.results, 0),
    ages: resultAges(set.caches.flatMap(resultTimes)),
    totalSize: distinctSize(set.caches.flatMap((cache) => cache.layers)),
    problems: caches.flatMap((cache) => cache.problems),
    importLosses: null,
    caches,
  };
}

/** The layers of several caches in one list, in which parents have new positions. */
function joinLayers(caches: readonly InspectedCache[]): InspectedLayer[] {
  let first = 0;
  return caches.flatMap(({ layers }) => {
    const offset = first;
    first += layers.length;
    return layers.map((layer) => ({
      ...layer,
      parent: layer.parent === null ? null : offset + layer.parent,
    }));
  });
}

function distinctSize(blobs: readonly Descriptor[]): number {
  return totalSize(new Map(blobs.map((blob) => [blob.digest, blob])).values());
}

function resultTimes({ config }: LoadedCache): string[] {
  return config.records.flatMap(({ results, chains }) =>
    [...results, ...chains].map((result) => result.createdAt),
  );
}

function inspectOne(cache: LoadedCache): InspectedCache {
  const { config, layers } = cache;
  const problems: InspectedProblem[] = checkCacheConfig(config).map(({ code, message }) => ({
    code,
    message,
  }));
  const placed = placeLayers(config, layers);
  const listed = new Set(layers.map((layer) => layer.digest));
  for (const digest of new Set(placed.map((layer) => layer.digest))) {
    if (listed.has(digest)) continue;
    problems.push({
      code: "LAYER_NOT_LISTED",
      message: `The manifest does not list layer ${digest}: BuildKit drops its results without a word`,
    });
  }
  const times = resultTimes(cache);
  const losses = reportLosses(config);
  if (losses) problems.push({ code: LOSES_LINKS, message: lossMessage(losses) });
  return {
    kind: "cache",
    shape: cache.shape,
    manifest: cache.manifest,
    config: cache.blob.descriptor,
    platform: cache.platform ?? null,
    layers: placed,
    records: config.records.length,
    ...(config.joined && { joinedLeaves: config.joined.length }),
    results: times.length,
    ages: resultAges(times),
    totalSize: distinctSize(layers),
    problems: [...problems, ...importLimitProblems(cache)],
    importLosses: losses ?? null,
  };
}

const LOSES_LINKS = "IMPORT_LOSES_LINKS";

function lossMessage(losses: LossReport, steps: readonly string[] = []): string {
  return `${lossText(losses, "the cache", steps)}; cacheport heal cures it`;
}

function importLimitProblems({ manifest, blob }: LoadedCache): InspectedProblem[] {
  return [["manifest", manifest] as const, ["cache config", blob.descriptor] as const].flatMap(
    ([what, { digest, size }]) =>
      size <= IMPORT_LIMIT
        ? []
        : {
            code: "OVER_IMPORT_LIMIT",
            message: `The ${what} ${digest} has ${size} bytes: BuildKit imports none over ${IMPORT_LIMIT}`,
          },
  );
}

/** Says of each record what it is, and of each layer what the records on it are. */
export function nameInspected(
  found: InspectedCache,
  caches: readonly LoadedCache[],
  namesOf: (cache: number) => ReadonlyMap<number, readonly RecordName[]>,
): InspectedCache {
  const parts = caches.map((cache, at) => nameOne(found.caches?.[at] ?? found, cache, namesOf(at)));
  if (!found.caches) return parts[0] ?? found;
  const problems = parts.flatMap((part) => part.problems);
  return { ...found, caches: parts, layers: joinLayers(parts), problems };
}

function nameOne(
  found: InspectedCache,
  { config }: LoadedCache,
  names: ReadonlyMap<number, readonly RecordName[]>,
): InspectedCache {
  const onLayer = new Map<number, Set<string>>();
  config.records.forEach(({ results, chains }, record) => {
    for (const name of names.get(record) ?? []) {
      const tops = [
        ...results.map(({ layer }) => layer),
        ...chains.map((chain) => chain.layers.at(-1)),
        ...(name.layers ?? []),
      ];
      for (const top of tops)
        if (top !== undefined)
          onLayer.set(top, (onLayer.get(top) ?? new Set()).add(recordNameText(name)));
    }
  });
  const losses = found.importLosses;
  const stepsOf = (record: number): string[] => (names.get(record) ?? []).map(recordNameText);
  return {
    ...found,
    problems: found.problems.map((problem) =>
      losses && problem.code === LOSES_LINKS
        ? { ...problem, message: lossMessage(losses, losses.leadTo.flatMap(stepsOf)) }
        : problem,
    ),
    names: [...names]
      .flatMap(([record, list]) => list.map((name) => ({ record, ...name })))
      .toSorted((a, b) => a.record - b.record),
    layers: found.layers.map((layer, at) => {
      const known = onLayer.get(at);
      return known ? { ...layer, names: [...known] } : layer;
    }),
  };
}
