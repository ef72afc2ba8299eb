/**
 * Compressed layers as streams: what they are, and their bytes unpacked. Packing is in
 * blob-pack.ts.
 *
 * Sources: RFC 1952 (gzip), RFC 8878 (zstd); BuildKit util/compression/compression.go
 * (detectCompressionType) and attrs.go (the levels).
 */
import { CacheportError } from "./errors.ts";
import type { Compression } from "./media-types.ts";
import { readChunks } from "./blob-check.ts";
import { noteDroppedChunk, toByteStream } from "./blob-stream.ts";

/** The levels of each compression: the range that BuildKit documents, and the default. */
const LEVELS = {
  // BuildKit's default for gzip; the bytes differ, since Go deflates in its own way.
  gzip: { min: 0, max: 9, default: 6 },
  // 0 stands for the default, as in libzstd.
  zstd: { min: 0, max: 22, default: 3 },
} as const;

/**
 * Tells a compression from the first bytes of a stream, as BuildKit and containerd
 * do; what is neither gzip nor zstd counts as uncompressed, an empty file too.
 *
 * @param head At least 4 bytes where there are as many.
 */
export function detectCompression(head: Uint8Array): Compression {
  const [a = 0, b, c, d] = head;
  if (a === 0x1f && b === 0x8b && c === 0x08) return "gzip";
  if (a === 0x28 && b === 0xb5 && c === 0x2f && d === 0xfd) return "zstd";
  // zstd may begin with a frame that is to be skipped.
  if ((a & 0xf0) === 0x50 && b === 0x2a && c === 0x4d && d === 0x18) return "zstd";
  return "uncompressed";
}

/**
 * The level that a compression is done at.
 *
 * @param level gzip 0 to 9, zstd 0 to 22; undefined for the default, 6 and 3.
 * @throws {CacheportError} USAGE when it is out of range
 */
export function compressionLevel(compression: "gzip" | "zstd", level: number | undefined): number {
  const { min, max, default: usual } = LEVELS[compression];
  if (level === undefined || (compression === "zstd" && level === 0)) return usual;
  if (Number.isInteger(level) && level >= min && level <= max) return level;
  throw new CacheportError(
    "USAGE",
    `Cannot use compression level ${level}: the levels of ${compression} are ${min} to ${max}`,
  );
}

/** Bytes that gzip is unpacked into at once: the rate is the best from here on. */
const GUNZIP_CHUNK = 256 * 1024;

/** Bytes that are unpacked before somebody asks for them. */
const READ_AHEAD = 1024 * 1024;

/**
 * Unpacks a stream: gzip of several members, zstd of several frames. Memory is
 * bounded whatever the sizes.
 *
 * @param compression What the stream is; told from its first bytes when undefined.
 * @param what What the stream is, for the message: `layer "sha256:..."`.
 * @returns A stream that fails with COMPRESSION_INVALID when the bytes are damaged,
 *   cut short or followed by anything else than zeros behind gzip, with which some
 *   programs fill up blocks, and with the source's own error when the source fails.
 */
export function decompressStream(
  stream: ReadableStream<Uint8Array>,
  compression: Compression | undefined,
  what: string,
): ReadableStream<Uint8Array> {
  return toByteStream(decompress(readChunks(stream), compression, what), {
    source: stream,
    ahead: 1,
  });
}

/** Unpacks chunks as {@link decompressStream} does; ending it early ends the source. */
export async function* decompress(
  source: AsyncGenerator<Uint8Array, void, void>,
  expected: Compression | undefined,
  what: string,
): AsyncGenerator<Uint8Array, void, void> {
  const { head, rest } = await peek(source, 4);
  const compression = expected ?? detectCompression(head);
  if (compression === "uncompressed") {
    yield* rest;
    return;
  }
  const failure: { cause?: unknown } = {};
  try {
    const noted = noteFailure(rest, failure);
    yield* compression === "gzip" ? gunzip(noted) : unzstd(noted);
  } catch (cause) {
    if ("cause" in failure) throw failure.cause;
    throw new CacheportError(
      "COMPRESSION_INVALID",
      `Cannot decompress ${what}: it is no valid ${compression} (${reasonOf(cause)})`,
      {
        hint: "The content was damaged or cut short; get it again from where it was made",
        cause,
      },
    );
  }
}

/** Unpacks zstd; node:zlib's counterpart takes a truncated stream for a whole one. */
async function* unzstd(
  chunks: AsyncGenerator<Uint8Array, void, void>,
): AsyncGenerator<Uint8Array, void, void> {
  const unpacked: ReadableStream<Uint8Array> = toByteStream(chunks, { ahead: 1 }).pipeThrough(
    // Its type asks for less general chunks than it takes.
    new DecompressionStream("zstd") as unknown as ByteTransform,
  );
  for await (const chunk of readChunks(unpacked)) {
    yield chunk;
    noteDroppedChunk(chunk.length);
  }
}

type ByteTransform = ReadableWritablePair<Uint8Array, Uint8Array>;

/** Unpacks gzip on the runtime's own threads, while the caller works on what was unpacked before. */
async function* gunzip(
  chunks: AsyncGenerator<Uint8Array, void, void>,
): AsyncGenerator<Uint8Array, void, void> {
  // Loaded here: it takes as long as all of cacheport, and only few commands need it.
  const { createGunzip } = await import("node:zlib");
  const options = { chunkSize: GUNZIP_CHUNK, highWaterMark: READ_AHEAD };
  const unpacker = createGunzip(options);
  const write = (chunk: Uint8Array): Promise<void> =>
    new Promise((resolve) => {
      // An error comes out at the other end; a stream that was destroyed calls nobody back.
      unpacker.once("close", resolve);
      unpacker.write(chunk, () => {
        unpacker.off("close", resolve);
        resolve();
      });
    });
  const feed = async (): Promise<void> => {
    let fed = 0;
    let isBehind = false;
    for await (const chunk of chunks) {
      if (unpacker.destroyed && !isBehind) return;
      let tail = chunk;
      if (!isBehind) {
        await write(chunk);
        fed += chunk.length;
        // It stops at zeros behind a member and counts what it has taken.
        const left = unpacker.writableFinished ? 0 : fed - unpacker.bytesWritten;
        if (left === 0 || unpacker.destroyed) continue;
        isBehind = true;
        tail = chunk.subarray(chunk.length - left);
      }
      if (tail.some((byte) => byte !== 0)) throw new Error("there is something behind its end");
    }
    unpacker.end();
  };
  const fed = feed().catch((error: unknown) => void unpacker.destroy(error as Error));
  try {
    for await (const chunk of unpacker) {
      yield chunk as Uint8Array;
      noteDroppedChunk((chunk as Uint8Array).length);
    }
    await fed;
    if (unpacker.errored) throw unpacker.errored;
  } finally {
    unpacker.destroy();
    await chunks.return();
  }
}

/** What a failed decompressor says, in a form that stands in brackets. */
function reasonOf(cause: unknown): string {
  const message = cause instanceof Error ? cause.message : String(cause);
  return message.charAt(0).toLowerCase() + message.slice(1);
}

/** Reads until there are some bytes; they come again with the rest. */
async function peek(
  chunks: AsyncGenerator<Uint8Array, void, void>,
  length: number,
): Promise<{ head: Uint8Array; rest: AsyncGenerator<Uint8Array, void, void> }> {
  const first: Uint8Array[] = [];
  let size = 0;
  while (size < length) {
    const { done, value } = await chunks.next();
    if (done) break;
    first.push(value);
    size += value.length;
  }
  return { head: Buffer.concat(first), rest: chain(first, chunks) };
}

async function* chain(
  first: readonly Uint8Array[],
  rest: AsyncGenerator<Uint8Array, void, void>,
): AsyncGenerator<Uint8Array, void, void> {
  try {
    yield* first;
    yield* rest;
  } finally {
    await rest.return();
  }
}

async function* noteFailure(
  chunks: AsyncIterable<Uint8Array>,
  failure: { cause?: unknown },
): AsyncGenerator<Uint8Array, void, void> {
  try {
    yield* chunks;
  } catch (cause) {
    failure.cause = cause;
    throw cause;
  }
}
