/** What operations tell of their progress; how it is shown is the edge's business. */
import type { Digest } from "./digest.ts";

/** How a piece of work ended. */
export type ProgressOutcome = "copied" | "skipped" | "mounted" | "done" | "failed";

/** One piece of work under way: mostly one blob. */
export interface ProgressTask {
  /** Adds bytes that were moved or hashed since the last call. */
  advance(bytes: number): void;
  /** Ends the task; further calls do nothing. */
  end(outcome: ProgressOutcome): void;
}

/** Takes what operations report. */
export interface ProgressReporter {
  /** Somebody watches: bytes are told of while they move, even where that costs something. */
  readonly isLive?: boolean;
  /** Adds to the work that is known to lie ahead, so that an ETA can be told. */
  expect(work: { tasks: number; bytes: number }): void;
  /**
   * Starts a task.
   *
   * @param action A verb: `copy`, `hash`, `recompress`.
   * @param size Bytes that it will move, when known.
   */
  start(action: string, digest: Digest, size: number | undefined): ProgressTask;
}

/** Reports to nobody. */
export const noProgress: ProgressReporter = {
  expect() {},
  start: () => ({ advance() {}, end() {} }),
};
