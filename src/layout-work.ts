/**
 * The folder in which one run keeps its temporary files: `.cacheport/run-<random>`
 * within the layout, so that a finished file can be renamed into place. Each holds a
 * file `lock` that its run has locked. One that nobody has locked belongs to a run
 * that died, and the next run removes it.
 */
import { lstat, mkdir, readdir, rm, rmdir } from "node:fs/promises";
import { CacheportError, systemCode, systemError } from "./errors.ts";
import { acquireLock } from "./layout-lock.ts";
import type { FileLock } from "./layout-lock.ts";
import { dirname, join } from "./paths.ts";

const PARENT = ".cacheport";
const PREFIX = "run-";
const LOCK = "lock";

/** How often to begin anew when other runs remove what this one needs. */
const ATTEMPTS = 20;

/** A folder for temporary files that is gone after {@link RunFolder.close}. */
export class RunFolder {
  /** The topmost folder that was made for {@link RunFolder.open}'s root, if any was. */
  readonly madeRoot: string | undefined;
  readonly #path: string;
  readonly #lock: FileLock;

  private constructor(path: string, lock: FileLock, madeRoot: string | undefined) {
    this.#path = path;
    this.#lock = lock;
    this.madeRoot = madeRoot;
  }

  /**
   * Makes a run folder, and its root where that is missing, and removes those of
   * dead runs.
   *
   * @param root Path of the layout folder.
   * @throws {CacheportError} PERMISSION_DENIED, NO_SPACE, LAYOUT_INVALID, IO_FAILED
   */
  static async open(root: string): Promise<RunFolder> {
    const parent = join(root, PARENT);
    const path = join(parent, `${PREFIX}${crypto.randomUUID()}`);
    try {
      let madeRoot: string | undefined;
      const lock = await againIfRemoved(async () => {
        madeRoot = (await mkdir(root, { recursive: true })) ?? madeRoot;
        await makeFolder(parent);
        await mkdir(path, 0o700);
        return acquireLock(join(path, LOCK));
      });
      await removeDeadRuns(parent, path);
      return new RunFolder(path, lock, madeRoot);
    } catch (error) {
      throw systemError(`Cannot make folder "${path}"`, error);
    }
  }

  /** A path for a new temporary file. */
  temporaryPath(): string {
    return join(this.#path, crypto.randomUUID());
  }

  /** Removes the folder with all that is in it. May be called twice. */
  async close(): Promise<void> {
    await rm(this.#path, { recursive: true, force: true });
    await this.#lock.release();
    // Other runs may be at work in there.
    await rmdir(dirname(this.#path)).catch(() => {});
  }
}

/**
 * Runs steps that make folders and use them, and all of them again when a folder
 * was gone between two steps: a run that ends removes the folders that it finds
 * empty, and another one's folder that is not locked yet.
 */
export async function againIfRemoved<T>(run: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await run();
    } catch (error) {
      const cause = error instanceof CacheportError ? error.cause : error;
      if (systemCode(cause) !== "ENOENT" || attempt === ATTEMPTS) throw error;
    }
  }
}

/**
 * Makes a folder unless it is there. A symbolic link in its place is refused, since
 * it would lead the writer out of the layout.
 *
 * @returns Whether it was made.
 * @throws {CacheportError} LAYOUT_INVALID when something else is in its place
 * @throws The error of the failed system call.
 */
export async function makeFolder(path: string): Promise<boolean> {
  try {
    await mkdir(path, 0o755);
    return true;
  } catch (error) {
    if (systemCode(error) !== "EEXIST") throw error;
  }
  if ((await lstat(path)).isDirectory()) return false;
  throw new CacheportError(
    "LAYOUT_INVALID",
    `Cannot write to "${path}": it is a symbolic link or a file, and a layout has a folder there`,
    { hint: "Replace it with a real folder" },
  );
}

async function removeDeadRuns(parent: string, own: string): Promise<void> {
  for (const name of await readdir(parent)) {
    const path = join(parent, name);
    if (!name.startsWith(PREFIX) || path === own) continue;
    await removeIfDead(path).catch(() => {});
  }
}

async function removeIfDead(path: string): Promise<void> {
  // A run that died before it had a lock left an empty folder. Should it live, it
  // finds its folder gone and makes another.
  const isEmpty = await rmdir(path).then(
    () => true,
    () => false,
  );
  if (isEmpty) return;
  const lock = await acquireLock(join(path, LOCK), {
    timeout: 0,
    create: false,
  }).catch((error: unknown) => {
    // A run has its lock before it has anything else, so one that has files and no
    // lock died while it was being removed.
    const cause = error instanceof CacheportError ? error.cause : error;
    if (systemCode(cause) !== "ENOENT") throw error;
  });
  try {
    await rm(path, { recursive: true, force: true });
  } finally {
    await lock?.release();
  }
}
