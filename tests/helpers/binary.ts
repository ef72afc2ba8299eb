/** Runs the compiled binary, as a user would. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { ended } from "./output.ts";
import type { Ended } from "./output.ts";

/** The binary under test. */
export const BINARY =
  process.env["CACHEPORT_BIN"] ?? join(import.meta.dir, "..", "..", "dist", "cacheport");

/** What one run gave. */
export interface RunResult extends Ended {
  /** Standard output parsed as JSON. */
  json<T = any>(): T;
}

/** How to run it. */
export interface RunOptions {
  cwd?: string;
  env?: Record<string, string>;
  stdin?: Uint8Array | string;
}

/** Runs `cacheport ARGS...` and waits for its end. */
export async function cacheport(args: string[], options: RunOptions = {}): Promise<RunResult> {
  if (!existsSync(BINARY)) throw new Error(`There is no binary at ${BINARY}: run npm run build`);
  const child = Bun.spawn([BINARY, ...args], {
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    env: { PATH: process.env["PATH"], HOME: "/nonexistent", ...options.env },
    stdin: options.stdin === undefined ? "ignore" : Buffer.from(options.stdin as string),
    stdout: "pipe",
    stderr: "pipe",
  });
  const end = await ended(child);
  return { ...end, json: () => JSON.parse(end.stdout) };
}
