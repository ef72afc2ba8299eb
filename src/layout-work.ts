/**
 * Every temporary file and folder of this program: how it is called, where it lies, and
 * how what a dead run left is told from what a living one uses. No other file makes up
 * such a name; gc, verify and the tests go by {@link TEMPORARIES}.
 *
 * A run keeps its files in a folder of its own, so that a finished file can be renamed
 * into place: `.cacheport/run-<random>` within a layout, `.cacheport-run-<random>`
 * beside anything else and in TMPDIR. Each holds a file `lock` that its run has locked.
 * One that nobody has locked belongs to a run that died, and the next run that comes
 * there removes it.
 */
import { existsSync, lstatSync, mkdirSync, rmdirSync, statSync, unlinkSync } from "node:fs";
import { rm } from "node:fs/promises";
import { tmpdir, userInfo } from "node:os";
import { CacheportError, systemCode, systemError } from "./errors.ts";
import { HeldFolder } from "./layout-folder.ts";
import { acquireLock, isLocked, OWN_LOCK_MARK } from "./layout-lock.ts";
import type { FileLock } from "./layout-lock.ts";
import { readRegularFile } from "./layout-durable.ts";
import { basename, dirname, join, resolve } from "./paths.ts";

/** The folder of a layout that holds what this program needs for a while. */
export const WORK_FOLDER = ".cacheport";

/** The lock in the folder of a run. */
const LOCK = "lock";

/** The user on systems that number none. */
const NO_USERS = -1;

/** How often to begin anew when other runs remove what this one needs. */
const ATTEMPTS = 20;

/** Where a temporary lies: in a layout's {@link WORK_FOLDER}, in the layout's own folder, or in any folder. */
export type TemporaryPlace = "work" | "layout" | "anywhere";

/** One kind of temporary. */
export interface Temporary {
  readonly place: TemporaryPlace;
  readonly isFolder: boolean;
  /** A lock, in the folder or on the file itself, tells whether it is in use. */
  readonly isLocked: boolean;
  /** A name for a new one. */
  newName(): string;
  readonly pattern: RegExp;
}

const UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}";

/** Names that begin with a text and end at random. */
function random(place: TemporaryPlace, isFolder: boolean, start: string): Temporary {
  return {
    place,
    isFolder,
    isLocked: isFolder,
    newName: () => `${start}${crypto.randomUUID()}`,
    pattern: new RegExp(`^${RegExp.escape(start)}${UUID}$`),
  };
}

const RUN = random("work", true, "run-");
/** What gc moved aside is told from what it moves by gc's own lock. */
const TRASH = { ...random("work", true, "trash-"), isLocked: false };
const RUN_ANYWHERE = random("anywhere", true, ".cacheport-run-");
const INDEX_START = "index.json.cacheport-";
const NEW_INDEX = { ...random("layout", false, INDEX_START), isLocked: true };
const MARKER_START = "oci-layout.cacheport-";
const NEW_MARKER = { ...random("layout", false, MARKER_START), isLocked: true };

/** The lock that a gc holds: one at a time in a layout. */
export const GC_LOCK = "gc.lock";
const GC: Temporary = {
  place: "work",
  isFolder: false,
  isLocked: true,
  newName: () => GC_LOCK,
  pattern: /^gc\.lock$/,
};

const FILE_LOCK: Temporary = {
  place: "anywhere",
  isFolder: false,
  isLocked: true,
  newName: () => basename(lockBeside(`${crypto.randomUUID()}.tar`)),
  pattern: new RegExp(`^\\..+\\.cacheport-lock(?:\\.${UUID})?$`),
};

/** A lock file that has its mark and gets its name in a moment. */
const UNNAMED_LOCK = new RegExp(`\\.cacheport-lock\\.${UUID}$`);

/** What version 0.1 unpacked into: six letters, or a random identifier; it knew no locks there. */
const UNLOCKED: Temporary = {
  place: "anywhere",
  isFolder: true,
  isLocked: false,
  newName: () => `.cacheport-${crypto.randomUUID()}`,
  pattern: new RegExp(`^\\.cacheport-(?:\\w{6}|${UUID})$`),
};

/** All that this program may leave when it is killed. */
export const TEMPORARIES: readonly Temporary[] = [
  RUN,
  TRASH,
  GC,
  NEW_INDEX,
  NEW_MARKER,
  RUN_ANYWHERE,
  FILE_LOCK,
  UNLOCKED,
];

/** The kind of a name in a layout's own folder, or in any other; undefined for what is not ours. */
export function temporaryKind(name: string, place: "layout" | "anywhere"): Temporary | undefined {
  return TEMPORARIES.find(
    (kind) => (kind.place === place || kind.place === "anywhere") && kind.pattern.test(name),
  );
}

/** Tells whether a name in {@link WORK_FOLDER} is one that this program gives, of whatever version. */
export function isWorkName(name: string): boolean {
  return name.startsWith("run-") || isTrashName(name) || name === GC_LOCK;
}

/** Tells whether a name in {@link WORK_FOLDER} is that of blobs which a gc moved aside. */
export function isTrashName(name: string): boolean {
  return name.startsWith("trash-");
}

/** A name in {@link WORK_FOLDER} for blobs that are moved aside. */
export function newTrashName(): string {
  return TRASH.newName();
}

/** Where a new `index.json` or `oci-layout` of a layout is written before it takes the old one's place. */
export function temporaryIndexFile(folder: string, name: "index.json" | "oci-layout"): string {
  return join(folder, (name === "index.json" ? NEW_INDEX : NEW_MARKER).newName());
}

/** Tells whether a name in a layout's own folder is one of {@link temporaryIndexFile}. */
export function isTemporaryIndexFile(name: string): boolean {
  return name.startsWith(INDEX_START) || name.startsWith(MARKER_START);
}

/** The lock file for a file that several processes may replace: hidden, and with a name that nobody else gives. */
export function lockBeside(path: string): string {
  return join(dirname(path), `.${basename(path)}.cacheport-lock`);
}

/** A folder for temporary files that is gone after {@link RunFolder.close}. */
export class RunFolder {
  readonly path: string;
  /** The topmost folder that was made for {@link RunFolder.open}'s root, if any was. */
  readonly madeRoot: string | undefined;
  /** A gc has moved blobs aside here, which works now or died before it put them back. */
  readonly sawTrash: boolean;
  readonly #lock: FileLock;
  /** Removing what dead runs left elsewhere goes on beside the work. */
  readonly #sweeping: Promise<void>;

  private constructor(
    path: string,
    lock: FileLock,
    { near, madeRoot, sawTrash = false }: { near: string[]; madeRoot?: string; sawTrash?: boolean },
  ) {
    this.path = path;
    this.#lock = lock;
    this.madeRoot = madeRoot;
    this.sawTrash = sawTrash;
    this.#sweeping = sweepAll(near);
  }

  /**
   * Makes a run folder in a layout, and its root where that is missing, and removes those
   * of dead runs there and beside the layout.
   *
   * @param root Path of the layout folder.
   * @throws {CacheportError} PERMISSION_DENIED, NO_SPACE, LAYOUT_INVALID, IO_FAILED
   */
  static async open(root: string): Promise<RunFolder> {
    const parent = join(root, WORK_FOLDER);
    const path = join(parent, RUN.newName());
    try {
      let madeRoot: string | undefined;
      const lock = await againIfRemoved(async () => {
        madeRoot = mkdirSync(root, { recursive: true }) ?? madeRoot;
        await makeFolder(parent);
        mkdirSync(path, 0o700);
        return acquireLock(join(path, LOCK));
      });
      const names = await removeDeadRuns(parent, path);
      const sawTrash = names.some(isTrashName);
      return new RunFolder(path, lock, {
        near: [root, dirname(resolve(root))],
        sawTrash,
        ...(madeRoot && { madeRoot }),
      });
    } catch (error) {
      throw systemError(`Cannot make folder "${path}"`, error);
    }
  }

  /**
   * Makes a run folder in a folder that exists: in TMPDIR, or where a finished file is
   * to be renamed to. In a layout it goes where {@link RunFolder.open} puts it. Those of
   * dead runs there and in TMPDIR are removed.
   *
   * @throws {CacheportError} PERMISSION_DENIED, NO_SPACE, LAYOUT_INVALID, IO_FAILED
   */
  static async within(folder: string): Promise<RunFolder> {
    // TMPDIR is shared with others, whatever lies in it.
    if (resolve(folder) !== resolve(tmpdir()) && isLayout(folder)) return RunFolder.open(folder);
    const path = join(resolve(folder), RUN_ANYWHERE.newName());
    try {
      mkdirSync(path, 0o700);
      const lock = await againIfRemoved(async () => {
        mkdirSync(path, { recursive: true, mode: 0o700 });
        return acquireLock(join(path, LOCK));
      });
      return new RunFolder(path, lock, { near: [folder, tmpdir()] });
    } catch (error) {
      const failure = systemError(`Cannot make a temporary folder in "${folder}"`, error);
      if (resolve(folder) !== resolve(tmpdir())) throw failure;
      throw new CacheportError(failure.code, failure.message, {
        hint: "Set TMPDIR to a folder with room for what has to be unpacked",
        cause: error,
      });
    }
  }

  /** A path for a new temporary file. */
  temporaryPath(): string {
    return join(this.path, crypto.randomUUID());
  }

  /** Removes the folder with all that is in it. May be called twice. */
  async close(): Promise<void> {
    // The lock is what lies in it at last, as a rule.
    await this.#lock.release();
    if (!removedEmpty(this.path)) await rm(this.path, { recursive: true, force: true });
    await this.#sweeping;
    // Other runs may be at work in there.
    const parent = dirname(this.path);
    if (basename(parent) === WORK_FOLDER) removedEmpty(parent);
  }
}

/** Removes a folder if it is empty. @returns Whether it is gone */
export function removedEmpty(path: string): boolean {
  try {
    rmdirSync(path);
    return true;
  } catch (error) {
    return systemCode(error) === "ENOENT";
  }
}

function isLayout(folder: string): boolean {
  return ["oci-layout", "blobs", WORK_FOLDER].some((name) => existsSync(join(folder, name)));
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
    mkdirSync(path, 0o755);
    return true;
  } catch (error) {
    if (systemCode(error) !== "EEXIST") throw error;
  }
  if (lstatSync(path).isDirectory()) return false;
  throw new CacheportError(
    "LAYOUT_INVALID",
    `Cannot write to "${path}": it is a symbolic link or a file, and a layout has a folder there`,
    { hint: "Replace it with a real folder" },
  );
}

/** Removes the folders of dead runs in a layout's work folder. @returns All names that were in there */
async function removeDeadRuns(parent: string, own: string): Promise<string[]> {
  const folder = HeldFolder.open(parent);
  try {
    const entries = await folder.list();
    for (const entry of entries) {
      // Also those of names that a later version may give.
      if (!entry.isDirectory() || !entry.name.startsWith("run-")) continue;
      if (entry.name !== basename(own)) await removeIfDead(folder, entry.name).catch(() => {});
    }
    return entries.map(({ name }) => name);
  } finally {
    folder.close();
  }
}

/**
 * Removes what dead runs of the same user left in a folder, beside it and in TMPDIR; what
 * cannot be removed stays.
 */
export async function removeDeadRunsNear(path: string): Promise<void> {
  await sweepAll([path, dirname(resolve(path)), tmpdir()]);
}

async function sweepAll(places: readonly string[]): Promise<void> {
  const uid = ownUser();
  if (uid === undefined) return;
  for (const place of new Set(places.map((path) => resolve(path))))
    await sweep(place, uid).catch(() => {});
}

/** The user that this process runs as; undefined where the system does not tell. */
function ownUser(): number | undefined {
  try {
    return userInfo().uid;
  } catch {
    // A container may know the user by number alone, without a name or a home.
    return statSync("/proc/self", { throwIfNoEntry: false })?.uid;
  }
}

async function sweep(place: string, uid: number): Promise<void> {
  const folder = HeldFolder.openRoot(place);
  try {
    for (const name of await folder.names()) {
      const isRun = RUN_ANYWHERE.pattern.test(name);
      if (!isRun && !FILE_LOCK.pattern.test(name)) continue;
      // In TMPDIR anybody may put anything, and root would be let to remove it.
      const owner = lstatSync(folder.entry(name), { throwIfNoEntry: false });
      if (!owner || (owner.uid !== uid && uid !== NO_USERS)) continue;
      const removed = isRun ? removeIfDead(folder, name) : removeDeadLock(folder.entry(name));
      // Alive, or not to be removed.
      await removed.catch(() => {});
    }
  } finally {
    folder.close();
  }
}

/** Removes the folder of a run, unless somebody has its lock. */
async function removeIfDead(parent: HeldFolder, name: string): Promise<void> {
  // A run that died before it had a lock left an empty folder. Should it live, it
  // finds its folder gone and makes another.
  if (await parent.removeIfEmpty(name)) return;
  const folder = parent.folder(name);
  try {
    const lock = await acquireLock(folder.entry(LOCK), { timeout: 0, create: false }).catch(
      (error: unknown) => {
        // A run has its lock before it has anything else, so one that has files and no
        // lock died while it was being removed.
        const cause = error instanceof CacheportError ? error.cause : error;
        if (systemCode(cause) !== "ENOENT") throw error;
      },
    );
    try {
      await folder.clear();
    } finally {
      await lock?.release();
    }
  } finally {
    folder.close();
  }
  await parent.removeIfEmpty(name);
}

/** Removes a lock file that this program made and nobody holds: releasing it does that. */
async function removeDeadLock(path: string): Promise<void> {
  if (UNNAMED_LOCK.test(path)) return unlinkSync(path);
  if (!(await isOwnLock(path))) return;
  const lock = await acquireLock(path, { timeout: 0, create: false, own: true });
  await lock.release();
}

async function isOwnLock(path: string): Promise<boolean> {
  const content = await readRegularFile(path, OWN_LOCK_MARK.length, "lock").catch(() => undefined);
  return content !== undefined && Buffer.from(content.bytes).toString() === OWN_LOCK_MARK;
}

/**
 * Tells whether a temporary is one that a living process uses; in doubt it is.
 *
 * @param path Of something whose name {@link TEMPORARIES} has.
 */
export async function isInUse(path: string): Promise<boolean> {
  const stats = lstatSync(path, { throwIfNoEntry: false });
  if (stats?.isDirectory()) return isLocked(join(path, LOCK));
  return stats?.isFile() === true && isLocked(path);
}
