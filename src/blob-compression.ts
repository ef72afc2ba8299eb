/**
 * Compressed layers as streams: what they are, their bytes unpacked, and packed
 * again with the same result every time.
 *
 * Sources: RFC 1952 (gzip), RFC 8878 (zstd); BuildKit util/compression/compression.go
 * (detectCompressionType) and attrs.go (the levels).
 */
import { availableParallelism } from "node:os";
import type { ZlibOptions } from "node:zlib";
import { CacheportError } from "./errors.ts";
import type { Compression } from "./media-types.ts";
import { readChunks } from "./blob-check.ts";

/** The levels of each compression: the range that BuildKit documents, and the default. */
const LEVELS = {
  // BuildKit's default for gzip; the bytes differ, since Go deflates in its own way.
  gzip: { min: 0, max: 9, default: 6 },
  // 0 stands for the default, as in libzstd.
  zstd: { min: 0, max: 22, default: 3 },
} as const;

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

/**
 * Chunks of up to 512 KiB that are unpacked ahead: that goes on while its reader
 * hashes what was unpacked.
 */
const READ_AHEAD = 3;

/** No time, no name, "Unix": the same whatever the input. */
const GZIP_HEADER = Uint8Array.of(0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3);

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

/**
 * Unpacks a stream: gzip of several members, zstd of several frames. Memory is
 * bounded whatever the sizes.
 *
 * @param compression What the stream is; told from its first bytes when undefined.
 * @param what What the stream is, for the message: `layer "sha256:..."`.
 * @returns A stream that fails with COMPRESSION_INVALID when the bytes are damaged,
 *   cut short or followed by anything else (zeros too, which BuildKit refuses as
 *   well), and with the source's own error when the source fails.
 */
export function decompressStream(
  stream: ReadableStream<Uint8Array>,
  compression: Compression | undefined,
  what: string,
): ReadableStream<Uint8Array> {
  return toStream(decompress(stream, compression, what), stream, READ_AHEAD);
}

async function* decompress(
  stream: ReadableStream<Uint8Array>,
  expected: Compression | undefined,
  what: string,
): AsyncGenerator<Uint8Array> {
  const { head, rest } = await peek(stream, 4);
  const compression = expected ?? detectCompression(head);
  if (compression === "uncompressed") {
    yield* rest;
    return;
  }
  let failure: { cause: unknown } | undefined;
  const packed = toStream(
    noteFailure(rest, (cause) => (failure = { cause })),
    stream,
    1,
  );
  // node:zlib's counterparts take a truncated zstd stream and zeros after gzip.
  const unpacked: ReadableStream<Uint8Array> = packed.pipeThrough(
    // Its type asks for less general chunks than it takes.
    new DecompressionStream(compression) as unknown as ByteTransform,
  );
  try {
    yield* readChunks(unpacked);
  } catch (cause) {
    if (failure) throw failure.cause;
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

type ByteTransform = ReadableWritablePair<Uint8Array, Uint8Array>;

/** What a failed decompressor says, in a form that stands in brackets. */
function reasonOf(cause: unknown): string {
  const message = cause instanceof Error ? cause.message : String(cause);
  return message.charAt(0).toLowerCase() + message.slice(1);
}

/** Reads until there are some bytes; they come again with the rest. */
async function peek(
  stream: ReadableStream<Uint8Array>,
  length: number,
): Promise<{ head: Uint8Array; rest: AsyncGenerator<Uint8Array> }> {
  const chunks = readChunks(stream);
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
  rest: AsyncGenerator<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  try {
    yield* first;
    yield* rest;
  } finally {
    await rest.return(undefined);
  }
}

async function* noteFailure(
  chunks: AsyncIterable<Uint8Array>,
  note: (cause: unknown) => void,
): AsyncGenerator<Uint8Array> {
  try {
    yield* chunks;
  } catch (cause) {
    note(cause);
    throw cause;
  }
}

/**
 * A stream of what a generator makes out of another stream. Cancelling it ends the
 * generator and the other stream.
 *
 * @param ahead How many chunks to make before somebody asks for them.
 */
function toStream(
  chunks: AsyncGenerator<Uint8Array>,
  source: ReadableStream<Uint8Array>,
  ahead: number,
): ReadableStream<Uint8Array> {
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const { done, value } = await chunks.next();
        if (done) controller.close();
        else controller.enqueue(value);
      },
      async cancel(reason) {
        await chunks.return(undefined);
        // A generator that was never started has not taken hold of its source.
        if (!source.locked) await source.cancel(reason);
      },
    },
    { highWaterMark: ahead },
  );
}

/**
 * Packs a stream on all cores. The result depends on the bytes and the level alone,
 * not on how they arrive nor on the number of cores: gzip is one member whose blocks
 * were deflated apart, each knowing the bytes before it; zstd is a row of frames of
 * 4 MiB of input. Every reader of the formats takes both.
 *
 * @param level See {@link compressionLevel}.
 */
export function compressStream(
  stream: ReadableStream<Uint8Array>,
  compression: "gzip" | "zstd",
  level: number,
): ReadableStream<Uint8Array> {
  const packed = compression === "gzip" ? packGzip(stream, level) : packZstd(stream, level);
  return toStream(packed, stream, 0);
}

async function* packZstd(
  stream: ReadableStream<Uint8Array>,
  level: number,
): AsyncGenerator<Uint8Array> {
  yield* inOrder(blocks(stream, FRAME_SIZE), ({ bytes }) => Bun.zstdCompress(bytes, { level }));
}

async function* packGzip(
  stream: ReadableStream<Uint8Array>,
  level: number,
): AsyncGenerator<Uint8Array> {
  // Loaded here: it takes as long as all of cacheport, and only packing needs it.
  const zlib = await import("node:zlib");
  const { Z_FINISH, Z_SYNC_FLUSH } = zlib.constants;
  let checksum = 0;
  let length = 0;
  let dictionary: Uint8Array | undefined;
  yield GZIP_HEADER;
  yield* inOrder(blocks(stream, DEFLATE_SIZE), ({ bytes, isLast }) => {
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
async function* blocks(stream: ReadableStream<Uint8Array>, size: number): AsyncGenerator<Block> {
  let buffer = takeBuffer(size);
  let filled = 0;
  for await (const chunk of readChunks(stream)) {
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
): AsyncGenerator<Uint8Array> {
  const pending: Promise<Uint8Array>[] = [];
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
      if (pending.length === IN_FLIGHT) yield await (pending.shift() as Promise<Uint8Array>);
    }
    while (pending.length > 0) yield await (pending.shift() as Promise<Uint8Array>);
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
