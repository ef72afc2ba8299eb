/** How an archive as a whole is compressed, told from its first bytes. */
import { open } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { detectCompression } from "./blob-compression.ts";
import { CacheportError, systemCode, systemError } from "./errors.ts";
import type { Compression } from "./media-types.ts";

/** Bytes that {@link detectArchiveFormat} looks at. */
export const ARCHIVE_MAGIC_LENGTH = 6;

/** Forms that are told apart only to say what they are. */
const OTHER_FORMS: readonly [name: string, magic: readonly number[]][] = [
  ["xz", [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]],
  ["bzip2", [0x42, 0x5a, 0x68]],
  ["lz4", [0x04, 0x22, 0x4d, 0x18]],
  ["zip", [0x50, 0x4b, 0x03, 0x04]],
];

/**
 * Tells how an archive is compressed.
 *
 * @param start Its first {@link ARCHIVE_MAGIC_LENGTH} bytes; fewer when it is shorter.
 * @param archive The archive as the user wrote it, for messages.
 * @throws {CacheportError} ARCHIVE_INVALID when it is empty; NOT_SUPPORTED
 */
export function detectArchiveFormat(start: Uint8Array, archive: string): Compression {
  if (start.length === 0) {
    throw new CacheportError("ARCHIVE_INVALID", `Cannot read archive "${archive}": it is empty`);
  }
  for (const [name, magic] of OTHER_FORMS) {
    if (!magic.every((byte, at) => start[at] === byte)) continue;
    throw new CacheportError(
      "NOT_SUPPORTED",
      `Cannot read archive "${archive}": it is compressed with ${name}`,
      {
        hint: "gzip and zstd are read as they are; unpack another form first and pipe the tar in: -",
      },
    );
  }
  return detectCompression(start);
}

/**
 * Tells from a file's first bytes how it is compressed.
 *
 * @param location The file as the user wrote it, for messages.
 * @throws {CacheportError} LOCATION_NOT_FOUND, ARCHIVE_INVALID, NOT_SUPPORTED
 */
export async function archiveFileFormat(
  path: string,
  location: string = path,
): Promise<Compression> {
  const file = await openArchiveFile(path, location);
  try {
    const head = new Uint8Array(ARCHIVE_MAGIC_LENGTH);
    const { bytesRead } = await file.read(head, 0, head.length, 0);
    return detectArchiveFormat(head.subarray(0, bytesRead), location);
  } catch (error) {
    throw systemError(`Cannot open archive "${location}"`, error);
  } finally {
    await file.close();
  }
}

/**
 * Opens an archive for reading.
 *
 * @param location The file as the user wrote it, for messages.
 * @throws {CacheportError} LOCATION_NOT_FOUND, PERMISSION_DENIED, IO_FAILED
 */
export async function openArchiveFile(path: string, location: string): Promise<FileHandle> {
  try {
    return await open(path, "r");
  } catch (error) {
    if (systemCode(error) === "ENOENT") {
      throw new CacheportError(
        "LOCATION_NOT_FOUND",
        `Cannot open archive "${location}": there is no such file`,
        { cause: error },
      );
    }
    throw systemError(`Cannot open archive "${location}"`, error);
  }
}
