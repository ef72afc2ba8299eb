/**
 * A blob as the body of requests: whole or in pieces, from memory, from a file or
 * from another store, and again from an earlier point when a request failed.
 */
import { open, stat } from "node:fs/promises";
import type { BlobLocation, ContentReader } from "./content-store.ts";
import { ContentCheck } from "./blob-check.ts";
import type { Descriptor } from "./descriptor.ts";
import { sizeMismatch } from "./digest.ts";

import { systemError } from "./errors.ts";
import type { OpenBody, RequestBody } from "./registry-connection.ts";
import type { StallWatch } from "./registry-limits.ts";
import { bytesBody } from "./registry-transport.ts";

type Reached = (position: number) => void;

/** Gives a blob's bytes to requests. */
export interface BlobFeed {
  /**
   * A part of the blob as a body.
   *
   * @param reached Is told how far into the blob a stream has got, in bytes.
   */
  body(offset: number, length: number, reached: Reached): RequestBody;
  /**
   * Checks the blob itself, after the registry found it wrong.
   *
   * @throws {CacheportError} DIGEST_MISMATCH
   */
  verify(): Promise<void>;
  /** Lets go of what is open. */
  close(): Promise<void>;
}

/** Reads the next bytes, at most so many; undefined at the end. */
type ReadNext = (most: number) => Promise<Uint8Array | undefined>;

/** Reads a stream of bytes. */
interface ByteReader {
  read(): Promise<{ done: boolean; value?: Uint8Array | undefined }>;
  cancel(): Promise<void>;
}

const FILE_CHUNK = 1024 * 1024;

/** Feeds bytes in memory, which are known to be right. */
export function bytesFeed(bytes: Uint8Array): BlobFeed {
  return {
    body: (offset, length) => bytesBody(bytes.subarray(offset, offset + length)),
    verify: async () => {},
    close: async () => {},
  };
}

/** Feeds a part of a local file. Its digest is left to the registry, which checks it. */
export function fileFeed(
  descriptor: Descriptor,
  location: BlobLocation,
  isLive: boolean,
): BlobFeed {
  if (location.size !== descriptor.size) throw sizeMismatch(descriptor, location.size);
  const openPart = async (
    offset: number,
    length: number,
    watch: StallWatch,
    reached: Reached,
  ): Promise<OpenBody> => {
    const file = await open(location.path).catch((error: unknown) => {
      throw systemError(`Cannot read "${location.path}"`, error);
    });
    let position = location.offset + offset;
    const next: ReadNext = async (most) => {
      const buffer = Buffer.allocUnsafeSlow(Math.min(most, FILE_CHUNK));
      const { bytesRead } = await file.read(buffer, 0, buffer.length, position);
      position += bytesRead;
      if (bytesRead === 0) throw sizeMismatch(descriptor, position - location.offset);
      return buffer.subarray(0, bytesRead);
    };
    const tell = (sent: number) => reached(offset + sent);
    return streamBody(next, length, watch, tell, () => file.close());
  };
  const part = (offset: number, length: number): Blob => {
    const start = location.offset + offset;
    return Bun.file(location.path).slice(start, start + length);
  };
  return {
    body: (offset, length, reached) => ({
      size: length,
      open: async (watch, nearby) => {
        // Sent by the kernel, without a trip through this program. Its progress cannot be
        // seen, which would be a loss on a slow line, and to whoever watches: what looks like
        // this machine may be the near end of a tunnel.
        if (nearby && !isLive) {
          await checkFile(descriptor, location);
          return { init: part(offset, length) };
        }
        return await openPart(offset, length, watch, reached);
      },
    }),
    async verify() {
      const check = new ContentCheck(descriptor);
      const whole = part(0, location.size).stream();
      for await (const chunk of whole) check.add(chunk);
      check.finish();
    },
    close: async () => {},
  };
}

/** Checks that a file is there and long enough, which a failed request would not tell. */
async function checkFile(
  descriptor: Descriptor,
  { path, offset, size }: BlobLocation,
): Promise<void> {
  const found = await stat(path).catch((error: unknown) => {
    throw systemError(`Cannot read "${path}"`, error);
  });
  if (found.size < offset + size) throw sizeMismatch(descriptor, Math.max(found.size - offset, 0));
}

/** Feeds the stream of another store, checked on its way: the last bytes are held back until all is right. */
export class StoreFeed implements BlobFeed {
  readonly #descriptor: Descriptor;
  readonly #openSource: () => Promise<ReadableStream<Uint8Array>>;
  #reader: ByteReader | undefined;
  /** What has left the source's stream. */
  #check: ContentCheck;
  /** Read from the source, not yet handed out. */
  #rest: Uint8Array | undefined;

  /** @param openSource Opens the blob from its start. */
  constructor(descriptor: Descriptor, openSource: () => ReturnType<ContentReader["open"]>) {
    this.#descriptor = descriptor;
    this.#openSource = openSource;
    this.#check = new ContentCheck(descriptor);
  }

  body(offset: number, length: number, reached: Reached): RequestBody {
    return {
      size: length,
      open: async (watch) => {
        await this.#seek(offset);
        let finished = length === 0;
        const next: ReadNext = async (most) => {
          const piece = await this.#next(most);
          finished = piece?.length === most;
          return piece;
        };
        const tell = (sent: number) => reached(offset + sent);
        return streamBody(next, length, watch, tell, async () => {
          // A body that was cut off has taken bytes that never arrived.
          if (!finished) await this.close();
        });
      },
    };
  }

  /** The bytes were checked on their way. */
  async verify(): Promise<void> {}

  async close(): Promise<void> {
    const reader = this.#reader;
    this.#reader = undefined;
    await reader?.cancel().catch(() => {});
  }

  async #seek(offset: number): Promise<void> {
    if (this.#reader && this.#check.received - (this.#rest?.length ?? 0) === offset) return;
    await this.close();
    this.#check = new ContentCheck(this.#descriptor);
    this.#rest = undefined;
    this.#reader = (await this.#openSource()).getReader();
    for (let skipped = 0; skipped < offset;) {
      const piece = await this.#next(offset - skipped);
      if (!piece) return;
      skipped += piece.length;
    }
  }

  async #next(most: number): Promise<Uint8Array | undefined> {
    const chunk = this.#rest ?? (await this.#read());
    if (!chunk) return undefined;
    this.#rest = chunk.length > most ? chunk.subarray(most) : undefined;
    return chunk.length > most ? chunk.subarray(0, most) : chunk;
  }

  /** Reads from the source; the chunk that ends the blob comes only when all of it is right. */
  async #read(): Promise<Uint8Array | undefined> {
    const { size } = this.#descriptor;
    const { value } = (await this.#reader?.read()) ?? {};
    if (value) this.#check.add(value);
    const { received } = this.#check;
    if (!value && received < size) throw sizeMismatch(this.#descriptor, received);
    if (value && received === size) {
      for (;;) {
        const { value: more, done } = (await this.#reader?.read()) ?? {
          done: true,
        };
        if (done) break;
        if (more?.length) throw sizeMismatch(this.#descriptor, size + more.length);
      }
      this.#check.finish();
    }
    return value;
  }
}

/** A stream of exactly so many bytes that tells a watch of its progress. */
function streamBody(
  next: ReadNext,
  length: number,
  watch: StallWatch,
  tell: Reached,
  close: () => Promise<void>,
): OpenBody {
  let sent = 0;
  let last = 0;
  let failure: unknown;
  const init = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        watch.got(last);
        try {
          const left = length - sent;
          const chunk = left > 0 ? await next(left) : undefined;
          if (!chunk) {
            controller.close();
            watch.waitForAnswer();
            return;
          }
          last = chunk.length;
          sent += last;
          controller.enqueue(chunk);
          tell(sent);
          watch.wait();
        } catch (error) {
          failure = error;
          controller.error(error);
        }
      },
    },
    { highWaterMark: 0 },
  );
  return { init, failure: () => failure, close };
}
