/**
 * Changes the `index.json` of a layout folder so that no change of anybody is lost.
 *
 * BuildKit rewrites index.json in place, under an flock on `index.json.lock`. A writer
 * that renames a new file into place must hold that lock: a BuildKit that has the old
 * file open would write its change into a file that nobody finds any more.
 */
import { readdir, rename, unlink } from "node:fs/promises";
import { syncFolder, writeDurably } from "./layout-durable.ts";
import { interrupted, systemError } from "./errors.ts";
import { acquireLock, DEFAULT_LOCK_TIMEOUT } from "./layout-lock.ts";
import { emptyLayoutIndex, encodeLayoutIndex, sameIndex } from "./layout-index.ts";
import type { LayoutIndex } from "./layout-index.ts";
import {
  hasLayoutMarker,
  INDEX,
  isFolder,
  MARKER,
  noFolder,
  readIndex,
} from "./layout-index-file.ts";
import { LAYOUT_MARKER } from "./layout-marker.ts";
import { isTemporaryIndexFile, temporaryIndexFile } from "./layout-work.ts";
import { join } from "./paths.ts";

/** The file that BuildKit locks. */
const LOCK = "index.json.lock";

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
