/**
 * Opens archives for reading, whatever they are: a plain tar in place, one that is
 * compressed or comes through a pipe by way of a temporary folder. What unpacks is loaded
 * when it is needed: most archives are read in place.
 */
import { isArchiveDevice, statIfThere } from "./archive-file.ts";
import { archiveFileFormat } from "./archive-format.ts";
import { LayoutArchive } from "./archive-reader.ts";
import type { LayoutStreamOptions } from "./archive-unpacked.ts";
import { isCacheportError } from "./errors.ts";
import type { Compression } from "./media-types.ts";

/** An archive that was opened, and how the file was compressed. */
export interface OpenedArchive {
  readonly content: LayoutArchive;
  readonly compression: Compression;
}

/**
 * Opens an archive by its path, which may be that of a pipe.
 *
 * @throws {CacheportError} LOCATION_NOT_FOUND, NOT_SUPPORTED, ARCHIVE_INVALID, LAYOUT_INVALID,
 *   COMPRESSION_INVALID, DOCUMENT_INVALID, NO_SPACE, INTERRUPTED
 */
export async function openArchive(
  path: string,
  options: LayoutStreamOptions & { location: string },
): Promise<OpenedArchive> {
  // What is read from a pipe to look at it is gone.
  const compression = (await isArchiveDevice(path))
    ? undefined
    : await archiveFileFormat(path, options.location);
  const content =
    compression === "uncompressed"
      ? await LayoutArchive.open(path, options)
      : await openUnpacked(path, compression !== undefined, options);
  return { content, compression: compression ?? "uncompressed" };
}

async function openUnpacked(
  path: string,
  isFile: boolean,
  options: LayoutStreamOptions,
): Promise<LayoutArchive> {
  try {
    return await openArchiveStream(Bun.file(path).stream(), options);
  } catch (error) {
    // Images without an index.json: what their layers are is told by their bytes alone.
    const isTooLittle = options.documentsOnly && isCacheportError(error, "NOT_SUPPORTED");
    if (!isFile || !isTooLittle) throw error;
    return openArchiveStream(Bun.file(path).stream(), { ...options, documentsOnly: false });
  }
}

/** Opens an archive that comes as a stream. @throws {CacheportError} as {@link openArchive} */
export async function openArchiveStream(
  source: ReadableStream<Uint8Array>,
  options: LayoutStreamOptions,
): Promise<LayoutArchive> {
  const { openLayoutStream } = await import("./archive-unpacked.ts");
  return openLayoutStream(source, options);
}

/** Tells whether at a path there is nothing that could be added to. */
export async function isNewArchive(path: string): Promise<boolean> {
  const stats = await statIfThere(path);
  return !stats || !stats.isFile() || stats.size === 0;
}
