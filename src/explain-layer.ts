/**
 * The files of a layer, with the digests that content keys are made of. Contents are
 * hashed while they pass; memory is bounded by the number of files.
 */
import { Readable } from "node:stream";
import * as tar from "tar-stream";
import { decompressStream } from "./blob-compression.ts";
import { readChunks, verifiedStream } from "./blob-check.ts";
import type { ContentReader } from "./content-store.ts";
import type { Descriptor } from "./descriptor.ts";
import { createHasher } from "./digest.ts";
import { CacheportError, isCacheportError } from "./errors.ts";
import { directoryEntry, linkEntry, MemoryTree, startFileHash } from "./explain-tree.ts";
import type { TreeEntry } from "./explain-tree.ts";

/** Bytes of the largest layer that is read, as it is stored. */
const MAX_LAYER = 1024 * 1024 * 1024;
/** Files of a layer that are kept. */
const MAX_FILES = 200_000;
/** Elements of a path. */
const MAX_DEPTH = 256;

/**
 * Reads a layer as a tree in which everything belongs to root, as files of a context
 * do. Whiteouts are left out.
 *
 * @returns Undefined for a layer that is too large to be looked into.
 * @throws {CacheportError} BLOB_MISSING, DIGEST_MISMATCH, COMPRESSION_INVALID, ...
 */
export async function readLayerTree(
  reader: ContentReader,
  descriptor: Descriptor,
  signal?: AbortSignal,
): Promise<MemoryTree | undefined> {
  if (descriptor.size > MAX_LAYER) return undefined;
  const what = `layer "${descriptor.digest}"`;
  const stored = await reader.open(descriptor, signal);
  const unpacked = decompressStream(verifiedStream(stored, descriptor), undefined, what);
  const extract = tar.extract();
  const input = Readable.from(readChunks(unpacked, signal));
  input.on("error", (error) => extract.destroy(error));
  input.pipe(extract);
  const tree = new MemoryTree();
  let count = 0;
  try {
    for await (const entry of extract) {
      const path = cleanPath(entry.header.name);
      if (path === undefined || ++count > MAX_FILES) entry.resume();
      else {
        const read = await readEntry(tree, entry.header, entry);
        if (read && path !== "") tree.set(path, read);
      }
    }
  } catch (cause) {
    if (isCacheportError(cause)) throw cause;
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new CacheportError(
      "ARCHIVE_INVALID",
      `Cannot read ${what}: it is no valid tar (${reason})`,
      {
        cause,
      },
    );
  } finally {
    input.destroy();
    extract.destroy();
  }
  return count > MAX_FILES ? undefined : tree;
}

/** The path of an entry in a tree; undefined for whiteouts and for paths that lead out. */
function cleanPath(name: string): string | undefined {
  const parts = name.split("/").filter((part) => part !== "" && part !== ".");
  const isOut = parts.includes("..") || parts.length > MAX_DEPTH;
  if (isOut || parts.at(-1)?.startsWith(".wh.")) return undefined;
  return parts.map((part) => `/${part}`).join("");
}

async function readEntry(
  tree: MemoryTree,
  header: tar.Header,
  content: AsyncIterable<unknown> & { resume(): void },
): Promise<TreeEntry | undefined> {
  const mode = (header.mode ?? 0) & 0o7777;
  switch (header.type) {
    case "file":
    case "contiguous-file":
      return fileEntry(mode, header.size ?? 0, content);
    case "directory":
      content.resume();
      return directoryEntry(mode);
    case "symlink":
      content.resume();
      return linkEntry(header.linkname ?? "");
    case "link": {
      content.resume();
      const target = cleanPath(header.linkname ?? "");
      return target === undefined ? undefined : tree.entry(target);
    }
    default:
      content.resume();
      return undefined;
  }
}

async function fileEntry(
  mode: number,
  size: number,
  content: AsyncIterable<unknown>,
): Promise<TreeEntry> {
  const fields = { type: "file" as const, mode, uid: 0, gid: 0, size, link: "" };
  const whole = startFileHash(fields);
  const bare = createHasher();
  for await (const chunk of content) {
    whole.update(chunk as Uint8Array);
    bare.update(chunk as Uint8Array);
  }
  const digest = whole.digest();
  const contentDigest = bare.digest();
  return { ...fields, digest: () => digest, contentDigest: () => contentDigest };
}
