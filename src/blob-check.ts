/** Streams of content: checked against digest and size while they pass, and read whole under a limit. */
import { createHasher, digestAlgorithm, digestMismatch, sizeMismatch } from "./digest.ts";
import type { Digest } from "./digest.ts";
import { checkDocumentSize } from "./documents.ts";
import { interrupted } from "./errors.ts";

/** What content is known by. */
interface Expected {
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
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
  const hasher = createHasher(digestAlgorithm(expected.digest));
  let received = 0;
  return stream.pipeThrough(
    new TransformStream<Uint8Array, Uint8Array>({
      transform(chunk, controller) {
        received += chunk.length;
        if (received > expected.size) throw sizeMismatch(expected, received);
        hasher.update(chunk);
        controller.enqueue(chunk);
      },
      flush() {
        if (received !== expected.size) throw sizeMismatch(expected, received);
        const actual = hasher.digest();
        if (actual !== expected.digest) throw digestMismatch(expected.digest, actual);
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
