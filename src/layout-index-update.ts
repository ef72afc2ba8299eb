/**
 * Changes the `index.json` of a layout folder so that no change of anybody is lost.
 *
 * BuildKit rewrites index.json in place, under an flock on `index.json.lock`. A writer
 * that renames a new file into place must hold that lock: a BuildKit that has the old
 * file open would write its change into a file that nobody finds any more.
 */
import { closeSync, openSync, readdirSync, renameSync, rmSync, statSync } from "node:fs";
import type { Stats } from "node:fs";
import { readRegularFile, syncFolder, writeWhole } from "./layout-durable.ts";
import { interrupted, isCacheportError, systemCode, systemError } from "./errors.ts";
import { acquireLock, DEFAULT_LOCK_TIMEOUT, lockFile, removeUnlocked } from "./layout-lock.ts";
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
import type { IndexContent } from "./layout-index-file.ts";
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
  /** Is called under the lock, just before the new index takes its place; may throw to prevent it. */
  check?: (() => void) | undefined;
}

/** How often the new file is made before the lock is taken; after that, all is done under the lock. */
const EARLY_ATTEMPTS = 5;

/** Milliseconds after a hold in which this process takes no other: BuildKit tries once and fails. */
const PAUSE = 20;

/** Bytes of an index.json up to which it is compared whole, which takes less than a millisecond. */
const COMPARED = 1024 * 1024;

/** Milliseconds within which a change can have left the time of a file as it was. */
const CLOCK_STEP = 2000;

/** When this process last gave a lock back, by folder. */
const released = new Map<string, number>();

/**
 * Changes the index.json of a layout folder: it is read and changed, and the new one
 * written to a temporary file and synced. Then the lock is taken, for a look at whether
 * the old one is still the same and for a rename: BuildKit's export fails at once when the
 * lock is held. A missing or empty one counts as an index without entries. Writes a missing
 * `oci-layout` too. A change that changes nothing writes nothing.
 *
 * @param change Gives the new index; is called again when another program
 *   interfered, and may throw to leave everything as it is.
 * @returns The index that is there now.
 * @throws {CacheportError} LOCK_TIMEOUT, DOCUMENT_INVALID, LAYOUT_INVALID, NO_SPACE,
 *   PERMISSION_DENIED, INTERRUPTED, and what `change` and `check` throw
 */
export async function updateIndexFile(
  folder: string,
  change: (index: LayoutIndex) => LayoutIndex,
  options: UpdateOptions = {},
): Promise<LayoutIndex> {
  const { signal, location = folder } = options;
  if (!(await isFolder(folder))) throw noFolder(location);
  for (let attempt = 0; ; attempt++) {
    if (signal?.aborted) throw interrupted();
    const isEarly = attempt < EARLY_ATTEMPTS;
    try {
      const early = isEarly ? await prepareEarly(folder, change, location) : undefined;
      const done = await replaceIndex(folder, early, change, options);
      if (done) return done;
    } catch (error) {
      throw systemError(`Cannot write index.json of "${location}"`, error);
    }
    // Another program was faster; spread out, so that not all come back at once.
    await Bun.sleep(Math.random() * PAUSE);
  }
}

/** A new index.json, and the old one that it was made from. */
interface Prepared {
  readonly old: IndexContent | undefined;
  readonly index: LayoutIndex;
  /** The new file; undefined when it would be the old one. */
  readonly file: TemporaryFile | undefined;
}

/** A temporary file that this process has locked as long as it is open. */
interface TemporaryFile {
  readonly path: string;
  readonly fd: number;
}

/** Prepares without the lock; undefined when what is there is torn, as it is while BuildKit writes it. */
async function prepareEarly(
  folder: string,
  change: (index: LayoutIndex) => LayoutIndex,
  location: string,
): Promise<Prepared | undefined> {
  let old: IndexContent | undefined;
  try {
    old = await readIndex(folder, location, { emptyIsNone: true });
  } catch (error) {
    if (isCacheportError(error, "DOCUMENT_INVALID")) return undefined;
    throw error;
  }
  return prepare(folder, old, change, location);
}

async function prepare(
  folder: string,
  old: IndexContent | undefined,
  change: (index: LayoutIndex) => LayoutIndex,
  location: string,
): Promise<Prepared> {
  const before = old?.index ?? emptyLayoutIndex();
  const index = change(before);
  await removeLeftovers(folder);
  await ensureLayoutMarker(folder, location);
  if (old && sameIndex(before, index)) return { old, index: before, file: undefined };
  const mode = old ? old.stats.mode & 0o777 : 0o644;
  const file = await writeTemporary(folder, INDEX, encodeLayoutIndex(index), mode, old?.stats);
  return { old, index, file };
}

/** Puts a new index.json in the place of the old one. @returns Undefined when another program interfered */
async function replaceIndex(
  folder: string,
  early: Prepared | undefined,
  change: (index: LayoutIndex) => LayoutIndex,
  { lockTimeout = DEFAULT_LOCK_TIMEOUT, signal, location = folder, check }: UpdateOptions,
): Promise<LayoutIndex | undefined> {
  let prepared = early;
  try {
    if (early && !early.file) return early.index;
    const wait = (released.get(folder) ?? -PAUSE) + PAUSE - performance.now();
    if (wait > 0) await Bun.sleep(wait);
    const lock = await acquireLock(join(folder, LOCK), { timeout: lockTimeout, signal });
    try {
      if (early && !(await isUnchanged(folder, early))) return undefined;
      const old = early ? undefined : await readIndex(folder, location, { emptyIsNone: true });
      prepared ??= await prepare(folder, old, change, location);
      if (!prepared.file) return prepared.index;
      check?.();
      // BuildKit removes the lock file after it has given the lock back. When that
      // hit the file that was locked here, somebody else may hold a lock on a new
      // one by now: then all is done again, with what is there by then.
      if (!(await lock.isCurrent())) return undefined;
      renameSync(prepared.file.path, join(folder, INDEX));
    } catch (error) {
      // Where there are no locks on files, another run took the new file for a dead one's.
      if (early && systemCode(error) === "ENOENT") return undefined;
      throw error;
    } finally {
      await lock.release();
      released.set(folder, performance.now());
    }
    await syncFolder(folder);
    return prepared.index;
  } finally {
    if (prepared?.file) discard(prepared.file);
  }
}

/** Tells, under the lock, whether index.json is still what a new one was made from. */
async function isUnchanged(folder: string, { old }: Prepared): Promise<boolean> {
  const path = join(folder, INDEX);
  const now = statSync(path, { throwIfNoEntry: false });
  if (!old || !now) return !old && (now?.size ?? 0) === 0;
  const { ino, size, mtimeMs } = old.stats;
  if (now.ino !== ino || now.size !== size || now.mtimeMs !== mtimeMs) return false;
  if (size > COMPARED && Date.now() - mtimeMs > CLOCK_STEP) return true;
  const { bytes } = await readRegularFile(path, size, INDEX);
  return Buffer.compare(bytes, old.bytes) === 0;
}

async function writeTemporary(
  folder: string,
  name: typeof INDEX | typeof MARKER,
  bytes: Uint8Array,
  mode: number,
  replaces?: Stats,
): Promise<TemporaryFile> {
  const file = await openTemporary(folder, name);
  try {
    await writeWhole(file.fd, bytes, mode, replaces);
  } catch (error) {
    discard(file);
    throw error;
  }
  return file;
}

async function openTemporary(
  folder: string,
  name: typeof INDEX | typeof MARKER,
): Promise<TemporaryFile> {
  for (;;) {
    const path = temporaryIndexFile(folder, name);
    const fd = openSync(path, "wx", 0o600);
    if (await lockFile(fd, path)) return { path, fd };
    // Another run took it for a dead one's before it was locked.
    closeSync(fd);
  }
}

/** Gives up a temporary file, or what is left of one that has its name. */
function discard({ path, fd }: TemporaryFile): void {
  rmSync(path, { force: true });
  closeSync(fd);
}

/** Removes what runs that died have left. */
async function removeLeftovers(folder: string): Promise<void> {
  for (const name of readdirSync(folder)) {
    if (!isTemporaryIndexFile(name)) continue;
    try {
      removeUnlocked(join(folder, name));
    } catch {
      // Gone by now, or somebody else's.
    }
  }
}

async function ensureLayoutMarker(folder: string, location: string): Promise<void> {
  if (await hasLayoutMarker(folder, location)) return;
  const file = await writeTemporary(folder, MARKER, LAYOUT_MARKER, 0o644);
  try {
    renameSync(file.path, join(folder, MARKER));
  } finally {
    discard(file);
  }
}
