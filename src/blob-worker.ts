/**
 * The thread that does file jobs for blob-threads.ts. It is an entry point of its
 * own: a compiled program finds it only if the build lists it.
 */
import { CacheportError, interrupted, systemCode } from "./errors.ts";
import { runFileJob } from "./blob-jobs.ts";
import type { FileJob } from "./blob-jobs.ts";
import type { WorkerReply, WorkerRequest } from "./blob-threads.ts";

declare const self: Worker;

/** Bytes between two messages about progress. */
const REPORT_EVERY = 4 * 1024 * 1024;

const reply = (message: WorkerReply): void => self.postMessage(message);

async function run(job: FileJob, aborted: Int32Array): Promise<void> {
  let unreported = 0;
  try {
    const result = await runFileJob(job, (count) => {
      // The loop takes no messages while it runs, so the wish to stop is a shared flag.
      if (Atomics.load(aborted, 0) !== 0) throw interrupted();
      unreported += count;
      if (unreported < REPORT_EVERY) return;
      reply({ kind: "bytes", count: unreported });
      unreported = 0;
    });
    reply({ kind: "done", result, count: unreported });
  } catch (error) {
    reply({
      kind: "failed",
      interrupted: error instanceof CacheportError,
      message: error instanceof Error ? error.message : String(error),
      code: systemCode(error),
    });
  }
}

self.onmessage = ({ data }: MessageEvent<WorkerRequest>) => {
  void run(data.job, new Int32Array(data.aborted));
};
