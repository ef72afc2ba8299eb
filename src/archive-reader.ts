/**
 * A layout inside an uncompressed tar file, read in place: nothing is unpacked, a
 * blob is a range of the file.
 *
 * Sources: OCI image-spec, image-layout.md; BuildKit exporter/oci/export.go for
 * what `type=oci` and `type=docker` archives hold.
 */
import type { FileHandle } from "node:fs/promises";
import { openArchiveFile } from "./archive-format.ts";
import { detectBlobType, UNKNOWN_TYPE } from "./document-blob.ts";
import type { BlobLocation, NamedEntry, NameQuery, Resolved, Store } from "./content-store.ts";
import type { Descriptor } from "./descriptor.ts";
import { blobPath, checkContent, isDigest } from "./digest.ts";
import type { Digest } from "./digest.ts";
import { checkDocumentSize, DEFAULT_LIMITS } from "./documents.ts";
import type { DocumentLimits } from "./documents.ts";
import { CacheportError, systemError } from "./errors.ts";
import { parseLayoutIndex, resolveEntry } from "./layout-index.ts";
import type { LayoutIndex } from "./layout-index.ts";
import { checkLayoutMarker } from "./layout-marker.ts";
import { resolve } from "./paths.ts";
import { archiveInvalid } from "./archive-header.ts";
import { scanTar } from "./archive-scan.ts";
import type { TarMember, TarScan } from "./archive-scan.ts";

/** Bytes that a stream reads at once. */
const PIECE = 1024 * 1024;

/** How to open an archive. */
export interface LayoutArchiveOptions {
  /** The archive as the user wrote it, for messages; the path unless told. */
  location?: string | undefined;
  limits?: DocumentLimits | undefined;
}

/** A layout in a tar file. */
export class LayoutArchive implements Store {
  readonly location: string;
  /** Absolute path of the tar file. */
  readonly path: string;
  /** The members of the tar. */
  readonly scan: TarScan;
  readonly index: LayoutIndex;
  readonly #file: FileHandle;
  readonly #limits: DocumentLimits;

  private constructor(
    file: FileHandle,
    path: string,
    location: string,
    scan: TarScan,
    index: LayoutIndex,
    limits: DocumentLimits,
  ) {
    this.#file = file;
    this.#limits = limits;
    this.path = path;
    this.location = location;
    this.scan = scan;
    this.index = index;
  }

  /**
   * Opens a tar file and reads its index.json.
   *
   * @param path An uncompressed tar file.
   * @throws {CacheportError} LOCATION_NOT_FOUND, ARCHIVE_INVALID for a damaged tar,
   *   LAYOUT_INVALID for a tar that holds no layout, DOCUMENT_INVALID
   */
  static async open(path: string, options: LayoutArchiveOptions = {}): Promise<LayoutArchive> {
    const { location = path, limits = DEFAULT_LIMITS } = options;
    const file = await openArchiveFile(path, location);
    try {
      const scan = scanTar(file.fd, location);
      const index = await readIndex(file, scan, location, limits);
      return new LayoutArchive(file, resolve(path), location, scan, index, limits);
    } catch (error) {
      await file.close();
      throw systemError(`Cannot read archive "${location}"`, error);
    }
  }

  /** The blobs that the archive holds, by digest, with their sizes in bytes. */
  blobs(): Map<Digest, number> {
    const blobs = new Map<Digest, number>();
    for (const { path, size, type } of this.scan.members.values()) {
      const digest = blobDigest(path);
      if (digest && type === "file") blobs.set(digest, size);
    }
    return blobs;
  }

  /** Tells whether the archive has a member with this path, whatever it is. */
  hasMember(path: string): boolean {
    return this.scan.members.has(path);
  }

  async stat({ digest }: Descriptor): Promise<number | undefined> {
    return this.#member(digest)?.size;
  }

  async read(descriptor: Descriptor, limit: number): Promise<Uint8Array> {
    const member = this.#require(descriptor.digest);
    const what = `blob "${descriptor.digest}"`;
    checkDocumentSize(Math.max(member.size, descriptor.size), limit, what);
    const bytes = await readMember(this.#file, member, this.location);
    checkContent(bytes, descriptor);
    return bytes;
  }

  async open({ digest }: Descriptor, signal?: AbortSignal): Promise<ReadableStream<Uint8Array>> {
    const { offset, size } = this.#require(digest);
    return rangeStream(this.#file, { offset, size }, this.location, signal);
  }

  async locate({ digest }: Descriptor): Promise<BlobLocation | undefined> {
    const member = this.#member(digest);
    if (!member) return undefined;
    const { offset, size } = member;
    return { path: this.path, offset, size, disposable: false };
  }

  async list(): Promise<NamedEntry[]> {
    return [...this.index.entries];
  }

  async resolve(query: NameQuery): Promise<Resolved> {
    const entry = resolveEntry(this.index, query, this.location);
    if (entry) return { descriptor: entry.descriptor, entry };
    const digest = query.digest as Digest;
    const size = this.#member(digest)?.size;
    if (size === undefined) throw this.#absent("BLOB_NOT_FOUND", digest);
    const mediaType = await this.#detectType(digest, size);
    return { descriptor: { mediaType, digest, size }, entry: undefined };
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  async #detectType(digest: Digest, size: number): Promise<string> {
    const { manifest } = this.#limits;
    if (size > manifest) return UNKNOWN_TYPE;
    const descriptor = { mediaType: UNKNOWN_TYPE, digest, size };
    return detectBlobType(await this.read(descriptor, manifest));
  }

  #member(digest: Digest): TarMember | undefined {
    return fileMember(this.scan, blobPath(digest), this.location);
  }

  #require(digest: Digest): TarMember {
    const member = this.#member(digest);
    if (!member) throw this.#absent("BLOB_MISSING", digest);
    return member;
  }

  #absent(code: "BLOB_MISSING" | "BLOB_NOT_FOUND", digest: Digest): CacheportError {
    return new CacheportError(
      code,
      `Cannot find blob "${digest}" in "${this.location}": no member has it`,
      {
        hint: this.scan.isComplete
          ? undefined
          : "The archive has no end mark, so it may have been truncated",
      },
    );
  }
}

/** The digest that the path of a blob stands for. */
export function blobDigest(path: string): Digest | undefined {
  const [root, algorithm, hex, more] = path.split("/");
  if (root !== "blobs" || more !== undefined) return undefined;
  const digest = `${algorithm}:${hex}`;
  return isDigest(digest) ? digest : undefined;
}

/** A member that is a plain file; a link in its place is refused, since it could lead anywhere. */
function fileMember(scan: TarScan, path: string, location: string): TarMember | undefined {
  const member = scan.members.get(path);
  if (!member || member.type === "file") return member;
  throw archiveInvalid(location, `its member "${path}" is ${WORDS[member.type]} and no plain file`);
}

const WORDS = {
  directory: "a directory",
  link: "a link",
  sparse: "a sparse file",
  other: "a special file",
};

async function readIndex(
  file: FileHandle,
  scan: TarScan,
  location: string,
  limits: DocumentLimits,
): Promise<LayoutIndex> {
  const read = async (path: string): Promise<Uint8Array | undefined> => {
    const member = fileMember(scan, path, location);
    if (!member) return undefined;
    checkDocumentSize(member.size, limits.manifest, `${path} of "${location}"`);
    return readMember(file, member, location);
  };
  const index = await read("index.json");
  if (!index) throw noLayout(scan.members, scan.isComplete, location);
  const marker = await read("oci-layout");
  if (marker) checkLayoutMarker(marker, location);
  return parseLayoutIndex(index, `index.json of "${location}"`);
}

/**
 * The error for an archive without an index.json, with the likeliest reason.
 *
 * @param members By path.
 * @param isComplete False when the end of the archive was not seen.
 */
export function noLayout(
  members: Pick<ReadonlyMap<string, unknown>, "has" | "keys" | "size">,
  isComplete: boolean,
  location: string,
): CacheportError {
  if (!isComplete && members.size > 0) {
    return archiveInvalid(
      location,
      "it is truncated: it has neither an index.json nor an end mark",
      "Get the archive again from where it was made",
    );
  }
  const inner = [...members.keys()].find((path) => path.endsWith("/index.json"));
  const hint = members.has("manifest.json")
    ? 'It is an archive of an old "docker save"; save it with Docker 25 or later, or export it with type=oci'
    : inner
      ? `The layout is in a folder of the archive; pack it from inside: tar -C ${inner.slice(0, -"/index.json".length)} -cf FILE.tar .`
      : undefined;
  return new CacheportError(
    "LAYOUT_INVALID",
    `Cannot read a layout from "${location}": the archive has no index.json`,
    { hint },
  );
}

async function readMember(
  file: FileHandle,
  { offset, size }: TarMember,
  location: string,
): Promise<Uint8Array> {
  const bytes = new Uint8Array(size);
  await readFully(file, bytes, offset, location);
  return bytes;
}

/** Fills a buffer from a place in a file. */
async function readFully(
  file: FileHandle,
  target: Uint8Array,
  offset: number,
  location: string,
): Promise<void> {
  let filled = 0;
  while (filled < target.length) {
    const { bytesRead } = await file.read(target, filled, target.length - filled, offset + filled);
    if (bytesRead === 0) throw archiveInvalid(location, "it became shorter while it was read");
    filled += bytesRead;
  }
}

/** Streams a range of a file. */
function rangeStream(
  file: FileHandle,
  { offset, size }: { offset: number; size: number },
  location: string,
  signal: AbortSignal | undefined,
): ReadableStream<Uint8Array> {
  let position = 0;
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          signal?.throwIfAborted();
          const piece = new Uint8Array(Math.min(PIECE, size - position));
          await readFully(file, piece, offset + position, location);
          position += piece.length;
          if (piece.length > 0) controller.enqueue(piece);
          if (position === size) controller.close();
        } catch (error) {
          controller.error(systemError(`Cannot read archive "${location}"`, error));
        }
      },
    },
    { highWaterMark: 0 },
  );
}
