/**
 * The work on local files that is worth a thread of its own: hashing a part of a
 * file, and copying one while it is hashed. The calls block; whoever cannot wait
 * hands them to a worker (blob-threads.ts).
 */
import {
  closeSync,
  constants,
  copyFileSync,
  fstatSync,
  openSync,
  readSync,
  writeSync,
} from "node:fs";
import { open } from "node:fs/promises";
import { reserveBlocks, Writeback } from "./blob-writeback.ts";
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
 * Bytes that are read, hashed and written at once: as many as stay in the cache of a core
 * on their way. Where ext4 gets 512 KiB or more in one call it takes pages of that size,
 * and a virtual machine that has given its free memory back to the host has to fetch such
 * pages anew: the same copy took two to four times as long.
 */
const CHUNK = 256 * 1024;

/**
 * Does a job.
 *
 * @throws The error of the failed system call, with its code.
 */
export async function runFileJob(job: FileJob, onBytes: OnBytes): Promise<FileJobResult> {
  const { source, target } = job;
  if (target === undefined) return hashFile(source, job, onBytes);
  const input = openSync(source.path, "r");
  try {
    if (!isCloned(input, source, target, job.targetOffset))
      return await copyRange(input, target, job, onBytes);
  } finally {
    closeSync(input);
  }
  return hashFile({ ...source, path: target }, job, onBytes);
}

/** Makes the target a clone of a whole file, which costs nothing where the file system can do it. */
function isCloned(
  input: number,
  { path, offset, size }: FileRange,
  target: string,
  targetOffset: number | undefined,
): boolean {
  if (targetOffset !== undefined || offset !== 0 || size !== fstatSync(input).size) return false;
  try {
    copyFileSync(path, target, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE_FORCE);
    return true;
  } catch {
    // Most cannot; if there is another reason, copying meets it as well and tells it.
    return false;
  }
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
    const result = growth
      ? hashGrowing(file.fd, size, algorithm, onBytes, new Growth(growth))
      : hashRange(file.fd, offset, size, algorithm, onBytes);
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
): FileJobResult {
  const hasher = createHasher(algorithm);
  const read = eachChunk(fd, offset, size, (chunk) => {
    hasher.update(chunk);
    onBytes(chunk.length);
  });
  return { digest: hasher.digest(), size: read };
}

/** Hashes a file that another thread writes, and has what is written brought to the disk meanwhile. */
function hashGrowing(
  fd: number,
  size: number,
  algorithm: DigestAlgorithm,
  onBytes: OnBytes,
  growth: Growth,
): FileJobResult {
  const hasher = createHasher(algorithm);
  const writeback = new Writeback(fd, 0);
  let read = 0;
  while (read < size) {
    const there = Math.min(growth.wait(read), size);
    if (there === read) break;
    read += eachChunk(fd, read, there - read, (chunk) => {
      hasher.update(chunk);
      writeback.written(chunk.length);
      onBytes(chunk.length);
    });
  }
  return { digest: hasher.digest(), size: read };
}

/** Copies a part of a file, hashing what passes. */
async function copyRange(
  input: number,
  target: string,
  { source, algorithm, seal, targetOffset }: FileJob,
  onBytes: OnBytes,
): Promise<FileJobResult> {
  const output = await open(target, targetOffset === undefined ? "wx" : "r+", 0o600);
  try {
    let position = targetOffset ?? 0;
    const hasher = createHasher(algorithm);
    if (targetOffset === undefined) reserveBlocks(output.fd, target, source.size);
    const writeback = new Writeback(output.fd, position);
    const size = eachChunk(input, source.offset, source.size, (chunk) => {
      hasher.update(chunk);
      for (let done = 0; done < chunk.length;)
        done += writeSync(output.fd, chunk, done, chunk.length - done, position + done);
      position += chunk.length;
      writeback.written(chunk.length);
      onBytes(chunk.length);
    });
    if (seal) {
      await output.chmod(0o444);
      await output.sync();
    }
    return { digest: hasher.digest(), size };
  } finally {
    await output.close();
  }
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
