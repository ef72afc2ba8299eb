/**
 * Writes a planned archive: into a file, where members are copied to their places
 * several at a time, or as a stream. Every blob is checked
 * against digest and size on its way.
 */
import type { FileHandle } from "node:fs/promises";
import { mapLimit } from "./concurrency.ts";
import type { PutOptions } from "./content-store.ts";
import {
  blobPath,
  checkContent,
  digestAlgorithm,
  digestMismatch,
  digestOf,
  sizeMismatch,
} from "./digest.ts";
import type { Digest } from "./digest.ts";
import { interrupted, systemError } from "./errors.ts";
import { encodeTarHeader, TAR_BLOCK, TAR_END, tarPadding } from "./archive-header.ts";
import type { ArchiveBlob, ArchivePlan, PlacedMember } from "./archive-plan.ts";
import { checkedChunks, readChunks } from "./blob-check.ts";
import type { WorkerPool } from "./blob-threads.ts";

/** A file that an archive is written into, with what a crash may do to it in view. */
export interface ArchiveFile {
  write(bytes: Uint8Array, position: number): Promise<void>;
  /** Copies a blob to a place and checks it. */
  copy(blob: ArchiveBlob, position: number, options: PutOptions): Promise<void>;
  truncate(size: number): Promise<void>;
  /** Waits until all that was written before is on the disk. */
  sync(): Promise<void>;
}

/** An {@link ArchiveFile} on an open file. */
export class OpenArchiveFile implements ArchiveFile {
  readonly #file: FileHandle;
  readonly #path: string;
  readonly #pool: WorkerPool;

  /** @param path The path of the open file, for the threads that copy into it. */
  constructor(file: FileHandle, path: string, pool: WorkerPool) {
    this.#file = file;
    this.#path = path;
    this.#pool = pool;
  }

  async write(bytes: Uint8Array, position: number): Promise<void> {
    let done = 0;
    while (done < bytes.length) {
      const { bytesWritten } = await this.#file.write(
        bytes,
        done,
        bytes.length - done,
        position + done,
      );
      done += bytesWritten;
    }
  }

  async copy(blob: ArchiveBlob, position: number, options: PutOptions): Promise<void> {
    const { descriptor, source } = blob;
    const location = "store" in source ? await source.store.locate(descriptor) : undefined;
    if (location) {
      const { path, offset, size } = location;
      // Before a byte is written, since a larger blob would run over its neighbour.
      if (size !== descriptor.size) throw sizeMismatch(descriptor, size);
      const result = await this.#pool.run(
        {
          source: { path, offset, size },
          algorithm: digestAlgorithm(descriptor.digest),
          target: this.#path,
          targetOffset: position,
          seal: false,
        },
        options,
      );
      if (result.size !== size) throw sizeMismatch(descriptor, result.size);
      if (result.digest !== descriptor.digest)
        throw digestMismatch(descriptor.digest, result.digest);
      return;
    }
    let offset = position;
    for await (const chunk of blobChunks(blob, options)) {
      await this.write(chunk, offset);
      offset += chunk.length;
    }
  }

  async truncate(size: number): Promise<void> {
    await this.#file.truncate(size);
  }

  async sync(): Promise<void> {
    await this.#file.sync();
  }
}

/** How to write an archive. */
export interface ArchiveWriteOptions extends PutOptions {
  /** Members that are copied at once. */
  jobs: number;
}

/**
 * Writes the members of a plan into a file, each to its place, and the blocks that
 * end the archive.
 *
 * @throws {CacheportError} DIGEST_MISMATCH, SIZE_MISMATCH, BLOB_MISSING, NO_SPACE, INTERRUPTED
 */
export async function writeArchiveFile(
  plan: ArchivePlan,
  file: ArchiveFile,
  options: ArchiveWriteOptions,
): Promise<void> {
  const { signal, jobs } = options;
  // The size first: what no member covers stays zero, which is the padding.
  await file.truncate(plan.size);
  await mapLimit(plan.members, jobs, async (member) => {
    if (signal?.aborted) throw interrupted();
    await file.write(member.header, member.headerOffset);
    await writeContent(member, file, options);
  });
}

async function writeContent(
  { content, offset }: PlacedMember,
  file: ArchiveFile,
  options: ArchiveWriteOptions,
): Promise<void> {
  if ("bytes" in content) {
    await file.write(content.bytes, offset);
    return;
  }
  const { blob } = content;
  try {
    await file.copy(blob, offset, {
      signal: options.signal,
      onBytes: blob.onBytes ?? options.onBytes,
    });
  } catch (error) {
    throw systemError(`Cannot write blob "${blob.descriptor.digest}"`, error);
  }
}

/**
 * The bytes of a whole archive, in order. When a blob turns out to be damaged it is
 * too late to take back what went before, so the archive is left without its end:
 * no reader takes it for a whole one.
 *
 * @throws {CacheportError} DIGEST_MISMATCH, SIZE_MISMATCH, BLOB_MISSING, INTERRUPTED
 */
export async function* archiveChunks(
  plan: ArchivePlan,
  { signal, onBytes }: PutOptions,
): AsyncGenerator<Uint8Array, void, void> {
  for (const { header, content, size } of plan.members) {
    if (signal?.aborted) throw interrupted();
    yield header;
    if ("bytes" in content) {
      yield content.bytes;
    } else {
      const { blob } = content;
      yield* blobChunks(blob, { signal, onBytes: blob.onBytes ?? onBytes });
    }
    yield TAR_END.subarray(0, tarPadding(size));
  }
  yield TAR_END;
}

/** The bytes of a blob. The last piece comes only when digest and size are right. */
async function* blobChunks(
  { descriptor, source }: ArchiveBlob,
  { signal, onBytes }: PutOptions,
): AsyncGenerator<Uint8Array, void, void> {
  if ("bytes" in source) {
    checkContent(source.bytes, descriptor);
    onBytes?.(source.bytes.length);
    yield source.bytes;
    return;
  }
  const stream = await source.store.open(descriptor, signal);
  for await (const chunk of checkedChunks(readChunks(stream, signal), descriptor)) {
    onBytes?.(chunk.length);
    yield chunk;
  }
}

/**
 * A blob of one block of zeros. Its header is what is written last when members are
 * added to an archive: its content stands there already.
 */
const COMMIT_BLOB = new Uint8Array(TAR_BLOCK);

/** The digest of the blob that appending leaves in an archive, which nothing names. */
export const COMMIT_DIGEST: Digest = digestOf(COMMIT_BLOB);

const COMMIT_HEADER = encodeTarHeader({
  path: blobPath(COMMIT_DIGEST),
  mode: 0o444,
  size: COMMIT_BLOB.length,
});

/**
 * Adds a plan to an archive so that a crash at any instant leaves the old archive
 * or the new one: all of it goes behind the two zero blocks that end the old
 * archive, where no reader looks, and is brought to the disk. Then the first of the
 * two becomes the header of a member, whose content the second one is; a disk
 * writes one block whole or not at all.
 *
 * @param plan Starts two blocks behind `end`.
 * @param end Where the members of the old archive end.
 * @throws {CacheportError} as {@link writeArchiveFile}; the archive is the old one then
 */
export async function appendArchiveFile(
  plan: ArchivePlan,
  end: number,
  file: ArchiveFile,
  options: ArchiveWriteOptions,
): Promise<void> {
  const oldSize = end + TAR_END.length;
  // Padding goes, and what an earlier run left when it was killed.
  await file.truncate(oldSize);
  try {
    await writeArchiveFile(plan, file, options);
    await file.sync();
  } catch (error) {
    await file.truncate(oldSize).catch(() => {});
    throw error;
  }
  await file.write(COMMIT_HEADER, end);
  await file.sync();
}
