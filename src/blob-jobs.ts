/**
 * The work on local files that is worth a thread of its own: hashing a part of a
 * file, and copying one while it is hashed. The calls block; whoever cannot wait
 * hands them to a worker (blob-threads.ts).
 */
import { constants, copyFileSync, fstatSync, readSync, writeSync } from "node:fs";
import { open } from "node:fs/promises";
import { copyInKernel } from "./blob-range.ts";
import { createHasher } from "./digest.ts";
import type { Digest, DigestAlgorithm } from "./digest.ts";

/** A part of a file. */
export interface FileRange {
  readonly path: string;
  /** Bytes from the start of the file. */
  readonly offset: number;
  /** Bytes. */
  readonly size: number;
}

/** Hashes a part of a file, or copies it into a new file and hashes the copy. */
export interface FileJob {
  readonly source: FileRange;
  readonly algorithm: DigestAlgorithm;
  /** Path of the copy, which must not exist; without it the source is hashed in place. */
  readonly target?: string | undefined;
  /** The target exists, and the copy goes into it from this byte on: a member of an archive. */
  readonly targetOffset?: number | undefined;
  /** Makes the hashed file, which must be a whole one, read-only and brings it to the disk. */
  readonly seal: boolean;
  /** The source is still being written; hashing follows its end. Worker threads only. */
  readonly growth?: SharedArrayBuffer | undefined;
}

/** How far a file has been written by another thread. */
export class Growth {
  /** Bytes that are there, and whether more will come. */
  readonly #state: BigInt64Array;
  readonly shared: SharedArrayBuffer;

  /** @param shared 16 bytes, made anew by the thread that writes. */
  constructor(shared: SharedArrayBuffer = new SharedArrayBuffer(16)) {
    this.shared = shared;
    this.#state = new BigInt64Array(shared);
  }

  /** Says that the file has been written up to here. */
  advance(bytes: number): void {
    Atomics.add(this.#state, 0, BigInt(bytes));
    Atomics.notify(this.#state, 0);
  }

  /** Says that no more bytes will come. */
  end(): void {
    Atomics.store(this.#state, 1, 1n);
    Atomics.notify(this.#state, 0);
  }

  /** Blocks until there is more than was seen, or the end. @returns The bytes that are there */
  wait(seen: number): number {
    const before = BigInt(seen);
    while (Atomics.load(this.#state, 0) === before && Atomics.load(this.#state, 1) === 0n)
      // The time is for an end that came between the two looks.
      Atomics.wait(this.#state, 0, before, 20);
    return Number(Atomics.load(this.#state, 0));
  }
}

/** What was hashed. */
export interface FileJobResult {
  readonly digest: Digest;
  /** Bytes; fewer than asked for when the file is shorter, more when a sealed one is longer. */
  readonly size: number;
}

/** Is told the bytes that were hashed since the last call; may throw to end the job. */
export type OnBytes = (count: number) => void;

/**
 * Bytes that are read at once. From 64 KiB on the rate hardly changes; 1 MiB keeps
 * the number of calls low and memory small.
 */
const CHUNK = 1024 * 1024;

/**
 * Does a job.
 *
 * @throws The error of the failed system call, with its code.
 */
export async function runFileJob(job: FileJob, onBytes: OnBytes): Promise<FileJobResult> {
  const { source, target } = job;
  if (target === undefined) return hashFile(source, job, onBytes);
  const input = await open(source.path, "r");
  try {
    const { size } = fstatSync(input.fd);
    const isWhole = source.offset === 0 && source.size === size;
    if (!isWhole || job.targetOffset !== undefined)
      return await copyRange(input.fd, target, job, onBytes);
  } finally {
    await input.close();
  }
  // A clone where the file system can, else a copy within the kernel; the copy is
  // then hashed from the page cache while it is on its way to the disk. For 1 GiB
  // on ext4, synced, that took 3.6 s, and a loop that reads, hashes and writes
  // 4.3 s, of 3.4 s for the hash alone.
  copyFileSync(source.path, target, constants.COPYFILE_EXCL);
  return hashFile({ ...source, path: target }, job, onBytes);
}

/** Hashes a file while it is synced, when it is to be sealed. */
async function hashFile(
  { path, offset, size }: FileRange,
  { algorithm, seal, growth }: FileJob,
  onBytes: OnBytes,
): Promise<FileJobResult> {
  const file = await open(path, "r");
  try {
    if (seal) await file.chmod(0o444);
    const synced = seal ? file.sync() : Promise.resolve();
    // Should hashing fail first, nobody is left to see this one fail.
    synced.catch(() => {});
    const result = hashRange(file.fd, offset, size, algorithm, onBytes, growth);
    await synced;
    // What is sealed counts as a whole file, whose bytes must all have been hashed.
    return seal ? { ...result, size: fstatSync(file.fd).size } : result;
  } finally {
    await file.close();
  }
}

function hashRange(
  fd: number,
  offset: number,
  size: number,
  algorithm: DigestAlgorithm,
  onBytes: OnBytes,
  shared: SharedArrayBuffer | undefined,
): FileJobResult {
  const hasher = createHasher(algorithm);
  const take = (chunk: Uint8Array): void => {
    hasher.update(chunk);
    onBytes(chunk.length);
  };
  if (!shared) {
    const read = eachChunk(fd, offset, size, take);
    return { digest: hasher.digest(), size: read };
  }
  const growth = new Growth(shared);
  let read = 0;
  while (read < size) {
    const there = Math.min(growth.wait(read), size);
    if (there === read) break;
    read += eachChunk(fd, offset + read, there - read, take);
  }
  return { digest: hasher.digest(), size: read };
}

/**
 * Copies a part of a file, within the kernel where that is possible: what was written is
 * then hashed from the page cache while it is on its way to the disk.
 */
async function copyRange(
  input: number,
  target: string,
  job: FileJob,
  onBytes: OnBytes,
): Promise<FileJobResult> {
  const { source, algorithm, seal, targetOffset } = job;
  const output = await open(target, targetOffset === undefined ? "wx+" : "r+", 0o600);
  try {
    const { offset, size } = source;
    // Several that write into one file would wait for each other within the kernel.
    const alone = targetOffset === undefined;
    const copied = alone ? copyInKernel(input, offset, output.fd, size, () => onBytes(0)) : 0;
    if (copied < size) {
      const result = copyThrough(input, output.fd, job, onBytes);
      if (seal) {
        await output.chmod(0o444);
        await output.sync();
      }
      return result;
    }
    if (seal) await output.chmod(0o444);
    const synced = seal ? output.sync() : Promise.resolve();
    synced.catch(() => {});
    const result = hashRange(output.fd, 0, size, algorithm, onBytes, undefined);
    await synced;
    return result;
  } finally {
    await output.close();
  }
}

/** Copies a part of a file through this process, hashing what passes. */
function copyThrough(
  input: number,
  output: number,
  { source, algorithm, targetOffset }: FileJob,
  onBytes: OnBytes,
): FileJobResult {
  let position = targetOffset ?? 0;
  const hasher = createHasher(algorithm);
  const size = eachChunk(input, source.offset, source.size, (chunk) => {
    hasher.update(chunk);
    for (let done = 0; done < chunk.length;)
      done += writeSync(output, chunk, done, chunk.length - done, position + done);
    position += chunk.length;
    onBytes(chunk.length);
  });
  return { digest: hasher.digest(), size };
}

/** Reads a part of a file piece by piece; gives the number of bytes that were there. */
function eachChunk(
  fd: number,
  offset: number,
  size: number,
  take: (chunk: Uint8Array) => void,
): number {
  const buffer = new Uint8Array(Math.min(CHUNK, size));
  let read = 0;
  while (read < size) {
    const wanted = Math.min(buffer.length, size - read);
    const count = readSync(fd, buffer, 0, wanted, offset + read);
    if (count === 0) break;
    take(buffer.subarray(0, count));
    read += count;
  }
  return read;
}
