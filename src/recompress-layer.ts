/**
 * Layers in another compression: each is streamed out of its store, checked, unpacked,
 * hashed, packed and written to the target, in memory that does not depend on its
 * size. What it unpacks to stays the same, byte for byte.
 *
 * Source: BuildKit util/compression; the annotations are those of cache/refs.go (ociDesc).
 */
import { open, rm } from "node:fs/promises";
import { compressionLevel, decompress } from "./blob-compression.ts";
import { compress } from "./blob-pack.ts";
import { mapLimit } from "./concurrency.ts";
import type { BlobLocation, ContentReader, ContentWriter } from "./content-store.ts";
import type { TransferOptions } from "./copy.ts";
import type { Descriptor } from "./descriptor.ts";
import { checkContent, createHasher } from "./digest.ts";
import type { Digest } from "./digest.ts";
import { checkDocumentSize } from "./documents.ts";
import { streamRegularFile, writeAll } from "./layout-durable.ts";
import { CacheportError, interrupted, systemError } from "./errors.ts";
import { layerCompression, layerTypeIn } from "./media-types.ts";
import type { Compression } from "./media-types.ts";
import { RunFolder } from "./layout-work.ts";
import { checkedChunks, readChunks } from "./blob-check.ts";

/** What layers are to become. */
export interface CompressionChoice {
  compression: Compression;
  /** gzip 0 to 9, zstd 0 to 22; 6 and 3 unless told otherwise. */
  level?: number | undefined;
  /** Recompress layers that have the compression already, too. */
  force: boolean;
}

/** How to recompress. */
export interface RecompressOptions extends Pick<TransferOptions, "jobs" | "progress" | "signal"> {
  /** An existing folder, best on the target's own file system: new blobs wait there. */
  tempFolder: string;
}

/** A layer that is to be recompressed, and what it must unpack to. */
export interface LayerTask {
  layer: Descriptor;
  /** Every diffID that a document gives it; none when no document does. */
  diffIds: readonly Digest[];
}

/** The blob that a layer became. */
export interface NewBlob {
  compression: Compression;
  digest: Digest;
  /** Bytes. */
  size: number;
  /** The digest of what it unpacks to. */
  diffId: Digest;
}

/** Layers that became other blobs. */
export interface RecompressedLayers {
  /** The new blob of each layer by its old digest. */
  blobs: Map<Digest, NewBlob>;
  /** Removes the temporary files; to be called once the target has published, or has failed to. */
  dispose(): Promise<void>;
}

/** Layers under way at once: packing one keeps several cores busy already. */
const LAYERS_AT_ONCE = 3;

/** What annotations say of the very bytes of a blob, which are others now. */
const BLOB_ANNOTATIONS = [
  // Lazily pulled formats within gzip and zstd: eStargz, nydus, overlaybd, zstd:chunked.
  "containerd.io/snapshot/",
  "io.containers.estargz.",
  "io.github.containers.zstd-chunked.",
  // The repositories that have the old blob.
  "containerd.io/distribution.source.",
];

/**
 * Tells whether a layer is to be recompressed. What is no layer stays as it is, and
 * so does a layer with URLs: they lead to the bytes that it has.
 */
export function isToRecompress(
  { mediaType, urls }: Descriptor,
  { compression, force }: CompressionChoice,
): boolean {
  const current = layerCompression(mediaType);
  if (current === undefined || urls?.length) return false;
  return force || current !== compression;
}

/** The descriptor of a layer after it became another blob. */
export function describeNewBlob(layer: Descriptor, blob: NewBlob): Descriptor {
  const { urls: _urls, data: _data, annotations, ...rest } = layer;
  return {
    ...rest,
    mediaType: layerTypeIn(layer.mediaType, blob.compression),
    digest: blob.digest,
    size: blob.size,
    annotations:
      annotations &&
      Object.fromEntries(
        Object.entries(annotations).filter(
          ([key]) => !BLOB_ANNOTATIONS.some((start) => key.startsWith(start)),
        ),
      ),
  };
}

/**
 * Recompresses layers and writes them to the target.
 *
 * @param tasks Each digest once.
 * @throws {CacheportError} USAGE and NOT_SUPPORTED for the choice; DIGEST_MISMATCH
 *   for a wrong diffID too, SIZE_MISMATCH, COMPRESSION_INVALID, BLOB_MISSING,
 *   INTERRUPTED, and what writing throws. Temporary files are gone then.
 */
export async function recompressLayers(
  source: ContentReader,
  tasks: readonly LayerTask[],
  choice: CompressionChoice,
  target: ContentWriter,
  options: RecompressOptions,
): Promise<RecompressedLayers> {
  const packer = choosePacker(choice);
  if (tasks.length === 0) return { blobs: new Map(), dispose: async () => {} };
  const { progress, signal } = options;
  progress.expect({
    tasks: tasks.length,
    bytes: tasks.reduce((sum, { layer }) => sum + layer.size, 0),
  });
  const run = await RunFolder.within(options.tempFolder);
  const dispose = (): Promise<void> => run.close();
  try {
    // The largest first, so that none of them is left for the end.
    const ordered = tasks.toSorted((a, b) => b.layer.size - a.layer.size);
    const blobs = await mapLimit(
      ordered,
      Math.min(options.jobs, LAYERS_AT_ONCE),
      async ({ layer, diffIds }): Promise<[Digest, NewBlob]> => {
        const task = progress.start("recompress", layer.digest, layer.size);
        const path = run.temporaryPath();
        try {
          const stored = await source.open(layer, signal);
          const chunks = tapChunks(readChunks(stored, signal), ({ length }) =>
            task.advance(length),
          );
          const made = await packFile(chunks, layer, packer, path, signal);
          checkDiffIds(layer, diffIds, made.diffId);
          const blob = { ...made, compression: choice.compression };
          const descriptor = describeNewBlob(layer, blob);
          const store = new TemporaryBlob(path, blob.size);
          const outcome = await target.put(descriptor, { store }, { signal });
          // Otherwise the disk would hold what is in the target already.
          if (!target.defers || outcome === "skipped") await rm(path, { force: true });
          task.end("done");
          return [layer.digest, blob];
        } catch (error) {
          task.end("failed");
          throw systemError(`Cannot recompress layer "${layer.digest}"`, error);
        }
      },
    );
    if (!target.defers) await dispose();
    return { blobs: new Map(blobs), dispose };
  } catch (error) {
    await dispose();
    throw error;
  }
}

type Chunks = AsyncGenerator<Uint8Array, void, void>;

type Packer = (chunks: Chunks) => Chunks;

/** What packs the unpacked bytes; undefined when they are to stay unpacked. */
function choosePacker({ compression, level }: CompressionChoice): Packer | undefined {
  if (compression === "uncompressed") return undefined;
  if (compression !== "gzip" && compression !== "zstd") {
    throw new CacheportError(
      "NOT_SUPPORTED",
      `Cannot write ${String(compression)} layers: only gzip, zstd and uncompressed are supported`,
    );
  }
  const checked = compressionLevel(compression, level);
  return (chunks) => compress(chunks, compression, checked);
}

/**
 * Recompresses a stream into a new file; the stored bytes are checked on the way. This
 * thread hashes, the runtime's own pool unpacks and packs: with processors that know
 * SHA-256 that is the smaller part, and the bytes stay where they are.
 */
async function packFile(
  stored: Chunks,
  layer: Descriptor,
  pack: Packer | undefined,
  path: string,
  signal: AbortSignal | undefined,
): Promise<{ digest: Digest; size: number; diffId: Digest }> {
  const diffHasher = createHasher();
  const unpacked = tapChunks(
    // The bytes decide, as they do in containerd: a media type may be wrong.
    decompress(checkedChunks(stored, layer), undefined, `layer "${layer.digest}"`),
    (chunk) => diffHasher.update(chunk),
  );
  const hasher = pack && createHasher();
  let size = 0;
  const file = await open(path, "wx", 0o600);
  try {
    for await (const chunk of pack?.(unpacked) ?? unpacked) {
      if (signal?.aborted) throw interrupted();
      hasher?.update(chunk);
      size += chunk.length;
      await writeAll(file, chunk);
    }
  } finally {
    await file.close();
  }
  const diffId = diffHasher.digest();
  return { digest: hasher?.digest() ?? diffId, size, diffId };
}

/** Chunks, shown to a function on their way. */
async function* tapChunks(chunks: Chunks, show: (chunk: Uint8Array) => void): Chunks {
  for await (const chunk of chunks) {
    show(chunk);
    yield chunk;
  }
}

/** @throws {CacheportError} DIGEST_MISMATCH */
export function checkDiffIds(
  { digest }: Descriptor,
  expected: readonly Digest[],
  actual: Digest,
): void {
  const wrong = expected.find((diffId) => diffId !== actual);
  if (wrong === undefined) return;
  throw new CacheportError(
    "DIGEST_MISMATCH",
    `Cannot recompress layer "${digest}": it unpacks to ${actual} and its diffID is ${wrong}`,
    {
      hint: "The layer or what describes it was replaced; get it again from where it was made",
    },
  );
}

/** A finished blob in a file of its own, for a writer to take. */
class TemporaryBlob implements ContentReader {
  readonly location: string;
  readonly #size: number;

  constructor(path: string, size: number) {
    this.location = path;
    this.#size = size;
  }

  async stat(): Promise<number> {
    return this.#size;
  }

  async read(descriptor: Descriptor, limit: number): Promise<Uint8Array> {
    checkDocumentSize(this.#size, limit, `blob "${descriptor.digest}"`);
    const bytes = await Bun.file(this.location).bytes();
    checkContent(bytes, descriptor);
    return bytes;
  }

  async open({ digest }: Descriptor, signal?: AbortSignal): Promise<ReadableStream<Uint8Array>> {
    const what = `blob "${digest}"`;
    return streamRegularFile(
      this.location,
      what,
      (error) => systemError(`Cannot read ${what}`, error),
      signal,
    );
  }

  async locate(): Promise<BlobLocation> {
    const size = this.#size;
    return {
      path: this.location,
      offset: 0,
      size,
      disposable: true,
      hashed: true,
    };
  }
}
