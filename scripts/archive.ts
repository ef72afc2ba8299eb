/** Archives for a release: the same files always give the same bytes. */
import { crc32 } from "node:zlib";
import { pack } from "tar-stream";

/** A file or folder of an archive. */
export interface ArchiveEntry {
  /** With forward slashes; a folder's ends with one. */
  path: string;
  /** Permission bits. */
  mode: number;
  /** Empty for a folder. */
  content: Uint8Array;
  /** User and group; root unless told otherwise. */
  owner?: number;
}

/** A file. */
export function file(path: string, content: Uint8Array | string, mode = 0o644): ArchiveEntry {
  const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
  return { path, mode, content: bytes };
}

/** A folder. @param path Without a slash at its end. */
export function folder(path: string, mode = 0o755, owner = 0): ArchiveEntry {
  return { path: `${path}/`, mode, content: new Uint8Array(), owner };
}

/** Writes a tar with sorted members, without times and names of users. */
export async function tar(entries: readonly ArchiveEntry[]): Promise<Uint8Array> {
  const stream = pack();
  for (const { path, mode, content, owner = 0 } of sorted(entries)) {
    const type = path.endsWith("/") ? "directory" : "file";
    const mtime = new Date(0);
    stream.entry(
      { name: path, mode, type, mtime, uid: owner, gid: owner },
      // It takes no other bytes than a Buffer.
      Buffer.from(content.buffer, content.byteOffset, content.byteLength),
    );
  }
  stream.finalize();
  const chunks: Uint8Array[] = [];
  for await (const chunk of stream) chunks.push(chunk as Uint8Array);
  return Buffer.concat(chunks);
}

/**
 * Compresses with gzip. libdeflate gives the same bytes on every processor, its
 * header has no time; the operating system is set to "unknown".
 */
export function gzip(bytes: Uint8Array): Uint8Array {
  return Bun.gzipSync(bytes as Uint8Array<ArrayBuffer>, {
    level: 6,
    library: "libdeflate",
  });
}

/** 1 January 1980, the first day that a zip can name, as MS-DOS wrote dates. */
const ZIP_DATE = (1 << 5) | 1;

/** The version of the format that can deflate, made on Unix: permissions count. */
const ZIP_VERSION = 20;
const ZIP_MADE_BY = (3 << 8) | ZIP_VERSION;
const DEFLATED = 8;

/**
 * Writes a zip with sorted members, without times.
 *
 * Source: PKWARE APPNOTE 6.3.10, sections 4.3.7, 4.3.12 and 4.3.16.
 */
export function zip(entries: readonly ArchiveEntry[]): Uint8Array {
  const parts: Uint8Array[] = [];
  const directory: Uint8Array[] = [];
  let offset = 0;
  for (const { path, mode, content } of sorted(entries)) {
    const name = new TextEncoder().encode(path);
    const packed = Bun.deflateSync(content as Uint8Array<ArrayBuffer>, {
      level: 6,
      library: "libdeflate",
    });
    // What both kinds of header have in common.
    const common = record([
      [2, ZIP_VERSION],
      [2, 0],
      [2, DEFLATED],
      [2, 0],
      [2, ZIP_DATE],
      [4, crc32(content)],
      [4, packed.length],
      [4, content.length],
      [2, name.length],
      [2, 0],
    ]);
    const header = [record([[4, 0x04034b50]]), common, name];
    const type = path.endsWith("/") ? 0o040000 : 0o100000;
    const isFolder = path.endsWith("/") ? 0x10 : 0;
    directory.push(
      record([
        [4, 0x02014b50],
        [2, ZIP_MADE_BY],
      ]),
      common,
      record([
        [2, 0],
        [2, 0],
        [2, 0],
        [4, ((type | mode) * 0x10000 + isFolder) % 2 ** 32],
        [4, offset],
      ]),
      name,
    );
    parts.push(...header, packed);
    offset += length(header) + packed.length;
  }
  const end = record([
    [4, 0x06054b50],
    [2, 0],
    [2, 0],
    [2, entries.length],
    [2, entries.length],
    [4, length(directory)],
    [4, offset],
    [2, 0],
  ]);
  return Buffer.concat([...parts, ...directory, end]);
}

/** Little-endian numbers of 2 or 4 bytes. */
function record(fields: readonly (readonly [size: 2 | 4, value: number])[]): Uint8Array {
  const bytes = Buffer.alloc(fields.reduce((sum, [size]) => sum + size, 0));
  let at = 0;
  for (const [size, value] of fields) at = bytes.writeUIntLE(value, at, size);
  return bytes;
}

function length(parts: readonly Uint8Array[]): number {
  return parts.reduce((sum, part) => sum + part.length, 0);
}

function sorted(entries: readonly ArchiveEntry[]): ArchiveEntry[] {
  return entries.toSorted((a, b) => (a.path < b.path ? -1 : 1));
}
