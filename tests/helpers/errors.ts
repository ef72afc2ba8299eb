/** Catches coded errors in tests. */
import { CacheportError } from "../../src/errors.ts";

/** Runs something that must fail with a {@link CacheportError} and gives that error. */
export async function failure(run: () => unknown): Promise<CacheportError> {
  try {
    await run();
  } catch (error) {
    if (error instanceof CacheportError) return error;
    throw error;
  }
  throw new Error("Expected a CacheportError and none was thrown");
}

/** What something comes to: its value, or the message of the {@link CacheportError} that it throws. */
export async function outcomeOf(run: () => unknown): Promise<unknown> {
  try {
    return run();
  } catch (error) {
    return (await failure(() => Promise.reject(error))).message;
  }
}
