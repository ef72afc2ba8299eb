/** Downloads from object stores that go on where they broke off. */
import { toByteStream } from "./blob-stream.ts";
import type { Descriptor } from "./descriptor.ts";
import { sizeMismatch } from "./digest.ts";
import { CacheportError, interrupted } from "./errors.ts";
import type { ObjectService, OpenObject } from "./object-service.ts";
import { TransportFailure, explainFailure } from "./registry-failures.ts";
import { StallWatch, backOff, pause } from "./registry-limits.ts";

/** Milliseconds in which a download must make some progress. */
const WINDOW = 60_000;
/** Breaks of one download without progress between them. */
const MAX_BREAKS = 5;
/** Bytes that must arrive before earlier breaks are forgotten. */
const PROGRESS = 1024 * 1024;

/**
 * Opens a blob as a stream; the bytes are not checked, their number is. A new request
 * is made for the rest when the connection breaks, with an address and a signature
 * that are valid then.
 *
 * @throws {CacheportError} BLOB_MISSING, SIZE_MISMATCH, STORE_DENIED, STORE_FAILED
 */
export async function openDownload(
  service: ObjectService,
  blob: Descriptor,
  signal: AbortSignal | undefined,
): Promise<ReadableStream<Uint8Array>> {
  const first = await openChecked(service, blob, 0, signal);
  return toByteStream(download(service, blob, first, signal));
}

async function openChecked(
  service: ObjectService,
  blob: Descriptor,
  from: number,
  signal: AbortSignal | undefined,
): Promise<OpenObject> {
  const open = await service.open(blob.digest, from, signal);
  if (open.size === undefined || open.size === blob.size) return open;
  open.abort.abort();
  throw sizeMismatch(blob, open.size);
}

async function* download(
  service: ObjectService,
  blob: Descriptor,
  first: OpenObject,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array, void, void> {
  let open: OpenObject | undefined = first;
  let position = 0;
  let breaks = 0;
  let mark = 0;
  try {
    while (position < blob.size || open === first) {
      open ??= await openChecked(service, blob, position, signal);
      // A server that knows no ranges starts again from the first byte.
      let skip = position - open.from;
      if (skip < 0) throw broken(service, "it sent another part than asked for");
      const failure: TransportFailure | undefined = yield* readBody(open, signal, (chunk) => {
        const fresh = chunk.subarray(Math.min(skip, chunk.length));
        skip -= chunk.length - fresh.length;
        position += fresh.length;
        if (position > blob.size) throw sizeMismatch(blob, position);
        return fresh;
      });
      open.abort.abort();
      open = undefined;
      if (position === blob.size) return;
      if (position - mark >= PROGRESS) breaks = 0;
      mark = position;
      if (++breaks > MAX_BREAKS)
        throw broken(service, failure?.message ?? "it sent less than the whole blob");
      await pause(backOff(breaks, 300), signal).catch(() => {
        throw interrupted();
      });
    }
  } finally {
    open?.abort.abort();
  }
}

/** Passes a body on; gives why it broke, or undefined at its end. */
async function* readBody(
  { body, abort }: OpenObject,
  signal: AbortSignal | undefined,
  accept: (chunk: Uint8Array) => Uint8Array,
): AsyncGenerator<Uint8Array, TransportFailure | undefined, void> {
  const reader = body.getReader();
  const watch = new StallWatch(WINDOW, () =>
    abort.abort(new TransportFailure("stalled", "the download stands still")),
  );
  try {
    for (;;) {
      let chunk: Uint8Array | undefined;
      try {
        watch.wait();
        chunk = (await reader.read()).value;
        watch.got(chunk?.length ?? 0);
      } catch (error) {
        if (signal?.aborted) throw interrupted();
        return explainFailure(error);
      }
      if (!chunk) return undefined;
      const fresh = accept(chunk);
      if (fresh.length > 0) yield fresh;
    }
  } finally {
    watch.stop();
  }
}

function broken({ location }: ObjectService, reason: string): CacheportError {
  return new CacheportError("STORE_FAILED", `Cannot read from "${location}": ${reason}`, {
    hint: "Check the network, then try again",
  });
}
