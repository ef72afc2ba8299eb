/**
 * The `index.json` and the `oci-layout` file of a layout folder on disk, read while
 * others write: BuildKit rewrites index.json in place, so that a reader, who takes no
 * lock, can see a torn file.
 */
import { existsSync, statSync } from "node:fs";
import type { Stats } from "node:fs";
import { readRegularFile } from "./layout-durable.ts";
import type { FileContent } from "./layout-durable.ts";
import { CacheportError, isCacheportError, systemCode, systemError } from "./errors.ts";
import { emptyLayoutIndex, parseLayoutIndex } from "./layout-index.ts";
import type { LayoutIndex } from "./layout-index.ts";
import { checkLayoutMarker } from "./layout-marker.ts";
import { join } from "./paths.ts";

/** Bytes of an index.json that are accepted: some hundred thousand entries. */
const INDEX_LIMIT = 64 * 1024 * 1024;

/** Bytes of an oci-layout file that are accepted. */
const MARKER_LIMIT = 64 * 1024;

/** Milliseconds between the readings of a torn index.json; BuildKit's write takes far less. */
const REREAD_AFTER = [2, 5, 10, 25, 50, 100];

/** The file of a layout that lists its entries. */
export const INDEX = "index.json";
/** The file that says that a folder is a layout. */
export const MARKER = "oci-layout";

/**
 * Reads the index.json of a layout folder, without a lock. A torn file is read
 * again for a moment before it is called damaged.
 *
 * @param location The folder as the user wrote it, for messages.
 * @throws {CacheportError} LOCATION_NOT_FOUND, LAYOUT_INVALID when there is none,
 *   DOCUMENT_INVALID, DOCUMENT_TOO_LARGE
 */
export async function readIndexFile(
  folder: string,
  location: string = folder,
): Promise<LayoutIndex> {
  const content = await readIndex(folder, location, { emptyIsNone: false });
  if (content) return content.index;
  if (!(await isFolder(folder))) throw noFolder(location);
  throw new CacheportError(
    "LAYOUT_INVALID",
    `Cannot read layout "${location}": it has no index.json`,
    {
      hint: "The program that wrote it did not finish, or the folder is not a layout",
    },
  );
}

/**
 * Reads the index.json of a layout folder that is to be written to: a missing or an
 * empty one counts as an index without entries, as for BuildKit.
 *
 * @throws {CacheportError} DOCUMENT_INVALID, DOCUMENT_TOO_LARGE
 */
export async function readIndexForUpdate(
  folder: string,
  location: string = folder,
): Promise<LayoutIndex> {
  const content = await readIndex(folder, location, { emptyIsNone: true });
  return content?.index ?? emptyLayoutIndex();
}

/** The error for a layout whose folder is not there. */
export function noFolder(location: string): CacheportError {
  return new CacheportError(
    "LOCATION_NOT_FOUND",
    `Cannot open layout "${location}": there is no such folder`,
    { hint: "Give the folder that holds index.json and blobs" },
  );
}

/** Tells whether a path leads to a folder. */
export async function isFolder(path: string): Promise<boolean> {
  try {
    return statSync(path).isDirectory();
  } catch {
    return false;
  }
}

/** An index.json together with the file that it was read from. */
export interface IndexContent {
  readonly index: LayoutIndex;
  readonly bytes: Uint8Array;
  readonly stats: Stats;
}

/** Reads index.json; undefined when there is none, or when it is empty and that counts as none. */
export async function readIndex(
  folder: string,
  location: string,
  { emptyIsNone }: { emptyIsNone: boolean },
): Promise<IndexContent | undefined> {
  const what = `index.json of "${location}"`;
  for (let attempt = 0; ; attempt++) {
    const wait = REREAD_AFTER[attempt];
    try {
      const content = await readIfThere(join(folder, INDEX), INDEX_LIMIT, what);
      if (!content || (emptyIsNone && content.bytes.length === 0)) return undefined;
      if (content.stable || wait === undefined) {
        const { bytes, stats } = content;
        return { index: parseIndex(bytes, what), bytes, stats };
      }
    } catch (error) {
      if (wait === undefined || !isCacheportError(error, "DOCUMENT_INVALID")) throw error;
    }
    await Bun.sleep(wait);
  }
}

function parseIndex(bytes: Uint8Array, what: string): LayoutIndex {
  if (bytes.length > 0) return parseLayoutIndex(bytes, what);
  throw new CacheportError("DOCUMENT_INVALID", `Cannot read ${what}: the file is empty`, {
    hint: "A program was stopped while it wrote it; export the cache or copy the image again",
  });
}

async function readIfThere(
  path: string,
  limit: number,
  what: string,
): Promise<FileContent | undefined> {
  try {
    return await readRegularFile(path, limit, what);
  } catch (error) {
    if (["ENOENT", "ENOTDIR"].includes(systemCode(error) ?? "")) return undefined;
    throw systemError(`Cannot read ${what}`, error);
  }
}

/**
 * Looks at the `oci-layout` file of a folder. One that is no JSON counts as none,
 * since BuildKit, which rewrites it in place with every export, does not look at it.
 *
 * @returns Whether it is there and good.
 * @throws {CacheportError} LAYOUT_INVALID for another version
 */
export async function hasLayoutMarker(folder: string, location: string = folder): Promise<boolean> {
  try {
    const what = `oci-layout of "${location}"`;
    const path = join(folder, MARKER);
    const content = await readIfThere(path, MARKER_LIMIT, what);
    if (!content) return false;
    checkLayoutMarker(content.bytes, location);
    return true;
  } catch (error) {
    if (isCacheportError(error, "DOCUMENT_INVALID")) return false;
    throw error;
  }
}

/** Tells whether a folder has an index.json, whatever is in it. */
export async function hasIndexFile(folder: string): Promise<boolean> {
  return existsSync(join(folder, INDEX));
}
