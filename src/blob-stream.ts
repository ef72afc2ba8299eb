/** Streams of bytes that are made by generators. */

/**
 * A stream of what a generator gives, made piece by piece as it is asked for.
 * Cancelling the stream ends the generator.
 */
export function toByteStream(
  chunks: AsyncGenerator<Uint8Array, void, void>,
): ReadableStream<Uint8Array> {
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const { done, value } = await chunks.next();
        if (done) controller.close();
        else controller.enqueue(value);
      },
      async cancel() {
        await chunks.return();
      },
    },
    { highWaterMark: 0 },
  );
}
