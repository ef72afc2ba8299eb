/** A host without a process: what is written is kept, what is asked is told. */
import type { Host } from "../../src/cli-output.ts";

/** What a test can set. */
export interface FakeHostOptions {
  env?: Record<string, string>;
  /** Columns of both terminals; absent when there is no terminal. */
  columns?: number;
  rows?: number;
  signal?: AbortSignal;
  /** What standard input gives; nothing unless it is set. */
  stdin?: ReadableStream<Uint8Array>;
  /** Called before each write to standard output; may throw. */
  onWrite?: (bytes: Uint8Array) => void | Promise<void>;
}

/** A host and what has been written to it. */
export interface FakeHost {
  host: Host;
  stdout(): string;
  stderr(): string;
}

/** Makes a host for tests. */
export function fakeHost(options: FakeHostOptions = {}): FakeHost {
  const written = { stdout: "", stderr: "" };
  const decoder = new TextDecoder();
  const stream = (name: "stdout" | "stderr") => ({
    isTerminal: options.columns !== undefined,
    size: () => ({ columns: options.columns ?? 0, rows: options.rows ?? 0 }),
    async write(bytes: Uint8Array) {
      await options.onWrite?.(bytes);
      written[name] += decoder.decode(bytes);
    },
    say(text: string) {
      written[name] += text;
    },
  });
  return {
    host: {
      env: options.env ?? {},
      signal: options.signal ?? new AbortController().signal,
      stdin: {
        isTerminal: false,
        readSecret: async () => undefined,
        open: () => options.stdin ?? new Blob([]).stream(),
      },
      stdout: stream("stdout"),
      stderr: stream("stderr"),
    },
    stdout: () => written.stdout,
    stderr: () => written.stderr,
  };
}
