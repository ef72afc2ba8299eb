/**
 * Files of a layout: written so that they are there whole or not at all, also after a
 * crash of the machine, and read without following links or waiting for pipes.
 */
import { constants } from "node:fs";
import type { Stats } from "node:fs";
import { open, unlink } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { platform } from "node:process";
import { checkDocumentSize } from "./documents.ts";
import { CacheportError, interrupted } from "./errors.ts";

/** Brings the entries of a folder to the disk: files that were made, renamed or removed in it. */
export async function syncFolder(path: string): Promise<void> {
  // Windows cannot open a folder as a file, and keeps its entries in a journal.
  if (platform === "win32") return;
  const folder = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/**
 * Writes a new file and brings its bytes to the disk.
 *
 * @param path Must not exist.
 * @param mode Permission bits.
 * @param replaces A file whose place it is to take: the new one gets its owner.
 * @throws The error of the failed system call; the file is removed.
 */
export async function writeDurably(
  path: string,
  bytes: Uint8Array,
  mode: number,
  replaces?: Stats,
): Promise<void> {
  const file = await open(path, "wx", 0o600);
  try {
    await writeAll(file, bytes);
    if (replaces) await keepOwner(file, replaces);
    await file.chmod(mode);
    await file.sync();
  } catch (error) {
    await unlink(path).catch(() => {});
    throw error;
  } finally {
    await file.close();
  }
}

/** Writes bytes at the end of what was written, all of them. */
export async function writeAll(file: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    const { bytesWritten } = await file.write(bytes, done);
    done += bytesWritten;
  }
}

/** A file that root replaces stays its owner's, who could not write it any more otherwise. */
export async function keepOwner(file: FileHandle, { uid, gid }: Stats): Promise<void> {
  const own = await file.stat();
  if (own.uid === uid && own.gid === gid) return;
  // Not permitted to others than root, whose own file it then is.
  await file.chown(uid, gid).catch(() => {});
}

/** The bytes of a file and what it was when they were read. */
export interface FileContent {
  readonly bytes: Uint8Array;
  readonly stats: Stats;
  /** False when the file was changed while it was read. */
  readonly stable: boolean;
}

/**
 * Reads a regular file whole. A symbolic link is not followed, and a pipe or a
 * device is not waited for.
 *
 * @param limit Bytes.
 * @param what What the file is, for the message: `index.json of "cache"`.
 * @throws {CacheportError} DOCUMENT_TOO_LARGE, IO_FAILED when it is no regular file
 * @throws The error of the failed system call: ENOENT, ELOOP for a symbolic link, ...
 */
export async function readRegularFile(
  path: string,
  limit: number,
  what: string,
): Promise<FileContent> {
  const file = await openRegularFile(path, what);
  try {
    const stats = await file.stat();
    checkDocumentSize(stats.size, limit, what);
    const bytes = new Uint8Array(stats.size);
    let read = 0;
    while (read < bytes.length) {
      const { bytesRead } = await file.read(bytes, read, bytes.length - read, read);
      if (bytesRead === 0) break;
      read += bytesRead;
    }
    const after = await file.stat();
    const stable =
      read === after.size && after.size === stats.size && after.mtimeMs === stats.mtimeMs;
    return { bytes: bytes.subarray(0, read), stats, stable };
  } finally {
    await file.close();
  }
}

/**
 * Opens a regular file for reading, and nothing else.
 *
 * @param what What the file is, for the message.
 * @throws {CacheportError} IO_FAILED when it is no regular file
 * @throws The error of the failed system call: ENOENT, ELOOP for a symbolic link, ...
 */
async function openRegularFile(path: string, what: string): Promise<FileHandle> {
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants;
  // The two flags do not exist on Windows, where they are undefined: 0 in an OR.
  const file = await open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  const stats = await file.stat();
  if (stats.isFile()) return file;
  await file.close();
  throw new CacheportError("IO_FAILED", `Cannot read ${what}: it is not a regular file`);
}

/** Bytes that a stream reads from its file at once. */
const STREAM_CHUNK = 512 * 1024;

/**
 * A regular file as a stream. It is open only while a chunk is read, so a stream
 * that is given up halfway holds nothing.
 *
 * @param what What the file is, for the message.
 * @param toError Makes the error that the stream fails with.
 */
export function streamRegularFile(
  path: string,
  what: string,
  toError: (error: unknown) => Error,
  signal?: AbortSignal,
): ReadableStream<Uint8Array> {
  let position = 0;
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          if (signal?.aborted) throw interrupted();
          const chunk = await readAt(path, what, position);
          position += chunk.length;
          if (chunk.length > 0) controller.enqueue(chunk);
          else controller.close();
        } catch (error) {
          controller.error(toError(error));
        }
      },
    },
    // Nothing is read before somebody asks.
    { highWaterMark: 0 },
  );
}

async function readAt(path: string, what: string, position: number): Promise<Uint8Array> {
  const file = await openRegularFile(path, what);
  try {
    const { size } = await file.stat();
    const buffer = new Uint8Array(Math.min(STREAM_CHUNK, Math.max(size - position, 0)));
    if (buffer.length === 0) return buffer;
    const { bytesRead } = await file.read(buffer, 0, buffer.length, position);
    return buffer.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}
