/**
 * The document that object stores keep of a cache, and the manifest and config that
 * registries and layouts keep of the same cache: one made of the other, with BuildKit's
 * own bytes.
 *
 * Source: BuildKit cache/remotecache/s3/s3.go, azblob/exporter.go and gha/gha.go
 * (Finalize, whose annotations are the same code), and v1/types/spec.go.
 */
import { encodeCacheConfig, parseCacheConfig, ZERO_TIME } from "./cache-config.ts";
import { describeCacheConfig } from "./cache-manifest.ts";
import type { CacheConfig, CacheLayer } from "./cache-types.ts";
import type { Descriptor } from "./descriptor.ts";
import { digestOf, isDigest } from "./digest.ts";
import type { Digest } from "./digest.ts";
import { CacheportError } from "./errors.ts";
import { encodeImageManifest } from "./image-manifest.ts";
import {
  ANNOTATION_CREATED_AT,
  ANNOTATION_UNCOMPRESSED,
  layerCompression,
  OCI_MANIFEST,
  toOciLayerType,
} from "./media-types.ts";

/** A document and what describes it. */
export interface DescribedDocument {
  readonly descriptor: Descriptor;
  readonly bytes: Uint8Array;
}

/** A cache as an object store has it, and as a registry would have it. */
export interface DerivedCache {
  /** The document as it is stored. */
  readonly stored: Uint8Array;
  readonly manifest: DescribedDocument;
  readonly config: DescribedDocument;
  /** In the document's order, repeated ones too. */
  readonly layers: readonly Descriptor[];
}

/** A name, and what it stands for. */
export interface NamedCache {
  readonly name: string;
  /** As it is stored. */
  readonly stored: Uint8Array;
  /** Undefined when it cannot be read. */
  readonly cache: DerivedCache | undefined;
  readonly descriptor: Descriptor;
  readonly error?: CacheportError;
}

/**
 * Derives the image manifest and the cache config that BuildKit would have exported
 * elsewhere from an object store's document.
 *
 * @param what What the document is, for messages: `cache "main" of "type=s3,..."`.
 * @throws {CacheportError} DOCUMENT_INVALID; CACHE_INVALID, in BuildKit's words, when a
 *   layer lacks what its descriptor would say
 */
export function deriveCache(stored: Uint8Array, what: string): DerivedCache {
  const { layers, ...records } = parseCacheConfig(stored, what);
  const descriptors = layers.map((layer, index) => describeLayer(layer, index, what));
  const bytes = encodeCacheConfig({
    layers: layers.map(({ blob, parent }) => ({ blob, parent })),
    ...records,
  });
  const config = { descriptor: describeCacheConfig(bytes), bytes };
  const manifest = encodeImageManifest({
    mediaType: OCI_MANIFEST,
    config: config.descriptor,
    layers: descriptors,
  });
  const descriptor = {
    mediaType: OCI_MANIFEST,
    digest: digestOf(manifest),
    size: manifest.length,
  };
  return { stored, config, layers: descriptors, manifest: { descriptor, bytes: manifest } };
}

function describeLayer({ blob, annotations }: CacheLayer, index: number, what: string): Descriptor {
  const refuse = (reason: string, hint: string): CacheportError =>
    new CacheportError(
      "CACHE_INVALID",
      `Cannot use ${what}: ${reason} (in layers, entry ${index})`,
      { hint },
    );
  const exported = "BuildKit refuses the whole cache; export it again, or get rid of this name";
  if (!annotations) throw refuse("cache layer with missing annotations", exported);
  const { mediaType, diffID, size, createdAt } = annotations;
  if (!diffID) throw refuse("cache layer with missing diffid", exported);
  if (!isDigest(diffID)) throw refuse(`cache layer with invalid diffid`, exported);
  if (!size || size < 0 || !mediaType)
    throw refuse(
      `cache layer with missing ${mediaType ? "size" : "media type"}`,
      "A manifest needs it; export the cache again",
    );
  const annotated: Record<string, string> = { [ANNOTATION_UNCOMPRESSED]: diffID };
  if (createdAt !== ZERO_TIME) annotated[ANNOTATION_CREATED_AT] = createdAt;
  return { mediaType, digest: blob, size, annotations: annotated };
}

/** Finds the diffID of a layer whose descriptor does not say it; undefined when it cannot. */
export type FindDiffId = (layer: Descriptor) => Promise<Digest | undefined>;

/** An object store's document, and the layers that had to be left out. */
export interface EncodedDocument {
  readonly bytes: Uint8Array;
  /** Blobs of results that were dropped. */
  readonly dropped: readonly Digest[];
}

/**
 * Makes an object store's document of a cache, as BuildKit's exporter would. A layer
 * that nothing describes, or whose diffID nobody knows, goes with all results that
 * need it: with it BuildKit would refuse the whole cache.
 *
 * @throws {CacheportError} CACHE_INVALID for a time that is none
 */
export async function encodeObjectDocument(
  config: CacheConfig,
  layers: readonly Descriptor[],
  findDiffId: FindDiffId,
): Promise<EncodedDocument> {
  const described = new Map<Digest, NonNullable<CacheLayer["annotations"]>>();
  // The last of several descriptors of a blob counts, as in BuildKit's import.
  for (const layer of new Map(layers.map((one) => [one.digest, one])).values()) {
    const diffID = layer.annotations?.[ANNOTATION_UNCOMPRESSED] ?? (await findDiffId(layer));
    if (diffID === undefined) continue;
    const created = layer.annotations?.[ANNOTATION_CREATED_AT];
    described.set(layer.digest, {
      mediaType: toOciLayerType(layer.mediaType),
      diffID,
      size: layer.size,
      createdAt: created === undefined ? ZERO_TIME : utcTime(created, layer.digest),
    });
  }
  const annotated = {
    ...config,
    layers: config.layers.map(({ blob, parent }) => ({
      blob,
      parent,
      annotations: described.get(blob),
    })),
  };
  const dropped = new Set(
    annotated.layers.filter(({ annotations }) => !annotations).map(({ blob }) => blob),
  );
  const sound = dropped.size === 0 ? annotated : withoutLayers(annotated);
  return { bytes: encodeCacheConfig(sound), dropped: [...dropped] };
}

/** The diffID of a layer that is stored as it is unpacked. */
export function plainDiffId({ mediaType, digest }: Descriptor): Digest | undefined {
  return layerCompression(mediaType) === "uncompressed" ? digest : undefined;
}

/** Tells whether descriptors say the same of the same layers, in either form of media types. */
export function isSameLayers(a: readonly Descriptor[], b: readonly Descriptor[]): boolean {
  const text = (layers: readonly Descriptor[]): string =>
    JSON.stringify(
      layers.map(({ mediaType, digest, size, annotations = {} }) => [
        toOciLayerType(mediaType),
        digest,
        size,
        Object.entries(annotations).toSorted(),
      ]),
    );
  return text(a) === text(b);
}

/** Leaves out the layers without annotations, what stands on them, and the results that need them. */
function withoutLayers({ layers, records, ...rest }: CacheConfig): CacheConfig {
  const keeps = layers.map((_, index) => isWhole(layers, index));
  const places: number[] = [];
  let next = 0;
  for (const kept of keeps) places.push(kept ? next++ : -1);
  const place = (index: number): number => (index === -1 ? -1 : (places[index] as number));
  return {
    ...rest,
    layers: layers
      .filter((_, index) => keeps[index])
      .map((layer) => ({ ...layer, parent: place(layer.parent) })),
    records: records.map((record) => ({
      ...record,
      results: record.results
        .filter(({ layer }) => keeps[layer])
        .map((result) => ({ ...result, layer: place(result.layer) })),
      chains: record.chains
        .filter((chain) => chain.layers.every((layer) => keeps[layer]))
        .map((chain) => ({ ...chain, layers: chain.layers.map(place) })),
    })),
  };
}

/** Tells whether a layer and all below it are described; a loop is not. */
function isWhole(layers: readonly CacheLayer[], start: number): boolean {
  let steps = 0;
  for (let at = start; at !== -1; at = (layers[at] as CacheLayer).parent) {
    if (!layers[at]?.annotations || steps++ > layers.length) return false;
  }
  return true;
}

/**
 * A time in UTC as Go writes it: nanoseconds kept, zeros at the end left out.
 *
 * @throws {CacheportError} CACHE_INVALID
 */
function utcTime(text: string, digest: Digest): string {
  const [, seconds, fraction = "", zone] =
    /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:[.,](\d+))?(Z|[+-]\d\d:\d\d)$/.exec(text) ?? [];
  const time = new Date(`${seconds}${zone}`);
  const utc = Number.isNaN(time.getTime()) ? "" : time.toISOString().slice(0, 19);
  if (!/^\d{4}-/.test(utc)) {
    throw new CacheportError(
      "CACHE_INVALID",
      `Cannot use layer "${digest}": its ${ANNOTATION_CREATED_AT} ${JSON.stringify(text.slice(0, 100))} is no time`,
      { hint: "BuildKit's own export would fail as well; export the cache again" },
    );
  }
  const digits = fraction.slice(0, 9).replace(/0+$/, "");
  return `${utc}${digits && `.${digits}`}Z`;
}
