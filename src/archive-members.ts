/**
 * What the members of a tar are: the one set of rules by which headers are read, whether
 * they come from a file (archive-scan.ts) or through a pipe (archive-unpack.ts).
 *
 * The rules follow Go's archive/tar, which BuildKit, skopeo and containerd read
 * archives with.
 */
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
import type { CacheportError } from "./errors.ts";

/** What a member is. Only a file has content that can be read. */
export type TarMemberType = "file" | "directory" | "link" | "sparse" | "other";

/** A member of a tar. */
export interface TarMember {
  /** Without `./` and without a final slash; never absolute, never with `..`. */
  readonly path: string;
  readonly type: TarMemberType;
  /** Where its content starts, in bytes from the start of the tar. */
  readonly offset: number;
  /** Bytes of content. */
  readonly size: number;
  /** What a link leads to, as it stands there. */
  readonly link?: { readonly isHard: boolean; readonly target: string };
}

/** How a tar ends. */
export interface TarEnd {
  /** Where the members end, a multiple of 512: the first of the zero blocks, or the end of the tar. */
  readonly end: number;
  /** False when the zero blocks that end an archive are not there. */
  readonly isComplete: boolean;
}

/** What the rules ask of whoever has the bytes. */
export type TarStep =
  /** To be answered with bytes, fewer than asked for only at the end of the tar. */
  | {
      readonly kind: "read";
      readonly offset: number;
      readonly length: number;
      /** Another process may have been writing just these bytes when they were read before. */
      readonly again?: true;
    }
  /** A member was found. Its content may be looked at before the answer, which counts for nothing. */
  | { readonly kind: "member"; readonly member: TarMember };

/** Members of one archive; a layout of 400 GB has about 5000. */
export const MAX_TAR_MEMBERS = 250_000;

/** Bytes of a GNU or PAX header that goes before a member. */
export const MAX_TAR_EXTENSION = 1024 * 1024;

/** What GNU and PAX headers say of the member that follows. */
interface Extension {
  path?: string | undefined;
  /** A long name of GNU's goes before one of PAX, whichever comes first. */
  gnuPath?: string | undefined;
  linkPath?: string | undefined;
  gnuLinkPath?: string | undefined;
  size?: number | undefined;
  isSparse?: boolean;
}

/** A run of the rules over one tar. */
type Steps<T> = Generator<TarStep, T, Uint8Array>;

/**
 * Goes over the headers of a tar from its start to its end.
 *
 * @param archive The archive as the user wrote it, for messages.
 * @throws {CacheportError} ARCHIVE_INVALID for a damaged or truncated archive and for
 *   a member outside of its root; whether a member's content is there is not looked at
 */
export function* tarMembers(archive: string): Steps<TarEnd> {
  let extension: Extension | undefined;
  let offset = 0;
  let count = 0;
  for (;;) {
    const block = yield* read(offset, TAR_BLOCK);
    if (isZero(block)) {
      if (extension) throw truncated(archive, offset);
      const isComplete = block.length === TAR_BLOCK;
      if (isComplete) yield* checkEnd(archive, offset);
      return { end: offset, isComplete };
    }
    if (block.length < TAR_BLOCK)
      throw offset === 0
        ? noTar(archive, "it ends within its first header")
        : truncated(archive, offset);
    const header = yield* readHeader(block, offset, archive);
    if (++count > MAX_TAR_MEMBERS) {
      throw archiveInvalid(archive, `it has more than ${MAX_TAR_MEMBERS} members`);
    }
    const start = offset + TAR_BLOCK;
    if (isExtension(header.typeflag)) {
      checkExtensionSize(header, archive, offset);
      const content = yield* read(start, header.size);
      if (content.length < header.size) throw truncated(archive, start + content.length);
      extension ??= {};
      applyExtension(extension, header, content, archive, offset);
      offset = start + header.size + tarPadding(header.size);
      continue;
    }
    const dataStart = header.isExtended ? yield* skipSparseMap(start, archive) : start;
    const member = toMember(header, extension ?? {}, dataStart, archive);
    yield { kind: "member", member };
    extension = undefined;
    offset = dataStart + member.size + tarPadding(member.size);
  }
}

function* read(offset: number, length: number): Steps<Uint8Array> {
  return yield { kind: "read", offset, length };
}

function* readHeader(block: Uint8Array, offset: number, archive: string): Steps<TarHeader> {
  let header = decodeTarHeader(block);
  if (typeof header === "string") {
    // It may have been read while another process was writing just this block.
    const fresh = yield { kind: "read", offset, length: TAR_BLOCK, again: true };
    header = fresh.length < TAR_BLOCK ? header : decodeTarHeader(fresh);
  }
  if (typeof header !== "string") return header;
  const reason = `the header at byte ${offset} ${header}`;
  throw offset === 0 ? noTar(archive, reason) : archiveInvalid(archive, reason);
}

/** A single zero block ends nothing: Go refuses it and GNU tar stops at it. */
function* checkEnd(archive: string, offset: number): Steps<void> {
  if (isZero(yield* read(offset + TAR_BLOCK, TAR_BLOCK))) return;
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
  if (header.typeflag === "K") {
    extension.gnuLinkPath = cutAtNul(content);
    return;
  }
  if (header.typeflag === "L") {
    extension.gnuPath = cutAtNul(content);
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
  const linkPath = records.get("linkpath");
  if (path) extension.path = path;
  if (linkPath) extension.linkPath = linkPath;
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
  const name = extension.gnuPath || (extension.path ?? header.name);
  const type = extension.isSparse ? "sparse" : memberType(header.typeflag, name);
  // Some programs give links and directories a size, but none gives them content.
  const hasContent = !"123456".includes(header.typeflag);
  const size = hasContent ? (extension.size ?? header.size) : 0;
  const target = extension.gnuLinkPath || (extension.linkPath ?? header.linkName);
  return {
    path: checkMemberPath(name, archive),
    type,
    offset,
    size,
    ...(type === "link" && { link: { isHard: header.typeflag === "1", target } }),
  };
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
function* skipSparseMap(start: number, archive: string): Steps<number> {
  let offset = start;
  for (;;) {
    const block = yield* read(offset, TAR_BLOCK);
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

function truncated(archive: string, offset: number): CacheportError {
  return archiveInvalid(archive, `it is truncated at byte ${offset}`, TRUNCATED_HINT);
}

/**
 * The error for a member whose content is not all there.
 *
 * @param size Bytes of the whole tar.
 */
export function truncatedMember(archive: string, member: TarMember, size: number): CacheportError {
  const end = member.offset + member.size;
  return archiveInvalid(
    archive,
    `it is truncated: member "${member.path.slice(0, 200)}" ends at byte ${end} and the archive at byte ${size}`,
    TRUNCATED_HINT,
  );
}
