/**
 * A layout in a tar that cannot be read in place: one that comes through a pipe, or
 * one that is compressed. It is unpacked into a temporary folder, from which a writer
 * may move the blobs away.
 */
import { ARCHIVE_MAGIC_LENGTH, detectArchiveFormat } from "./archive-format.ts";
import { toByteStream } from "./blob-stream.ts";
import { decompressStream } from "./blob-compression.ts";
import type { BlobLocation } from "./content-store.ts";
import { DEFAULT_LIMITS } from "./documents.ts";
import type { DocumentLimits } from "./documents.ts";
import { CacheportError, systemError } from "./errors.ts";
import { LayoutArchive } from "./archive-reader.ts";
import { streamRegularFile } from "./layout-durable.ts";
import type { Compression } from "./media-types.ts";
import { RunFolder } from "./layout-work.ts";
import { unpackTar } from "./archive-unpack.ts";
import type { UnpackedTar } from "./archive-unpack.ts";
import type { TarContent } from "./archive-content.ts";
import type { TarMember } from "./archive-members.ts";
import { readChunks } from "./blob-check.ts";

/** How to read a layout from a stream. */
export interface LayoutStreamOptions {
  /** The folder in which the temporary one is made. */
  tempRoot: string;
  /** Leaves out blobs that are larger than any manifest; whoever reads one all the same is refused. */
  documentsOnly?: boolean | undefined;
  /** The archive as the user wrote it, for messages; `-` unless told otherwise. */
  location?: string | undefined;
  limits?: DocumentLimits | undefined;
  signal?: AbortSignal | undefined;
}

/** Unpacked bytes up to which any compression is believed. */
const BELIEVED_SIZE = 256 * 1024 * 1024;

/** How many times larger than its compressed form an archive may be beyond that. */
const BELIEVED_RATIO = 100;

/** Documents of an archive, without which the rest of it is not understood. */
const DOCUMENTS = new Set(["index.json", "oci-layout", "manifest.json"]);

/**
 * Reads a tar to its end, compressed with gzip or zstd or not at all. Blobs are
 * not checked against their digests: whoever reads or copies them does that, and may
 * move them away.
 *
 * @throws {CacheportError} ARCHIVE_INVALID, COMPRESSION_INVALID, LAYOUT_INVALID,
 *   DOCUMENT_INVALID, DOCUMENT_TOO_LARGE, NO_SPACE, INTERRUPTED; the temporary
 *   folder is gone then
 */
export async function openLayoutStream(
  source: ReadableStream<Uint8Array>,
  options: LayoutStreamOptions,
): Promise<LayoutArchive> {
  const { location = "-", limits = DEFAULT_LIMITS, signal } = options;
  const run = await RunFolder.within(options.tempRoot);
  // What is left of the source when the archive has been read is not waited for.
  const done = new AbortController();
  const ended = AbortSignal.any([done.signal, ...(signal ? [signal] : [])]);
  const tar = plainTar(source, location, ended);
  const keeps = wanted(options.documentsOnly ? limits.manifest : Number.POSITIVE_INFINITY);
  let content: TarContent;
  try {
    content = new UnpackedContent(run, location, await unpackTar(tar, run, keeps, location));
  } catch (error) {
    await run.close();
    throw systemError(`Cannot read archive "${location}"`, error);
  } finally {
    done.abort();
    await tar.return();
  }
  return LayoutArchive.of(content, { location, limits, signal });
}

/**
 * Says of each file whether it may be needed. Before the index.json at the root was seen
 * that is any of them: an archive of images has its layers wherever it likes.
 *
 * @param limit Bytes of a blob.
 */
function wanted(limit: number): (member: TarMember) => boolean {
  let isLayout = false;
  return ({ path, size }) => {
    if (path === "index.json") isLayout = true;
    if (BLOB.test(path)) return size <= limit;
    return !isLayout || DOCUMENTS.has(path);
  };
}

/** A blob of a layout, which may be in a folder of the archive. */
const BLOB = /(?:^|\/)blobs\/sha\d+\/[0-9a-f]+$/;

/** What was unpacked from a tar stream. */
class UnpackedContent implements TarContent {
  readonly members: ReadonlyMap<string, TarMember>;
  readonly isComplete: boolean;
  readonly #run: RunFolder;
  readonly #location: string;
  readonly #files: ReadonlyMap<number, string>;
  /** Contents that several members have. */
  readonly #shared: ReadonlySet<number>;

  constructor(run: RunFolder, location: string, { members, files, isComplete }: UnpackedTar) {
    this.members = members;
    this.isComplete = isComplete;
    this.#run = run;
    this.#location = location;
    this.#files = files;
    const shared = new Set<number>();
    const seen = new Set<number>();
    for (const { offset } of members.values()) (seen.has(offset) ? shared : seen).add(offset);
    this.#shared = shared;
  }

  async read(member: TarMember): Promise<Uint8Array> {
    if (member.size === 0) return new Uint8Array(0);
    return Bun.file(this.#path(member)).slice(0, member.size).bytes();
  }

  stream(member: TarMember, signal?: AbortSignal): ReadableStream<Uint8Array> {
    const what = `member "${member.path}"`;
    const toError = (error: unknown): Error => systemError(`Cannot read ${what}`, error);
    return streamRegularFile(this.#path(member), what, toError, signal);
  }

  locate(member: TarMember): BlobLocation | undefined {
    if (!this.#files.has(member.offset)) return undefined;
    const disposable = !this.#shared.has(member.offset);
    return { path: this.#path(member), offset: 0, size: member.size, disposable };
  }

  /** Removes the temporary folder. */
  async close(): Promise<void> {
    await this.#run.close();
  }

  #path({ offset, path }: TarMember): string {
    const file = this.#files.get(offset);
    if (file !== undefined) return file;
    throw new CacheportError(
      "NOT_SUPPORTED",
      `Cannot read member "${path}" of "${this.#location}": it is too large for a document and was not unpacked`,
      { hint: "Write the archive to a file first" },
    );
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
