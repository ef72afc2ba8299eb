/**
 * Finds the members of an uncompressed tar file without reading their contents: a
 * pass over the headers that skips from one to the next.
 *
 * The rules of what a member is follow Go's archive/tar, which BuildKit, skopeo and
 * containerd read archives with.
 */
import { fstatSync, readSync } from "node:fs";
import type { CacheportError } from "./errors.ts";
import {
  archiveInvalid,
  cutAtNul,
  decodeTarHeader,
  isZero,
  parsePaxRecords,
  TAR_BLOCK,
  tarPadding,
} from "./archive-header.ts";
import type { TarHeader } from "./archive-header.ts";

/** What a member is. Only a file has content that can be read in place. */
export type TarMemberType = "file" | "directory" | "link" | "sparse" | "other";

/** A member of a tar file. */
export interface TarMember {
  /** Without `./` and without a final slash; never absolute, never with `..`. */
  readonly path: string;
  readonly type: TarMemberType;
  /** Where its content starts, in bytes from the start of the file. */
  readonly offset: number;
  /** Bytes of content. */
  readonly size: number;
}

/** What a tar file holds. */
export interface TarScan {
  /** By path; of several members with one path the last. */
  readonly members: ReadonlyMap<string, TarMember>;
  /** Where the members end, a multiple of 512: the first of the zero blocks, or the end of the file. */
  readonly end: number;
  /** False when the zero blocks that end an archive are not there. */
  readonly isComplete: boolean;
}

/** Members of one archive; a layout of 400 GB has about 5000. */
export const MAX_TAR_MEMBERS = 250_000;

/** Bytes of a GNU or PAX header that goes before a member. */
export const MAX_TAR_EXTENSION = 1024 * 1024;

/** Bytes that are read at once; headers of small members share a window. */
const WINDOW = 64 * 1024;

/** What GNU and PAX headers say of the member that follows. */
interface Extension {
  path?: string | undefined;
  size?: number | undefined;
  isSparse?: boolean;
}

/**
 * Scans the headers of an uncompressed tar file.
 *
 * @param fd Open for reading.
 * @param archive The file as the user wrote it, for messages.
 * @throws {CacheportError} ARCHIVE_INVALID for a damaged or truncated archive and for
 *   a member outside of its root
 */
export function scanTar(fd: number, archive: string): TarScan {
  const file = new WindowedFile(fd);
  const members = new Map<string, TarMember>();
  let extension: Extension = {};
  let hasExtension = false;
  let offset = 0;
  let count = 0;
  for (;;) {
    const block = file.read(offset, TAR_BLOCK);
    if (isZero(block)) {
      if (hasExtension) throw truncated(archive, offset);
      checkEnd(file, archive, offset, block);
      const isComplete = block.length === TAR_BLOCK;
      return { members, end: offset, isComplete };
    }
    if (block.length < TAR_BLOCK)
      throw offset === 0
        ? noTar(archive, "it ends within its first header")
        : truncated(archive, offset);
    let header = decodeTarHeader(block);
    if (typeof header === "string") {
      // It may have been read while another process was writing just this block.
      file.refresh();
      header = decodeTarHeader(file.read(offset, TAR_BLOCK));
    }
    if (typeof header === "string") {
      const reason = `the header at byte ${offset} ${header}`;
      throw offset === 0 ? noTar(archive, reason) : archiveInvalid(archive, reason);
    }
    if (++count > MAX_TAR_MEMBERS) {
      throw archiveInvalid(archive, `it has more than ${MAX_TAR_MEMBERS} members`);
    }
    const start = offset + TAR_BLOCK;
    if (isExtension(header.typeflag)) {
      checkExtensionSize(header, archive, offset);
      const content = file.read(start, header.size);
      if (content.length < header.size) throw truncated(archive, file.size);
      applyExtension(extension, header, content, archive, offset);
      hasExtension = true;
      offset = start + header.size + tarPadding(header.size);
      continue;
    }
    const member = toMember(header, extension, start, archive);
    const dataStart = header.isExtended ? skipSparseMap(file, start, archive) : start;
    const end = dataStart + member.size;
    // Another process may have added members since the scan began.
    if (end > file.size) file.refresh();
    if (end > file.size) throw truncatedMember(archive, member, end, file.size);
    members.set(member.path, { ...member, offset: dataStart });
    extension = {};
    hasExtension = false;
    offset = end + tarPadding(member.size);
  }
}

/** Reads a file in windows, so that neighbouring headers cost one system call. */
class WindowedFile {
  readonly #fd: number;
  readonly #window = new Uint8Array(WINDOW);
  #start = 0;
  #length = 0;
  #size: number;

  constructor(fd: number) {
    this.#fd = fd;
    this.#size = fstatSync(fd).size;
  }

  /** Bytes of the file when it was last looked at. */
  get size(): number {
    return this.#size;
  }

  /** Forgets what was read, and looks at the size again. */
  refresh(): void {
    this.#length = 0;
    this.#size = fstatSync(this.#fd).size;
  }

  /** Up to `length` bytes, fewer at the end of the file; valid until the next call. */
  read(offset: number, length: number): Uint8Array {
    if (length > WINDOW) {
      const bytes = new Uint8Array(length);
      return bytes.subarray(0, this.#fill(bytes, offset));
    }
    const isInside = offset >= this.#start && offset + length <= this.#start + this.#length;
    if (!isInside) {
      this.#length = this.#fill(this.#window, offset);
      this.#start = offset;
    }
    const from = offset - this.#start;
    return this.#window.subarray(from, Math.min(from + length, this.#length));
  }

  #fill(target: Uint8Array, offset: number): number {
    let filled = 0;
    while (filled < target.length) {
      const count = readSync(this.#fd, target, filled, target.length - filled, offset + filled);
      if (count === 0) break;
      filled += count;
    }
    return filled;
  }
}

/** A single zero block ends nothing: Go refuses it and GNU tar stops at it. */
function checkEnd(file: WindowedFile, archive: string, offset: number, block: Uint8Array): void {
  if (block.length < TAR_BLOCK) return;
  if (isZero(file.read(offset + TAR_BLOCK, TAR_BLOCK))) return;
  throw archiveInvalid(archive, `the zero block at byte ${offset} is followed by more data`);
}

/** Tells whether a header is about the member that follows it. */
function isExtension(typeflag: string): boolean {
  return "xXgLK".includes(typeflag);
}

function checkExtensionSize(header: TarHeader, archive: string, offset: number): void {
  if (header.size <= MAX_TAR_EXTENSION) return;
  throw archiveInvalid(
    archive,
    `the extended header at byte ${offset} has ${header.size} bytes and the limit is ${MAX_TAR_EXTENSION}`,
  );
}

function applyExtension(
  extension: Extension,
  header: TarHeader,
  content: Uint8Array,
  archive: string,
  offset: number,
): void {
  // K names a link's target, and links are never followed.
  if (header.typeflag === "K") return;
  if (header.typeflag === "L") {
    extension.path = cutAtNul(content);
    return;
  }
  const records = parsePaxRecords(content);
  if (!records) {
    throw archiveInvalid(archive, `the PAX header at byte ${offset} is malformed`);
  }
  const path = records.get("path");
  const size = records.get("size");
  const isSparse = [...records.keys()].some((key) => key.startsWith("GNU.sparse."));
  if (header.typeflag === "g") {
    // Readers differ in whether such a global record counts, so none is accepted.
    if (path === undefined && size === undefined && !isSparse) return;
    throw archiveInvalid(
      archive,
      `the global PAX header at byte ${offset} gives all members one path or size`,
    );
  }
  if (path) extension.path = path;
  if (size) extension.size = parsePaxSize(size, archive, offset);
  if (isSparse) extension.isSparse = true;
}

function parsePaxSize(text: string, archive: string, offset: number): number {
  const size = Number(text);
  if (/^\d+$/.test(text) && Number.isSafeInteger(size)) return size;
  throw archiveInvalid(archive, `the PAX header at byte ${offset} has a size that is no number`);
}

function toMember(
  header: TarHeader,
  extension: Extension,
  offset: number,
  archive: string,
): TarMember {
  const name = extension.path ?? header.name;
  const type = extension.isSparse ? "sparse" : memberType(header.typeflag, name);
  // Some programs give links and directories a size, but none gives them content.
  const hasContent = !"123456".includes(header.typeflag);
  const size = hasContent ? (extension.size ?? header.size) : 0;
  return { path: checkMemberPath(name, archive), type, offset, size };
}

function memberType(typeflag: string, name: string): TarMemberType {
  switch (typeflag) {
    case "0":
      return name.endsWith("/") ? "directory" : "file";
    case "7":
      return "file";
    case "1":
    case "2":
      return "link";
    case "5":
      return "directory";
    case "S":
      return "sparse";
    default:
      return "other";
  }
}

/**
 * Cleans the path of a member: `./a//b/` becomes `a/b`.
 *
 * @returns The path, empty for the root itself.
 * @throws {CacheportError} ARCHIVE_INVALID when it leads out of the archive's root
 */
export function checkMemberPath(name: string, archive: string): string {
  const parts = name.split("/").filter((part) => part !== "" && part !== ".");
  if (name.startsWith("/") || parts.includes("..")) {
    throw archiveInvalid(
      archive,
      `its member ${JSON.stringify(name.slice(0, 200))} would lie outside of it`,
      "Do not unpack this archive with other programs either",
    );
  }
  return parts.join("/");
}

/** Goes over the blocks in which an old GNU sparse member continues its map. */
function skipSparseMap(file: WindowedFile, start: number, archive: string): number {
  let offset = start;
  for (;;) {
    const block = file.read(offset, TAR_BLOCK);
    if (block.length < TAR_BLOCK) throw truncated(archive, offset);
    offset += TAR_BLOCK;
    if (block[504] === 0) return offset;
  }
}

/** The error for what is not even the start of a tar. */
export function noTar(archive: string, reason: string): CacheportError {
  return archiveInvalid(archive, `it is no tar: ${reason}`);
}

const TRUNCATED_HINT = "Get the archive again from where it was made";

function truncated(archive: string, offset: number) {
  return archiveInvalid(archive, `it is truncated at byte ${offset}`, TRUNCATED_HINT);
}

function truncatedMember(archive: string, member: TarMember, end: number, size: number) {
  return archiveInvalid(
    archive,
    `it is truncated: member "${member.path.slice(0, 200)}" ends at byte ${end} and the file at byte ${size}`,
    TRUNCATED_HINT,
  );
}
