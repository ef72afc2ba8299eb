/**
 * What spares a file system work where a large file is written from start to end: it is
 * told the size before, and to begin with what is there while more comes. Neither promises
 * anything: that the bytes are on the disk says fsync, which finds little left to do.
 */
import { statfsSync } from "node:fs";
import { systemCall } from "./system-calls.ts";

/** Bytes that are handed to the disk at once. */
const PIECE = 8 * 1024 * 1024;

/** Page of memory, in bytes; one that is still being filled is not handed over. */
const PAGE = 4096;

/** SYNC_FILE_RANGE_WRITE: begins to write, and waits for nothing. */
const WRITE = 2;

/** FALLOC_FL_KEEP_SIZE: the file is as long as what was written, not as what will be. */
const KEEP_SIZE = 1;

/**
 * Takes the blocks of a new file at once, by fallocate(2) of Linux, which costs less than
 * block by block.
 *
 * @param path Of the same file.
 * @param size Bytes that are expected. Nobody has seen them yet, so that no more than half
 *   of what is free is taken at their word.
 */
export function reserveBlocks(fd: number, path: string, size: number): void {
  const call = systemCall("fallocate");
  // Where it fails, for want of the feature, writing says whatever there is to say.
  if (call && size <= freeSpace(path) / 2) call(fd, KEEP_SIZE, 0n, BigInt(size));
}

/** Bytes that are free where a path lies; 0 where the file system does not tell. */
function freeSpace(path: string): number {
  try {
    const { bavail, bsize } = statfsSync(path);
    return bavail * bsize;
  } catch {
    return 0;
  }
}

/**
 * Has the disk begin with what was written while more is being written, by
 * sync_file_range(2) of Linux.
 *
 * Watches over one file, or a part of it, that is written from start to end.
 */
export class Writeback {
  readonly #fd: number;
  /** Up to here, in bytes from the start of the file, the disk has begun. */
  #begun: number;
  #position: number;

  /** @param position Where writing starts, in bytes from the start of the file. */
  constructor(fd: number, position: number) {
    this.#fd = fd;
    this.#position = position;
    this.#begun = position;
  }

  /** Says that so many more bytes were written. */
  written(count: number): void {
    this.#position += count;
    if (this.#position - this.#begun < PIECE) return;
    const end = this.#position - (this.#position % PAGE);
    const call = systemCall("sync_file_range");
    // Where it fails, as on file systems that have no disk, fsync says whatever there is to say.
    call?.(this.#fd, BigInt(this.#begun), BigInt(end - this.#begun), WRITE);
    this.#begun = end;
  }
}
