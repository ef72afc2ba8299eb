/**
 * The bytes of blobs: their size, their digest, the compression that they begin with
 * and, unpacked, their diffID.
 */
import { open } from "node:fs/promises";
import { decompressStream, detectCompression } from "./blob-compression.ts";
import type { BlobLocation, ContentReader } from "./content-store.ts";
import type { Descriptor } from "./descriptor.ts";
import { createHasher, digestAlgorithm, sizeMismatch } from "./digest.ts";
import type { Digest } from "./digest.ts";
import { isCacheportError, systemError } from "./errors.ts";
import { isForeignLayerType, layerCompression } from "./media-types.ts";
import { checkHashed, ContentCheck, readChunks } from "./blob-check.ts";
import type { ProblemList } from "./verify-problem.ts";
import type { WorkerPool } from "./blob-threads.ts";

/** What checking a blob needs. */
export interface BlobRules {
  reader: ContentReader;
  pool: WorkerPool;
  problems: ProblemList;
  /** What the unpacked bytes must have as digest; empty when they are not to be looked at. */
  diffIds: readonly Digest[];
  /** Is told the number of bytes that were hashed since the last call. */
  onBytes(count: number): void;
  signal?: AbortSignal | undefined;
}

/**
 * Checks one blob.
 *
 * @returns Whether all of its bytes were hashed and are the right ones.
 * @throws {CacheportError} what says nothing of the content, such as REGISTRY_DENIED
 */
export async function verifyBlob(blob: Descriptor, rules: BlobRules): Promise<boolean> {
  const { reader, problems } = rules;
  try {
    const location = await reader.locate(blob);
    const isSound = await (location
      ? verifyFile(blob, location, rules)
      : verifyDownload(blob, rules));
    problems.noteRead();
    return isSound;
  } catch (error) {
    const isAbsent = isCacheportError(error, "BLOB_MISSING", "BLOB_NOT_FOUND");
    if (isAbsent && isForeignLayerType(blob.mediaType) && blob.urls?.length) {
      problems.add(
        "FOREIGN_LAYER_ABSENT",
        blob.digest,
        `Layer ${blob.digest} is not there; it is to be had from ${blob.urls[0]}`,
      );
    } else {
      problems.addError(error, blob.digest);
    }
    return false;
  }
}

/** Hashes a part of a file on a thread of its own, then unpacks it. */
async function verifyFile(
  blob: Descriptor,
  location: BlobLocation,
  rules: BlobRules,
): Promise<boolean> {
  const { digest, size } = blob;
  if (location.size !== size) throw sizeMismatch(blob, location.size);
  try {
    const actual = await rules.pool.run(
      { source: location, algorithm: digestAlgorithm(digest), seal: false },
      { onBytes: rules.onBytes, signal: rules.signal },
    );
    checkHashed(blob, actual);
    verifyCompression(blob, await readHead(location), rules.problems);
  } catch (error) {
    throw systemError(`Cannot read blob "${digest}"`, error);
  }
  if (rules.diffIds.length > 0) {
    const stream = await rules.reader.open(blob, rules.signal);
    await verifyUnpacked(blob, stream, rules);
  }
  return true;
}

async function readHead({ path, offset }: BlobLocation): Promise<Uint8Array> {
  const file = await open(path, "r");
  try {
    const { buffer, bytesRead } = await file.read(new Uint8Array(4), 0, 4, offset);
    return buffer.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}

/** Hashes a stream while it is read, and unpacks it on the way, so that it is fetched once. */
async function verifyDownload(blob: Descriptor, rules: BlobRules): Promise<boolean> {
  const check = new ContentCheck(blob);
  const head: number[] = [];
  const watched = (await rules.reader.open(blob, rules.signal)).pipeThrough(
    new TransformStream<Uint8Array, Uint8Array>({
      transform(chunk, controller) {
        if (head.length < 4) head.push(...chunk.subarray(0, 4 - head.length));
        check.add(chunk);
        rules.onBytes(chunk.length);
        controller.enqueue(chunk);
      },
    }),
  );
  if (rules.diffIds.length > 0) {
    await verifyUnpacked(blob, watched, rules);
  } else {
    for await (const _ of readChunks(watched, rules.signal));
  }
  check.finish();
  verifyCompression(blob, Uint8Array.from(head), rules.problems);
  return true;
}

function verifyCompression(
  { digest, mediaType }: Descriptor,
  head: Uint8Array,
  problems: ProblemList,
): void {
  const promised = layerCompression(mediaType);
  const found = detectCompression(head);
  if (promised === undefined || promised === found) return;
  problems.add(
    "LAYER_TYPE_WRONG",
    digest,
    `Layer ${digest} is listed as ${mediaType} and its bytes are ${found === "uncompressed" ? "not compressed" : found}`,
  );
}

async function verifyUnpacked(
  { digest }: Descriptor,
  stream: ReadableStream<Uint8Array>,
  { diffIds, problems, signal }: BlobRules,
): Promise<void> {
  // Told from the bytes: a wrong media type is another problem.
  const unpacked = decompressStream(stream, undefined, `layer "${digest}"`);
  const hasher = createHasher();
  for await (const chunk of readChunks(unpacked, signal)) hasher.update(chunk);
  const actual = hasher.digest();
  for (const diffId of diffIds) {
    if (diffId === actual) continue;
    problems.add(
      "DIFF_ID_MISMATCH",
      digest,
      `Layer ${digest} has the diffID ${diffId} and unpacks to ${actual}`,
    );
  }
}
