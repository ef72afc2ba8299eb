/**
 * Streams packed with gzip and zstd on all cores, with the same result every time.
 *
 * Sources: RFC 1952 (gzip), RFC 8878 (zstd).
 */
import { availableParallelism } from "node:os";
import type { ZlibOptions } from "node:zlib";
import { readChunks } from "./blob-check.ts";
import { noteDroppedChunk, toByteStream } from "./blob-stream.ts";

/**
 * Bytes of input in one zstd frame. Of 800 MB of files 1 MiB makes 2.0 % more than
 * 4 MiB, and 2 MiB 0.7 %; every block under way takes the memory of several frames.
 */
const FRAME_SIZE = 2 * 1024 * 1024;

/** Bytes of input that are deflated at once. */
const DEFLATE_SIZE = 1024 * 1024;

/** How far back deflate can refer, in bytes (RFC 1951, section 2). */
const DEFLATE_WINDOW = 32 * 1024;

/** Blocks compressed at once, over all streams: the cores are busy and memory is bounded. */
const IN_FLIGHT = Math.min(availableParallelism() + 1, 8);

/** No time, no name, "Unix": the same whatever the input. */
const GZIP_HEADER = Uint8Array.of(0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3);

/**
 * Packs a stream on all cores. The result depends on the bytes and the level alone,
 * not on how they arrive nor on the number of cores: gzip is one member whose blocks
 * were deflated apart, each knowing the bytes before it; zstd is a row of frames of
 * 2 MiB of input. Every reader of the formats takes both.
 *
 * @param level See {@link compressionLevel}.
 */
export function compressStream(
  stream: ReadableStream<Uint8Array>,
  compression: "gzip" | "zstd",
  level: number,
): ReadableStream<Uint8Array> {
  return toByteStream(compress(readChunks(stream), compression, level), { source: stream });
}

/** Packs chunks as {@link compressStream} does; ending it early ends the source. */
export function compress(
  chunks: AsyncGenerator<Uint8Array, void, void>,
  compression: "gzip" | "zstd",
  level: number,
): AsyncGenerator<Uint8Array, void, void> {
  return compression === "gzip" ? packGzip(chunks, level) : packZstd(chunks, level);
}

async function* packZstd(
  chunks: AsyncIterable<Uint8Array>,
  level: number,
): AsyncGenerator<Uint8Array, void, void> {
  yield* inOrder(blocks(chunks, FRAME_SIZE), ({ bytes }) => Bun.zstdCompress(bytes, { level }));
}

async function* packGzip(
  chunks: AsyncIterable<Uint8Array>,
  level: number,
): AsyncGenerator<Uint8Array, void, void> {
  // Loaded here: it takes as long as all of cacheport, and only packing needs it.
  const zlib = await import("node:zlib");
  const { Z_FINISH, Z_SYNC_FLUSH } = zlib.constants;
  let checksum = 0;
  let length = 0;
  let dictionary: Uint8Array | undefined;
  yield GZIP_HEADER;
  yield* inOrder(blocks(chunks, DEFLATE_SIZE), ({ bytes, isLast }) => {
    checksum = zlib.crc32(bytes, checksum);
    length += bytes.length;
    const before = dictionary;
    dictionary = bytes.slice(-DEFLATE_WINDOW);
    return deflate(zlib, bytes, {
      level,
      chunkSize: DEFLATE_SIZE / 2,
      // A block that is not the last ends on a whole byte, so that the next can follow.
      finishFlush: isLast ? Z_FINISH : Z_SYNC_FLUSH,
      ...(before && { dictionary: before }),
    });
  });
  const trailer = new DataView(new ArrayBuffer(8));
  trailer.setUint32(0, checksum, true);
  trailer.setUint32(4, length % 2 ** 32, true);
  yield new Uint8Array(trailer.buffer);
}

function deflate(
  { deflateRaw }: typeof import("node:zlib"),
  bytes: Uint8Array,
  options: ZlibOptions,
): Promise<Uint8Array> {
  const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>();
  deflateRaw(bytes, options, (error, result) => {
    if (error) reject(error);
    else resolve(result);
  });
  return promise;
}

/** A piece of a stream, as long as all others unless it is the last. */
interface Block {
  /** At the start of a buffer of its own, until it is compressed. */
  bytes: Uint8Array;
  isLast: boolean;
}

/** Cuts a stream into blocks of one size, whatever the chunks that it comes in; at least one. */
async function* blocks(
  chunks: AsyncIterable<Uint8Array>,
  size: number,
): AsyncGenerator<Block, void, void> {
  let buffer = takeBuffer(size);
  let filled = 0;
  for await (const chunk of chunks) {
    for (let at = 0; at < chunk.length;) {
      // Only what is followed by more is known not to be the last.
      if (filled === size) {
        yield { bytes: buffer, isLast: false };
        buffer = takeBuffer(size);
        filled = 0;
      }
      const part = chunk.subarray(at, at + size - filled);
      buffer.set(part, filled);
      filled += part.length;
      at += part.length;
    }
  }
  yield { bytes: buffer.subarray(0, filled), isLast: true };
}

/** Buffers that are to be used again: fresh memory for each block costs a tenth of the work. */
const spareBuffers: Uint8Array[] = [];

function takeBuffer(size: number): Uint8Array {
  const found = spareBuffers.findIndex(({ length }) => length === size);
  const [buffer] = found === -1 ? [] : spareBuffers.splice(found, 1);
  return buffer ?? new Uint8Array(size);
}

/** Runs a function over blocks, several at once, and gives the results in order. */
async function* inOrder(
  source: AsyncIterable<Block>,
  run: (block: Block) => Promise<Uint8Array>,
): AsyncGenerator<Uint8Array, void, void> {
  const pending: Promise<Uint8Array>[] = [];
  async function* next(): AsyncGenerator<Uint8Array, void, void> {
    const packed = await (pending.shift() as Promise<Uint8Array>);
    yield packed;
    noteDroppedChunk(packed.length);
  }
  try {
    for await (const block of source) {
      await slots.take();
      const result = run(block).finally(() => {
        slots.free();
        spareBuffers.push(new Uint8Array(block.bytes.buffer));
      });
      // Whoever ends early does not look at what is still under way.
      result.catch(() => {});
      pending.push(result);
      if (pending.length === IN_FLIGHT) yield* next();
    }
    while (pending.length > 0) yield* next();
  } finally {
    await Promise.allSettled(pending);
  }
}

/** A number of places, taken in the order of asking. */
class Slots {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(count: number) {
    this.#free = count;
  }

  async take(): Promise<void> {
    if (this.#free > 0) this.#free--;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  free(): void {
    const next = this.#waiting.shift();
    if (next) next();
    else this.#free++;
  }
}

const slots = new Slots(IN_FLIGHT);
