/**
 * Locks between processes on the file that BuildKit locks, `index.json.lock`, in
 * the way that BuildKit locks it: flock(2), which the system gives back when a
 * process dies. Where there is no flock, a lock file that names its owner.
 *
 * Source: BuildKit client/ociindex/ociindex.go: it opens the file with O_CREATE,
 * tries the lock once, and removes the file after use, readers included.
 */
import {
  closeSync,
  constants,
  fstatSync,
  linkSync,
  lstatSync,
  openSync,
  readSync,
  rmSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { link, lstat, open, readFile, rename, unlink } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { hostname } from "node:os";
import { kill, pid } from "node:process";
import { CacheportError, interrupted, systemCode, systemError } from "./errors.ts";
import { systemCall } from "./system-calls.ts";

/** A lock that is held. */
export interface FileLock {
  /** False once another program removed or replaced the lock file: others may hold a lock too. */
  isCurrent(): Promise<boolean>;
  /** Gives the lock back. May be called twice. */
  release(): Promise<void>;
}

/** How to wait for a lock. */
export interface LockOptions {
  /** Milliseconds to wait for it, 30 000 unless told otherwise; 0 tries once. */
  timeout?: number | undefined;
  /** Lets other shared holders in. */
  shared?: boolean | undefined;
  /** False: fails with IO_FAILED when the lock file is missing. */
  create?: boolean | undefined;
  /**
   * The file bears the mark of this program, and only one that does is removed on
   * release: for names that somebody else could have given a file of his own.
   */
  own?: boolean | undefined;
  signal?: AbortSignal | undefined;
}

/** What is in a lock file that is this program's own. */
export const OWN_LOCK_MARK = "lock of cacheport\n";

/** Milliseconds that a lock is waited for unless told otherwise. */
export const DEFAULT_LOCK_TIMEOUT = 30_000;

/** Milliseconds between two tries, at first and at most. */
const WAIT_MIN = 2;
const WAIT_MAX = 50;

/** Milliseconds for which a removed lock file stays locked. */
const LINGER = 5;

/** Milliseconds after which a lock file that names no owner is nobody's. */
const UNREADABLE_AGE = 60_000;

const LOCK_SH = 1;
const LOCK_EX = 2;
const LOCK_NB = 4;

/** The system's flock, or undefined where there is none or it cannot be called. */
function systemFlock(): Flock | undefined {
  return systemCall("flock");
}

type Flock = NonNullable<ReturnType<typeof systemCall<"flock">>>;

/** Tells whether locks are the system's own, which BuildKit takes too. */
export function hasFlock(): boolean {
  return systemFlock() !== undefined;
}

/**
 * Waits for a lock on a file, which is made when it is missing. Holders exclude
 * each other within one process too.
 *
 * @throws {CacheportError} LOCK_TIMEOUT, PERMISSION_DENIED, INTERRUPTED, IO_FAILED
 */
export async function acquireLock(path: string, options: LockOptions = {}): Promise<FileLock> {
  const flock = systemFlock();
  const attempt = flock
    ? () => tryFlock(flock, path, options)
    : () => tryOwnerFile(`${path}.cacheport`);
  return waitFor(path, attempt, options);
}

/**
 * Waits for a lock that is a file with its owner's name, for systems without
 * flock. A file whose owner is a dead process of this machine is taken over.
 *
 * @throws {CacheportError} LOCK_TIMEOUT, PERMISSION_DENIED, INTERRUPTED, IO_FAILED
 */
export async function acquireOwnerFile(path: string, options: LockOptions = {}): Promise<FileLock> {
  return waitFor(path, () => tryOwnerFile(path), options);
}

async function waitFor(
  path: string,
  attempt: () => Promise<FileLock | undefined>,
  { timeout = DEFAULT_LOCK_TIMEOUT, signal }: LockOptions,
): Promise<FileLock> {
  const deadline = performance.now() + timeout;
  for (let wait = WAIT_MIN; ; wait = Math.min(wait * 1.5, WAIT_MAX)) {
    if (signal?.aborted) throw interrupted();
    let lock: FileLock | undefined;
    try {
      lock = await attempt();
    } catch (error) {
      throw systemError(`Cannot lock "${path}"`, error);
    }
    if (lock) return lock;
    const left = deadline - performance.now();
    if (left <= 0) {
      throw new CacheportError(
        "LOCK_TIMEOUT",
        `Cannot lock "${path}": another process has held it for ${timeout / 1000} s`,
        {
          hint: { do: "wait-for-lock" },
        },
      );
    }
    // Spread out, so that several waiters do not knock at the same time for ever.
    await Bun.sleep(Math.min(left, wait * (0.5 + Math.random() / 2)));
  }
}

/** One try for an flock; undefined when it is held, or when the file was replaced meanwhile. */
async function tryFlock(
  flock: Flock,
  path: string,
  { shared = false, create = true, own = false }: LockOptions,
): Promise<FileLock | undefined> {
  const { O_RDWR, O_CREAT, O_NOFOLLOW } = constants;
  // Read-write, since NFS gives an exclusive lock on nothing less. A plain
  // descriptor, since a FileHandle that nobody refers to is closed by the garbage
  // collector, and a lock is to last until it is released.
  const flags = O_RDWR | O_NOFOLLOW | (create ? O_CREAT : 0);
  const fd = own && create ? openMarked(path, flags) : openSync(path, flags, 0o600);
  const operation = (shared ? LOCK_SH : LOCK_EX) | LOCK_NB;
  if (flock(fd, operation) !== 0 || !(await isSameFile(fd, path))) {
    closeSync(fd);
    return undefined;
  }
  return flockHolder(fd, path, !own || hasMark(fd));
}

/**
 * Opens a lock file, or makes one with the mark: what was there already is somebody's. It
 * gets its name when it has the mark, so that a kill leaves no file without an owner.
 */
function openMarked(path: string, flags: number): number {
  try {
    return openSync(path, flags & ~constants.O_CREAT);
  } catch (error) {
    if (systemCode(error) !== "ENOENT") throw error;
  }
  const fresh = `${path}.${crypto.randomUUID()}`;
  const fd = openSync(fresh, flags | constants.O_EXCL, 0o600);
  try {
    writeSync(fd, OWN_LOCK_MARK, 0);
    linkSync(fresh, path);
    return fd;
  } catch (error) {
    closeSync(fd);
    const code = systemCode(error);
    // Made by another process meanwhile, or taken away by one that clears up.
    if (code === "EEXIST" || code === "ENOENT") return openMarked(path, flags);
    if (code !== "EPERM" && code !== "ENOTSUP" && code !== "ENOSYS") throw error;
  } finally {
    rmSync(fresh, { force: true });
  }
  // A file system without links: between these two calls a kill leaves a file without a mark.
  const made = openSync(path, flags | constants.O_EXCL, 0o600);
  writeSync(made, OWN_LOCK_MARK, 0);
  return made;
}

function hasMark(fd: number): boolean {
  // One byte more, so that a longer file is told from one that is the mark.
  const bytes = Buffer.alloc(OWN_LOCK_MARK.length + 1);
  return bytes.toString("utf8", 0, readSync(fd, bytes, 0, bytes.length, 0)) === OWN_LOCK_MARK;
}

/**
 * Locks an open new file as long as it is open, where there are locks on files.
 *
 * @returns False when {@link removeUnlocked} was faster.
 */
export async function lockFile(fd: number, path: string): Promise<boolean> {
  const flock = systemFlock();
  return !flock || (flock(fd, LOCK_EX | LOCK_NB) === 0 && isSameFile(fd, path));
}

/**
 * Removes a file that nobody has locked, and lets nobody lock it meanwhile; where there are
 * no locks on files, one that is a minute old.
 */
export function removeUnlocked(path: string): void {
  const fd = openSync(path, constants.O_RDWR | constants.O_NOFOLLOW);
  try {
    const flock = systemFlock();
    const isDead = flock
      ? flock(fd, LOCK_EX | LOCK_NB) === 0
      : Date.now() - fstatSync(fd).mtimeMs > UNREADABLE_AGE;
    if (isDead) unlinkSync(path);
  } finally {
    closeSync(fd);
  }
}

/**
 * Tells whether somebody holds a lock on a file, without touching the file. One that is
 * not there is held by nobody.
 */
export async function isLocked(path: string): Promise<boolean> {
  const flock = systemFlock();
  if (!flock) return isOwnerAlive(`${path}.cacheport`);
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDWR | constants.O_NOFOLLOW);
  } catch (error) {
    return systemCode(error) !== "ENOENT";
  }
  try {
    return flock(fd, LOCK_EX | LOCK_NB) !== 0;
  } finally {
    closeSync(fd);
  }
}

async function isOwnerAlive(path: string): Promise<boolean> {
  const content = await readFile(path, "utf8").catch(() => undefined);
  return content !== undefined && !(await isDead(path, content));
}

/**
 * The file is removed on release, as BuildKit does it: left behind, it would be
 * litter in a layout, and a file of mode 0600 that keeps every other user's
 * BuildKit from opening it. Programs that re-check the inode, as this one does,
 * are safe with that. BuildKit does not re-check, and one that opened the file just
 * before it went could lock the dead inode while somebody else locks a new one. But
 * BuildKit tries once and at once; so the dead inode stays locked for a moment
 * longer, in which such a try fails, while newcomers find no file and make a new one.
 */
function flockHolder(fd: number, path: string, removes: boolean): FileLock {
  let released = false;
  return {
    isCurrent: async () => !released && (await isSameFile(fd, path)),
    async release() {
      if (released) return;
      released = true;
      if (removes && (await isSameFile(fd, path))) rmSync(path, { force: true });
      setTimeout(() => closeSync(fd), LINGER).unref();
    },
  };
}

/** Tells whether a path still leads to an open file. */
async function isSameFile(fd: number, path: string): Promise<boolean> {
  const held = fstatSync(fd, { bigint: true });
  const found = lstatSync(path, { bigint: true, throwIfNoEntry: false });
  return found?.ino === held.ino && found.dev === held.dev;
}

/** One try to make an owner file; undefined when it is there and its owner may be alive. */
async function tryOwnerFile(path: string): Promise<FileLock | undefined> {
  const content = JSON.stringify({
    pid,
    host: hostname(),
    nonce: crypto.randomUUID(),
  });
  let handle: FileHandle;
  try {
    handle = await open(path, "wx", 0o600);
  } catch (error) {
    if (systemCode(error) !== "EEXIST") throw error;
    await removeDeadOwner(path);
    return undefined;
  }
  try {
    await handle.writeFile(content);
  } finally {
    await handle.close();
  }
  const isMine = async (): Promise<boolean> =>
    (await readFile(path, "utf8").catch(() => "")) === content;
  return {
    isCurrent: isMine,
    async release() {
      if (await isMine()) await unlink(path).catch(() => {});
    },
  };
}

/** Removes an owner file whose process is dead; the next try can then make a new one. */
async function removeDeadOwner(path: string): Promise<void> {
  const content = await readFile(path, "utf8").catch(() => undefined);
  if (content === undefined || !(await isDead(path, content))) return;
  // Renamed first and looked at again: meanwhile another process may have taken
  // the dead file's place with its own, which then goes back.
  const aside = `${path}.${crypto.randomUUID()}`;
  try {
    await rename(path, aside);
  } catch {
    return;
  }
  if ((await readFile(aside, "utf8").catch(() => "")) !== content)
    await link(aside, path).catch(() => {});
  await unlink(aside).catch(() => {});
}

async function isDead(path: string, content: string): Promise<boolean> {
  let owner: { pid?: unknown; host?: unknown } | null;
  try {
    owner = JSON.parse(content);
  } catch {
    // Its owner is about to write it, or died before it could.
    const stats = await lstat(path).catch(() => undefined);
    return stats !== undefined && Date.now() - stats.mtimeMs > UNREADABLE_AGE;
  }
  if (owner?.host !== hostname() || typeof owner.pid !== "number") return false;
  try {
    kill(owner.pid, 0);
    return false;
  } catch (error) {
    return systemCode(error) === "ESRCH";
  }
}
