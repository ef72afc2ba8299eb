/**
 * Reads a cache config that is spelled the way BuildKit spells it, straight from its bytes:
 * a cache of some years has a hundred thousand links, and neither a tree of them nor their
 * check by a schema is needed first. It takes nothing that the schema does not take, and
 * makes the same of it.
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
import type { Digest } from "./digest.ts";

/**
 * Reads a cache config.
 *
 * @param isTime Tells whether a text is a time.
 * @returns Undefined for what is spelled in any other way or is no cache config;
 *   the schema tells which.
 */
export function readPlainConfig(
  bytes: Uint8Array,
  isTime: (text: string) => boolean,
): CacheConfig | undefined {
  if (!isPlainText(bytes)) return undefined;
  try {
    return new ConfigReader(bytes, isTime).read();
  } catch (error) {
    if (error === OTHER) return undefined;
    throw error;
  }
}

/** Is thrown where something is spelled in another way. */
const OTHER = Symbol("other");

const QUOTE = 0x22;
const COMMA = 0x2c;
const MINUS = 0x2d;
const ZERO = 0x30;
const NINE = 0x39;
const COLON = 0x3a;
const OPEN_LIST = 0x5b;
const BACKSLASH = 0x5c;
const CLOSE_LIST = 0x5d;
const OPEN_OBJECT = 0x7b;
const CLOSE_OBJECT = 0x7d;

/** Printable ASCII alone, without an escape. */
function isPlainText(bytes: Uint8Array): boolean {
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at] as number;
    if (byte < 0x20 || byte > 0x7e || byte === BACKSLASH) return false;
  }
  return true;
}

class ConfigReader {
  readonly #bytes: Buffer;
  readonly #isTime: (text: string) => boolean;
  /** Texts that come again and again: blobs and selectors. */
  readonly #known = new Map<string, string>();
  #at = 0;

  constructor(bytes: Uint8Array, isTime: (text: string) => boolean) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#isTime = isTime;
  }

  read(): CacheConfig {
    const config: CacheConfig = { layers: [], records: [] };
    this.#fields((name) => {
      if (name === "layers") config.layers = this.#list(() => this.#layer());
      else if (name === "records") config.records = this.#list(() => this.#record());
      else throw OTHER;
    });
    if (this.#at !== this.#bytes.length) throw OTHER;
    return config;
  }

  #layer(): CacheLayer {
    let blob: string | undefined;
    let parent = 0;
    this.#fields((name) => {
      // Annotations, which are for object stores, are left to the schema.
      if (name === "blob") blob = this.#again(this.#text());
      else if (name === "parent") parent = this.#number();
      else throw OTHER;
    });
    if (!isDigest(blob)) throw OTHER;
    return { blob: blob as Digest, parent };
  }

  #record(): CacheRecord {
    let results: CacheResult[] = [];
    let chains: ChainedResult[] = [];
    let digest = "";
    let inputs: CacheInput[][] = [];
    this.#fields((name) => {
      if (name === "layers") results = this.#list(() => this.#result());
      else if (name === "chains") chains = this.#list(() => this.#chain());
      else if (name === "digest") digest = this.#text();
      else if (name === "inputs") inputs = this.#list(() => this.#list(() => this.#input()));
      else throw OTHER;
    });
    return { results, chains, digest, inputs };
  }

  #result(): CacheResult {
    let layer = 0;
    let createdAt: string | undefined;
    this.#fields((name) => {
      if (name === "layer") layer = this.#number();
      else if (name === "createdAt") createdAt = this.#text();
      else throw OTHER;
    });
    return { layer, createdAt: this.#time(createdAt) };
  }

  #chain(): ChainedResult {
    let layers: number[] = [];
    let createdAt: string | undefined;
    this.#fields((name) => {
      if (name === "layers") layers = this.#list(() => this.#number());
      else if (name === "createdAt") createdAt = this.#text();
      else throw OTHER;
    });
    return { layers, createdAt: this.#time(createdAt) };
  }

  #input(): CacheInput {
    let selector = "";
    let link = 0;
    this.#fields((name) => {
      if (name === "selector") selector = this.#again(this.#text());
      else if (name === "link") link = this.#number();
      else throw OTHER;
    });
    return { selector, link };
  }

  #time(text: string | undefined): string {
    if (text === undefined || !this.#isTime(text)) throw OTHER;
    return text;
  }

  /** One string for all that are the same. */
  #again(text: string): string {
    const known = this.#known.get(text);
    if (known !== undefined) return known;
    this.#known.set(text, text);
    return text;
  }

  /** Reads an object, each of its fields once. */
  #fields(read: (name: string) => void): void {
    this.#expect(OPEN_OBJECT);
    if (this.#skip(CLOSE_OBJECT)) return;
    let seen = "";
    do {
      const name = this.#text();
      // Of a field that stands there twice the last one counts, as everywhere in JSON.
      if (seen.includes(`${name},`)) throw OTHER;
      seen += `${name},`;
      this.#expect(COLON);
      read(name);
    } while (this.#skip(COMMA));
    this.#expect(CLOSE_OBJECT);
  }

  #list<T>(read: () => T): T[] {
    const items: T[] = [];
    this.#expect(OPEN_LIST);
    if (this.#skip(CLOSE_LIST)) return items;
    do items.push(read());
    while (this.#skip(COMMA));
    this.#expect(CLOSE_LIST);
    return items;
  }

  #text(): string {
    this.#expect(QUOTE);
    const end = this.#bytes.indexOf(QUOTE, this.#at);
    if (end === -1) throw OTHER;
    const text = this.#bytes.toString("latin1", this.#at, end);
    this.#at = end + 1;
    return text;
  }

  #number(): number {
    const isNegative = this.#skip(MINUS);
    const start = this.#at;
    let value = 0;
    for (;;) {
      const digit = this.#bytes[this.#at] as number;
      if (!(digit >= ZERO && digit <= NINE)) break;
      value = value * 10 + digit - ZERO;
      this.#at++;
    }
    const length = this.#at - start;
    const isPadded = length > 1 && this.#bytes[start] === ZERO;
    if (length === 0 || length > 15 || isPadded || (isNegative && value === 0)) throw OTHER;
    return isNegative ? -value : value;
  }

  #expect(byte: number): void {
    if (this.#bytes[this.#at++] !== byte) throw OTHER;
  }

  #skip(byte: number): boolean {
    if (this.#bytes[this.#at] !== byte) return false;
    this.#at++;
    return true;
  }
}
