/**
 * The file of an archive as a whole: where it is, and how a new one takes the place
 * of an old one.
 */
import type { Stats } from "node:fs";
import { open, realpath, rename, stat } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { keepOwner, syncFolder } from "./layout-durable.ts";
import { CacheportError, systemCode } from "./errors.ts";
import { RunFolder } from "./layout-work.ts";
import { dirname, resolve } from "./paths.ts";

/** The file that a path means, so that a symbolic link to an archive stays one. */
export async function followLinks(path: string): Promise<string> {
  try {
    return await realpath(path);
  } catch {
    return resolve(path);
  }
}

/** What a path leads to; undefined for nothing. */
export async function statIfThere(path: string): Promise<Stats | undefined> {
  try {
    return await stat(path);
  } catch (error) {
    if (systemCode(error) === "ENOENT") return undefined;
    throw error;
  }
}

/** Tells whether a path leads to something that has no content to keep: a pipe, a device. */
export async function isArchiveDevice(path: string): Promise<boolean> {
  const stats = await statIfThere(path);
  return stats !== undefined && !stats.isFile() && !stats.isDirectory();
}

/**
 * Refuses a path in a folder that is not there, before anything is read for it.
 *
 * @throws {CacheportError} LOCATION_NOT_FOUND
 */
export async function checkArchiveFolder(path: string, location: string): Promise<void> {
  const folder = dirname(path);
  if ((await statIfThere(folder))?.isDirectory()) return;
  throw new CacheportError(
    "LOCATION_NOT_FOUND",
    `Cannot write archive "${location}": there is no folder "${folder}"`,
    { hint: "Make the folder first, or check the path" },
  );
}

/**
 * Writes a file beside a path and renames it into its place, whole or not at all.
 *
 * @param path No symbolic link. Its lock is held: nobody else is writing beside it.
 * @param write Writes the content; is given the path of the open file, too.
 * @throws The error of the failed system call and those of `write`; the old file is
 *   as it was then.
 */
export async function replaceArchiveFile(
  path: string,
  write: (file: FileHandle, temporary: string) => Promise<void>,
): Promise<void> {
  const folder = dirname(path);
  const run = await RunFolder.within(folder);
  try {
    const replaced = await statIfThere(path);
    const temporary = run.temporaryPath();
    const file = await open(temporary, "wx", 0o644);
    try {
      if (replaced) {
        keepOwner(file, replaced);
        await file.chmod(replaced.mode & 0o7777);
      }
      await write(file, temporary);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } finally {
    await run.close();
  }
  await syncFolder(folder);
}
