/**
 * A layout in a tar that cannot be read in place: one that comes through a pipe, or
 * one that is compressed. It is unpacked into a temporary layout folder, from which
 * a writer may move the blobs away.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { ARCHIVE_MAGIC_LENGTH, detectArchiveFormat } from "./archive-format.ts";
import { toByteStream } from "./blob-stream.ts";
import { decompressStream } from "./blob-compression.ts";
import type { BlobLocation, NamedEntry, NameQuery, Resolved, Store } from "./content-store.ts";
import type { Descriptor } from "./descriptor.ts";
import type { Digest } from "./digest.ts";
import { DEFAULT_LIMITS } from "./documents.ts";
import type { DocumentLimits } from "./documents.ts";
import { CacheportError, systemError } from "./errors.ts";
import { readIndexFile } from "./layout-index-file.ts";
import { noLayout } from "./archive-reader.ts";
import { LayoutDirectory } from "./layout-directory.ts";
import type { LayoutIndex } from "./layout-index.ts";
import type { Compression } from "./media-types.ts";
import { join, resolve } from "./paths.ts";
import { unpackLayout } from "./archive-unpack.ts";
import type { UnpackedLayout } from "./archive-unpack.ts";
import { readChunks } from "./blob-check.ts";

/** How to read a layout from a stream. */
export interface LayoutStreamOptions {
  /** The folder in which the temporary one is made. */
  tempRoot: string;
  /** The archive as the user wrote it, for messages; `-` unless told otherwise. */
  location?: string | undefined;
  limits?: DocumentLimits | undefined;
  signal?: AbortSignal | undefined;
}

/** Unpacked bytes up to which any compression is believed. */
const BELIEVED_SIZE = 256 * 1024 * 1024;

/** How many times larger than its compressed form an archive may be beyond that. */
const BELIEVED_RATIO = 100;

/** A layout that was unpacked from a tar stream. */
export class LayoutStream implements Store {
  readonly location: string;
  readonly index: LayoutIndex;
  readonly #folder: string;
  readonly #layout: LayoutDirectory;
  readonly #content: UnpackedLayout;

  private constructor(
    folder: string,
    layout: LayoutDirectory,
    index: LayoutIndex,
    content: UnpackedLayout,
  ) {
    this.location = layout.location;
    this.index = index;
    this.#folder = folder;
    this.#layout = layout;
    this.#content = content;
  }

  /**
   * Reads a tar to its end, compressed with gzip or zstd or not at all. Blobs are
   * not checked against their digests: whoever reads or copies them does that.
   *
   * @throws {CacheportError} ARCHIVE_INVALID, COMPRESSION_INVALID, LAYOUT_INVALID,
   *   DOCUMENT_INVALID, DOCUMENT_TOO_LARGE, NO_SPACE, INTERRUPTED; the temporary
   *   folder is gone then
   */
  static async open(
    source: ReadableStream<Uint8Array>,
    options: LayoutStreamOptions,
  ): Promise<LayoutStream> {
    const { location = "-", limits = DEFAULT_LIMITS, signal } = options;
    const folder = await makeFolder(options.tempRoot);
    // What is left of the source when the archive has been read is not waited for.
    const done = new AbortController();
    const ended = AbortSignal.any([done.signal, ...(signal ? [signal] : [])]);
    try {
      const content = await unpackLayout(plainTar(source, location, ended), folder, {
        location,
        limits,
      });
      const { paths, isComplete } = content;
      if (!paths.has("index.json")) throw noLayout(paths, isComplete, location);
      const layout = await LayoutDirectory.open(folder, { limits, location });
      // What is damaged comes to light here and not when somebody asks for it.
      const index = await readIndexFile(folder, location);
      return new LayoutStream(folder, layout, index, content);
    } catch (error) {
      await rm(folder, { recursive: true, force: true });
      throw systemError(`Cannot read archive "${location}"`, error);
    } finally {
      done.abort();
    }
  }

  /** The blobs that the archive held, by digest, with their sizes in bytes. */
  blobs(): Map<Digest, number> {
    return new Map(this.#content.blobs);
  }

  /** Tells whether the archive had a member with this path, whatever it was. */
  hasMember(path: string): boolean {
    return this.#content.paths.has(path);
  }

  async stat(descriptor: Descriptor): Promise<number | undefined> {
    return this.#layout.stat(descriptor);
  }

  async read(descriptor: Descriptor, limit: number): Promise<Uint8Array> {
    return this.#layout.read(descriptor, limit);
  }

  async open(descriptor: Descriptor, signal?: AbortSignal): Promise<ReadableStream<Uint8Array>> {
    return this.#layout.open(descriptor, signal);
  }

  async locate(descriptor: Descriptor): Promise<BlobLocation | undefined> {
    const location = await this.#layout.locate(descriptor);
    return location && { ...location, disposable: true };
  }

  async list(): Promise<NamedEntry[]> {
    return [...this.index.entries];
  }

  async resolve(query: NameQuery): Promise<Resolved> {
    return this.#layout.resolve(query);
  }

  /** Removes the temporary folder. */
  async close(): Promise<void> {
    await rm(this.#folder, { recursive: true, force: true });
  }
}

async function makeFolder(tempRoot: string): Promise<string> {
  try {
    return await mkdtemp(join(resolve(tempRoot), ".cacheport-"));
  } catch (error) {
    const failure = systemError(`Cannot make a temporary folder in "${tempRoot}"`, error);
    if (resolve(tempRoot) !== resolve(tmpdir())) throw failure;
    throw new CacheportError(failure.code, failure.message, {
      hint: "Set TMPDIR to a folder with room for the archive",
      cause: error,
    });
  }
}

/** The bytes of the tar inside a stream, whatever it is compressed with. */
async function* plainTar(
  source: ReadableStream<Uint8Array>,
  location: string,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, void, void> {
  const chunks = readChunks(source, signal);
  try {
    let head: Uint8Array = new Uint8Array(0);
    while (head.length < ARCHIVE_MAGIC_LENGTH) {
      const next = await chunks.next();
      if (next.done) break;
      head = Buffer.concat([head, next.value]);
    }
    const format = detectArchiveFormat(head, location);
    if (format === "uncompressed") {
      yield head;
      yield* chunks;
    } else {
      yield* decompress(head, chunks, format, location);
    }
  } finally {
    await chunks.return();
  }
}

/** Unpacks a compressed tar, unless it unpacks to far more than any real one would. */
async function* decompress(
  head: Uint8Array,
  rest: AsyncIterable<Uint8Array>,
  format: Compression,
  location: string,
): AsyncGenerator<Uint8Array, void, void> {
  let received = head.length;
  let unpacked = 0;
  async function* counted(): AsyncGenerator<Uint8Array, void, void> {
    yield head;
    for await (const chunk of rest) {
      received += chunk.length;
      yield chunk;
    }
  }
  const what = `archive "${location}"`;
  const tar = decompressStream(toByteStream(counted()), format, what);
  for await (const chunk of readChunks(tar)) {
    unpacked += chunk.length;
    if (unpacked > BELIEVED_SIZE && unpacked > BELIEVED_RATIO * received) {
      throw new CacheportError(
        "COMPRESSION_INVALID",
        `Cannot read ${what}: its first ${received} bytes unpack to more than ${unpacked}, as in a file made to fill disks`,
        { hint: "If you trust it, unpack it first and give the tar itself" },
      );
    }
    yield chunk;
  }
}
