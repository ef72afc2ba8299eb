/**
 * A folder that is held open while its entries are listed, moved or removed. Its path is
 * walked once and no symbolic link is followed at its end, so that whatever happens goes
 * on in the folder that was looked at: a layout from outside may hold links that lead
 * into another one, and may change while it is worked on.
 */
import {
  closeSync,
  constants,
  existsSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  rmdirSync,
} from "node:fs";
import type { Dirent } from "node:fs";
import { rm, unlink } from "node:fs/promises";
import { platform } from "node:process";
import { CacheportError, systemCode } from "./errors.ts";
import { join } from "./paths.ts";

/** Where Linux shows open files; the path of an entry through it cannot be led astray. */
const OPEN_FILES = "/proc/self/fd";

/** A folder that was no symbolic link when it was opened. Must be closed. */
export class HeldFolder {
  /** The path that it was opened by, for messages. */
  readonly path: string;
  readonly #base: string;
  readonly #fd: number | undefined;
  #closed = false;

  private constructor(path: string, base: string, fd: number | undefined) {
    this.path = path;
    this.#base = base;
    this.#fd = fd;
  }

  /**
   * Opens a folder.
   *
   * @param through The path to open it by, when that is another than the one to show.
   * @throws {CacheportError} LAYOUT_INVALID when a symbolic link or a file is in its place
   * @throws The error of the failed system call: ENOENT, EACCES, ...
   */
  static open(path: string, through: string = path): HeldFolder {
    if (platform !== "linux" || !existsSync(OPEN_FILES)) {
      // No way to reach entries through an open folder: what is left is to look first.
      if (!lstatSync(through).isDirectory()) throw noRealFolder(path);
      return new HeldFolder(path, through, undefined);
    }
    const { O_RDONLY, O_DIRECTORY, O_NOFOLLOW } = constants;
    try {
      const fd = openSync(through, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
      return new HeldFolder(path, `${OPEN_FILES}/${fd}`, fd);
    } catch (error) {
      if (["ENOTDIR", "ELOOP"].includes(systemCode(error) ?? "")) throw noRealFolder(path);
      throw error;
    }
  }

  /**
   * Opens the folder of a layout itself, which may be reached through a link.
   *
   * @throws The error of the failed system call.
   */
  static openRoot(path: string): HeldFolder {
    // With the slash the link is followed to the folder behind it.
    return HeldFolder.open(path, `${path}/.`);
  }

  /** A path by which an entry is reached, whatever has become of the folder's own path. */
  entry(name: string): string {
    return join(this.#base, name);
  }

  /**
   * Opens a folder within.
   *
   * @throws as {@link HeldFolder.open}
   */
  folder(name: string): HeldFolder {
    return HeldFolder.open(join(this.path, name), this.entry(name));
  }

  /** Opens a folder within; undefined when it is not there. @throws as {@link HeldFolder.open} */
  folderIfThere(name: string): HeldFolder | undefined {
    try {
      return this.folder(name);
    } catch (error) {
      if (systemCode(error) === "ENOENT") return undefined;
      throw error;
    }
  }

  /** Opens a folder within, which is made when it is missing. @throws as {@link HeldFolder.open} */
  async ensureFolder(name: string, mode: number): Promise<HeldFolder> {
    try {
      mkdirSync(this.entry(name), mode);
    } catch (error) {
      if (systemCode(error) !== "EEXIST") throw error;
    }
    return this.folder(name);
  }

  /**
   * What is in it, sorted by name; none of it is followed. A folder that was removed since
   * it was opened has nothing in it.
   */
  async list(): Promise<Dirent[]> {
    const entries = this.#read((path) => readdirSync(path, { withFileTypes: true }));
    return entries.sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** The names in it alone, in no order: cheap where there are thousands. */
  async names(): Promise<string[]> {
    return this.#read((path) => readdirSync(path));
  }

  #read<T>(read: (path: string) => T[]): T[] {
    try {
      // The slash, since what stands in /proc is a link itself.
      return read(`${this.#base}/`);
    } catch (error) {
      if (systemCode(error) === "ENOENT") return [];
      throw error;
    }
  }

  /** Tells whether it has an entry of this name, whatever that is. */
  async has(name: string): Promise<boolean> {
    return lstatSync(this.entry(name), { throwIfNoEntry: false }) !== undefined;
  }

  /** Removes all that is in it; links are removed, not followed. */
  async clear(): Promise<void> {
    for (const entry of await this.list()) {
      const path = this.entry(entry.name);
      if (entry.isDirectory()) await rm(path, { recursive: true, force: true });
      else await unlink(path).catch(ignoreMissing);
    }
  }

  /** Removes a folder within if it is empty. @returns Whether it is gone */
  async removeIfEmpty(name: string): Promise<boolean> {
    try {
      rmdirSync(this.entry(name));
      return true;
    } catch {
      return false;
    }
  }

  /** May be called twice. */
  close(): void {
    if (!this.#closed && this.#fd !== undefined) closeSync(this.#fd);
    this.#closed = true;
  }
}

/** What stands where a layout has a folder leads elsewhere, or is none. */
export function noRealFolder(path: string): CacheportError {
  return new CacheportError(
    "LAYOUT_INVALID",
    `Cannot use "${path}": it is a symbolic link or a file, and a layout has a folder there`,
    { hint: "Replace it with a real folder" },
  );
}

function ignoreMissing(error: unknown): void {
  if (systemCode(error) !== "ENOENT") throw error;
}
