/**
 * The cache config as values: layers, records, and the links between them.
 *
 * Source: BuildKit cache/remotecache/v1/types/spec.go.
 */
import type { Digest } from "./digest.ts";

/** A cache config: layers that records refer to by their position. */
export interface CacheConfig {
  layers: CacheLayer[];
  records: CacheRecord[];
  /**
   * Positions of the records that a joining record has as its inputs; absent without
   * one. The joining record itself is none of `records` (see cache-joining.ts), and it
   * is written again where these are kept.
   */
  joined?: number[] | undefined;
}

/** One layer in one place of a chain; a blob may stand in several places. */
export interface CacheLayer {
  /** The blob as it is stored, compressed. */
  blob: Digest;
  /** Position of the layer below, -1 for none. In JSON a missing `parent` means 0. */
  parent: number;
  /** Written by object-store caches only. */
  annotations?: LayerAnnotations | undefined;
}

/** What an object-store cache says of a layer, since it has no manifest that could. */
export interface LayerAnnotations {
  mediaType?: string | undefined;
  diffID?: string | undefined;
  /** Bytes, compressed. */
  size?: number | undefined;
  /** Go's RFC 3339 text, kept as it is. */
  createdAt: string;
}

/** A cache key and the results that are known for it. */
export interface CacheRecord {
  /** JSON `layers`: each result is a layer together with all layers below it. */
  results: CacheResult[];
  /** JSON `chains`: each result is a list of layers, without their parents. */
  chains: ChainedResult[];
  /** A digest; session-unique keys start with `random:`. */
  digest: string;
  /** One list of alternatives for each input of the step. */
  inputs: CacheInput[][];
}

/** A result that is a layer with all its parents. */
export interface CacheResult {
  /** Position in the config's layers. */
  layer: number;
  /** Go's RFC 3339 text with up to 9 digits of a second, kept as it is. */
  createdAt: string;
}

/** A result that lists its layers one by one. */
export interface ChainedResult {
  /** Positions in the config's layers, bottom first. */
  layers: number[];
  createdAt: string;
}

/** A record that an input of a step may come from. */
export interface CacheInput {
  /** Narrows the input, for example to a path; empty for none. */
  selector: string;
  /** Position in the config's records. */
  link: number;
}
