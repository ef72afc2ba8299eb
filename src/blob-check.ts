/** Content that passes: checked against digest and size on its way, and read whole under a limit. */
import { createHasher, digestAlgorithm, digestMismatch, sizeMismatch } from "./digest.ts";
import type { Digest, Hasher } from "./digest.ts";
import { checkDocumentSize } from "./documents.ts";
import { interrupted } from "./errors.ts";

/** What content is known by. */
interface Expected {
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
}

/**
 * Checks content piece by piece while it passes. Whoever has added every piece and then
 * finished without an error has had good content.
 */
export class ContentCheck {
  readonly #expected: Expected;
  readonly #hasher: Hasher;
  #received = 0;

  /** @param expected A descriptor, or the digest and the size of one. */
  constructor(expected: Expected) {
    this.#expected = expected;
    this.#hasher = createHasher(digestAlgorithm(expected.digest));
  }

  /** Bytes that have passed. */
  get received(): number {
    return this.#received;
  }

  /** Takes a piece. @throws {CacheportError} SIZE_MISMATCH, as soon as there are too many bytes */
  add(piece: Uint8Array): void {
    this.#received += piece.length;
    if (this.#received > this.#expected.size) throw sizeMismatch(this.#expected, this.#received);
    this.#hasher.update(piece);
  }

  /** To be called once, at the end. @throws {CacheportError} SIZE_MISMATCH, DIGEST_MISMATCH */
  finish(): void {
    const size = this.#received;
    // There is no need to know what too few bytes hash to.
    if (size !== this.#expected.size) throw sizeMismatch(this.#expected, size);
    checkHashed(this.#expected, { digest: this.#hasher.digest(), size });
  }
}

/**
 * Checks what was hashed elsewhere: on another thread, or while it was made.
 *
 * @throws {CacheportError} SIZE_MISMATCH, DIGEST_MISMATCH
 */
export function checkHashed(expected: Expected, actual: Expected): void {
  if (actual.size !== expected.size) throw sizeMismatch(expected, actual.size);
  if (actual.digest !== expected.digest) throw digestMismatch(expected.digest, actual.digest);
}

/** Passes chunks on and checks them; the last one comes only when all of them are right. */
export async function* checkedChunks(
  chunks: AsyncIterable<Uint8Array>,
  expected: Expected,
): AsyncGenerator<Uint8Array, void, void> {
  const check = new ContentCheck(expected);
  let held: Uint8Array | undefined;
  for await (const chunk of chunks) {
    check.add(chunk);
    if (held) yield held;
    held = chunk;
  }
  check.finish();
  if (held) yield held;
}

/**
 * Passes a stream on and checks it on the way. The stream fails as soon as there
 * are more bytes than expected, and at its end when there are fewer or when they
 * have another digest: whoever reads to the end without an error has good content.
 *
 * Failures of the stream: SIZE_MISMATCH, DIGEST_MISMATCH and those of the source.
 *
 * @param expected A descriptor, or the digest and the size of one.
 */
export function verifiedStream(
  stream: ReadableStream<Uint8Array>,
  expected: Expected,
): ReadableStream<Uint8Array> {
  const check = new ContentCheck(expected);
  return stream.pipeThrough(
    new TransformStream<Uint8Array, Uint8Array>({
      transform(chunk, controller) {
        check.add(chunk);
        controller.enqueue(chunk);
      },
      flush() {
        check.finish();
      },
    }),
  );
}

/**
 * The chunks of a stream, until its end or until the signal fires. The stream is
 * cancelled when the reader stops early.
 *
 * @throws {CacheportError} INTERRUPTED
 */
export async function* readChunks(
  stream: ReadableStream<Uint8Array>,
  signal?: AbortSignal,
): AsyncGenerator<Uint8Array, void, void> {
  const reader = stream.getReader();
  const abort = (): void => void reader.cancel(interrupted()).catch(() => {});
  signal?.addEventListener("abort", abort, { once: true });
  try {
    for (;;) {
      if (signal?.aborted) throw interrupted();
      const { done, value } = await reader.read();
      if (signal?.aborted) throw interrupted();
      if (done) return;
      yield value;
    }
  } finally {
    signal?.removeEventListener("abort", abort);
    await reader.cancel().catch(() => {});
  }
}

/**
 * Reads a stream to its end.
 *
 * @param limit Bytes; a stream with more is given up as soon as it has passed the limit.
 * @param what What the stream is, for the message: `manifest "sha256:..."`.
 * @throws {CacheportError} DOCUMENT_TOO_LARGE, INTERRUPTED
 */
export async function readWhole(
  stream: ReadableStream<Uint8Array>,
  limit: number,
  what: string,
  signal?: AbortSignal,
): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of readChunks(stream, signal)) {
    size += chunk.length;
    checkDocumentSize(size, limit, what);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, size);
}
