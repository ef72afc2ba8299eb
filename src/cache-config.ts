/**
 * The cache config: the JSON document in which BuildKit keeps a cache's graph of
 * records and the table of layers that their results stand in.
 *
 * Source: BuildKit cache/remotecache/v1/types/spec.go, parse.go, chains.go.
 */
import * as v from "valibot";
import { takeJoining, withJoining } from "./cache-joining.ts";
import { readPlainConfig } from "./cache-plain.ts";
import { DigestSchema } from "./descriptor.ts";
import { checkSchema, goStruct } from "./documents.ts";
import type { CacheConfig, CacheLayer, CacheRecord } from "./cache-types.ts";
import { encodeGoJson, parseJson } from "./go-json.ts";

/** Go's zero time, which stands where no time is known. */
export const ZERO_TIME = "0001-01-01T00:00:00Z";

const list = <T extends v.GenericSchema>(item: T) => v.nullish(v.array(item), []);
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
 * positions are not checked: see {@link checkCacheConfig}. A joining record is taken
 * out of the records: see {@link CacheConfig.joined}.
 *
 * @throws {CacheportError} DOCUMENT_INVALID
 */
export function parseCacheConfig(bytes: Uint8Array, what: string): CacheConfig {
  return takeJoining(
    readPlainConfig(bytes, (text) => TIME.test(text)) ??
      (checkSchema(CacheConfigSchema, parseJson(bytes, what), what) as CacheConfig),
  );
}

/**
 * Parses the bare array of records that an inline cache holds.
 *
 * @throws {CacheportError} DOCUMENT_INVALID
 */
export function parseCacheRecords(bytes: Uint8Array, what: string): CacheRecord[] {
  return checkSchema(RecordListSchema, parseJson(bytes, what), what) as CacheRecord[];
}

/** Encodes a cache config as BuildKit would: `parent` 0 is left out, -1 is written. */
export function encodeCacheConfig(config: CacheConfig): Uint8Array {
  return encodeGoJson({
    layers: someOf(config.layers.map(orderLayer)),
    records: someOf(withJoining(config).map(orderRecord)),
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
    layers: someOf(record.results.map(({ layer, createdAt }) => ({ layer, createdAt }))),
    chains: someOf(record.chains.map(({ layers, createdAt }) => ({ layers, createdAt }))),
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
