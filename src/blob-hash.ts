/**
 * Hashing on a thread of its own, for streams that the calling thread has enough to
 * do with: unpacking and packing go on while their bytes are hashed.
 */
import { createHasher } from "./digest.ts";
import type { Digest, DigestAlgorithm } from "./digest.ts";
import { CacheportError, interrupted } from "./errors.ts";

/** What the thread is asked. */
export type HashRequest =
  | { readonly kind: "memory"; readonly memory: SharedArrayBuffer }
  | {
      readonly kind: "start";
      readonly id: number;
      readonly algorithm: DigestAlgorithm;
    }
  | {
      readonly kind: "update";
      readonly id: number;
      readonly slot: number;
      /** Where the bytes are in the shared memory. */
      readonly start: number;
      readonly length: number;
    }
  | { readonly kind: "end"; readonly id: number };

/** What the thread answers. */
export type HashReply =
  | { readonly kind: "hashed"; readonly slot: number }
  | { readonly kind: "digest"; readonly id: number; readonly digest: Digest };

/** A running hash that may be somewhere else. */
export interface StreamHasher {
  /** Adds bytes; wait before adding more. The bytes may be used again at once. */
  update(chunk: Uint8Array): Promise<void> | void;
  /** Ends the hash. May be called once. */
  digest(): Promise<Digest> | Digest;
}

/**
 * Shared memory in which bytes wait for the thread. For 1 GiB, copying them there took
 * 0.5 s of processor time, and messages that carried them 2.5 s.
 */
const SLOT_SIZE = 512 * 1024;
const SLOTS = 16;

/** Bytes of content below which a thread does not pay. */
const SMALL = 1024 * 1024;

/** One thread that hashes any number of streams; it is started when the first large one comes. */
export class HashThread {
  #worker: Worker | undefined;
  #nextId = 0;
  #failure: Error | undefined;
  readonly #memory = new SharedArrayBuffer(SLOTS * SLOT_SIZE);
  readonly #idle = Array.from({ length: SLOTS }, (_, slot) => slot);
  readonly #waiting: PromiseWithResolvers<number>[] = [];
  readonly #digests = new Map<number, PromiseWithResolvers<Digest>>();

  /**
   * Starts a hash.
   *
   * @param size About how many bytes it will be; few are hashed on the calling thread.
   */
  start(algorithm: DigestAlgorithm, size: number): StreamHasher {
    if (size < SMALL) return createHasher(algorithm);
    const id = this.#nextId++;
    this.#post({ kind: "start", id, algorithm });
    return {
      update: (chunk) => this.#update(id, chunk),
      digest: () => this.#digest(id),
    };
  }

  /** Ends the thread; what still waits for it fails. May be called twice. */
  close(): void {
    this.#fail(interrupted());
    this.#worker?.terminate();
    this.#worker = undefined;
  }

  async #update(id: number, chunk: Uint8Array): Promise<void> {
    for (let at = 0; at < chunk.length; at += SLOT_SIZE) {
      const part = chunk.subarray(at, at + SLOT_SIZE);
      const slot = this.#idle.pop() ?? (await this.#nextSlot());
      const start = slot * SLOT_SIZE;
      new Uint8Array(this.#memory, start, part.length).set(part);
      this.#post({ kind: "update", id, slot, start, length: part.length });
    }
  }

  #nextSlot(): Promise<number> {
    if (this.#failure) throw this.#failure;
    const turn = Promise.withResolvers<number>();
    this.#waiting.push(turn);
    return turn.promise;
  }

  async #digest(id: number): Promise<Digest> {
    const result = Promise.withResolvers<Digest>();
    this.#digests.set(id, result);
    this.#post({ kind: "end", id });
    return result.promise;
  }

  #post(request: HashRequest): void {
    if (this.#failure) throw this.#failure;
    this.#worker ??= this.#open();
    this.#worker.postMessage(request);
  }

  #open(): Worker {
    const worker = new Worker(new URL("./blob-hash-worker.ts", import.meta.url).href);
    worker.onmessage = ({ data }: MessageEvent<HashReply>) => {
      if (data.kind === "digest") {
        this.#digests.get(data.id)?.resolve(data.digest);
        this.#digests.delete(data.id);
        return;
      }
      const next = this.#waiting.shift();
      if (next) next.resolve(data.slot);
      else this.#idle.push(data.slot);
    };
    worker.onerror = ({ message }) =>
      this.#fail(new CacheportError("INTERNAL", `Cannot hash: the thread failed: ${message}`));
    worker.postMessage({
      kind: "memory",
      memory: this.#memory,
    } satisfies HashRequest);
    return worker;
  }

  #fail(failure: Error): void {
    this.#failure ??= failure;
    for (const turn of this.#waiting.splice(0)) turn.reject(this.#failure);
    for (const result of this.#digests.values()) result.reject(this.#failure);
    this.#digests.clear();
  }
}
