/**
 * Downloads of blobs that go on where they broke off.
 *
 * Source: OCI distribution-spec, "Pulling blobs" (Range). A closed range is asked
 * for, since some registries answer 416 to an open one, and most never announce
 * that they know ranges.
 */
import { fstatSync, write as writeCallback } from "node:fs";
import { promisify } from "node:util";
import type { Descriptor } from "./descriptor.ts";
import { sizeMismatch } from "./digest.ts";
import { systemCode } from "./errors.ts";
import type { CacheportError } from "./errors.ts";
import type { OpenReply, RegistryCall } from "./registry-connection.ts";
import { TransportFailure, unreachable } from "./registry-failures.ts";
import { StallWatch } from "./registry-limits.ts";
import { MAX_TRIES, MAX_TRIES_FAULT, isTemporaryStatus, retryAfter } from "./registry-transport.ts";
import type { RegistryTransport, Reply } from "./registry-transport.ts";

/** What a download needs to know. */
export interface DownloadOptions {
  /** The requests that may lead to the content, the likeliest first. */
  readonly calls: readonly RegistryCall[];
  /** False when the caller holds a place in the host's gate. */
  readonly gated: boolean;
  /** The error for an answer that is no success. */
  refuse(reply: Reply): Promise<CacheportError>;
  /** The error for content that is promised and does not come. */
  unreadable(reason: string): CacheportError;
}

const write = promisify(writeCallback);

type ByteReader = Pick<ReadableStreamDefaultReader<Uint8Array>, "read">;

/** Answers without a byte after which there is none: docker-registry answers so for a lost file. */
const MAX_BARREN = 3;
/** Milliseconds between two looks at a file that the runtime writes. */
const LOOK_EVERY = 20;
/** What a write into a file fails with, and no connection. */
const WRITE_CODES = /^(?:ENOSPC|EDQUOT|EFBIG|EIO|EROFS|EBADF)$/;
/** Bytes that must arrive before failed tries are forgotten. */
const PROGRESS = 1024 * 1024;

/**
 * Opens content as a stream; the bytes are not checked, their number is.
 *
 * @throws {CacheportError} BLOB_MISSING, SIZE_MISMATCH, REGISTRY_DENIED, REGISTRY_FAILED
 */
export async function openDownload(
  transport: RegistryTransport,
  descriptor: Descriptor,
  options: DownloadOptions,
): Promise<ReadableStream<Uint8Array>> {
  const { download, end } = await connected(transport, descriptor, options);
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          const chunk = await download.next();
          if (chunk) return controller.enqueue(chunk);
          await end();
          controller.close();
        } catch (error) {
          await end();
          controller.error(error);
        }
      },
      cancel: end,
    },
    { highWaterMark: 0 },
  );
}

/**
 * Writes content into an open, empty file, by the runtime's own sink where the answer
 * allows it; the bytes are not checked, their number is.
 *
 * @param reached Is told how many bytes have come since the last call.
 * @throws {CacheportError} BLOB_MISSING, SIZE_MISMATCH, REGISTRY_DENIED, REGISTRY_FAILED
 * @throws The error of a failed write, with its code.
 */
export async function saveDownload(
  transport: RegistryTransport,
  descriptor: Descriptor,
  options: DownloadOptions,
  fd: number,
  reached: (count: number) => void,
): Promise<void> {
  const { download, end } = await connected(transport, descriptor, options);
  try {
    await download.save(fd, reached);
  } finally {
    await end();
  }
}

async function connected(
  transport: RegistryTransport,
  descriptor: Descriptor,
  options: DownloadOptions,
): Promise<{ download: Download; end: () => Promise<void> }> {
  const leave = options.gated ? await transport.gate.enter() : () => {};
  const download = new Download(transport, descriptor, options);
  const end = async (): Promise<void> => {
    leave();
    await download.close();
  };
  try {
    await download.connect();
    return { download, end };
  } catch (error) {
    await end();
    throw error;
  }
}

class Download {
  readonly #transport: RegistryTransport;
  readonly #descriptor: Descriptor;
  readonly #options: DownloadOptions;
  #calls: readonly RegistryCall[];
  /** The answer of a place that does not have it. */
  #missing: Reply | undefined;
  /** Answers one after the other that promised the rest and brought nothing of it. */
  #barren = 0;
  /** Where the open answer began. */
  #begun = 0;
  #open: OpenReply | undefined;
  #reader: ByteReader | undefined;
  #watch: StallWatch | undefined;
  #position = 0;
  /** Bytes that come again, because the server knows no ranges. */
  #skip = 0;
  #failures = 0;
  /** Milliseconds spent on the registry since it last made real progress. */
  #spent = 0;
  #mark = 0;

  constructor(transport: RegistryTransport, descriptor: Descriptor, options: DownloadOptions) {
    this.#transport = transport;
    this.#descriptor = descriptor;
    this.#options = options;
    this.#calls = options.calls;
  }

  /** Connects at the present position; tries again what may pass. */
  async connect(): Promise<void> {
    while (!(await this.#timed(() => this.#connectOnce())));
  }

  /** The next bytes; undefined at the end. */
  async next(): Promise<Uint8Array | undefined> {
    const { size } = this.#descriptor;
    for (;;) {
      if (!this.#open) {
        if (this.#position === size) return undefined;
        await this.connect();
      }
      const chunk = await this.#timed(() => this.#read());
      if (!chunk) continue;
      const fresh = chunk.subarray(Math.min(this.#skip, chunk.length));
      this.#skip -= chunk.length - fresh.length;
      if (fresh.length === 0) continue;
      this.#advance(fresh.length);
      return fresh;
    }
  }

  #advance(count: number): void {
    this.#position += count;
    if (this.#position > this.#descriptor.size)
      throw sizeMismatch(this.#descriptor, this.#position);
    if (this.#position - this.#mark < PROGRESS) return;
    this.#mark = this.#position;
    this.#spent = 0;
    this.#failures = 0;
  }

  /** Writes everything into a file whose size is the present position. */
  async save(fd: number, reached: (count: number) => void): Promise<void> {
    for (;;) {
      if (this.#open && this.#isPlain(this.#open.response)) {
        await this.#timed(() => this.#sink(fd, reached));
        continue;
      }
      const chunk = await this.next();
      if (!chunk) return;
      for (let done = 0; done < chunk.length;) {
        const { bytesWritten } = await write(fd, chunk, done, chunk.length - done, null);
        done += bytesWritten;
      }
      reached(chunk.length);
    }
  }

  /** Tells whether an answer is just what is missing, as its head says. */
  #isPlain({ headers }: Response): boolean {
    const length = headers.get("content-length");
    return this.#skip === 0 && length === String(this.#descriptor.size - this.#position);
  }

  /**
   * Lets the runtime write an answer into a file, which takes a tenth of the time that
   * a loop over its stream takes. How far it got is told by the file's size; an answer
   * that ended early, or stands still, leaves the part from which the next one goes on.
   */
  async #sink(fd: number, reached: (count: number) => void): Promise<void> {
    const { response } = this.#open as OpenReply;
    const look = (): void => {
      const fresh = fstatSync(fd).size - this.#position;
      if (fresh === 0) return;
      this.#watch?.got(fresh);
      this.#watch?.wait();
      this.#advance(fresh);
      reached(fresh);
    };
    let failure: unknown;
    this.#watch?.wait();
    const timer = setInterval(() => {
      try {
        look();
      } catch (error) {
        failure ??= error;
        this.#open?.abort.abort(error);
      }
    }, LOOK_EVERY);
    try {
      await Bun.write(Bun.file(fd), response);
    } catch (error) {
      failure ??= error;
    } finally {
      clearInterval(timer);
    }
    look();
    if (failure === undefined) this.#open = undefined;
    await this.close();
    // The file's own failure is no matter of the registry's.
    if (WRITE_CODES.test(systemCode(failure) ?? "")) throw failure;
    const signal = this.#calls[0]?.signal;
    if (failure !== undefined) await this.#broken(this.#transport.temporary(failure, signal));
    else if (this.#position < this.#descriptor.size) await this.#broken(endedEarly());
  }

  async close(): Promise<void> {
    this.#watch?.stop();
    const open = this.#open;
    this.#open = undefined;
    this.#reader = undefined;
    if (open) open.abort.abort();
  }

  async #timed<T>(run: () => Promise<T>): Promise<T> {
    const start = performance.now();
    try {
      return await run();
    } finally {
      this.#spent += performance.now() - start;
    }
  }

  /** Reads from the open answer; undefined when it ended or broke. */
  async #read(): Promise<Uint8Array | undefined> {
    this.#watch?.wait();
    try {
      this.#reader ??= this.#open?.response.body?.getReader();
      const { value, done } = await (this.#reader as ByteReader).read();
      this.#watch?.got(value?.length ?? 0);
      if (!done) return value;
      this.#open = undefined;
      await this.close();
    } catch (error) {
      await this.close();
      const signal = this.#calls[0]?.signal;
      await this.#broken(this.#transport.temporary(error, signal));
      return undefined;
    }
    if (this.#position < this.#descriptor.size) await this.#broken(endedEarly());
    return undefined;
  }

  /** Goes on after an answer that broke off. */
  async #broken(failure: TransportFailure): Promise<void> {
    const isBarren = failure.kind === "reset" && this.#position === this.#begun;
    this.#barren = isBarren ? this.#barren + 1 : 0;
    if (this.#barren >= MAX_BARREN) {
      const { size } = this.#descriptor;
      throw this.#options.unreadable(
        `the registry says that it has it, and sends ${this.#position} of its ${size} bytes`,
      );
    }
    await this.#failed(failure);
  }

  /** True when there is an answer to read from, false when another try is due. */
  async #connectOnce(): Promise<boolean> {
    const call = this.#calls[0] as RegistryCall;
    const offset = this.#position;
    const headers = { ...call.headers };
    if (offset > 0) headers["range"] = `bytes=${offset}-${this.#descriptor.size - 1}`;
    let reply: OpenReply | Reply;
    try {
      reply = await this.#transport.open({ ...call, headers }, this.#window);
    } catch (error) {
      await this.#failed(this.#transport.temporary(error, call.signal));
      return false;
    }
    if ("response" in reply) return await this.#accept(reply, offset);
    if (reply.status === 404 && this.#calls.length > 1) {
      this.#missing = reply;
      this.#calls = this.#calls.slice(1);
      return false;
    }
    // A range that is refused is followed by a download from the start.
    const temporary = isTemporaryStatus(reply.status) || (reply.status === 416 && offset > 0);
    const most = reply.status === 500 ? MAX_TRIES_FAULT : MAX_TRIES;
    if (temporary && (await this.#again(retryAfter(reply), most))) return false;
    // The likeliest place has said what counts: it is not there.
    throw await this.#options.refuse(this.#missing ?? reply);
  }

  async #accept(open: OpenReply, offset: number): Promise<boolean> {
    const { status, headers, body } = open.response;
    this.#open = open;
    const range = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(headers.get("content-range") ?? "");
    const total = status === 206 ? range?.[2] : headers.get("content-length");
    if (total && total !== "*" && Number(total) !== this.#descriptor.size) {
      await this.close();
      throw sizeMismatch(this.#descriptor, Number(total));
    }
    const start = status === 206 ? Number(range?.[1] ?? offset) : 0;
    if (start > offset || !body) {
      await this.close();
      await this.#failed(new TransportFailure("reset", "it sent another part than asked for"));
      return false;
    }
    this.#skip = offset - start;
    this.#begun = offset;
    this.#watch = new StallWatch(this.#window, () =>
      open.abort.abort(new TransportFailure("stalled", "the download stands still")),
    );
    return true;
  }

  /** Waits before the next try, or gives up. */
  async #failed(failure: TransportFailure): Promise<void> {
    if (!(await this.#again(0))) throw unreachable(this.#transport.domain, failure);
  }

  async #again(least: number, most = MAX_TRIES): Promise<boolean> {
    this.#failures += 1;
    if (this.#failures >= most) return false;
    const left = this.#transport.deadline - this.#spent;
    const signal = this.#calls[0]?.signal;
    return await this.#transport.backOff(this.#failures, left, {
      least,
      signal,
    });
  }

  /** Half of the deadline: one hung connection leaves time for a second. */
  get #window(): number {
    return this.#transport.deadline / 2;
  }
}

function endedEarly(): TransportFailure {
  return new TransportFailure("reset", "it sent less than the whole blob");
}
