/**
 * Reads a `.dockerbuild` file: a tar, compressed with gzip as a rule, with a small
 * OCI layout in it. It is read into memory under limits and nothing is unpacked.
 *
 * Source: docker buildx history export; BuildKit control/history.
 */
import { Readable } from "node:stream";
import * as tar from "tar-stream";
import { decompressStream, detectCompression } from "./blob-compression.ts";
import { readChunks } from "./blob-check.ts";
import type { Descriptor } from "./descriptor.ts";
import { checkContent } from "./digest.ts";
import { checkDocumentSize } from "./documents.ts";
import { CacheportError, isCacheportError } from "./errors.ts";
import { readBuildsBelow } from "./explain-attestation.ts";
import type { Build } from "./explain-build.ts";
import { parseImageIndex } from "./image-index.ts";
import type { WalkOptions } from "./walk.ts";

/** Bytes of all members together; exports have some tens of kilobytes. */
const MAX_UNPACKED = 256 * 1024 * 1024;
const MAX_MEMBERS = 10_000;
/** Bytes of a member that is kept, and of all that are; a larger one is a layer and no document. */
const MAX_KEPT = 16 * 1024 * 1024;
const MAX_ALL_KEPT = 64 * 1024 * 1024;

/** Tells whether the first bytes of a file are those of gzip or zstd. */
export function isCompressed(head: Uint8Array): boolean {
  return detectCompression(head) !== "uncompressed";
}

/**
 * Reads the builds of a bundle.
 *
 * @param open Opens the file as it is stored.
 * @returns None for a tar that holds no records of builds.
 * @throws {CacheportError} ARCHIVE_INVALID, DOCUMENT_TOO_LARGE, COMPRESSION_INVALID, ...
 */
export async function readBundle(
  open: () => ReadableStream<Uint8Array>,
  source: string,
  options: WalkOptions,
): Promise<Build[]> {
  const members = await readMembers(open(), source, options);
  const index = members.get("index.json");
  if (!index) return [];
  const reader = {
    location: source,
    async read(descriptor: Descriptor, limit: number): Promise<Uint8Array> {
      const what = `blob "${descriptor.digest}"`;
      const bytes = members.get(`blobs/${descriptor.digest.replace(":", "/")}`);
      if (!bytes)
        throw new CacheportError("BLOB_MISSING", `Cannot read ${what}: it is not in "${source}"`);
      checkDocumentSize(bytes.length, limit, what);
      checkContent(bytes, descriptor);
      return bytes;
    },
  };
  const { manifests } = parseImageIndex(index, `index.json of "${source}"`);
  const builds: Build[] = [];
  for (const manifest of manifests)
    builds.push(...(await readBuildsBelow(reader, manifest, source, options)));
  return builds;
}

/** The files of a tar by their paths. A path is only a key here and leads nowhere. */
async function readMembers(
  stored: ReadableStream<Uint8Array>,
  source: string,
  { signal }: WalkOptions,
): Promise<Map<string, Uint8Array>> {
  const members = new Map<string, Uint8Array>();
  const unpacked = decompressStream(stored, undefined, `build "${source}"`);
  const extract = tar.extract();
  const input = Readable.from(limited(readChunks(unpacked, signal), source));
  input.on("error", (error) => extract.destroy(error));
  input.pipe(extract);
  try {
    let count = 0;
    let kept = 0;
    for await (const entry of extract) {
      if (++count > MAX_MEMBERS) throw tooLarge(source, `more than ${MAX_MEMBERS} members`);
      const { size } = entry.header;
      if (size > MAX_KEPT || kept + size > MAX_ALL_KEPT) {
        entry.resume();
        continue;
      }
      kept += size;
      const chunks: Uint8Array[] = [];
      for await (const chunk of entry) chunks.push(chunk as Uint8Array);
      if (entry.header.type === "file")
        members.set(entry.header.name.replace(/^(?:\.\/)+/, ""), Buffer.concat(chunks));
    }
  } catch (cause) {
    if (isCacheportError(cause)) throw cause;
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new CacheportError(
      "ARCHIVE_INVALID",
      `Cannot read build "${source}": it is no valid tar (${reason})`,
      { cause },
    );
  } finally {
    input.destroy();
    extract.destroy();
  }
  return members;
}

async function* limited(
  chunks: AsyncIterable<Uint8Array>,
  source: string,
): AsyncGenerator<Uint8Array, void, void> {
  let total = 0;
  for await (const chunk of chunks) {
    total += chunk.length;
    if (total > MAX_UNPACKED) throw tooLarge(source, `more than ${MAX_UNPACKED} bytes unpacked`);
    yield chunk;
  }
}

function tooLarge(source: string, size: string): CacheportError {
  return new CacheportError("DOCUMENT_TOO_LARGE", `Cannot read build "${source}": it has ${size}`);
}
