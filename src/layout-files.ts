/**
 * The files of a layout folder as they lie there: blobs, what is under `blobs/`
 * without being one, and what interrupted writers of the field left behind.
 * Symbolic links are never followed.
 *
 * Sources: OCI image-spec, image-layout.md; containerd's local content store
 * (`ingest/`), oras-go (`ingest/`), umoci (`.umoci-*`), containers/image
 * (`oci-put-blob*`), regclient and crane (temporary files beside blobs).
 */
import { lstatSync } from "node:fs";
import { rm, unlink } from "node:fs/promises";
import type { Dirent, Stats } from "node:fs";
import { mapLimit } from "./concurrency.ts";
import { isDigest } from "./digest.ts";
import type { Digest } from "./digest.ts";
import { isCacheportError, systemCode, systemError } from "./errors.ts";
import { HeldFolder } from "./layout-folder.ts";
import { isWorkName, temporaryKind, WORK_FOLDER } from "./layout-work.ts";
import { join } from "./paths.ts";

/** A blob as a file. */
export interface BlobFile {
  digest: Digest;
  /** Bytes. */
  size: number;
  /** When it was written, in milliseconds since 1970. */
  modified: number;
}

/** A file or folder that a writer left behind, or that one is writing now. */
export interface Leftover {
  /** Relative to the layout, with forward slashes. */
  path: string;
  /** Bytes, of all files within. */
  size: number;
  /** The newest change within, in milliseconds since 1970. */
  modified: number;
  /** Of this program, with a lock that tells whether it is in use. */
  isOwn: boolean;
}

/** Something that is left alone: under `blobs/` and no blob, or not what a layout has in its place. */
export interface StrayFile {
  /** Relative to the layout, with forward slashes. */
  path: string;
  isLink: boolean;
}

/** What lies in a layout folder beside `index.json` and `oci-layout`. */
export interface LayoutFiles {
  /** In the order of their digests. */
  blobs: BlobFile[];
  leftovers: Leftover[];
  strays: StrayFile[];
}

const ALGORITHMS = new Set(["sha256", "sha512"]);

/** Files that are looked at at once. */
const PARALLEL = 32;

/** Folders within a left-over folder that are looked into. */
const DEPTH = 8;

/**
 * Lists the files of a layout.
 *
 * @param folder Path of the layout.
 * @throws {CacheportError} IO_FAILED, PERMISSION_DENIED
 */
export async function listLayoutFiles(folder: string): Promise<LayoutFiles> {
  const files: LayoutFiles = { blobs: [], leftovers: [], strays: [] };
  try {
    const root = HeldFolder.openRoot(folder);
    try {
      await listWithin(root, "blobs", files, listBlobs);
      await listWithin(root, "ingest", files, listIngest);
      for (const { name } of await root.list()) {
        const own = temporaryKind(name, "layout") !== undefined;
        if (own) await addLeftover(root, "", name, temporaryKind(name, "layout")?.isLocked, files);
        else if (isForeign(name)) await addLeftover(root, "", name, false, files);
      }
      await listWithin(root, WORK_FOLDER, files, listWork);
    } finally {
      root.close();
    }
  } catch (error) {
    throw systemError(`Cannot list "${folder}"`, error);
  }
  files.blobs.sort((a, b) => (a.digest < b.digest ? -1 : 1));
  return files;
}

/** Lists a folder of a layout; a link or a file in its place is a stray. */
async function listWithin(
  parent: HeldFolder,
  name: string,
  files: LayoutFiles,
  list: (folder: HeldFolder, files: LayoutFiles) => Promise<void>,
): Promise<void> {
  let folder: HeldFolder | undefined;
  try {
    folder = parent.folderIfThere(name);
  } catch (error) {
    if (!isCacheportError(error, "LAYOUT_INVALID")) throw error;
    const stats = await statsOf(parent.entry(name));
    files.strays.push({ path: name, isLink: stats?.isSymbolicLink() === true });
  }
  try {
    if (folder) await list(folder, files);
  } finally {
    folder?.close();
  }
}

async function listBlobs(blobs: HeldFolder, files: LayoutFiles): Promise<void> {
  for (const entry of await blobs.list()) {
    if (entry.isDirectory() && ALGORITHMS.has(entry.name))
      await listAlgorithm(blobs, entry.name, files);
    else files.strays.push(strayOf(`blobs/${entry.name}`, entry));
  }
}

async function listAlgorithm(
  blobs: HeldFolder,
  algorithm: string,
  files: LayoutFiles,
): Promise<void> {
  const folder = blobs.folderIfThere(algorithm);
  try {
    if (!folder) return;
    await mapLimit(await folder.list(), PARALLEL, async (entry) => {
      const digest = `${algorithm}:${entry.name}`;
      if (!isDigest(digest) && isTemporary(entry.name)) {
        await addLeftover(folder, `blobs/${algorithm}/`, entry.name, false, files);
      } else if (!isDigest(digest) || !entry.isFile()) {
        files.strays.push(strayOf(`blobs/${algorithm}/${entry.name}`, entry));
      } else {
        const stats = await statsOf(folder.entry(entry.name));
        if (stats) files.blobs.push({ digest, size: stats.size, modified: stats.mtimeMs });
      }
    });
  } finally {
    folder?.close();
  }
}

async function listIngest(ingest: HeldFolder, files: LayoutFiles): Promise<void> {
  for (const { name } of await ingest.list())
    await addLeftover(ingest, "ingest/", name, false, files);
}

async function listWork(work: HeldFolder, files: LayoutFiles): Promise<void> {
  for (const entry of await work.list()) {
    if (isWorkName(entry.name) && !entry.isSymbolicLink())
      await addLeftover(work, `${WORK_FOLDER}/`, entry.name, true, files);
    else files.strays.push(strayOf(`${WORK_FOLDER}/${entry.name}`, entry));
  }
}

function strayOf(path: string, entry: Dirent): StrayFile {
  return { path, isLink: entry.isSymbolicLink() };
}

/** Names that other programs give, in a layout's own folder, to what they are writing. */
function isForeign(name: string): boolean {
  return /^\.umoci-|^oci-put-blob|\.tmp$/.test(name);
}

/** Names that are given to blobs while they are written: regclient's and umoci's, and crane's digest with a number behind. */
function isTemporary(name: string): boolean {
  return /\.tmp$|^\.umoci-|^[0-9a-f]{64}\d+$/.test(name) && name.length < 128;
}

async function addLeftover(
  folder: HeldFolder,
  start: string,
  name: string,
  isOwn: boolean | undefined,
  files: LayoutFiles,
): Promise<void> {
  const found = await measure(folder, name, DEPTH);
  if (found) files.leftovers.push({ path: `${start}${name}`, ...found, isOwn: isOwn === true });
}

/** The bytes of a file or of all files within a folder, and its newest change; undefined when it went away. */
async function measure(
  parent: HeldFolder,
  name: string,
  depth: number,
): Promise<{ size: number; modified: number } | undefined> {
  const stats = await statsOf(parent.entry(name));
  if (!stats) return undefined;
  const sum = { size: stats.isFile() ? stats.size : 0, modified: stats.mtimeMs };
  if (!stats.isDirectory() || depth === 0) return sum;
  // BuildKit's own folders in `ingest` come and go.
  const folder = parent.folderIfThere(name);
  if (!folder) return undefined;
  try {
    for (const entry of await folder.list()) {
      const inner = await measure(folder, entry.name, depth - 1);
      sum.size += inner?.size ?? 0;
      sum.modified = Math.max(sum.modified, inner?.modified ?? 0);
    }
  } finally {
    folder.close();
  }
  return sum;
}

/** What a path is, without following it; undefined when it went away. */
async function statsOf(path: string): Promise<Stats | undefined> {
  try {
    // Here: it takes a microsecond or two, and asking a thread for it many times that.
    return lstatSync(path);
  } catch (error) {
    if (systemCode(error) === "ENOENT") return undefined;
    throw error;
  }
}

/**
 * Removes a left-over of a layout with all that is in it. No link is followed, on the way
 * to it or in it.
 *
 * @param folder Path of the layout.
 * @param path As {@link Leftover.path}.
 * @throws {CacheportError} PERMISSION_DENIED, LAYOUT_INVALID for a link in the way, IO_FAILED
 */
export async function removeLeftover(folder: string, path: string): Promise<void> {
  const held = [HeldFolder.openRoot(folder)];
  try {
    const names = path.split("/");
    const last = names.pop() as string;
    for (const name of names) held.push((held.at(-1) as HeldFolder).folder(name));
    const entry = (held.at(-1) as HeldFolder).entry(last);
    const stats = await statsOf(entry);
    if (stats?.isDirectory()) await rm(entry, { recursive: true, force: true });
    else if (stats) await unlink(entry);
  } catch (error) {
    // Whoever left it may have come back for it.
    if (systemCode(error) !== "ENOENT")
      throw systemError(`Cannot remove "${join(folder, path)}"`, error);
  } finally {
    for (const each of held) each.close();
  }
}
