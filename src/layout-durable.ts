/**
 * Files of a layout: written so that they are there whole or not at all, also after a
 * crash of the machine, and read without following links or waiting for pipes.
 */
import {
  closeSync,
  constants,
  fchmodSync,
  fchownSync,
  fstatSync,
  fsync,
  fsyncSync,
  openSync,
  read,
  readSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import type { Stats } from "node:fs";
import type { FileHandle } from "node:fs/promises";
import { platform } from "node:process";
import { mapLimit } from "./concurrency.ts";
import { checkDocumentSize } from "./documents.ts";
import { CacheportError, interrupted } from "./errors.ts";

/** Brings the entries of a folder to the disk: files that were made, renamed or removed in it. */
export async function syncFolder(path: string): Promise<void> {
  // Windows cannot open a folder as a file, and keeps its entries in a journal.
  if (platform === "win32") return;
  // Here, since there is nothing else to be done before it is: a thread would wait the same.
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** Files from which on one call that syncs the whole file system costs less than one for each. */
const MANY = 16;

/** Files that are synced at once where each is. */
const SYNCS_AT_ONCE = 16;

/**
 * Brings the bytes of files to the disk.
 *
 * @param folder A folder of the file system that all of them lie on.
 * @throws The error of the failed system call.
 */
export async function syncFiles(paths: readonly string[], folder: string): Promise<void> {
  if (paths.length >= MANY && (await syncFileSystem(folder))) return;
  await mapLimit(paths, SYNCS_AT_ONCE, async (path) => {
    // A blob cannot be written any more; only Windows wants to write what it is to sync.
    const mode = platform === "win32" ? constants.O_RDWR : constants.O_RDONLY;
    const fd = openSync(path, mode | constants.O_NOFOLLOW);
    try {
      // Several at once share a way to the disk; for one alone there is no need of a thread.
      if (paths.length === 1) fsyncSync(fd);
      else await syncElsewhere(fd);
    } finally {
      closeSync(fd);
    }
  });
}

function syncElsewhere(fd: number): Promise<void> {
  return new Promise((resolve, reject) => {
    fsync(fd, (error) => {
      if (error) reject(error);
      else resolve();
    });
  });
}

/** Brings all files of a file system to the disk. @returns False where that cannot be asked for */
async function syncFileSystem(folder: string): Promise<boolean> {
  // Whoever only reads does not load what calls the C library.
  const { systemCall } = await import("./system-calls.ts");
  const syncfs = systemCall("syncfs");
  if (!syncfs) return false;
  const fd = openSync(folder, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    // Whatever the reason of a failure is, syncing each file tells it.
    return syncfs(fd) === 0;
  } finally {
    closeSync(fd);
  }
}

/**
 * Writes a new file, which is not on the disk before {@link syncFiles}.
 *
 * @param path Must not exist.
 * @param mode Permission bits.
 * @throws The error of the failed system call; the file is removed.
 */
export function writeUnsynced(path: string, bytes: Uint8Array, mode: number): void {
  const fd = openSync(path, "wx", 0o600);
  try {
    for (let done = 0; done < bytes.length;) done += writeSync(fd, bytes, done);
    fchmodSync(fd, mode);
  } catch (error) {
    unlinkSync(path);
    throw error;
  } finally {
    closeSync(fd);
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
  const fd = openSync(path, "wx", 0o600);
  try {
    await writeWhole(fd, bytes, mode, replaces);
  } catch (error) {
    unlinkSync(path);
    throw error;
  } finally {
    closeSync(fd);
  }
}

/** Writes an open new file whole, as {@link writeDurably} does. */
export async function writeWhole(
  fd: number,
  bytes: Uint8Array,
  mode: number,
  replaces?: Stats,
): Promise<void> {
  for (let done = 0; done < bytes.length;) done += writeSync(fd, bytes, done);
  if (replaces) keepOwner({ fd }, replaces);
  fchmodSync(fd, mode);
  // A large file takes the disk a while, in which there may be other things to do.
  if (bytes.length <= READ_HERE) fsyncSync(fd);
  else await syncElsewhere(fd);
}

/** Writes bytes at the end of what was written, all of them. */
export async function writeAll(file: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    const { bytesWritten } = await file.write(bytes, done);
    done += bytesWritten;
  }
}

/** A file that root replaces stays its owner's, who could not write it any more otherwise. */
export function keepOwner({ fd }: { readonly fd: number }, { uid, gid }: Stats): void {
  const own = fstatSync(fd);
  if (own.uid === uid && own.gid === gid) return;
  try {
    fchownSync(fd, uid, gid);
  } catch {
    // Not permitted to others than root, whose own file it then is.
  }
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
  const fd = openRegular(path, what);
  try {
    const stats = fstatSync(fd);
    checkDocumentSize(stats.size, limit, what);
    const bytes = new Uint8Array(stats.size);
    let done = 0;
    while (done < bytes.length) {
      const count = await readPart(fd, bytes, done);
      if (count === 0) break;
      done += count;
    }
    const after = fstatSync(fd);
    const stable =
      done === after.size && after.size === stats.size && after.mtimeMs === stats.mtimeMs;
    return { bytes: bytes.subarray(0, done), stats, stable };
  } finally {
    closeSync(fd);
  }
}

/**
 * Bytes up to which this thread reads by itself: waking another one takes longer than
 * reading them, and for a whole small command the first thread to wake has to be made.
 */
const READ_HERE = 1024 * 1024;

async function readPart(fd: number, bytes: Uint8Array, from: number): Promise<number> {
  const left = bytes.length - from;
  if (bytes.length <= READ_HERE) return readSync(fd, bytes, from, left, from);
  return readAsync(fd, bytes, { offset: from, length: left, position: from });
}

/** Reads on another thread. */
function readAsync(
  fd: number,
  bytes: Uint8Array,
  options: { offset: number; length: number; position: number },
): Promise<number> {
  return new Promise((resolve, reject) => {
    read(fd, bytes, options, (error, count) => {
      if (error) reject(error);
      else resolve(count);
    });
  });
}

/**
 * Opens a regular file for reading, and nothing else. The descriptor is the caller's to close.
 *
 * @param what What the file is, for the message.
 * @throws {CacheportError} IO_FAILED when it is no regular file
 * @throws The error of the failed system call: ENOENT, ELOOP for a symbolic link, ...
 */
function openRegular(path: string, what: string): number {
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants;
  // The two flags do not exist on Windows, where they are undefined: 0 in an OR.
  const fd = openSync(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  if (fstatSync(fd).isFile()) return fd;
  closeSync(fd);
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
  const fd = openRegular(path, what);
  try {
    const { size } = fstatSync(fd);
    const buffer = new Uint8Array(Math.min(STREAM_CHUNK, Math.max(size - position, 0)));
    if (buffer.length === 0) return buffer;
    const options = { offset: 0, length: buffer.length, position };
    return buffer.subarray(0, await readAsync(fd, buffer, options));
  } finally {
    closeSync(fd);
  }
}
