/**
 * A cache as plain graph data: records, the links between them, and the layers that
 * their results stand on. What is drawn, shown and counted is made from this.
 *
 * Positions that lead nowhere are left out; {@link checkCacheConfig} reports them.
 */
import { layerDepths } from "./cache-check.ts";
import type { CacheConfig } from "./cache-types.ts";
import type { Descriptor, Platform } from "./descriptor.ts";
import type { Digest } from "./digest.ts";
import { ANNOTATION_CREATED_AT, ANNOTATION_UNCOMPRESSED } from "./media-types.ts";

/** A layer in one place of a cache's chains. */
export interface PlacedLayer {
  digest: Digest;
  /** Bytes as stored; null when the manifest does not list the blob. */
  size: number | null;
  mediaType: string | null;
  /** Digest of the uncompressed layer. */
  diffId: string | null;
  /** RFC 3339, as BuildKit wrote it. */
  createdAt: string | null;
  /** Position of the layer below in the same list; null for none. */
  parent: number | null;
  /** How many layers lie below. */
  depth: number;
  /** How many results have this layer on top. */
  records: number;
  /** What the records with results on this layer are, where it is known. */
  names?: string[];
  /** What is in it, where it was read: the folder that holds nearly all of its files. */
  contents?: { path: string; files: number };
}

/** A layer of a graph. */
export interface GraphLayer extends PlacedLayer {
  /** Position in the graph's caches. */
  cache: number;
}

/** A result of a record. */
export interface GraphResult {
  /** Position of its top layer in the graph's layers. */
  layer: number;
  /** For a result that lists its layers itself: all of them, bottom first. */
  chain?: number[];
  /** RFC 3339, as BuildKit wrote it. */
  createdAt: string;
}

/** A cache key. */
export interface GraphRecord {
  /** Position in the graph's caches. */
  cache: number;
  digest: string;
  results: GraphResult[];
  /** What the record is, where it is known: `RUN npm ci (Dockerfile:12)`. */
  name?: string;
}

/** The step of one record takes the result of another one as its input. */
export interface GraphLink {
  /** Position of the record whose result is taken. */
  from: number;
  /** Position of the record that takes it. */
  to: number;
  /** Which input of the step it is, from 0; the links of one input are alternatives. */
  input: number;
  /** Narrows the input, for example to a path; empty for none. */
  selector: string;
}

/** One of the caches of a graph: there are several in an index of caches. */
export interface GraphCache {
  shape: string;
  /** Digest of its manifest. */
  digest: Digest;
  /** Digest of its cache config. */
  config: Digest;
  platform: Platform | null;
}

/** The graph of one cache, or of the caches of an index. */
export interface CacheGraph {
  caches: GraphCache[];
  layers: GraphLayer[];
  records: GraphRecord[];
  links: GraphLink[];
}

/** What a graph is made from. */
export interface GraphSource {
  shape: string;
  manifest: Descriptor;
  config: CacheConfig;
  blob: { descriptor: Descriptor };
  /** The blobs that the manifest lists. */
  layers: readonly Descriptor[];
  platform: Platform | undefined;
}

/** Makes the graph of caches, in the order of their own lists. */
export function cacheGraph(sources: readonly GraphSource[]): CacheGraph {
  const graph: CacheGraph = { caches: [], layers: [], records: [], links: [] };
  for (const source of sources) addCache(graph, source);
  return graph;
}

/** The position of each cache's first record in a graph. */
export function firstRecords({ caches, records }: CacheGraph): number[] {
  return caches.map((_, cache) => records.findIndex((record) => record.cache === cache));
}

function addCache(graph: CacheGraph, source: GraphSource): void {
  const { records, layers } = source.config;
  const cache = graph.caches.length;
  const firstLayer = graph.layers.length;
  const firstRecord = graph.records.length;
  graph.caches.push({
    shape: source.shape,
    digest: source.manifest.digest,
    config: source.blob.descriptor.digest,
    platform: source.platform ?? null,
  });
  for (const layer of placeLayers(source.config, source.layers)) {
    const parent = layer.parent === null ? null : firstLayer + layer.parent;
    graph.layers.push({ ...layer, cache, parent });
  }
  const isLayer = (at: number): boolean => layers[at] !== undefined;
  for (const { digest, results, chains } of records) {
    const placed = results
      .filter(({ layer }) => isLayer(layer))
      .map(({ layer, createdAt }): GraphResult => ({
        layer: firstLayer + layer,
        createdAt,
      }));
    for (const chain of chains) {
      const places = chain.layers.filter(isLayer).map((at) => firstLayer + at);
      const layer = places.at(-1);
      if (layer === undefined) continue;
      placed.push({ layer, chain: places, createdAt: chain.createdAt });
    }
    graph.records.push({ cache, digest, results: placed });
  }
  records.forEach(({ inputs }, index) => {
    const to = firstRecord + index;
    inputs.forEach((alternatives, input) => {
      for (const { selector, link } of alternatives)
        if (records[link]) graph.links.push({ from: firstRecord + link, to, input, selector });
    });
  });
}

/**
 * Describes the layers of a cache config, one for each place, with what the
 * manifest, or else the config itself, says of their blobs.
 *
 * @param blobs The blobs that the manifest lists.
 */
export function placeLayers(config: CacheConfig, blobs: readonly Descriptor[]): PlacedLayer[] {
  const descriptors = new Map(blobs.map((blob) => [blob.digest, blob]));
  const depths = layerDepths(config);
  const placed = config.layers.map(({ blob, parent, annotations }, position): PlacedLayer => {
    const descriptor = descriptors.get(blob);
    const depth = depths[position] ?? 0;
    return {
      digest: blob,
      size: descriptor?.size ?? annotations?.size ?? null,
      mediaType: descriptor?.mediaType ?? annotations?.mediaType ?? null,
      diffId: descriptor?.annotations?.[ANNOTATION_UNCOMPRESSED] ?? annotations?.diffID ?? null,
      createdAt: descriptor?.annotations?.[ANNOTATION_CREATED_AT] ?? annotations?.createdAt ?? null,
      // A parent that cannot be followed has counted as none.
      parent: depth === 0 ? null : parent,
      depth,
      records: 0,
    };
  });
  const count = (top: number | undefined): void => {
    const layer = top === undefined ? undefined : placed[top];
    if (layer) layer.records++;
  };
  for (const { results, chains } of config.records) {
    for (const { layer } of results) count(layer);
    for (const { layers } of chains) count(layers.at(-1));
  }
  return placed;
}
