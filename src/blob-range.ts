/**
 * Copying a part of a file within the kernel, which the runtime does not offer:
 * copy_file_range(2) of Linux, from the C library. Nothing passes through this process, so
 * that it takes a third of the time of reading and writing.
 */
import { dlopen } from "bun:ffi";
import { arch, platform } from "node:process";

type CopyFileRange = (
  input: number,
  inputOffset: BigInt64Array,
  output: number,
  outputOffset: BigInt64Array,
  length: bigint,
  flags: number,
) => number | bigint;

/** Bytes that are copied before it is asked whether to go on. */
const PIECE = 64 * 1024 * 1024;

let loaded: { call: CopyFileRange | undefined } | undefined;

function load(): CopyFileRange | undefined {
  if (platform !== "linux") return undefined;
  const machine = arch === "arm64" ? "aarch64" : "x86_64";
  for (const library of ["libc.so.6", `libc.musl-${machine}.so.1`]) {
    try {
      const { symbols } = dlopen(library, {
        copy_file_range: { args: ["i32", "ptr", "i32", "ptr", "u64", "u32"], returns: "i64" },
      });
      return symbols.copy_file_range as unknown as CopyFileRange;
    } catch {
      // Another C library, one that is older than the call, or a system that forbids it.
    }
  }
  return undefined;
}

/**
 * Copies a part of an open file to the start of another one.
 *
 * @param between Is called before each piece; may throw to end the copy.
 * @returns Bytes that were copied: fewer than asked for where the kernel cannot do it for
 *   these files, or fails. The reason is what reading and writing then say.
 */
export function copyInKernel(
  input: number,
  inputOffset: number,
  output: number,
  size: number,
  between: () => void,
): number {
  loaded ??= { call: load() };
  const { call } = loaded;
  if (!call) return 0;
  const from = new BigInt64Array([BigInt(inputOffset)]);
  const to = new BigInt64Array([0n]);
  let done = 0;
  while (done < size) {
    between();
    const count = Number(call(input, from, output, to, BigInt(Math.min(PIECE, size - done)), 0));
    if (count <= 0) break;
    done += count;
  }
  return done;
}
