/**
 * The `index.json` and the `oci-layout` file of a layout folder on disk: read while
 * others write, and changed so that no change of anybody is lost.
 *
 * BuildKit rewrites index.json in place, under an flock on `index.json.lock`. A
 * reader without the lock can therefore see a torn file. A writer that renames a new
 * file into place must hold the lock: a BuildKit that has the old file open would
 * write its change into a file that nobody finds any more.
 */
import type { Stats } from "node:fs";
import { readdir, rename, stat, unlink } from "node:fs/promises";
import { readRegularFile, syncFolder, writeDurably } from "./layout-durable.ts";
import type { FileContent } from "./layout-durable.ts";
import {
  CacheportError,
  interrupted,
  isCacheportError,
  systemCode,
  systemError,
} from "./errors.ts";
import { acquireLock, DEFAULT_LOCK_TIMEOUT } from "./layout-lock.ts";
import {
  emptyLayoutIndex,
  encodeLayoutIndex,
  parseLayoutIndex,
  sameIndex,
} from "./layout-index.ts";
import type { LayoutIndex } from "./layout-index.ts";
import { checkLayoutMarker, LAYOUT_MARKER } from "./layout-marker.ts";
import { isTemporaryIndexFile, temporaryIndexFile } from "./layout-work.ts";
import { join } from "./paths.ts";

/** Bytes of an index.json that are accepted: some hundred thousand entries. */
const INDEX_LIMIT = 64 * 1024 * 1024;

/** Bytes of an oci-layout file that are accepted. */
const MARKER_LIMIT = 64 * 1024;

/** Milliseconds between the readings of a torn index.json; BuildKit's write takes far less. */
const REREAD_AFTER = [2, 5, 10, 25, 50, 100];

const INDEX = "index.json";
const MARKER = "oci-layout";
const LOCK = "index.json.lock";

/**
 * Reads the index.json of a layout folder, without a lock. A torn file is read
 * again for a moment before it is called damaged.
 *
 * @param location The folder as the user wrote it, for messages.
 * @throws {CacheportError} LOCATION_NOT_FOUND, LAYOUT_INVALID when there is none,
 *   DOCUMENT_INVALID, DOCUMENT_TOO_LARGE
 */
export async function readIndexFile(
  folder: string,
  location: string = folder,
): Promise<LayoutIndex> {
  const content = await readIndex(folder, location, { emptyIsNone: false });
  if (content) return content.index;
  if (!(await isFolder(folder))) throw noFolder(location);
  throw new CacheportError(
    "LAYOUT_INVALID",
    `Cannot read layout "${location}": it has no index.json`,
    {
      hint: "The program that wrote it did not finish, or the folder is not a layout",
    },
  );
}

/**
 * Reads the index.json of a layout folder that is to be written to: a missing or an
 * empty one counts as an index without entries, as for BuildKit.
 *
 * @throws {CacheportError} DOCUMENT_INVALID, DOCUMENT_TOO_LARGE
 */
export async function readIndexForUpdate(
  folder: string,
  location: string = folder,
): Promise<LayoutIndex> {
  const content = await readIndex(folder, location, { emptyIsNone: true });
  return content?.index ?? emptyLayoutIndex();
}

/** The error for a layout whose folder is not there. */
export function noFolder(location: string): CacheportError {
  return new CacheportError(
    "LOCATION_NOT_FOUND",
    `Cannot open layout "${location}": there is no such folder`,
    { hint: "Give the folder that holds index.json and blobs" },
  );
}

/** Tells whether a path leads to a folder. */
export async function isFolder(path: string): Promise<boolean> {
  const stats = await stat(path).catch(() => undefined);
  return stats?.isDirectory() === true;
}

/** An index.json together with the file that it was read from. */
interface IndexContent {
  readonly index: LayoutIndex;
  readonly stats: Stats;
}

/** Reads index.json; undefined when there is none, or when it is empty and that counts as none. */
async function readIndex(
  folder: string,
  location: string,
  { emptyIsNone }: { emptyIsNone: boolean },
): Promise<IndexContent | undefined> {
  const what = `index.json of "${location}"`;
  for (let attempt = 0; ; attempt++) {
    const wait = REREAD_AFTER[attempt];
    try {
      const content = await readIfThere(join(folder, INDEX), INDEX_LIMIT, what);
      if (!content || (emptyIsNone && content.bytes.length === 0)) return undefined;
      if (content.stable || wait === undefined)
        return { index: parseIndex(content.bytes, what), stats: content.stats };
    } catch (error) {
      if (wait === undefined || !isCacheportError(error, "DOCUMENT_INVALID")) throw error;
    }
    await Bun.sleep(wait);
  }
}

function parseIndex(bytes: Uint8Array, what: string): LayoutIndex {
  if (bytes.length > 0) return parseLayoutIndex(bytes, what);
  throw new CacheportError("DOCUMENT_INVALID", `Cannot read ${what}: the file is empty`, {
    hint: "A program was stopped while it wrote it; export the cache or copy the image again",
  });
}

async function readIfThere(
  path: string,
  limit: number,
  what: string,
): Promise<FileContent | undefined> {
  try {
    return await readRegularFile(path, limit, what);
  } catch (error) {
    if (["ENOENT", "ENOTDIR"].includes(systemCode(error) ?? "")) return undefined;
    throw systemError(`Cannot read ${what}`, error);
  }
}

/**
 * Looks at the `oci-layout` file of a folder. One that is no JSON counts as none,
 * since BuildKit, which rewrites it in place with every export, does not look at it.
 *
 * @returns Whether it is there and good.
 * @throws {CacheportError} LAYOUT_INVALID for another version
 */
export async function hasLayoutMarker(folder: string, location: string = folder): Promise<boolean> {
  try {
    const what = `oci-layout of "${location}"`;
    const path = join(folder, MARKER);
    const content = await readIfThere(path, MARKER_LIMIT, what);
    if (!content) return false;
    checkLayoutMarker(content.bytes, location);
    return true;
  } catch (error) {
    if (isCacheportError(error, "DOCUMENT_INVALID")) return false;
    throw error;
  }
}

/** Tells whether a folder has an index.json, whatever is in it. */
export async function hasIndexFile(folder: string): Promise<boolean> {
  const stats = await stat(join(folder, INDEX)).catch(() => undefined);
  return stats !== undefined;
}

/** How to change an index.json. */
export interface UpdateOptions {
  /** Milliseconds to wait for the lock. */
  lockTimeout?: number | undefined;
  signal?: AbortSignal | undefined;
  /** The folder as the user wrote it, for messages. */
  location?: string | undefined;
}

/**
 * Changes the index.json of a layout folder: under the lock it is read, changed,
 * written to a temporary file, synced and renamed into place. A missing or empty
 * one counts as an index without entries. Writes a missing `oci-layout` too. A
 * change that changes nothing writes nothing.
 *
 * The lock is held for this alone, since BuildKit fails at once when it is held.
 *
 * @param change Gives the new index; is called again when another program
 *   interfered, and may throw to leave everything as it is.
 * @returns The index that is there now.
 * @throws {CacheportError} LOCK_TIMEOUT, DOCUMENT_INVALID, LAYOUT_INVALID, NO_SPACE,
 *   PERMISSION_DENIED, INTERRUPTED, and what `change` throws
 */
export async function updateIndexFile(
  folder: string,
  change: (index: LayoutIndex) => LayoutIndex,
  { lockTimeout = DEFAULT_LOCK_TIMEOUT, signal, location = folder }: UpdateOptions = {},
): Promise<LayoutIndex> {
  if (!(await isFolder(folder))) throw noFolder(location);
  for (;;) {
    if (signal?.aborted) throw interrupted();
    const lock = await acquireLock(join(folder, LOCK), {
      timeout: lockTimeout,
      signal,
    });
    try {
      const old = await readIndex(folder, location, { emptyIsNone: true });
      const before = old?.index ?? emptyLayoutIndex();
      const after = change(before);
      await removeLeftovers(folder);
      await ensureLayoutMarker(folder, location);
      if (old && sameIndex(before, after)) return before;
      const temporary = temporaryIndexFile(folder, INDEX);
      const mode = old ? old.stats.mode & 0o777 : 0o644;
      const bytes = encodeLayoutIndex(after);
      await writeDurably(temporary, bytes, mode, old?.stats);
      // BuildKit removes the lock file after it has given the lock back. When that
      // hit the file that was locked here, somebody else may hold a lock on a new
      // one by now: then all is done again, with what is there by then.
      if (!(await lock.isCurrent())) {
        await unlink(temporary);
        continue;
      }
      await rename(temporary, join(folder, INDEX));
      await syncFolder(folder);
      return after;
    } catch (error) {
      throw systemError(`Cannot write index.json of "${location}"`, error);
    } finally {
      await lock.release();
    }
  }
}

/** Removes what a run that died under the lock has left. */
async function removeLeftovers(folder: string): Promise<void> {
  for (const name of await readdir(folder)) {
    if (isTemporaryIndexFile(name)) await unlink(join(folder, name)).catch(() => {});
  }
}

async function ensureLayoutMarker(folder: string, location: string): Promise<void> {
  if (await hasLayoutMarker(folder, location)) return;
  const temporary = temporaryIndexFile(folder, MARKER);
  await writeDurably(temporary, LAYOUT_MARKER, 0o644);
  await rename(temporary, join(folder, MARKER));
}
