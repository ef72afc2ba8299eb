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
import { fieldNames, PlainReader, readPlain } from "./plain-json.ts";

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
  return readPlain(bytes, (plain) => new ConfigReader(plain, isTime).read());
}

const CONFIG_FIELDS = fieldNames("layers", "records");
// Annotations of layers, which are for object stores, are left to the schema.
const LAYER_FIELDS = fieldNames("blob", "parent");
const RECORD_FIELDS = fieldNames("layers", "chains", "digest", "inputs");
const RESULT_FIELDS = fieldNames("layer", "createdAt");
const CHAIN_FIELDS = fieldNames("layers", "createdAt");
const INPUT_FIELDS = fieldNames("selector", "link");

class ConfigReader extends PlainReader {
  readonly #isTime: (text: string) => boolean;

  constructor(bytes: Uint8Array, isTime: (text: string) => boolean) {
    super(bytes);
    this.#isTime = isTime;
  }

  read(): CacheConfig {
    let layers: CacheLayer[] | undefined;
    let records: CacheRecord[] | undefined;
    let seen = 0;
    for (let field: number; (field = this.field(CONFIG_FIELDS, seen)) !== -1; seen |= 1 << field) {
      if (field === 0) layers = this.list(this.#layer);
      else records = this.list(this.#record);
    }
    this.end();
    return { layers: layers ?? [], records: records ?? [] };
  }

  readonly #layer = (): CacheLayer => {
    let blob: string | undefined;
    let parent = 0;
    let seen = 0;
    for (let field: number; (field = this.field(LAYER_FIELDS, seen)) !== -1; seen |= 1 << field) {
      if (field === 0) blob = this.again();
      else parent = this.number();
    }
    if (!isDigest(blob)) this.refuse();
    return { blob: blob as Digest, parent };
  };

  readonly #record = (): CacheRecord => {
    let results: CacheResult[] | undefined;
    let chains: ChainedResult[] | undefined;
    let digest = "";
    let inputs: CacheInput[][] | undefined;
    let seen = 0;
    for (let field: number; (field = this.field(RECORD_FIELDS, seen)) !== -1; seen |= 1 << field) {
      if (field === 0) results = this.list(this.#result);
      else if (field === 1) chains = this.list(this.#chain);
      else if (field === 2) digest = this.text();
      else inputs = this.list(this.#alternatives);
    }
    return { results: results ?? [], chains: chains ?? [], digest, inputs: inputs ?? [] };
  };

  readonly #result = (): CacheResult => {
    let layer = 0;
    let createdAt: string | undefined;
    let seen = 0;
    for (let field: number; (field = this.field(RESULT_FIELDS, seen)) !== -1; seen |= 1 << field) {
      if (field === 0) layer = this.number();
      else createdAt = this.text();
    }
    return { layer, createdAt: this.#time(createdAt) };
  };

  readonly #chain = (): ChainedResult => {
    let layers: number[] | undefined;
    let createdAt: string | undefined;
    let seen = 0;
    for (let field: number; (field = this.field(CHAIN_FIELDS, seen)) !== -1; seen |= 1 << field) {
      if (field === 0) layers = this.list(this.number);
      else createdAt = this.text();
    }
    return { layers: layers ?? [], createdAt: this.#time(createdAt) };
  };

  readonly #alternatives = (): CacheInput[] => this.list(this.#input);

  readonly #input = (): CacheInput => {
    let selector = "";
    let link = 0;
    let seen = 0;
    for (let field: number; (field = this.field(INPUT_FIELDS, seen)) !== -1; seen |= 1 << field) {
      if (field === 0) selector = this.again();
      else link = this.number();
    }
    return { selector, link };
  };

  #time(text: string | undefined): string {
    if (text === undefined || !this.#isTime(text)) this.refuse();
    return text;
  }
}
