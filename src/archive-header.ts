/**
 * The header blocks of tar archives as values: ustar, GNU, PAX and the old V7 form
 * are read; ustar, with PAX for a size that ustar cannot hold, is written.
 *
 * Sources: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Header Block";
 * the GNU tar manual, "Basic Tar Format". What is lax follows Go's archive/tar.
 */
import { CacheportError } from "./errors.ts";

/** Bytes of a block: headers are one block long, contents are padded to whole ones. */
export const TAR_BLOCK = 512;

/** What ends an archive: two blocks of zeros. */
export const TAR_END: Uint8Array = new Uint8Array(2 * TAR_BLOCK);

/** Octal digits of 11 places: the largest size that a ustar header can hold. */
const USTAR_SIZE_LIMIT = 8 ** 11;

/** Bytes of the name field. */
const USTAR_NAME_LIMIT = 100;

/** One header block, decoded. */
export interface TarHeader {
  /** As it stands there, with the ustar prefix before it. */
  name: string;
  /** Bytes of content as the header says. */
  size: number;
  /** One character; `0` for a file, also where the old form has a NUL. */
  typeflag: string;
  /** What a link leads to. */
  linkName: string;
  /** The map of an old GNU sparse file (type S) goes on in the next block. */
  isExtended: boolean;
}

/** The error for an archive that breaks the format. */
export function archiveInvalid(archive: string, reason: string, hint?: string): CacheportError {
  return new CacheportError("ARCHIVE_INVALID", `Cannot read archive "${archive}": ${reason}`, {
    hint,
  });
}

const latin1 = new TextDecoder("latin1");
const utf8 = new TextDecoder();

/** Tells whether all bytes are zero. */
export function isZero(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0);
}

/** Bytes that follow content of a size up to the next block. */
export function tarPadding(size: number): number {
  const rest = size % TAR_BLOCK;
  return rest === 0 ? 0 : TAR_BLOCK - rest;
}

/**
 * Decodes a header block.
 *
 * @param block 512 bytes, not all zero.
 * @returns The header, or the reason why it is none.
 */
export function decodeTarHeader(block: Uint8Array): TarHeader | string {
  const sum = parseTarNumber(block.subarray(148, 156));
  const { unsigned, signed } = checksums(block);
  if (sum !== unsigned && sum !== signed) return "has a wrong checksum";
  const size = parseTarNumber(block.subarray(124, 136));
  if (size === undefined) return "has a size that is no number";

  const magic = latin1.decode(block.subarray(257, 263));
  const prefix = magic === "ustar\0" ? text(block, 345, 155) : "";
  const name = text(block, 0, 100);
  const flag = block[156] ?? 0;
  return {
    name: prefix === "" ? name : `${prefix}/${name}`,
    size,
    typeflag: flag === 0 ? "0" : String.fromCharCode(flag),
    linkName: text(block, 157, 100),
    isExtended: flag === 0x53 && block[482] !== 0,
  };
}

/** Some old programs add the bytes up as signed ones. */
function checksums(block: Uint8Array): { unsigned: number; signed: number } {
  let unsigned = 0;
  let high = 0;
  for (let at = 0; at < TAR_BLOCK; at++) {
    // The field of the sum itself counts as spaces.
    const byte = at >= 148 && at < 156 ? 0x20 : (block[at] as number);
    unsigned += byte;
    if (byte >= 0x80) high += 1;
  }
  return { unsigned, signed: unsigned - 256 * high };
}

/** A text field: up to its first NUL. */
function text(block: Uint8Array, start: number, length: number): string {
  return cutAtNul(block.subarray(start, start + length));
}

/** Decodes UTF-8 text up to the first NUL, or all of it. */
export function cutAtNul(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return utf8.decode(end === -1 ? bytes : bytes.subarray(0, end));
}

/**
 * Reads a number field: octal digits between spaces and NULs, or, where the first
 * bit is set, GNU's base-256.
 *
 * @returns Undefined for what is neither, is negative or is over 2^53-1.
 */
export function parseTarNumber(field: Uint8Array): number | undefined {
  const first = field[0] ?? 0;
  if (first >= 0x80) {
    if (first !== 0x80) return undefined;
    const value = field.subarray(1).reduce((sum, byte) => sum * 256 + byte, 0);
    return Number.isSafeInteger(value) ? value : undefined;
  }
  const digits = latin1.decode(field).replace(/^[ \0]+|[ \0]+$/g, "");
  if (digits === "") return 0;
  return /^[0-7]+$/.test(digits) ? Number.parseInt(digits, 8) : undefined;
}

/**
 * Reads the records of a PAX header, `<length> <key>=<value>\n` each.
 *
 * @returns Undefined when they are malformed.
 */
export function parsePaxRecords(bytes: Uint8Array): Map<string, string> | undefined {
  const records = new Map<string, string>();
  let rest = bytes;
  while (rest.length > 0) {
    const space = rest.indexOf(0x20);
    const digits = latin1.decode(rest.subarray(0, Math.max(space, 0)));
    if (!/^[1-9]\d{0,8}$/.test(digits)) return undefined;
    const length = Number(digits);
    // At least `=` and the final newline.
    if (length > rest.length || length < space + 3) return undefined;
    if (rest[length - 1] !== 0x0a) return undefined;
    const record = utf8.decode(rest.subarray(space + 1, length - 1));
    const equals = record.indexOf("=");
    if (equals < 1) return undefined;
    records.set(record.slice(0, equals), record.slice(equals + 1));
    rest = rest.subarray(length);
  }
  return records;
}

/** A member that is to be written. */
export interface TarEntry {
  /** ASCII, with forward slashes; a directory ends with one. */
  path: string;
  /** Permission bits. */
  mode: number;
  /** Bytes of content, 0 for a directory. */
  size: number;
}

/**
 * Encodes the header of a member as Go's archive/tar does for BuildKit: no owner
 * and no time, so that the same member always gives the same bytes.
 *
 * @returns One block, or three where a PAX header must hold what ustar cannot: a
 *   path of more than 100 bytes (a sha512 blob) or a size of 8 GiB and more.
 */
export function encodeTarHeader({ path, mode, size }: TarEntry): Uint8Array {
  const typeflag = path.endsWith("/") ? "5" : "0";
  const isLong = path.length > USTAR_NAME_LIMIT;
  const isLarge = size >= USTAR_SIZE_LIMIT;
  const header = encodeBlock(path, mode, isLarge ? 0 : size, typeflag);
  if (!isLong && !isLarge) return header;

  const records = new TextEncoder().encode(
    (isLong ? paxRecord("path", path) : "") + (isLarge ? paxRecord("size", String(size)) : ""),
  );
  const slash = path.lastIndexOf("/") + 1;
  const name = `${path.slice(0, slash)}PaxHeaders.0/${path.slice(slash)}`;
  const blocks = new Uint8Array(3 * TAR_BLOCK);
  blocks.set(encodeBlock(name, 0, records.length, "x"), 0);
  blocks.set(records, TAR_BLOCK);
  blocks.set(header, 2 * TAR_BLOCK);
  return blocks;
}

/** A PAX record, whose length counts its own digits. */
function paxRecord(key: string, value: string): string {
  const rest = ` ${key}=${value}\n`;
  let length = rest.length + 1;
  while (String(length).length + rest.length !== length) length += 1;
  return `${length}${rest}`;
}

function encodeBlock(path: string, mode: number, size: number, typeflag: string): Uint8Array {
  const block = new Uint8Array(TAR_BLOCK);
  const put = (value: string, offset: number): void => {
    block.set(new TextEncoder().encode(value), offset);
  };
  const octal = (value: number, digits: number): string => value.toString(8).padStart(digits, "0");
  put(path.slice(0, USTAR_NAME_LIMIT), 0);
  put(octal(mode, 7), 100);
  put(octal(0, 7), 108);
  put(octal(0, 7), 116);
  put(octal(size, 11), 124);
  put(octal(0, 11), 136);
  put(typeflag, 156);
  put("ustar\u000000", 257);
  put(octal(0, 7), 329);
  put(octal(0, 7), 337);
  put(`${octal(checksums(block).unsigned, 6)}\0 `, 148);
  return block;
}
