/**
 * Reads JSON of a known form straight from its bytes, where it is spelled the way Go spells
 * it: no white space, no escapes, each field once and by its own name. A large document is
 * neither made a tree of first nor checked by a schema; what is spelled in any other way is
 * left to the schema.
 */

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

/** The names of an object's fields, as {@link PlainReader.field} takes them. */
export type FieldNames = readonly Uint8Array[];

/** Names of fields as they stand before a value: `"link":`. */
export function fieldNames(...names: readonly string[]): FieldNames {
  return names.map((name) => Buffer.from(`"${name}":`));
}

/**
 * Reads something with a reader.
 *
 * @returns Undefined for what is spelled in any other way, or is something else.
 */
export function readPlain<T>(bytes: Uint8Array, read: (bytes: Uint8Array) => T): T | undefined {
  if (!isPlainText(bytes)) return undefined;
  try {
    return read(bytes);
  } catch (error) {
    if (error === OTHER) return undefined;
    throw error;
  }
}

/** Printable ASCII alone, without an escape. */
function isPlainText(bytes: Uint8Array): boolean {
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at] as number;
    if (byte < 0x20 || byte > 0x7e || byte === BACKSLASH) return false;
  }
  return true;
}

/** Texts that are compared with what comes next. */
const RECENT = 4;

/**
 * Reads one value after another.
 *
 * It makes nothing but the values: with texts for names of fields, and a function for each
 * object, a hundred thousand links would leave more behind than they are.
 */
export class PlainReader {
  readonly #bytes: Buffer;
  readonly #known = new Map<string, string>();
  /** The last texts that came again, and where they stand. */
  readonly #recent: string[] = [];
  readonly #recentStarts: number[] = [];
  #oldest = 0;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** Gives up: the schema is to read it. */
  refuse(): never {
    throw OTHER;
  }

  /** Refuses what follows the value. */
  end(): void {
    if (this.#at !== this.#bytes.length) throw OTHER;
  }

  /** Reads a text that comes again and again, one string for all that are the same. */
  again(): string {
    const start = this.#at + 1;
    for (let i = 0; i < this.#recent.length; i++) {
      const text = this.#recent[i] as string;
      if (!this.#isAgain(start, this.#recentStarts[i] as number, text.length)) continue;
      this.#at = start + text.length + 1;
      return text;
    }
    const read = this.text();
    const text = this.#known.get(read) ?? read;
    if (text === read) this.#known.set(text, text);
    this.#recent[this.#oldest] = text;
    this.#recentStarts[this.#oldest] = start;
    this.#oldest = (this.#oldest + 1) % RECENT;
    return text;
  }

  /** Tells whether an earlier text stands here again, with its quotes. */
  #isAgain(start: number, earlier: number, length: number): boolean {
    const bytes = this.#bytes;
    if (bytes[start - 1] !== QUOTE || bytes[start + length] !== QUOTE) return false;
    for (let i = length - 1; i >= 0; i--) if (bytes[start + i] !== bytes[earlier + i]) return false;
    return true;
  }

  /** Reads a map of texts. */
  texts(): Record<string, string> {
    const map: Record<string, string> = {};
    this.#expect(OPEN_OBJECT);
    if (this.#skip(CLOSE_OBJECT)) return map;
    do {
      const key = this.again();
      if (key === "__proto__") throw OTHER;
      this.#expect(COLON);
      map[key] = this.text();
    } while (this.#skip(COMMA));
    this.#expect(CLOSE_OBJECT);
    return map;
  }

  /**
   * Goes to the next field of an object.
   *
   * @param seen The fields that were there before, a bit for each.
   * @returns Its position among the names; -1 where the object ends.
   */
  field(names: FieldNames, seen: number): number {
    if (seen === 0) {
      this.#expect(OPEN_OBJECT);
      if (this.#skip(CLOSE_OBJECT)) return -1;
    } else {
      if (this.#skip(CLOSE_OBJECT)) return -1;
      this.#expect(COMMA);
    }
    for (let field = 0; field < names.length; field++) {
      const name = names[field] as Uint8Array;
      if (!this.#standsHere(name)) continue;
      // Of a field that stands there twice the last one counts, as everywhere in JSON.
      if ((seen & (1 << field)) !== 0) throw OTHER;
      this.#at += name.length;
      return field;
    }
    throw OTHER;
  }

  #standsHere(name: Uint8Array): boolean {
    for (let i = 0; i < name.length; i++) if (this.#bytes[this.#at + i] !== name[i]) return false;
    return true;
  }

  /** Reads a list. */
  list<T>(read: () => T): T[] {
    this.#expect(OPEN_LIST);
    if (this.#skip(CLOSE_LIST)) return [];
    const items = [read()];
    while (this.#skip(COMMA)) items.push(read());
    this.#expect(CLOSE_LIST);
    return items;
  }

  /** Reads a text. */
  text(): string {
    this.#expect(QUOTE);
    const end = this.#bytes.indexOf(QUOTE, this.#at);
    if (end === -1) throw OTHER;
    const text = this.#bytes.toString("latin1", this.#at, end);
    this.#at = end + 1;
    return text;
  }

  /** Reads a whole number. */
  readonly number = (): number => {
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
  };

  #expect(byte: number): void {
    if (this.#bytes[this.#at++] !== byte) throw OTHER;
  }

  #skip(byte: number): boolean {
    if (this.#bytes[this.#at] !== byte) return false;
    this.#at++;
    return true;
  }
}
