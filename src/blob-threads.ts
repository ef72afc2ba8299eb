/** A few threads for file jobs, started when the first large job comes. */
import { availableParallelism } from "node:os";
import { interrupted } from "./errors.ts";
import { runFileJob } from "./blob-jobs.ts";
import type { FileJob, FileJobResult, OnBytes } from "./blob-jobs.ts";
import type { PutOptions } from "./content-store.ts";

/** What a thread is asked. */
export interface WorkerRequest {
  readonly job: FileJob;
  /** One 32-bit number that is set to 1 to end the job. */
  readonly aborted: SharedArrayBuffer;
}

/** What a thread answers. */
export type WorkerReply =
  | { readonly kind: "bytes"; readonly count: number }
  | {
      readonly kind: "done";
      readonly result: FileJobResult;
      /** Bytes since the last report. */
      readonly count: number;
    }
  | {
      readonly kind: "failed";
      readonly interrupted: boolean;
      readonly message: string;
      /** The system's code: `ENOSPC`. */
      readonly code: string | undefined;
    };

// scripts/compile.ts puts a text in the place of this name where all code is in one file.
declare const BUILD_WORKER: string | undefined;

/** The file that a thread runs, seen from this one; empty for this very file. */
const WORKER_FILE = typeof BUILD_WORKER === "undefined" ? "./blob-worker.ts" : BUILD_WORKER;

/** Bytes below which a job is done at once on the calling thread: a message there and back costs more. */
const SMALL = 1024 * 1024;

/** A thread and the one job that it does. */
class JobThread {
  readonly #worker: Worker;
  #settle: ((reply: WorkerReply) => void) | undefined;

  constructor() {
    this.#worker = new Worker(new URL(WORKER_FILE, import.meta.url).href);
    this.#worker.onmessage = ({ data }: MessageEvent<WorkerReply>) => this.#settle?.(data);
    this.#worker.onerror = ({ message }) =>
      this.#settle?.({
        kind: "failed",
        interrupted: false,
        message: `the worker thread failed: ${message}`,
        code: undefined,
      });
  }

  async run(
    job: FileJob,
    onBytes: OnBytes,
    signal: AbortSignal | undefined,
  ): Promise<FileJobResult> {
    const aborted = new SharedArrayBuffer(4);
    const abort = (): void => {
      Atomics.store(new Int32Array(aborted), 0, 1);
    };
    signal?.addEventListener("abort", abort, { once: true });
    // Only a thread that has work keeps the process alive.
    this.#worker.ref();
    try {
      return await new Promise((resolve, reject) => {
        this.#settle = (reply) => {
          if (reply.kind !== "failed") onBytes(reply.count);
          if (reply.kind === "done") resolve(reply.result);
          if (reply.kind === "failed") reject(failureOf(reply));
        };
        this.#worker.postMessage({ job, aborted } satisfies WorkerRequest);
      });
    } finally {
      this.#settle = undefined;
      this.#worker.unref();
      signal?.removeEventListener("abort", abort);
    }
  }

  end(): void {
    this.#settle?.({
      kind: "failed",
      interrupted: true,
      message: "",
      code: undefined,
    });
    this.#worker.terminate();
  }
}

/** Gives an error from another thread its form back; a system error keeps its code. */
function failureOf(reply: WorkerReply & { kind: "failed" }): Error {
  if (reply.interrupted) return interrupted();
  const error = new Error(reply.message);
  return reply.code === undefined ? error : Object.assign(error, { code: reply.code });
}

/** Does file jobs on several threads. */
export class WorkerPool {
  readonly #size: number;
  readonly #threads: JobThread[] = [];
  readonly #idle: JobThread[] = [];
  readonly #waiting: ((thread: JobThread | undefined) => void)[] = [];
  #closed = false;

  /** @param jobs How many jobs may run at once; there are never more threads than processors. */
  constructor(jobs: number) {
    this.#size = Math.max(1, Math.min(jobs, availableParallelism()));
  }

  /**
   * Does a job: on the calling thread when it is small, else on a thread of the
   * pool, as soon as one is free.
   *
   * @throws {CacheportError} INTERRUPTED, when the signal fires or the pool is closed
   * @throws The error of the failed system call, with its code.
   */
  async run(job: FileJob, { onBytes = () => {}, signal }: PutOptions = {}): Promise<FileJobResult> {
    if (signal?.aborted || this.#closed) throw interrupted();
    if (job.source.size < SMALL) return runFileJob(job, onBytes);
    const thread = await this.#take();
    if (!thread) throw interrupted();
    try {
      if (signal?.aborted) throw interrupted();
      return await thread.run(job, onBytes, signal);
    } finally {
      this.#giveBack(thread);
    }
  }

  /** Ends the threads, and with them the jobs that still run. May be called twice. */
  close(): void {
    this.#closed = true;
    for (const thread of this.#threads.splice(0)) thread.end();
    for (const waiter of this.#waiting.splice(0)) waiter(undefined);
    this.#idle.length = 0;
  }

  #take(): Promise<JobThread | undefined> {
    const idle = this.#idle.pop();
    if (idle) return Promise.resolve(idle);
    if (this.#threads.length < this.#size) {
      const thread = new JobThread();
      this.#threads.push(thread);
      return Promise.resolve(thread);
    }
    const { promise, resolve } = Promise.withResolvers<JobThread | undefined>();
    this.#waiting.push(resolve);
    return promise;
  }

  #giveBack(thread: JobThread): void {
    const next = this.#waiting.shift();
    if (next) next(thread);
    else if (!this.#closed) this.#idle.push(thread);
  }
}
