/**
 * Blobs that were moved aside and may have to come back: `.cacheport/trash-<random>`
 * within the layout, so that moving them is a rename. Nothing is lost while a blob is
 * in there; a run that dies leaves its trash for the next one to put back.
 *
 * All folders are held open while blobs move between them, and none is a symbolic link:
 * blobs of another layout are neither taken nor replaced.
 */
import { lstat, rename, unlink } from "node:fs/promises";
import { digestAlgorithm, digestHex, isDigest } from "./digest.ts";
import type { Digest } from "./digest.ts";
import { CacheportError, isCacheportError, systemCode, systemError } from "./errors.ts";
import { HeldFolder } from "./layout-folder.ts";
import { acquireLock } from "./layout-lock.ts";
import { GC_LOCK, isTrashName, newTrashName, WORK_FOLDER } from "./layout-work.ts";
import { join } from "./paths.ts";

/** Folders of a layout by their paths, each opened once and without following links. */
class LayoutFolders {
  readonly #held = new Map<string, HeldFolder>();

  constructor(layout: string) {
    this.#held.set("", HeldFolder.openRoot(layout));
  }

  /** @param path Relative to the layout, with forward slashes. @throws as {@link HeldFolder.open} */
  async open(path: string, make = false): Promise<HeldFolder> {
    const known = this.#held.get(path);
    if (known) return known;
    const cut = path.lastIndexOf("/");
    const parent = await this.open(path.slice(0, Math.max(cut, 0)), make);
    const name = path.slice(cut + 1);
    const folder = make ? await parent.ensureFolder(name, 0o755) : parent.folder(name);
    this.#held.set(path, folder);
    return folder;
  }

  close(): void {
    for (const folder of this.#held.values()) folder.close();
    this.#held.clear();
  }
}

/** The blobs of one layout that one run has moved aside. */
export class Trash {
  readonly #folders: LayoutFolders;
  readonly #name = newTrashName();
  readonly #digests = new Set<Digest>();
  readonly #algorithms = new Set<string>();

  /** @param layout Path of the layout; `.cacheport` exists in it. */
  constructor(layout: string) {
    this.#folders = new LayoutFolders(layout);
  }

  /** How many blobs are in it. */
  get size(): number {
    return this.#digests.size;
  }

  /** The digests of the blobs that are in it. */
  get digests(): Digest[] {
    return [...this.#digests];
  }

  /**
   * Moves a blob aside, and back at once when it was written or touched too lately:
   * only now can nobody touch it any more.
   *
   * @param before Milliseconds since 1970; what was modified later stays.
   * @returns Whether the blob is in the trash now.
   * @throws {CacheportError} PERMISSION_DENIED, LAYOUT_INVALID, IO_FAILED
   */
  async moveAside(digest: Digest, before: number): Promise<boolean> {
    try {
      const algorithm = digestAlgorithm(digest);
      const from = await this.#folders.open(`blobs/${algorithm}`);
      this.#algorithms.add(algorithm);
      const held = await this.#held(digest);
      await rename(from.entry(digestHex(digest)), held);
      this.#digests.add(digest);
      const stats = await lstat(held);
      if (stats.isFile() && stats.mtimeMs <= before) return true;
      await this.putBack(digest);
      return false;
    } catch (error) {
      if (systemCode(error) === "ENOENT" && !this.#digests.has(digest)) return false;
      throw systemError(`Cannot remove blob "${digest}"`, error);
    }
  }

  /** Puts a blob back that is in the trash; any other is left alone. */
  async putBack(digest: Digest): Promise<void> {
    if (!this.#digests.has(digest)) return;
    await putInPlace(this.#folders, await this.#held(digest), digest);
    this.#digests.delete(digest);
  }

  /** Puts everything back. */
  async putAllBack(): Promise<void> {
    for (const digest of this.digests) await this.putBack(digest);
  }

  /** Removes a blob for good. */
  async remove(digest: Digest): Promise<void> {
    try {
      await unlink(await this.#held(digest));
      this.#digests.delete(digest);
    } catch (error) {
      throw systemError(`Cannot remove blob "${digest}"`, error);
    }
  }

  /** Removes the trash folder, which must hold no blob any more. May be called twice. */
  async close(): Promise<void> {
    if (this.#algorithms.size > 0 && this.size === 0) {
      const work = await this.#folders.open(WORK_FOLDER);
      const trash = await this.#folders.open(`${WORK_FOLDER}/${this.#name}`);
      for (const algorithm of this.#algorithms) await trash.removeIfEmpty(algorithm);
      await work.removeIfEmpty(this.#name);
      this.#algorithms.clear();
    }
    this.#folders.close();
  }

  async #held(digest: Digest): Promise<string> {
    const path = `${WORK_FOLDER}/${this.#name}/${digestAlgorithm(digest)}`;
    return (await this.#folders.open(path, true)).entry(digestHex(digest));
  }
}

/**
 * Puts back what runs that died have moved aside. Only whoever holds the lock for
 * collecting garbage in the layout may call it. What is no blob there is left alone, with
 * the folders that it lies in.
 *
 * @returns The paths of what was left alone, relative to the layout.
 * @throws {CacheportError} PERMISSION_DENIED, LAYOUT_INVALID, IO_FAILED
 */
export async function recoverTrash(layout: string): Promise<string[]> {
  const folders = new LayoutFolders(layout);
  const left: string[] = [];
  try {
    const work = await folders.open(WORK_FOLDER);
    for (const { name } of await work.list()) {
      if (!isTrashName(name)) continue;
      const path = `${WORK_FOLDER}/${name}`;
      if (await emptyInto(folders, work, path, left)) await work.removeIfEmpty(name);
    }
  } catch (error) {
    throw systemError(`Cannot put back blobs of "${layout}"`, error);
  } finally {
    folders.close();
  }
  return left;
}

/**
 * Puts back what a gc that died has moved aside, unless a gc is at work: for writers,
 * which may come long before the next gc.
 */
export async function recoverDeadTrash(layout: string): Promise<void> {
  // A gc that is at work holds the lock; what is wrong beyond that, the next one says.
  const path = join(layout, WORK_FOLDER, GC_LOCK);
  const lock = await acquireLock(path, { timeout: 0 }).catch(() => undefined);
  if (!lock) return;
  await recoverTrash(layout).catch(() => {});
  await lock.release();
}

/** Puts back the blobs of one trash folder. @returns Whether that is empty now */
async function emptyInto(
  folders: LayoutFolders,
  parent: HeldFolder,
  path: string,
  left: string[],
): Promise<boolean> {
  const before = left.length;
  const name = path.slice(path.lastIndexOf("/") + 1);
  const trash = await openReal(parent, name, path, left);
  try {
    for (const algorithm of (await trash?.list()) ?? []) {
      const within = `${path}/${algorithm.name}`;
      const folder = trash && (await openReal(trash, algorithm.name, within, left));
      try {
        for (const entry of (await folder?.list()) ?? []) {
          const digest = `${algorithm.name}:${entry.name}`;
          if (isDigest(digest) && entry.isFile())
            await putInPlace(folders, (folder as HeldFolder).entry(entry.name), digest);
          else left.push(`${within}/${entry.name}`);
        }
      } finally {
        folder?.close();
      }
      await trash?.removeIfEmpty(algorithm.name);
    }
  } finally {
    trash?.close();
  }
  return left.length === before;
}

/** Opens a folder; what is none is noted and left alone. */
async function openReal(
  parent: HeldFolder,
  name: string,
  path: string,
  left: string[],
): Promise<HeldFolder | undefined> {
  try {
    return parent.folder(name);
  } catch (error) {
    if (!isCacheportError(error, "LAYOUT_INVALID")) throw error;
    left.push(path);
    return undefined;
  }
}

/** Moves a blob back, unless somebody has written it again meanwhile. */
async function putInPlace(folders: LayoutFolders, held: string, digest: Digest): Promise<void> {
  try {
    const folder = await folders.open(`blobs/${digestAlgorithm(digest)}`, true);
    const hex = digestHex(digest);
    await ((await folder.has(hex)) ? unlink(held) : rename(held, folder.entry(hex)));
  } catch (error) {
    const failure = systemError(`Cannot put back blob "${digest}"`, error);
    throw new CacheportError(failure.code, failure.message, {
      hint: "It is still there, in .cacheport; gc puts it back once that is possible",
      cause: error,
    });
  }
}
