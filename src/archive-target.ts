/** Where a planned archive is written: the place of a file, a stream, a device; compressed or not. */
import { open } from "node:fs/promises";
import { replaceArchiveFile } from "./archive-file.ts";
import { archiveChunks, OpenArchiveFile, writeArchiveFile } from "./archive-output.ts";
import type { ArchiveWriteOptions } from "./archive-output.ts";
import type { ArchivePlan } from "./archive-plan.ts";
import { compressionLevel } from "./blob-compression.ts";
import { compress as pack } from "./blob-pack.ts";
import type { WorkerPool } from "./blob-threads.ts";
import type { PutOptions } from "./content-store.ts";
import { writeAll } from "./layout-durable.ts";
import type { Compression } from "./media-types.ts";

/** How to write a whole archive. */
export interface WholeArchiveOptions extends PutOptions {
  /** Compresses the archive as a whole. */
  compress?: Compression | undefined;
}

/** Takes the bytes of an archive in order; its promise holds back the next ones. */
export type ArchiveSink = (bytes: Uint8Array) => Promise<void>;

/**
 * Writes an archive as a stream.
 *
 * @throws {CacheportError} DIGEST_MISMATCH, SIZE_MISMATCH, BLOB_MISSING, INTERRUPTED, and
 *   the errors of the sink
 */
export async function streamArchive(
  plan: ArchivePlan,
  sink: ArchiveSink,
  { compress, ...options }: WholeArchiveOptions,
): Promise<void> {
  const tar = archiveChunks(plan, options);
  const chunks =
    compress === undefined || compress === "uncompressed"
      ? tar
      : pack(tar, compress, compressionLevel(compress, undefined));
  for await (const chunk of chunks) if (chunk.length > 0) await sink(chunk);
}

/**
 * Writes an archive to a file that takes its place whole or not at all.
 *
 * @param path No symbolic link. Its lock is held.
 * @throws {CacheportError} as {@link streamArchive}, and NO_SPACE; the old file stays then
 */
export async function replaceArchive(
  path: string,
  plan: ArchivePlan,
  { pool, ...options }: WholeArchiveOptions & ArchiveWriteOptions & { pool: WorkerPool },
): Promise<void> {
  const { compress } = options;
  await replaceArchiveFile(path, async (file, temporary) => {
    if (compress === undefined || compress === "uncompressed")
      await writeArchiveFile(plan, new OpenArchiveFile(file, temporary, pool), options);
    else await streamArchive(plan, (bytes) => writeAll(file, bytes), options);
  });
}

/** Writes an archive to a pipe or a device, such as /dev/stdout, which is not replaced. */
export async function writeArchiveDevice(
  path: string,
  plan: ArchivePlan,
  options: WholeArchiveOptions,
): Promise<void> {
  const file = await open(path, "w");
  try {
    await streamArchive(plan, (bytes) => writeAll(file, bytes), options);
  } finally {
    await file.close();
  }
}
