/**
 * The cache config: the JSON document in which BuildKit keeps a cache's graph of
 * records and the table of layers that their results stand in.
 *
 * Source: BuildKit cache/remotecache/v1/types/spec.go, parse.go, chains.go.
 */
import * as v from "valibot";
import { readPlainConfig } from "./cache-config-plain.ts";
import { DigestSchema } from "./descriptor.ts";
import type { Digest } from "./digest.ts";
import { checkSchema, goStruct } from "./documents.ts";
import { encodeGoJson, parseJson } from "./go-json.ts";

/** A cache config: layers that records refer to by their position. */
export interface CacheConfig {
  layers: CacheLayer[];
  records: CacheRecord[];
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

/** Go's zero time, which stands where no time is known. */
export const ZERO_TIME = "0001-01-01T00:00:00Z";

const list = <T extends v.GenericSchema>(item: T) =>
  v.nullish(v.array(item), []);
const text = v.nullish(v.string(), "");
const position = v.nullish(v.pipe(v.number(), v.safeInteger()), 0);
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)$/;
const time = v.pipe(
  v.nullish(v.string(), ZERO_TIME),
  v.regex(TIME, "Invalid time: Expected RFC 3339"),
);

const LayerAnnotationsSchema = goStruct({
  mediaType: v.nullish(v.string()),
  diffID: v.nullish(v.string()),
  size: v.nullish(v.pipe(v.number(), v.safeInteger())),
  createdAt: time,
});

const CacheLayerSchema = goStruct({
  blob: DigestSchema,
  parent: position,
  annotations: v.nullish(LayerAnnotationsSchema),
});

const CacheRecordSchema = v.pipe(
  goStruct({
    layers: list(goStruct({ layer: position, createdAt: time })),
    chains: list(goStruct({ layers: list(position), createdAt: time })),
    digest: text,
    inputs: list(v.pipe(list(goStruct({ selector: text, link: position })))),
  }),
  v.transform(({ layers, chains, digest, inputs }): CacheRecord => ({
    results: layers,
    chains,
    digest,
    inputs,
  })),
);

const CacheConfigSchema = goStruct({
  layers: list(CacheLayerSchema),
  records: list(CacheRecordSchema),
});

const RecordListSchema = list(CacheRecordSchema);

/**
 * Parses a cache config. Field names match without regard to case, as in Go. The
 * positions are not checked: see {@link checkCacheConfig}.
 *
 * @throws {CacheportError} DOCUMENT_INVALID
 */
export function parseCacheConfig(bytes: Uint8Array, what: string): CacheConfig {
  const value = parseJson(bytes, what);
  return (
    readPlainConfig(value, (text) => TIME.test(text)) ??
    (checkSchema(CacheConfigSchema, value, what) as CacheConfig)
  );
}

/**
 * Parses the bare array of records that an inline cache holds.
 *
 * @throws {CacheportError} DOCUMENT_INVALID
 */
export function parseCacheRecords(
  bytes: Uint8Array,
  what: string,
): CacheRecord[] {
  return checkSchema(
    RecordListSchema,
    parseJson(bytes, what),
    what,
  ) as CacheRecord[];
}

/** Encodes a cache config as BuildKit would: `parent` 0 is left out, -1 is written. */
export function encodeCacheConfig(config: CacheConfig): Uint8Array {
  return encodeGoJson({
    layers: someOf(config.layers.map(orderLayer)),
    records: someOf(config.records.map(orderRecord)),
  });
}

/** Go leaves an empty list out. */
function someOf<T>(items: T[]): T[] | undefined {
  return items.length > 0 ? items : undefined;
}

function orderLayer({ blob, parent, annotations }: CacheLayer): object {
  return {
    blob,
    parent: parent === 0 ? undefined : parent,
    annotations: annotations && {
      mediaType: annotations.mediaType || undefined,
      diffID: annotations.diffID || undefined,
      size: annotations.size || undefined,
      createdAt: annotations.createdAt,
    },
  };
}

function orderRecord(record: CacheRecord): object {
  return {
    layers: someOf(
      record.results.map(({ layer, createdAt }) => ({ layer, createdAt })),
    ),
    chains: someOf(
      record.chains.map(({ layers, createdAt }) => ({ layers, createdAt })),
    ),
    digest: record.digest || undefined,
    inputs: someOf(
      record.inputs.map((input) =>
        input.map(({ selector, link }) => ({
          selector: selector || undefined,
          link,
        })),
      ),
    ),
  };
}
