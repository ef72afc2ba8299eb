/**
 * Reads a cache config that is spelled the way BuildKit spells it, at a tenth of
 * what checking it with a schema costs: a cache of some years has a hundred thousand
 * links. It takes nothing that the schema does not take, and makes the same of it.
 */
import type {
  CacheConfig,
  CacheInput,
  CacheLayer,
  CacheRecord,
  CacheResult,
  ChainedResult,
} from "./cache-types.ts";
import { isDigest } from "./digest.ts";

/**
 * Reads a parsed cache config.
 *
 * @param isTime Tells whether a text is a time.
 * @returns Undefined for what is spelled in any other way or is no cache config;
 *   the schema tells which.
 */
export function readPlainConfig(
  value: unknown,
  isTime: (text: string) => boolean,
): CacheConfig | undefined {
  const fields = fieldsOf(value, ["layers", "records"]);
  const layers = fields && listOf(fields["layers"], readLayer);
  const records = layers && listOf(fields["records"], (item) => readRecord(item, isTime));
  return records && { layers, records };
}

type Fields = Record<string, unknown>;

/** The object itself if it has no other fields than these, in this very spelling. */
function fieldsOf(value: unknown, names: readonly string[]): Fields | undefined {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return undefined;
  for (const key in value) if (!names.includes(key)) return undefined;
  return value as Fields;
}

/** A list in which every item can be read. */
function listOf<T>(value: unknown, read: (item: unknown) => T | undefined): T[] | undefined {
  if (value === undefined) return [];
  if (!Array.isArray(value)) return undefined;
  const items: T[] = [];
  for (const each of value) {
    const item = read(each);
    if (item === undefined) return undefined;
    items.push(item);
  }
  return items;
}

function readPosition(value: unknown): number | undefined {
  return Number.isSafeInteger(value) ? (value as number) : undefined;
}

function readLayer(value: unknown): CacheLayer | undefined {
  // Annotations, which are for object stores, are left to the schema.
  const fields = fieldsOf(value, ["blob", "parent"]);
  const { blob, parent = 0 } = fields ?? {};
  if (!isDigest(blob) || !Number.isSafeInteger(parent)) return undefined;
  return { blob, parent: parent as number };
}

function readRecord(value: unknown, isTime: (text: string) => boolean): CacheRecord | undefined {
  const fields = fieldsOf(value, ["layers", "chains", "digest", "inputs"]);
  const { digest = "" } = fields ?? {};
  if (!fields || typeof digest !== "string") return undefined;
  const results = listOf(fields["layers"], (item) => readResult(item, isTime));
  const chains = listOf(fields["chains"], (item) => readChain(item, isTime));
  const inputs = listOf(fields["inputs"], readAlternatives);
  return results && chains && inputs && { results, chains, digest, inputs };
}

function readResult(value: unknown, isTime: (text: string) => boolean): CacheResult | undefined {
  const fields = fieldsOf(value, ["layer", "createdAt"]);
  const { layer = 0, createdAt } = fields ?? {};
  if (typeof createdAt !== "string" || !isTime(createdAt)) return undefined;
  if (!Number.isSafeInteger(layer)) return undefined;
  return { layer: layer as number, createdAt };
}

function readChain(value: unknown, isTime: (text: string) => boolean): ChainedResult | undefined {
  const fields = fieldsOf(value, ["layers", "createdAt"]);
  const { createdAt } = fields ?? {};
  if (typeof createdAt !== "string" || !isTime(createdAt)) return undefined;
  const layers = listOf(fields?.["layers"], readPosition);
  return layers && { layers, createdAt };
}

function readAlternatives(value: unknown): CacheInput[] | undefined {
  return value === undefined ? undefined : listOf(value, readInput);
}

function readInput(value: unknown): CacheInput | undefined {
  const fields = fieldsOf(value, ["selector", "link"]);
  const { selector = "", link = 0 } = fields ?? {};
  if (!fields || typeof selector !== "string" || !Number.isSafeInteger(link)) return undefined;
  return { selector, link: link as number };
}
