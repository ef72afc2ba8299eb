/**
 * Layout folders on disk as stores that are read: blobs under `blobs/<algorithm>/<hex>`,
 * names in `index.json`. What only writers need is not loaded with it.
 *
 * Source: OCI image-spec, image-layout.md.
 */
import { lstatSync, readdirSync } from "node:fs";
import { detectBlobType, UNKNOWN_TYPE } from "./document.ts";
import type { BlobLocation, NamedEntry, NameQuery, Resolved, Store } from "./content-store.ts";
import { embeddedContent, embeddedStream } from "./descriptor.ts";
import type { Descriptor } from "./descriptor.ts";
import { blobPath, checkContent, isDigest, parseDigest } from "./digest.ts";
import type { Digest } from "./digest.ts";
import { checkDocumentSize, DEFAULT_LIMITS } from "./documents.ts";
import type { DocumentLimits } from "./documents.ts";
import { readRegularFile, streamRegularFile } from "./layout-durable.ts";
import { CacheportError, isCacheportError, systemCode, systemError } from "./errors.ts";
import {
  hasIndexFile,
  hasLayoutMarker,
  isFolder,
  noFolder,
  readIndexFile,
} from "./layout-index-file.ts";
import { entryLabel, resolveEntry } from "./layout-index.ts";
import { join, resolve } from "./paths.ts";

/** How to open a layout folder for reading. */
export interface LayoutOptions {
  /** 4 MiB for a manifest and so on unless told otherwise. */
  limits?: DocumentLimits | undefined;
  /** Of no use for a folder; taken so that one set of options opens every store. */
  jobs?: number | undefined;
  /** The folder as the user wrote it, for messages; the path unless told otherwise. */
  location?: string | undefined;
}

/** A layout folder that is read. Nothing is kept between calls: others may write to it. */
export class LayoutDirectory implements Store {
  readonly location: string;
  readonly #root: string;
  readonly #limits: DocumentLimits;

  private constructor(root: string, location: string, limits: DocumentLimits) {
    this.#root = root;
    this.location = location;
    this.#limits = limits;
  }

  /**
   * Opens a layout folder. BuildKit does without an `oci-layout` file, so an
   * index.json is enough.
   *
   * @throws {CacheportError} LOCATION_NOT_FOUND, LAYOUT_INVALID
   */
  static async open(
    path: string,
    { limits = DEFAULT_LIMITS, location = path }: LayoutOptions = {},
  ): Promise<LayoutDirectory> {
    if (!(await isFolder(path))) throw noFolder(location);
    if (!(await hasLayoutMarker(path, location)) && !(await hasIndexFile(path))) {
      throw new CacheportError(
        "LAYOUT_INVALID",
        `Cannot open layout "${location}": the folder has neither an index.json nor an oci-layout file`,
        { hint: "Give the folder that holds index.json and blobs" },
      );
    }
    return new LayoutDirectory(resolve(path), location, limits);
  }

  async list(): Promise<NamedEntry[]> {
    const { entries } = await readIndexFile(this.#root, this.location);
    return [...entries];
  }

  async resolve(query: NameQuery): Promise<Resolved> {
    const index = await readIndexFile(this.#root, this.location);
    const entry = resolveEntry(index, query, this.location);
    if (entry) return { descriptor: entry.descriptor, entry };
    // The tag walk leaves only a digest without an entry.
    const digest = parseDigest(query.digest ?? "");
    const size = await this.#size(digest);
    if (size === undefined) {
      throw new CacheportError(
        "BLOB_NOT_FOUND",
        `Cannot find "${digest}" in "${this.location}": it has no such blob`,
      );
    }
    const mediaType = await this.#detectType(digest, size);
    return { descriptor: { mediaType, digest, size }, entry: undefined };
  }

  async stat(descriptor: Descriptor): Promise<number | undefined> {
    const size = await this.#size(parseDigest(descriptor.digest));
    return size ?? embeddedContent(descriptor)?.length;
  }

  async read(descriptor: Descriptor, limit: number): Promise<Uint8Array> {
    const digest = parseDigest(descriptor.digest);
    const what = this.#describe(digest);
    checkDocumentSize(descriptor.size, limit, what);
    try {
      const { bytes } = await readRegularFile(this.#path(digest), limit, what);
      checkContent(bytes, descriptor);
      return bytes;
    } catch (error) {
      const failure = this.#failure(digest, error);
      const embedded = isCacheportError(failure, "BLOB_MISSING") && embeddedContent(descriptor);
      if (embedded) return embedded;
      throw await this.#withOrphan(failure, digest);
    }
  }

  async open(descriptor: Descriptor, signal?: AbortSignal): Promise<ReadableStream<Uint8Array>> {
    const digest = parseDigest(descriptor.digest);
    if ((await this.#size(digest)) === undefined) {
      const embedded = embeddedStream(descriptor);
      if (embedded) return embedded;
      throw this.#missing(digest);
    }
    return streamRegularFile(
      this.#path(digest),
      this.#describe(digest),
      (error) => this.#failure(digest, error),
      signal,
    );
  }

  async locate({ digest }: Descriptor): Promise<BlobLocation | undefined> {
    const path = this.#path(parseDigest(digest));
    const size = await this.#size(digest);
    return size === undefined ? undefined : { path, offset: 0, size, disposable: false };
  }

  async close(): Promise<void> {}

  #path(digest: Digest): string {
    return join(this.#root, ...blobPath(digest).split("/"));
  }

  #describe(digest: Digest): string {
    return `blob "${digest}" in "${this.location}"`;
  }

  /** The size of a blob in bytes; undefined when it is absent, or no regular file. */
  async #size(digest: Digest): Promise<number | undefined> {
    try {
      const stats = lstatSync(this.#path(digest));
      return stats.isFile() ? stats.size : undefined;
    } catch (error) {
      const code = systemCode(error);
      if (code === "ENOENT" || code === "ENOTDIR") return undefined;
      throw this.#failure(digest, error);
    }
  }

  /** The media type of a blob that no entry describes, told from its content. */
  async #detectType(digest: Digest, size: number): Promise<string> {
    if (size > this.#limits.manifest) return UNKNOWN_TYPE;
    const descriptor = { mediaType: UNKNOWN_TYPE, digest, size };
    return detectBlobType(await this.read(descriptor, this.#limits.manifest));
  }

  #failure(digest: Digest, error: unknown): CacheportError {
    const code = systemCode(error);
    return code === "ENOENT" || code === "ENOTDIR"
      ? this.#missing(digest)
      : systemError(`Cannot read ${this.#describe(digest)}`, error);
  }

  /** Adds to the failure of an entry which manifest its name may be meant for. */
  async #withOrphan(failure: CacheportError, digest: Digest): Promise<CacheportError> {
    if (failure.code !== "BLOB_MISSING") return failure;
    try {
      const { entries } = await readIndexFile(this.#root, this.location);
      const entry = entries.find(({ descriptor }) => descriptor.digest === digest);
      if (!entry) return failure;
      const { findOrphans } = await import("./layout-orphans.ts");
      const named = new Set(entries.map(({ descriptor }) => descriptor.digest));
      const [orphan] = await findOrphans(this, this.#root, named);
      if (!orphan) return failure;
      const { location } = this;
      const name = entryLabel(entry) ?? "latest";
      const hint = { do: "name-orphan", location, name, digest: orphan } as const;
      return new CacheportError(failure.code, failure.message, { hint, cause: failure });
    } catch (error) {
      if (isCacheportError(error)) return failure;
      throw error;
    }
  }

  #missing(digest: Digest): CacheportError {
    return new CacheportError(
      "BLOB_MISSING",
      `Cannot read ${this.#describe(digest)}: it is not there, or is no regular file`,
      {
        hint: "The layout is incomplete; copy or export it again from where it was made",
      },
    );
  }
}

/**
 * What lies in the folders for blobs of a layout and is called as one: names alone, which
 * costs far less than a look at each file.
 */
export function blobNames(folder: string): Digest[] {
  return ["sha256", "sha512"].flatMap((algorithm) => {
    try {
      const names = readdirSync(join(folder, "blobs", algorithm));
      return names.map((name) => `${algorithm}:${name}`).filter(isDigest);
    } catch {
      // Whoever reads a blob in there tells what is wrong.
      return [];
    }
  });
}
