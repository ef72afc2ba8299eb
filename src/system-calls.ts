/**
 * Calls of the operating system that the runtime does not offer, from the C library:
 * locks on files, and what brings bytes to the disk. Each is looked up when it is first
 * asked for, since every look-up makes machine code.
 */
import { dlopen } from "bun:ffi";
import { arch, platform } from "node:process";

/** What is taken from the C library. Each gives 0, or -1 for a failure. */
interface SystemCalls {
  /** flock(2) */
  flock: (fd: number, operation: number) => number;
  /** fallocate(2), of Linux alone: mode, offset and length in bytes. */
  fallocate: (fd: number, mode: number, offset: bigint, length: bigint) => number;
  /** syncfs(2), of Linux alone. */
  syncfs: (fd: number) => number;
  /** sync_file_range(2), of Linux alone: offset and length in bytes. */
  sync_file_range: (fd: number, offset: bigint, length: bigint, flags: number) => number;
}

/** Their arguments, as the C library takes them. */
const ARGUMENTS = {
  fallocate: ["i32", "i32", "i64", "i64"],
  flock: ["i32", "i32"],
  syncfs: ["i32"],
  sync_file_range: ["i32", "i64", "i64", "u32"],
} as const;

/** The C libraries that there may be, by platform; a name that does not exist costs a failed open. */
function libraries(): string[] {
  if (platform === "darwin") return ["libSystem.B.dylib"];
  if (platform !== "linux") return [];
  const machine = arch === "arm64" ? "aarch64" : "x86_64";
  return ["libc.so.6", `libc.musl-${machine}.so.1`];
}

const loaded = new Map<string, unknown>();

/** A call, or undefined where there is none or it cannot be called. */
export function systemCall<Name extends keyof SystemCalls>(
  name: Name,
): SystemCalls[Name] | undefined {
  if (!loaded.has(name)) loaded.set(name, load(name));
  return loaded.get(name) as SystemCalls[Name] | undefined;
}

function load(name: keyof SystemCalls): unknown {
  const declaration = { args: ARGUMENTS[name], returns: "i32" } as const;
  for (const library of libraries()) {
    try {
      return dlopen(library, { [name]: declaration }).symbols[name];
    } catch {
      // Another C library, one that has no such call, or a system that forbids the machine
      // code that a foreign call needs.
    }
  }
  return undefined;
}
