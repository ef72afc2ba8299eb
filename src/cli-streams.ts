/**
 * Standard input, output and error as the program sees them. Output goes straight
 * to the file descriptor: what has been written is with the reader, so that ending
 * the process cannot cut it off (Bun's own stream loses what is above 64 KiB).
 */
import { fstatSync, statSync, write as writeDescriptor, writeSync } from "node:fs";
import { CacheportError, systemCode } from "./errors.ts";

/** Standard output or standard error. */
export interface OutputStream {
  readonly isTerminal: boolean;
  /** The terminal's size in characters; 0 where it is unknown or there is none. */
  size(): TerminalSize;
  /** Writes all bytes and waits until they are taken. @throws the system's error: EPIPE, ENOSPC */
  write(bytes: Uint8Array): Promise<void>;
  /** Writes a short text at once; a failure is ignored, for there is nowhere to tell it. */
  say(text: string): void;
}

/** Columns and rows. */
export interface TerminalSize {
  readonly columns: number;
  readonly rows: number;
}

/** Standard input. */
export interface InputStream {
  readonly isTerminal: boolean;
  /** @throws {CacheportError} USAGE the second time */
  open(): ReadableStream<Uint8Array>;
  /**
   * Reads a line from the terminal that it does not show.
   *
   * @returns Undefined when it was interrupted.
   */
  readSecret(): Promise<string | undefined>;
}

/** What the runtime knows of a terminal. */
interface Terminal {
  readonly isTTY?: boolean | undefined;
  readonly columns?: number | undefined;
  readonly rows?: number | undefined;
}

/** What the runtime can do with the terminal that is typed into. */
interface InputTerminal extends Terminal {
  setRawMode?(raw: boolean): unknown;
  on(event: "data", listener: (chunk: Uint8Array) => void): unknown;
  off(event: "data", listener: (chunk: Uint8Array) => void): unknown;
  resume(): unknown;
  pause(): unknown;
}

/** A result of this size goes out at once; a pipe takes it without waiting. */
const SMALL_BYTES = 4096;
/** How long to wait for a reader that shares a non-blocking descriptor and is slow. */
const RETRY_MILLISECONDS = 2;
const SAY_RETRIES = 500;

/**
 * Opens a file descriptor for output.
 *
 * @param terminal Asks the runtime, which takes it some milliseconds; called only
 *   where there can be a terminal.
 */
export function outputStream(descriptor: number, terminal: () => Terminal): OutputStream {
  return {
    get isTerminal() {
      return isTerminalAt(descriptor, terminal);
    },
    size() {
      const { columns, rows } = this.isTerminal ? terminal() : {};
      return { columns: columns ?? 0, rows: rows ?? 0 };
    },
    async write(bytes) {
      for (let offset = 0; offset < bytes.length;) {
        try {
          offset +=
            bytes.length <= SMALL_BYTES
              ? writeSync(descriptor, bytes, offset)
              : await writeSome(descriptor, bytes, offset);
        } catch (error) {
          if (systemCode(error) !== "EAGAIN") throw error;
          await Bun.sleep(RETRY_MILLISECONDS);
        }
      }
    },
    say(text) {
      const bytes = new TextEncoder().encode(text);
      let retries = 0;
      for (let offset = 0; offset < bytes.length;) {
        try {
          offset += writeSync(descriptor, bytes, offset);
        } catch (error) {
          if (systemCode(error) !== "EAGAIN" || retries++ === SAY_RETRIES) return;
          Bun.sleepSync(RETRY_MILLISECONDS);
        }
      }
    },
  };
}

/** Opens standard input. */
export function inputStream(terminal: () => InputTerminal): InputStream {
  let isOpen = false;
  return {
    get isTerminal() {
      return isTerminalAt(0, terminal);
    },
    open() {
      if (isOpen) {
        throw new CacheportError("USAGE", "Cannot read standard input twice", {
          hint: "Write one of its uses to a file first",
        });
      }
      isOpen = true;
      return Bun.stdin.stream();
    },
    readSecret: () => readSecret(terminal()),
  };
}

/** Reads keys until the line ends, with the echo of the terminal turned off. */
async function readSecret(terminal: InputTerminal): Promise<string | undefined> {
  const { promise, resolve } = Promise.withResolvers<string | undefined>();
  const decoder = new TextDecoder();
  let line = "";
  const onData = (chunk: Uint8Array): void => {
    for (const key of decoder.decode(chunk, { stream: true })) {
      if (key === "\r" || key === "\n" || key === "\x04") return resolve(line);
      if (key === "\x03") return resolve(undefined);
      if (key === "\x15") line = "";
      else if (key === "\x7f" || key === "\b") line = Array.from(line).slice(0, -1).join("");
      else line += key;
    }
  };
  terminal.setRawMode?.(true);
  terminal.on("data", onData);
  terminal.resume();
  try {
    return await promise;
  } finally {
    terminal.off("data", onData);
    terminal.pause();
    terminal.setRawMode?.(false);
  }
}

/**
 * Only a character device can be a terminal, and /dev/null, which jobs are given for
 * one, is none: nothing else needs the runtime's answer.
 */
function isTerminalAt(descriptor: number, terminal: () => Terminal): boolean {
  try {
    const stats = fstatSync(descriptor);
    return stats.isCharacterDevice() && stats.rdev !== nullDevice() && terminal().isTTY === true;
  } catch {
    // The descriptor is closed.
    return false;
  }
}

/** The device of /dev/null; undefined where there is none. */
function nullDevice(): number | undefined {
  return statSync("/dev/null", { throwIfNoEntry: false })?.rdev;
}

function writeSome(descriptor: number, bytes: Uint8Array, offset: number): Promise<number> {
  return new Promise((resolve, reject) => {
    writeDescriptor(descriptor, bytes, offset, bytes.length - offset, null, (error, written) =>
      error ? reject(error) : resolve(written),
    );
  });
}
