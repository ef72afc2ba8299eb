/**
 * The files of a layout folder as they lie there: blobs, what is under `blobs/`
 * without being one, and what interrupted writers of the field left behind.
 * Symbolic links are never followed.
 *
 * Sources: OCI image-spec, image-layout.md; containerd's local content store
 * (`ingest/`), oras-go (`ingest/`), umoci (`.umoci-*`), containers/image
 * (`oci-put-blob*`), regclient and crane (temporary files beside blobs).
 */
import { lstat, readdir } from "node:fs/promises";
import type { Dirent, Stats } from "node:fs";
import { mapLimit } from "./concurrency.ts";
import { isDigest } from "./digest.ts";
import type { Digest } from "./digest.ts";
import { systemCode, systemError } from "./errors.ts";
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
}

/** Something under `blobs/` that is no blob. */
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

/**
 * Lists the files of a layout.
 *
 * @param folder Path of the layout.
 * @throws {CacheportError} IO_FAILED, PERMISSION_DENIED
 */
export async function listLayoutFiles(folder: string): Promise<LayoutFiles> {
  const files: LayoutFiles = { blobs: [], leftovers: [], strays: [] };
  for (const entry of await entriesOf(folder, "blobs")) {
    const path = `blobs/${entry.name}`;
    if (entry.isDirectory() && ALGORITHMS.has(entry.name))
      await listBlobs(folder, entry.name, files);
    else files.strays.push({ path, isLink: entry.isSymbolicLink() });
  }
  const left = [
    ...(await entriesOf(folder, "ingest")).map(({ name }) => `ingest/${name}`),
    ...(await entriesOf(folder, "."))
      .filter(({ name }) => /^\.umoci-|^oci-put-blob|\.tmp$|\.cacheport-[-0-9a-f]+$/.test(name))
      .map(({ name }) => name),
    ...(await entriesOf(folder, ".cacheport"))
      .filter((entry) => entry.isDirectory())
      .map(({ name }) => `.cacheport/${name}`),
  ];
  for (const path of left) await addLeftover(folder, path, files);
  files.blobs.sort((a, b) => (a.digest < b.digest ? -1 : 1));
  return files;
}

async function listBlobs(folder: string, algorithm: string, files: LayoutFiles): Promise<void> {
  const directory = `blobs/${algorithm}`;
  const entries = await entriesOf(folder, directory);
  await mapLimit(entries, PARALLEL, async (entry) => {
    const path = `${directory}/${entry.name}`;
    const digest = `${algorithm}:${entry.name}`;
    if (!isDigest(digest) && isTemporary(entry.name)) {
      await addLeftover(folder, path, files);
    } else if (!isDigest(digest) || !entry.isFile()) {
      files.strays.push({ path, isLink: entry.isSymbolicLink() });
    } else {
      const stats = await statsOf(folder, path);
      if (stats) files.blobs.push({ digest, size: stats.size, modified: stats.mtimeMs });
    }
  });
}

/** Names that are given to blobs while they are written: regclient's and umoci's, and crane's digest with a number behind. */
function isTemporary(name: string): boolean {
  return /\.tmp$|^\.umoci-|^[0-9a-f]{64}\d+$/.test(name) && name.length < 128;
}

async function addLeftover(folder: string, path: string, files: LayoutFiles): Promise<void> {
  const stats = await statsOf(folder, path);
  if (!stats) return;
  const leftover = { path, size: 0, modified: stats.mtimeMs };
  if (!stats.isDirectory()) leftover.size = stats.size;
  for (const { name } of stats.isDirectory() ? await entriesOf(folder, path) : []) {
    const inner = await statsOf(folder, `${path}/${name}`);
    if (inner?.isFile()) leftover.size += inner.size;
    leftover.modified = Math.max(leftover.modified, inner?.mtimeMs ?? 0);
  }
  files.leftovers.push(leftover);
}

/** The entries of a folder, sorted; none for one that is not there or is a symbolic link. */
async function entriesOf(folder: string, path: string): Promise<Dirent[]> {
  const directory = join(folder, path);
  try {
    // The layout itself may be reached through a link, what is in it may not.
    if (path !== "." && !(await lstat(directory)).isDirectory()) return [];
    const entries = await readdir(directory, { withFileTypes: true });
    return entries.sort((a, b) => (a.name < b.name ? -1 : 1));
  } catch (error) {
    if (systemCode(error) === "ENOENT") return [];
    throw systemError(`Cannot list "${directory}"`, error);
  }
}

/** What a path is, without following it; undefined when it went away. */
async function statsOf(folder: string, path: string): Promise<Stats | undefined> {
  try {
    return await lstat(join(folder, path));
  } catch (error) {
    if (systemCode(error) === "ENOENT") return undefined;
    throw systemError(`Cannot look at "${join(folder, path)}"`, error);
  }
}
