/**
 * A layout in a tar: in a file that is read in place, where nothing is unpacked and a blob
 * is a range of the file, or in one that was unpacked because it came through a pipe or
 * is compressed. An archive of images without an index.json is read as a layout as well.
 *
 * Sources: OCI image-spec, image-layout.md; BuildKit exporter/oci/export.go for
 * what `type=oci` and `type=docker` archives hold.
 */
import { TarFile } from "./archive-content.ts";
import type { TarContent } from "./archive-content.ts";
import { archiveInvalid } from "./archive-header.ts";
import type { BlobPlace } from "./archive-images.ts";
import type { TarMember } from "./archive-members.ts";
import { findRoot } from "./archive-root.ts";
import type { ArchiveRoot } from "./archive-root.ts";
import { detectBlobType, UNKNOWN_TYPE } from "./document.ts";
import type { BlobLocation, NamedEntry, NameQuery, Resolved, Store } from "./content-store.ts";
import { embeddedContent } from "./descriptor.ts";
import type { Descriptor } from "./descriptor.ts";
import { checkContent, isDigest } from "./digest.ts";
import type { Digest } from "./digest.ts";
import { checkDocumentSize, DEFAULT_LIMITS } from "./documents.ts";
import type { DocumentLimits } from "./documents.ts";
import { CacheportError, systemError } from "./errors.ts";
import { parseLayoutIndex, resolveEntry } from "./layout-index.ts";
import type { LayoutIndex } from "./layout-index.ts";
import { checkLayoutMarker } from "./layout-marker.ts";

/** How to open an archive. */
export interface LayoutArchiveOptions {
  /** The archive as the user wrote it, for messages; the path unless told. */
  location?: string | undefined;
  limits?: DocumentLimits | undefined;
  signal?: AbortSignal | undefined;
}

/** A layout in a tar. */
export class LayoutArchive implements Store {
  readonly location: string;
  readonly index: LayoutIndex;
  /** Where in the archive the layout is. */
  readonly root: ArchiveRoot;
  /** The archive itself. */
  readonly content: TarContent;
  readonly #limits: DocumentLimits;
  readonly #blobs: ReadonlyMap<Digest, BlobPlace>;

  private constructor(
    content: TarContent,
    location: string,
    root: ArchiveRoot,
    index: LayoutIndex,
    blobs: ReadonlyMap<Digest, BlobPlace>,
    limits: DocumentLimits,
  ) {
    this.content = content;
    this.location = location;
    this.root = root;
    this.index = index;
    this.#blobs = blobs;
    this.#limits = limits;
  }

  /**
   * Opens a tar file and reads its index.json.
   *
   * @param path An uncompressed tar file.
   * @throws {CacheportError} LOCATION_NOT_FOUND, ARCHIVE_INVALID for a damaged tar,
   *   LAYOUT_INVALID for a tar that holds no layout, DOCUMENT_INVALID
   */
  static async open(path: string, options: LayoutArchiveOptions = {}): Promise<LayoutArchive> {
    const { location = path } = options;
    return LayoutArchive.of(await TarFile.open(path, location), { ...options, location });
  }

  /**
   * Reads the layout in a tar that is open; it is closed when that fails.
   *
   * @throws {CacheportError} as {@link LayoutArchive.open}
   */
  static async of(
    content: TarContent,
    options: LayoutArchiveOptions & { location: string },
  ): Promise<LayoutArchive> {
    const { location, limits = DEFAULT_LIMITS, signal } = options;
    try {
      const root = findRoot(content.members, content.isComplete, location);
      let blobs: ReadonlyMap<Digest, BlobPlace>;
      let index: Uint8Array;
      if (root.form === "images") {
        const { readArchiveImages } = await import("./archive-images.ts");
        ({ blobs, index } = await readArchiveImages(content, location, limits, signal));
      } else {
        blobs = blobMembers(content.members, root.folder);
        index = await readIndex(content, root, location, limits);
      }
      const parsed = parseLayoutIndex(index, `index.json of "${location}"`);
      return new LayoutArchive(content, location, root, parsed, blobs, limits);
    } catch (error) {
      await content.close();
      throw systemError(`Cannot read archive "${location}"`, error);
    }
  }

  /** The tar file that is read in place; undefined for one that was unpacked. */
  get file(): TarFile | undefined {
    return this.content instanceof TarFile ? this.content : undefined;
  }

  /** The blobs that the archive holds, by digest, with their sizes in bytes. */
  blobs(): Map<Digest, number> {
    const blobs = new Map<Digest, number>();
    for (const [digest, place] of this.#blobs) {
      if ("bytes" in place) blobs.set(digest, place.bytes.length);
      else if (place.member.type === "file") blobs.set(digest, place.member.size);
    }
    return blobs;
  }

  /** Tells whether the archive has a member with this path beside its layout, whatever it is. */
  hasMember(path: string): boolean {
    return this.content.members.has(this.root.folder + path);
  }

  /**
   * Reads a member beside the layout; undefined when there is none.
   *
   * @throws {CacheportError} DOCUMENT_TOO_LARGE, ARCHIVE_INVALID when it is no plain file
   */
  async readMember(path: string): Promise<Uint8Array | undefined> {
    return readDocument(this.content, this.root, path, this.location, this.#limits);
  }

  async stat(descriptor: Descriptor): Promise<number | undefined> {
    const place = this.#place(descriptor);
    return place && placeSize(place);
  }

  async read(descriptor: Descriptor, limit: number): Promise<Uint8Array> {
    const place = this.#require(descriptor);
    const what = `blob "${descriptor.digest}"`;
    checkDocumentSize(Math.max(placeSize(place), descriptor.size), limit, what);
    const bytes = "bytes" in place ? place.bytes : await this.content.read(place.member);
    checkContent(bytes, descriptor);
    return bytes;
  }

  async open(descriptor: Descriptor, signal?: AbortSignal): Promise<ReadableStream<Uint8Array>> {
    const place = this.#require(descriptor);
    if ("member" in place) return this.content.stream(place.member, signal);
    return new Blob([place.bytes as Uint8Array<ArrayBuffer>]).stream();
  }

  async locate(descriptor: Descriptor): Promise<BlobLocation | undefined> {
    const place = this.#place(descriptor);
    return place && "member" in place ? this.content.locate(place.member) : undefined;
  }

  async list(): Promise<NamedEntry[]> {
    return [...this.index.entries];
  }

  async resolve(query: NameQuery): Promise<Resolved> {
    const entry = resolveEntry(this.index, query, this.location);
    if (entry) return { descriptor: entry.descriptor, entry };
    const digest = query.digest as Digest;
    const place = this.#place({ mediaType: "", digest, size: 0 });
    if (!place) throw this.#absent("BLOB_NOT_FOUND", digest);
    const size = placeSize(place);
    const mediaType = await this.#detectType(digest, size);
    return { descriptor: { mediaType, digest, size }, entry: undefined };
  }

  /** Closes the file, or removes what was unpacked. May be called twice. */
  async close(): Promise<void> {
    await this.content.close();
  }

  async #detectType(digest: Digest, size: number): Promise<string> {
    const { manifest } = this.#limits;
    if (size > manifest) return UNKNOWN_TYPE;
    const descriptor = { mediaType: UNKNOWN_TYPE, digest, size };
    return detectBlobType(await this.read(descriptor, manifest));
  }

  #place(descriptor: Descriptor): BlobPlace | undefined {
    const place = this.#blobs.get(descriptor.digest);
    if (place && "member" in place) checkPlainFile(place.member, this.location);
    if (place) return place;
    const bytes = embeddedContent(descriptor);
    return bytes && { bytes };
  }

  #require(descriptor: Descriptor): BlobPlace {
    const place = this.#place(descriptor);
    if (!place) throw this.#absent("BLOB_MISSING", descriptor.digest);
    return place;
  }

  #absent(code: "BLOB_MISSING" | "BLOB_NOT_FOUND", digest: Digest): CacheportError {
    return new CacheportError(
      code,
      `Cannot find blob "${digest}" in "${this.location}": no member has it`,
      {
        hint: this.content.isComplete
          ? undefined
          : "The archive has no end mark, so it may have been truncated",
      },
    );
  }
}

function placeSize(place: BlobPlace): number {
  return "bytes" in place ? place.bytes.length : place.member.size;
}

/** The members that are blobs by their paths. */
function blobMembers(
  members: ReadonlyMap<string, TarMember>,
  folder: string,
): Map<Digest, BlobPlace> {
  const blobs = new Map<Digest, BlobPlace>();
  for (const [path, member] of members) {
    const digest = path.startsWith(folder) && blobDigest(path.slice(folder.length));
    if (digest) blobs.set(digest, { member });
  }
  return blobs;
}

/** The digest that the path of a blob stands for. */
function blobDigest(path: string): Digest | undefined {
  const [root, algorithm, hex, more] = path.split("/");
  if (root !== "blobs" || more !== undefined) return undefined;
  const digest = `${algorithm}:${hex}`;
  return isDigest(digest) ? digest : undefined;
}

const WORDS = {
  directory: "a directory",
  link: "a link",
  sparse: "a sparse file",
  other: "a special file",
};

/** Refuses what is no plain file; a link could lead anywhere. */
function checkPlainFile({ path, type }: TarMember, location: string): void {
  if (type === "file") return;
  throw archiveInvalid(location, `its member "${path}" is ${WORDS[type]} and no plain file`);
}

async function readDocument(
  content: TarContent,
  { folder }: ArchiveRoot,
  path: string,
  location: string,
  limits: DocumentLimits,
): Promise<Uint8Array | undefined> {
  const member = content.members.get(folder + path);
  if (!member) return undefined;
  checkPlainFile(member, location);
  checkDocumentSize(member.size, limits.manifest, `${path} of "${location}"`);
  return content.read(member);
}

async function readIndex(
  content: TarContent,
  root: ArchiveRoot,
  location: string,
  limits: DocumentLimits,
): Promise<Uint8Array> {
  const marker = await readDocument(content, root, "oci-layout", location, limits);
  if (marker) checkLayoutMarker(marker, location);
  const index = await readDocument(content, root, "index.json", location, limits);
  // The root was found by it.
  return index as Uint8Array;
}
