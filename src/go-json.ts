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
  // JavaScript puts keys that are whole numbers first, in the order of the numbers. Only a
  // map has such keys, and Go writes the keys of a map in the order of their bytes.
  const ordered = NUMBER_KEY.test(sound) ? rewriteJson(sound, { sortMaps: true }) : sound;
  return utf8.encode(escapeAsGo(ordered));
}

/** For each character up to this one, whether it stands in the text of Go JSON as it is. */
const ASCII = 128;
const PLAIN = Uint8Array.from({ length: ASCII }, (_, code) => {
  return code >= 0x20 && code < 0x7f && !'"\\<>&'.includes(String.fromCharCode(code)) ? 1 : 0;
});

function isPlain(text: string): boolean {
  for (let at = 0; at < text.length; at++) if (PLAIN[text.charCodeAt(at)] !== 1) return false;
  return true;
}

/**
 * Writes Go JSON straight into its bytes. Of a large cache config neither the whole text nor
 * the objects that {@link encodeGoJson} wants are ever there.
 */
export class GoJsonWriter {
  /** Undefined while bytes are counted. */
  #bytes: Uint8Array | undefined;
  #length = 0;

  /**
   * Encodes what a function writes.
   *
   * @param write Is called twice with the same to write: the first time bytes are counted.
   */
  static encode(write: (json: GoJsonWriter) => void): Uint8Array {
    const json = new GoJsonWriter();
    write(json);
    json.#bytes = new Uint8Array(json.#length);
    json.#length = 0;
    write(json);
    return json.#bytes;
  }

  /** Adds what is Go JSON already, all of it ASCII. */
  raw(json: string): void {
    const bytes = this.#bytes;
    const start = this.#length;
    this.#length += json.length;
    if (!bytes) return;
    // A call of the runtime for each of a million short texts takes longer.
    for (let at = 0; at < json.length; at++) bytes[start + at] = json.charCodeAt(at);
  }

  /** Adds a text in quotes. */
  text(text: string): void {
    if (!isPlain(text)) return this.#add(encodeGoJson(text));
    this.raw('"');
    this.raw(text);
    this.raw('"');
  }

  /** Adds a whole number. */
  number(value: number): void {
    // One digit at a time: a text for each of a hundred thousand links is garbage.
    if (value < 0) this.raw("-");
    let rest = Math.abs(value);
    let digits = 1;
    for (let limit = 10; rest >= limit; limit *= 10) digits++;
    this.#length += digits;
    if (!this.#bytes) return;
    for (let at = this.#length - 1; digits > 0; digits--, at--) {
      this.#bytes[at] = 0x30 + (rest % 10);
      rest = Math.floor(rest / 10);
    }
  }

  #add(bytes: Uint8Array): void {
    this.#bytes?.set(bytes, this.#length);
    this.#length += bytes.length;
  }
}

function escapeAsGo(text: string): string {
  return text.replace(/[<>&\u2028\u2029]/g, (character) => ESCAPES[character] as string);
}

/** A key that is a whole number, in compact JSON. */
const NUMBER_KEY = /[{,]"(?:0|[1-9]\d*)":/;

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

/**
 * What JavaScript does not keep of JSON text: the place of keys that are whole numbers,
 * and digits of numbers that are written out or have more of them than fit.
 */
const LOSSY =
  /[{,]\s*"\d+"\s*:|[:,[]\s*-?(?:\d{16,}|\d+(?:\.\d+)?[eE][-+]?\d+|\d+\.\d+)\s*[,}\]]|-0\s*[,}\]]/;

/** Tells whether JSON text, which is known to be valid, may lose something as a value. */
export function isLossy(text: string): boolean {
  return LOSSY.test(text);
}

/** The text of JSON in bytes. */
export function jsonTextOf(bytes: Uint8Array): string {
  return decoder.decode(bytes);
}

/** The tokens of JSON text that is known to be valid; white space is left out. */
const TOKEN = /"[^"\\]*(?:\\.[^"\\]*)*"|[{}[\],:]|[^\s"{}[\],:]+/gs;

/** An object or a list that is being read. */
interface Frame {
  readonly isObject: boolean;
  /** The items that are complete; for an object each with its key and the colon. */
  readonly items: string[];
  /** What was read of the item so far. */
  item: string;
}

/**
 * Writes JSON text anew, compact and with Go's escapes, and loses nothing of it: members
 * keep their order, a member that is there twice stays, and a number keeps its digits.
 *
 * @param text Valid JSON.
 * @param options.sortMaps Puts the members of objects that have whole numbers as keys in
 *   the order of their keys' bytes.
 */
export function rewriteJson(text: string, { sortMaps = false } = {}): string {
  // By hand, since a document may be nested deeper than the stack.
  const frames: Frame[] = [{ isObject: false, items: [], item: "" }];
  for (const [token] of text.matchAll(TOKEN)) {
    const frame = frames.at(-1) as Frame;
    if (token === "{" || token === "[") {
      frames.push({ isObject: token === "{", items: [], item: "" });
    } else if (token === "}" || token === "]") {
      if (frame.item !== "") frame.items.push(frame.item);
      if (sortMaps && frame.isObject && frame.items.some((item) => /^"\d+":/.test(item)))
        frame.items.sort((a, b) => compareBytes(memberKey(a), memberKey(b)));
      const whole = frame.items.join(",");
      frames.pop();
      const outer = frames.at(-1) as Frame;
      outer.item += frame.isObject ? `{${whole}}` : `[${whole}]`;
    } else if (token === ",") {
      frame.items.push(frame.item);
      frame.item = "";
    } else {
      frame.item += token.startsWith('"') ? rewriteText(token) : token;
    }
  }
  return frames[0]?.item ?? "";
}

/** A text in quotes with Go's escapes. */
function rewriteText(quoted: string): string {
  const text = JSON.parse(quoted) as string;
  return escapeAsGo(JSON.stringify(text.toWellFormed()));
}

/** The key of an object's member as it stands in compact text. */
function memberKey(member: string): string {
  return JSON.parse(QUOTED.exec(member)?.[0] ?? '""') as string;
}

const QUOTED = /^"[^"\\]*(?:\\.[^"\\]*)*"/s;

/**
 * Takes the text of an object or a list apart.
 *
 * @param text As {@link rewriteJson} writes it.
 * @returns The items, or the members as key and value, each as text.
 */
export function splitJson(text: string): { key: string | undefined; value: string }[] {
  const isObject = text.startsWith("{");
  const found: { key: string | undefined; value: string }[] = [];
  let depth = 0;
  let start = 1;
  const end = (at: number): void => {
    if (at === start) return;
    const item = text.slice(start, at);
    const quoted = isObject ? (QUOTED.exec(item)?.[0] ?? "") : "";
    found.push({
      key: isObject ? (JSON.parse(quoted) as string) : undefined,
      value: isObject ? item.slice(quoted.length + 1) : item,
    });
    start = at + 1;
  };
  for (const { 0: token, index } of text.matchAll(TOKEN)) {
    if (token === "{" || token === "[") depth++;
    else if (token === "}" || token === "]") depth--;
    if ((token === "," && depth === 1) || depth === 0) end(index);
  }
  return found;
}

/** Joins what {@link splitJson} took apart: the members of an object, in their order. */
export function joinObject(members: ReadonlyMap<string, string>): string {
  const texts = [...members].map(([key, value]) => `${rewriteText(JSON.stringify(key))}:${value}`);
  return `{${texts.join(",")}}`;
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
