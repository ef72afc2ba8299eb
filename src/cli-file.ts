/** A file that the user named for a result: written whole or not at all. */
import type { Stats } from "node:fs";
import { open, realpath, rename, stat } from "node:fs/promises";
import { syncFolder, writeAll, writeDurably } from "./layout-durable.ts";
import { CacheportError, systemCode, systemError } from "./errors.ts";
import { RunFolder } from "./layout-work.ts";
import { dirname } from "./paths.ts";

/**
 * Writes a result to a file. A regular file is replaced at once by one that was
 * written beside it, and keeps its mode; where the path is a symbolic link, what it
 * leads to is replaced. A pipe or a device is written to.
 *
 * @throws {CacheportError} IO_FAILED, PERMISSION_DENIED, NO_SPACE; what was there stays then
 */
export async function writeOutputFile(path: string, bytes: Uint8Array): Promise<void> {
  try {
    const stats = await statOf(path);
    if (stats && !stats.isFile()) return await writeInto(path, bytes);
    const target = stats ? await realpath(path) : path;
    const folder = dirname(target);
    const mode = stats ? stats.mode & 0o777 : 0o644;
    const run = await RunFolder.within(folder);
    try {
      const temporary = run.temporaryPath();
      await writeDurably(temporary, bytes, mode, stats);
      await rename(temporary, target);
    } finally {
      await run.close();
    }
    await syncFolder(folder);
  } catch (error) {
    // What became of a temporary folder is of no interest, only why.
    const cause = error instanceof CacheportError ? (error.cause ?? error) : error;
    throw systemError(`Cannot write file ${JSON.stringify(path)}`, cause);
  }
}

async function statOf(path: string): Promise<Stats | undefined> {
  try {
    return await stat(path);
  } catch (error) {
    if (systemCode(error) === "ENOENT") return undefined;
    throw error;
  }
}

async function writeInto(path: string, bytes: Uint8Array): Promise<void> {
  const file = await open(path, "w");
  try {
    await writeAll(file, bytes);
  } finally {
    await file.close();
  }
}
