/**
 * Uploads that show nothing before every byte has been hashed and found right: small
 * content in one request, larger content in parts that are completed at the end or
 * thrown away.
 */
import { open } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { ContentCheck, readChunks } from "./blob-check.ts";
import { Gate } from "./concurrency.ts";
import type { BlobSource, PutOptions } from "./content-store.ts";
import type { Descriptor } from "./descriptor.ts";
import { checkContent, sizeMismatch } from "./digest.ts";
import { CacheportError, systemError } from "./errors.ts";

/** Bytes of a part, and of what is sent in one request; more only where there would be too many parts. */
const PART_SIZE = 8 * 1024 * 1024;
const LARGEST_PART = 2 * PART_SIZE;
/** Parts in memory at once, of all uploads together. */
const PARTS = 4;

/** Where an upload goes. */
export interface UploadTarget {
  /** The most parts that there may be. */
  readonly maxParts: number;
  /** Stores content that is small enough for one request. */
  single(bytes: Uint8Array): Promise<void>;
  begin(): Promise<PartedUpload>;
}

/** An upload in parts. */
export interface PartedUpload {
  /** Sends a part; several at once, in any order. */
  part(index: number, offset: number, bytes: Uint8Array): Promise<void>;
  /** Makes the content visible. */
  complete(size: number): Promise<void>;
  /** Throws away what was sent. */
  abort(): Promise<void>;
}

const gate = new Gate(PARTS);
/** Buffers that wait for their next part. */
const idle: Uint8Array[] = [];

/**
 * Uploads a blob.
 *
 * @throws {CacheportError} DIGEST_MISMATCH, SIZE_MISMATCH, and what the source and the
 *   target throw; the target shows nothing then
 */
export async function uploadVerified(
  blob: Descriptor,
  source: BlobSource,
  target: UploadTarget,
  options: PutOptions,
): Promise<void> {
  if (blob.size > LARGEST_PART * target.maxParts) {
    throw new CacheportError(
      "NOT_SUPPORTED",
      `Cannot upload blob "${blob.digest}": it has ${blob.size} bytes, and ${target.maxParts} parts of ${LARGEST_PART} are the most`,
    );
  }
  const pieces = await openPieces(blob, source, options.signal);
  try {
    if (blob.size <= PART_SIZE) await uploadWhole(blob, pieces, target, options);
    else await uploadParts(blob, pieces, target, options);
  } finally {
    await pieces.close();
  }
}

async function uploadWhole(
  blob: Descriptor,
  pieces: Pieces,
  target: UploadTarget,
  { onBytes }: PutOptions,
): Promise<void> {
  const leave = await gate.enter();
  try {
    const buffer = new Uint8Array(blob.size);
    const size = await pieces.fill(buffer);
    if (size < blob.size) throw sizeMismatch(blob, size);
    await pieces.expectEnd(blob);
    checkContent(buffer, blob);
    await target.single(buffer);
    onBytes?.(blob.size);
  } finally {
    leave();
  }
}

async function uploadParts(
  blob: Descriptor,
  pieces: Pieces,
  target: UploadTarget,
  options: PutOptions,
): Promise<void> {
  const upload = await target.begin();
  const running = new Set<Promise<void>>();
  let failure: { error: unknown } | undefined;
  const partSize = blob.size > PART_SIZE * target.maxParts ? LARGEST_PART : PART_SIZE;
  const check = new ContentCheck(blob);
  try {
    let offset = 0;
    for (let index = 0; offset < blob.size && !failure; index++) {
      const leave = await gate.enter();
      const whole = (partSize === PART_SIZE ? idle.pop() : undefined) ?? new Uint8Array(partSize);
      const give = (): void => {
        if (whole.length === PART_SIZE) idle.push(whole);
        leave();
      };
      try {
        const part = whole.subarray(0, Math.min(partSize, blob.size - offset));
        const size = await pieces.fill(part);
        if (size < part.length) throw sizeMismatch(blob, offset + size);
        check.add(part);
        const sent = upload
          .part(index, offset, part)
          .then(() => options.onBytes?.(part.length))
          .catch((error: unknown) => {
            failure ??= { error };
          })
          .finally(() => {
            running.delete(sent);
            give();
          });
        running.add(sent);
        offset += size;
      } catch (error) {
        give();
        throw error;
      }
    }
    await Promise.all(running);
    if (failure) throw failure.error;
    await pieces.expectEnd(blob);
    check.finish();
    await upload.complete(blob.size);
  } catch (error) {
    await Promise.all(running);
    await upload.abort().catch(() => {});
    throw error;
  }
}

/** The bytes of a blob, one piece after another. */
interface Pieces {
  /** Fills a buffer. @returns The bytes that there were; fewer at the end. */
  fill(buffer: Uint8Array): Promise<number>;
  /** @throws {CacheportError} SIZE_MISMATCH when there are more bytes */
  expectEnd(blob: Descriptor): Promise<void>;
  close(): Promise<void>;
}

async function openPieces(
  blob: Descriptor,
  source: BlobSource,
  signal: AbortSignal | undefined,
): Promise<Pieces> {
  if ("bytes" in source) {
    const { bytes } = source;
    return new StreamPieces(
      (async function* () {
        yield bytes;
      })(),
    );
  }
  const file = await source.store.locate(blob);
  if (!file) return new StreamPieces(readChunks(await source.store.open(blob, signal), signal));
  if (file.size !== blob.size) throw sizeMismatch(blob, file.size);
  try {
    return new FilePieces(await open(file.path, "r"), file.path, file.offset);
  } catch (error) {
    throw systemError(`Cannot read "${file.path}"`, error);
  }
}

class StreamPieces implements Pieces {
  readonly #chunks: AsyncGenerator<Uint8Array, void, void>;
  #rest: Uint8Array = new Uint8Array(0);

  constructor(chunks: AsyncGenerator<Uint8Array, void, void>) {
    this.#chunks = chunks;
  }

  async fill(buffer: Uint8Array): Promise<number> {
    let filled = 0;
    while (filled < buffer.length) {
      if (this.#rest.length === 0 && !(await this.#next())) break;
      const taken = this.#rest.subarray(0, buffer.length - filled);
      buffer.set(taken, filled);
      filled += taken.length;
      this.#rest = this.#rest.subarray(taken.length);
    }
    return filled;
  }

  async expectEnd(blob: Descriptor): Promise<void> {
    while (this.#rest.length === 0) if (!(await this.#next())) return;
    throw sizeMismatch(blob, blob.size + this.#rest.length);
  }

  async close(): Promise<void> {
    await this.#chunks.return();
  }

  async #next(): Promise<boolean> {
    const { done, value } = await this.#chunks.next();
    this.#rest = value ?? new Uint8Array(0);
    return !done;
  }
}

class FilePieces implements Pieces {
  readonly #file: FileHandle;
  readonly #path: string;
  #position: number;

  constructor(file: FileHandle, path: string, offset: number) {
    this.#file = file;
    this.#path = path;
    this.#position = offset;
  }

  async fill(buffer: Uint8Array): Promise<number> {
    try {
      let filled = 0;
      while (filled < buffer.length) {
        const { bytesRead } = await this.#file.read(
          buffer,
          filled,
          buffer.length - filled,
          this.#position,
        );
        if (bytesRead === 0) break;
        filled += bytesRead;
        this.#position += bytesRead;
      }
      return filled;
    } catch (error) {
      throw systemError(`Cannot read "${this.#path}"`, error);
    }
  }

  /** The blob's place in the file was said with its size. */
  async expectEnd(): Promise<void> {}

  async close(): Promise<void> {
    await this.#file.close();
  }
}
