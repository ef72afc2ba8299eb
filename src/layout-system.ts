/**
 * Calls of the operating system that the runtime does not offer, from the C library:
 * locks on files, and bringing a whole file system to the disk.
 */
import { dlopen } from "bun:ffi";
import { arch, platform } from "node:process";

/** What is taken from the C library. Each gives 0, or -1 for a failure. */
export interface SystemCalls {
  /** flock(2) */
  readonly flock: (fd: number, operation: number) => number;
  /** syncfs(2), of Linux alone. */
  readonly syncfs?: (fd: number) => number;
}

/** The C libraries that there may be, by platform; a name that does not exist costs a failed open. */
function libraries(): string[] {
  if (platform === "darwin") return ["libSystem.B.dylib"];
  if (platform !== "linux") return [];
  const machine = arch === "arm64" ? "aarch64" : "x86_64";
  return ["libc.so.6", `libc.musl-${machine}.so.1`];
}

let loaded: { calls: SystemCalls | undefined } | undefined;

/** The calls, or undefined where there are none or they cannot be called. */
export function systemCalls(): SystemCalls | undefined {
  loaded ??= { calls: load() };
  return loaded.calls;
}

function load(): SystemCalls | undefined {
  const flock = { args: ["i32", "i32"], returns: "i32" } as const;
  const syncfs = { args: ["i32"], returns: "i32" } as const;
  for (const library of libraries()) {
    try {
      if (platform === "darwin") return dlopen(library, { flock }).symbols;
      return dlopen(library, { flock, syncfs }).symbols;
    } catch {
      // Another C library, or a system that forbids the machine code that a foreign call needs.
    }
  }
  return undefined;
}
