/**
 * JSON as Go's encoding/json reads and writes it. BuildKit's documents are known
 * by the digest of their bytes, so what cacheport writes must be Go's text.
 *
 * Source: the Go standard library, encoding/json (HTML escaping on, map keys in
 * byte order, field names matched without regard to case).
 */
import { CacheportError } from "./errors.ts";

/** A JSON object as it was parsed. */
export type JsonObject = { [key: string]: unknown };

const ESCAPES: Record<string, string> = {
  "<": "\\u003c",
  ">": "\\u003e",
  "&": "\\u0026",
  "\u2028": "\\u2028",
  "\u2029": "\\u2029",
};

/**
 * Encodes a value as compact Go JSON. Properties keep their order and undefined
 * ones are left out; sort annotations with {@link sortedMap} first.
 *
 * @example
 * encodeGoJson({ a: "<b>" }); // {"a":"\u003cb\u003e"} in UTF-8
 */
export function encodeGoJson(value: unknown): Uint8Array {
  const text = JSON.stringify(value);
  // A lone surrogate, which JavaScript escapes and Go replaces; seldom, and so worth
  // a second run.
  const sound = LONE_SURROGATE.test(text)
    ? JSON.stringify(value, (_key, item) => (typeof item === "string" ? item.toWellFormed() : item))
    : text;
  return new TextEncoder().encode(
    sound.replace(/[<>&\u2028\u2029]/g, (character) => ESCAPES[character] as string),
  );
}

const LONE_SURROGATE = /\\ud[89a-f]/;

const utf8 = new TextEncoder();

/** Compares two texts by their UTF-8 bytes, as Go compares strings. */
export function compareBytes(a: string, b: string): number {
  if (a === b) return 0;
  const length = Math.min(a.length, b.length);
  let at = 0;
  while (at < length && a.charCodeAt(at) === b.charCodeAt(at)) at++;
  if (at === length) return a.length < b.length ? -1 : 1;
  const difference = a.charCodeAt(at) - b.charCodeAt(at);
  // UTF-16 and UTF-8 order differ only where a surrogate meets a character above it.
  if (a.charCodeAt(at) < 0xd800 && b.charCodeAt(at) < 0xd800) return difference < 0 ? -1 : 1;
  return Buffer.compare(utf8.encode(a), utf8.encode(b));
}

/** A copy of a string map with its keys in byte order; undefined for an empty one. */
export function sortedMap(
  map: Readonly<Record<string, string>> | undefined,
): Record<string, string> | undefined {
  if (!map) return undefined;
  const keys = Object.keys(map).toSorted(compareBytes);
  return keys.length === 0
    ? undefined
    : Object.fromEntries(keys.map((key) => [key, map[key] as string]));
}

const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

/**
 * Parses JSON text.
 *
 * @param what What the bytes are, for the message: `manifest "sha256:..."`.
 * @throws {CacheportError} DOCUMENT_INVALID
 */
export function parseJson(bytes: Uint8Array, what: string): unknown {
  try {
    return JSON.parse(decoder.decode(bytes));
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message.replace(/^JSON Parse error: /, "") : "";
    throw new CacheportError(
      "DOCUMENT_INVALID",
      `Cannot read ${what}: it is not valid JSON (${reason})`,
      { cause },
    );
  }
}

/** Tells whether a parsed value is a JSON object (no array, no null). */
export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Folds a key as Go does when it matches field names: ASCII case, long s and Kelvin sign. */
function foldKey(key: string): string {
  return key.replaceAll("\u017f", "s").replaceAll("\u212a", "k").toLowerCase();
}

/**
 * Gives an object's fields the names that Go would have matched them with; other
 * fields are left out. The last of several matches wins.
 *
 * @param fields The names as the Go struct spells them.
 */
export function goFields(object: JsonObject, fields: readonly string[]): JsonObject {
  return goFieldFinder(fields)(object);
}

/** {@link goFields} for many objects of one kind. */
export function goFieldFinder(fields: readonly string[]): (object: JsonObject) => JsonObject {
  const names = new Map(
    fields.flatMap((field) => [
      [field, field],
      [foldKey(field), field],
    ]),
  );
  return (object) => {
    const found: JsonObject = {};
    for (const key of Object.keys(object)) {
      const field = names.get(key) ?? names.get(foldKey(key));
      if (field !== undefined) found[field] = object[key];
    }
    return found;
  };
}
