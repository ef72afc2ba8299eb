/**
 * What is in a layer: the entries of its tar, in their order.
 *
 * Source: OCI image-spec, layer.md ("Whiteouts"); POSIX.1-2017, pax.
 */
import { Readable } from "node:stream";
import * as tar from "tar-stream";
import { decompressStream } from "./blob-compression.ts";
import type { ContentReader } from "./content-store.ts";
import type { Descriptor } from "./descriptor.ts";
import { CacheportError, isCacheportError } from "./errors.ts";
import { posix } from "./paths.ts";
import { readChunks, verifiedStream } from "./blob-check.ts";

/** What an entry of a layer is. */
export type LayerFileType =
  | "file"
  | "directory"
  | "symlink"
  | "hardlink"
  | "character-device"
  | "block-device"
  | "fifo"
  /** Takes away what lower layers have at this path. */
  | "whiteout"
  /** Takes away everything that lower layers have in this directory. */
  | "opaque"
  | "other";

/** One entry of a layer. */
export interface LayerFile {
  /** Relative, without `./` before and `/` behind; `.` for the root. A whiteout's is the path that it takes away. */
  path: string;
  type: LayerFileType;
  /** Bytes of content. */
  size: number;
  /** Permission bits, with set-user-ID, set-group-ID and sticky. */
  mode: number;
  uid: number;
  gid: number;
  /** Time of the last change; undefined where the entry has none. */
  mtime: Date | undefined;
  /** What a symbolic or a hard link leads to. */
  link: string | undefined;
}

const TYPES: Record<string, LayerFileType> = {
  file: "file",
  "contiguous-file": "file",
  directory: "directory",
  symlink: "symlink",
  link: "hardlink",
  "character-device": "character-device",
  "block-device": "block-device",
  fifo: "fifo",
};

const WHITEOUT = ".wh.";
const OPAQUE = ".wh..wh..opq";

/**
 * Lists what is in a layer, entry by entry while it is read; memory is bounded
 * whatever its size. Digest and size are checked once the end is reached.
 *
 * @throws {CacheportError} BLOB_MISSING, DIGEST_MISMATCH, SIZE_MISMATCH,
 *   COMPRESSION_INVALID, ARCHIVE_INVALID when it is no tar, INTERRUPTED
 */
export async function* listLayer(
  reader: ContentReader,
  descriptor: Descriptor,
  { signal }: { signal?: AbortSignal | undefined } = {},
): AsyncGenerator<LayerFile, void, void> {
  const what = `layer "${descriptor.digest}"`;
  const stored = await reader.open(descriptor, signal);
  const unpacked = decompressStream(verifiedStream(stored, descriptor), undefined, what);
  const extract = tar.extract();
  const input = Readable.from(readChunks(unpacked, signal));
  input.on("error", (error) => extract.destroy(error));
  input.pipe(extract);
  try {
    for await (const entry of extract) {
      yield describeEntry(entry.header);
      entry.resume();
    }
  } catch (cause) {
    if (isCacheportError(cause)) throw cause;
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new CacheportError(
      "ARCHIVE_INVALID",
      `Cannot list ${what}: it is no valid tar (${reason})`,
      { cause },
    );
  } finally {
    input.destroy();
    extract.destroy();
  }
}

function describeEntry(header: tar.Header): LayerFile {
  const { pax } = header as { pax?: Record<string, string> | null };
  const name = header.name.replace(/^(?:\.?\/)+/, "").replace(/\/+$/, "") || ".";
  const { path, type } = readWhiteout(name) ?? {
    path: name,
    type: TYPES[header.type ?? ""] ?? "other",
  };
  return {
    path,
    type,
    size: type === "file" ? (header.size ?? 0) : 0,
    mode: header.mode ?? 0,
    uid: Number(pax?.["uid"] ?? header.uid ?? 0),
    gid: Number(pax?.["gid"] ?? header.gid ?? 0),
    mtime: pax?.["mtime"] ? new Date(Number(pax["mtime"]) * 1000) : (header.mtime ?? undefined),
    link: header.linkname ?? undefined,
  };
}

/** What a whiteout takes away; undefined for any other name. */
function readWhiteout(name: string): { path: string; type: LayerFileType } | undefined {
  const base = posix.basename(name);
  const folder = posix.dirname(name);
  if (base === OPAQUE) return { path: folder, type: "opaque" };
  // What begins with the prefix twice was AUFS's own and is no content.
  if (base.startsWith(WHITEOUT + WHITEOUT)) return { path: name, type: "other" };
  if (!base.startsWith(WHITEOUT)) return undefined;
  const path = posix.join(folder, base.slice(WHITEOUT.length));
  return { path, type: "whiteout" };
}
