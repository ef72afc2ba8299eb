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
import type { CacheConfig, CacheInput, CacheLayer, CacheRecord } from "./cache-types.ts";
import { GoJsonWriter, parseJson } from "./go-json.ts";

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
  const { layers } = config;
  const records = withJoining(config);
  return GoJsonWriter.encode((json) => {
    let before = "{";
    for (const layer of layers) {
      json.raw(before === "{" ? '{"layers":[' : before);
      writeLayer(json, layer);
      before = ",";
    }
    // Go leaves an empty list out.
    if (layers.length > 0) json.raw("]");
    let opening = layers.length > 0 ? ',"records":[' : '{"records":[';
    for (const record of records) {
      json.raw(opening);
      writeRecord(json, record);
      opening = ",";
    }
    if (records.length > 0) json.raw("]");
    json.raw(layers.length + records.length > 0 ? "}" : "{}");
  });
}

function writeLayer(json: GoJsonWriter, { blob, parent, annotations }: CacheLayer): void {
  json.raw('{"blob":');
  json.text(blob);
  if (parent !== 0) writeNumber(json, ',"parent":', parent);
  if (annotations) {
    const { mediaType, diffID, size, createdAt } = annotations;
    json.raw(',"annotations":{');
    if (mediaType) writeText(json, '"mediaType":', mediaType, ",");
    if (diffID) writeText(json, '"diffID":', diffID, ",");
    if (size) writeNumber(json, '"size":', size, ",");
    writeText(json, '"createdAt":', createdAt, "}");
  }
  json.raw("}");
}

function writeRecord(json: GoJsonWriter, { results, chains, digest, inputs }: CacheRecord): void {
  // Loops and no functions: of a large cache each record counts.
  let before = "{";
  if (results.length > 0) {
    before = '{"layers":[{"layer":';
    for (const { layer, createdAt } of results) {
      writeNumber(json, before, layer, ',"createdAt":');
      json.text(createdAt);
      before = '},{"layer":';
    }
    json.raw("}]");
    before = ",";
  }
  if (chains.length > 0) {
    json.raw(before);
    before = '"chains":[{"layers":[';
    for (const { layers, createdAt } of chains) {
      json.raw(before);
      for (let at = 0; at < layers.length; at++)
        writeNumber(json, at > 0 ? "," : "", layers[at] as number);
      writeText(json, '],"createdAt":', createdAt);
      before = '},{"layers":[';
    }
    json.raw("}]");
    before = ",";
  }
  if (digest) {
    json.raw(before);
    writeText(json, '"digest":', digest);
    before = ",";
  }
  if (inputs.length > 0) {
    json.raw(before);
    before = '"inputs":[[';
    for (const alternatives of inputs) {
      json.raw(before);
      writeAlternatives(json, alternatives);
      before = "],[";
    }
    json.raw("]]");
    before = ",";
  }
  json.raw(before === "{" ? "{}" : "}");
}

function writeAlternatives(json: GoJsonWriter, alternatives: readonly CacheInput[]): void {
  for (let at = 0; at < alternatives.length; at++) {
    const { selector, link } = alternatives[at] as CacheInput;
    json.raw(at > 0 ? ",{" : "{");
    if (selector) writeText(json, '"selector":', selector, ",");
    writeNumber(json, '"link":', link, "}");
  }
}

function writeText(json: GoJsonWriter, before: string, text: string, after = ""): void {
  json.raw(before);
  json.text(text);
  json.raw(after);
}

function writeNumber(json: GoJsonWriter, before: string, value: number, after = ""): void {
  json.raw(before);
  json.number(value);
  json.raw(after);
}
