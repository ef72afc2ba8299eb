/**
 * Writes blobs into a layout folder. A blob is a temporary file until its digest and
 * its size have been checked and it is on the disk; then it is renamed into place. So
 * whatever stands under `blobs` is whole, also after a crash.
 */
import { closeSync, lstatSync, openSync, readSync, renameSync, utimesSync } from "node:fs";
import { open, rm } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import type { BlobLocation, BlobSource, PutOptions, PutOutcome } from "./content-store.ts";
import type { Descriptor } from "./descriptor.ts";
import { blobPath, checkContent, digestAlgorithm, parseDigest, sizeMismatch } from "./digest.ts";
import type { Digest, DigestAlgorithm } from "./digest.ts";
import { syncFiles, syncFolder, writeAll, writeUnsynced } from "./layout-durable.ts";
import { CacheportError, interrupted, systemCode, systemError } from "./errors.ts";
import { Growth } from "./blob-jobs.ts";

import { dirname, join, resolve } from "./paths.ts";
import { againIfRemoved, makeFolder, removedEmpty, RunFolder } from "./layout-work.ts";
import { recoverDeadTrash } from "./layout-trash.ts";
import { checkHashed, readChunks } from "./blob-check.ts";
import { reserveBlocks } from "./blob-writeback.ts";
import { WorkerPool } from "./blob-threads.ts";

/** Small blobs that are synced together at most; what is not synced is lost when a run dies. */
const PENDING = 4096;

/** Bytes of a stream that are gathered for one write; a stream with no more is checked in memory. */
const GATHERED = 1024 * 1024;

/** Writes blobs into one layout folder. Nothing is made in it before the first blob. */
export class BlobWriter {
  readonly #root: string;
  readonly #location: string;
  readonly #pool: WorkerPool;
  /** Digests that were put, with the sizes that they must have. */
  readonly #put = new Map<Digest, number>();
  /** Folders that this run made and has not synced, parents first. */
  readonly #made: string[] = [];
  /** Folders that were seen to be there, and to be no symbolic links. */
  readonly #prepared = new Set<string>();
  /** Small blobs that are whole but neither synced nor in place, with their temporary files. */
  readonly #pending = new Map<Digest, string>();
  #run: Promise<RunFolder> | undefined;
  #closed = false;

  /**
   * @param root Path of the layout folder, which need not exist.
   * @param options.jobs How many large files may be hashed or copied at once.
   * @param options.location The folder as the user wrote it, for messages.
   */
  constructor(
    root: string,
    { jobs, location = root }: { jobs: number; location?: string | undefined },
  ) {
    this.#root = resolve(root);
    this.#location = location;
    this.#pool = new WorkerPool(jobs);
  }

  /**
   * Writes a blob unless it is there with the right size.
   *
   * @throws {CacheportError} DIGEST_INVALID, DIGEST_MISMATCH, SIZE_MISMATCH,
   *   BLOB_MISSING, LAYOUT_INVALID for a symbolic link in the way, NO_SPACE,
   *   PERMISSION_DENIED, INTERRUPTED, IO_FAILED
   */
  async write(
    descriptor: Descriptor,
    source: BlobSource,
    options: PutOptions = {},
  ): Promise<PutOutcome> {
    const digest = parseDigest(descriptor.digest);
    if (this.#closed || options.signal?.aborted) throw interrupted();
    try {
      const isPending = this.#pending.has(digest) && this.#put.get(digest) === descriptor.size;
      const isThere = isPending || (await this.#isThere(digest, descriptor.size));
      const outcome = isThere ? "skipped" : await this.#copy(descriptor, source, options);
      this.#put.set(digest, descriptor.size);
      return outcome;
    } catch (error) {
      throw systemError(`Cannot write blob "${digest}" to "${this.#location}"`, error);
    }
  }

  /**
   * Makes the layout folder and its folders for blobs, and brings to the disk under
   * which names all blobs that were put can be found.
   *
   * @throws {CacheportError} LAYOUT_INVALID, PERMISSION_DENIED, NO_SPACE, IO_FAILED
   */
  async syncFolders(): Promise<void> {
    await this.#placePending();
    const folders = new Set([this.#folder("sha256")]);
    for (const digest of this.#put.keys()) folders.add(dirname(this.#path(digest)));
    try {
      for (const folder of folders) {
        await this.#prepare(folder);
        await syncFolder(folder);
      }
      const made = this.#made.splice(0);
      for (const folder of new Set(made.map((path) => dirname(path)))) await syncFolder(folder);
    } catch (error) {
      throw systemError(`Cannot sync the blobs of "${this.#location}"`, error);
    }
  }

  /**
   * Checks that all blobs that were put are still there. Blocks, for use under the
   * lock, between reading an index and naming the blobs in it.
   *
   * @throws {CacheportError} BLOB_MISSING when another program removed one meanwhile
   */
  assertPresent(): void {
    for (const [digest, size] of this.#put) {
      const stats = lstatSync(this.#path(digest), { throwIfNoEntry: false });
      if (stats?.isFile() && stats.size === size) continue;
      throw new CacheportError(
        "BLOB_MISSING",
        `Cannot publish to "${this.#location}": blob "${digest}" was removed meanwhile`,
        { hint: "Let the other program end, then run the command again" },
      );
    }
  }

  /** Removes temporary files and ends the threads. May be called twice. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#pool.close();
    const run = await this.#run?.catch(() => undefined);
    this.#run = undefined;
    await run?.close();
    // What this run made and nobody used goes again; what is not empty stays.
    for (const folder of this.#made.splice(0).toReversed()) removedEmpty(folder);
  }

  #path(digest: Digest): string {
    return join(this.#root, ...blobPath(digest).split("/"));
  }

  #folder(algorithm: DigestAlgorithm): string {
    return join(this.#root, "blobs", algorithm);
  }

  /** Tells whether a blob is there with the right size. One with a wrong size is to be replaced. */
  async #isThere(digest: Digest, size: number): Promise<boolean> {
    const path = this.#path(digest);
    const stats = lstatSync(path, { throwIfNoEntry: false });
    if (!stats) return false;
    if (stats.isFile()) {
      // For the folders' sake, which must be no symbolic links.
      await this.#prepare(dirname(path));
      if (stats.size !== size) return false;
      // gc spares what is young: a blob that is about to be named again is made so.
      makeYoung(path);
      return true;
    }
    throw new CacheportError(
      "LAYOUT_INVALID",
      `Cannot write blob "${digest}" to "${this.#location}": a symbolic link or a folder is in its place`,
      { hint: `Remove "${path}"` },
    );
  }

  async #copy(
    descriptor: Descriptor,
    source: BlobSource,
    options: PutOptions,
  ): Promise<PutOutcome> {
    const { digest } = descriptor;
    await this.#prepare(dirname(this.#path(digest)));
    if ("bytes" in source) {
      await this.#writeBytes(descriptor, source.bytes, options);
      return "copied";
    }
    const { store } = source;
    const found = await store.locate(descriptor);
    if (found && found.size <= GATHERED) {
      await this.#writeBytes(descriptor, await readRange(found, descriptor), options);
      // Otherwise the disk would hold it twice.
      if (found.disposable) await rm(found.path, { force: true });
    } else if (found) await this.#takeFile(descriptor, found, options);
    else if (store.save && descriptor.size > GATHERED) {
      await this.#writeGrowing(descriptor, options, async (file, grown) => {
        const reached = (count: number): void => {
          grown(count);
          options.onBytes?.(count);
        };
        await store.save?.(descriptor, file.fd, reached, options.signal);
      });
    } else {
      const stream = await store.open(descriptor, options.signal);
      await this.#writeStream(descriptor, stream, options);
    }
    return "copied";
  }

  async #writeBytes(descriptor: Descriptor, bytes: Uint8Array, options: PutOptions): Promise<void> {
    const { digest } = descriptor;
    checkContent(bytes, descriptor);
    const temporary = (await this.#openRun()).temporaryPath();
    writeUnsynced(temporary, bytes, 0o444);
    const twin = this.#pending.get(digest);
    this.#pending.set(digest, temporary);
    if (twin !== undefined) await rm(twin, { force: true });
    options.onBytes?.(bytes.length);
    if (this.#pending.size >= PENDING) await this.#placePending();
  }

  /**
   * Brings small blobs to the disk together and moves them to their names, in the order in
   * which they came: children before their parents. A sync for each took a millisecond or
   * more, 15,000 of them a quarter of a minute.
   */
  async #placePending(): Promise<void> {
    const pending = [...this.#pending];
    if (pending.length === 0) return;
    this.#pending.clear();
    const { path } = await this.#openRun();
    await syncFiles(
      pending.map(([, temporary]) => temporary),
      path,
    );
    for (const [digest, temporary] of pending) await this.#place(digest, temporary);
  }

  /** Takes the bytes from a local file: moved when that is allowed and possible, else copied. */
  async #takeFile(
    descriptor: Descriptor,
    { disposable, hashed, ...source }: BlobLocation,
    options: PutOptions,
  ): Promise<void> {
    const { digest, size } = descriptor;
    if (source.size !== size) throw sizeMismatch(descriptor, source.size);
    const algorithm = digestAlgorithm(digest);
    let counting = options;
    if (disposable && source.offset === 0) {
      const job = { source, algorithm, seal: true };
      if (hashed) await seal(source.path, descriptor);
      else checkHashed(descriptor, await this.#pool.run(job, counting));
      try {
        return await this.#place(digest, source.path);
      } catch (error) {
        if (systemCode(error) !== "EXDEV") throw error;
      }
      // Every byte was told once.
      counting = { signal: options.signal };
    }
    await this.#viaTemporary(digest, async (target) => {
      const job = { source, algorithm, seal: true, target };
      checkHashed(descriptor, await this.#pool.run(job, counting));
    });
  }

  async #writeStream(
    descriptor: Descriptor,
    stream: ReadableStream<Uint8Array>,
    options: PutOptions,
  ): Promise<void> {
    const { signal } = options;
    if (descriptor.size <= GATHERED) {
      const rest = await gather(stream, descriptor, options);
      return this.#writeBytes(descriptor, rest, { signal });
    }
    await this.#writeGrowing(descriptor, options, async (file, grown) => {
      const write = async (bytes: Uint8Array): Promise<void> => {
        await writeAll(file, bytes);
        grown(bytes.length);
      };
      await write(await gather(stream, descriptor, options, write));
    });
  }

  /**
   * Writes a large file, which is hashed from the page cache while it grows, on a
   * thread of its own: the thread that takes in the bytes has no time for hashes.
   *
   * @param fill Fills it from its start, and says how many bytes have come.
   */
  async #writeGrowing(
    { digest, size }: Descriptor,
    { signal }: PutOptions,
    fill: (file: FileHandle, grown: (count: number) => void) => Promise<void>,
  ): Promise<void> {
    await this.#viaTemporary(digest, async (temporary) => {
      const file = await open(temporary, "wx", 0o600);
      reserveBlocks(file.fd, temporary, size);
      const growth = new Growth();
      const source = { path: temporary, offset: 0, size };
      const algorithm = digestAlgorithm(digest);
      const job = { source, algorithm, seal: false, growth: growth.shared };
      const hashed = this.#pool.run(job, { signal });
      // Should writing fail first, nobody is left to see this one fail.
      hashed.catch(() => {});
      try {
        await fill(file, (count) => growth.advance(count));
        growth.end();
        await file.chmod(0o444);
        const [result] = await Promise.all([hashed, file.sync()]);
        checkHashed({ digest, size }, result);
      } finally {
        growth.end();
        await file.close();
        // While the other thread has the file open, the disk does not get its space back.
        await hashed.catch(() => {});
      }
    });
  }

  /** Makes a finished blob as a temporary file and moves it to its name. */
  async #viaTemporary(digest: Digest, make: (temporary: string) => Promise<void>): Promise<void> {
    const temporary = (await this.#openRun()).temporaryPath();
    try {
      await make(temporary);
      await this.#place(digest, temporary);
    } catch (error) {
      // At once: the disk may be full.
      await rm(temporary, { force: true }).catch(() => {});
      throw error;
    }
  }

  /** Moves a finished file to its name. */
  async #place(digest: Digest, finished: string): Promise<void> {
    const path = this.#path(digest);
    await againIfRemoved(async () => {
      await this.#prepare(dirname(path));
      try {
        renameSync(finished, path);
      } catch (error) {
        // Somebody removed the folder, which was empty.
        if (systemCode(error) === "ENOENT") this.#prepared.clear();
        throw error;
      }
    });
  }

  async #openRun(): Promise<RunFolder> {
    if (this.#closed) throw interrupted();
    this.#run ??= RunFolder.open(this.#root).then(async (run) => {
      if (run.sawTrash) await recoverDeadTrash(this.#root);
      // All folders from the layout's own up to the topmost that was made.
      if (run.madeRoot !== undefined) {
        let folder = this.#root;
        this.#made.unshift(folder);
        while (folder !== run.madeRoot && folder !== dirname(folder))
          this.#made.unshift((folder = dirname(folder)));
      }
      return run;
    });
    return this.#run;
  }

  /** Makes the folders down to one for blobs; a symbolic link among them is refused. */
  async #prepare(folder: string): Promise<void> {
    if (this.#prepared.has(folder)) return;
    await this.#openRun();
    await againIfRemoved(async () => {
      for (const path of [dirname(folder), folder])
        if (await makeFolder(path)) this.#made.push(path);
    });
    this.#prepared.add(folder);
  }
}

/**
 * Reads a stream to its end and gathers its chunks, whatever their sizes are, into
 * large pieces.
 *
 * @param write Takes each full piece.
 * @returns The last piece, which is not full.
 * @throws {CacheportError} SIZE_MISMATCH, as soon as there are too many bytes
 */
async function gather(
  stream: ReadableStream<Uint8Array>,
  descriptor: Descriptor,
  { signal, onBytes }: PutOptions,
  write?: (piece: Uint8Array) => Promise<void>,
): Promise<Uint8Array> {
  const piece = new Uint8Array(Math.min(descriptor.size, GATHERED));
  let filled = 0;
  let received = 0;
  for await (const chunk of readChunks(stream, signal)) {
    received += chunk.length;
    if (received > descriptor.size) throw sizeMismatch(descriptor, received);
    for (let taken = 0; taken < chunk.length;) {
      const part = chunk.subarray(taken, taken + piece.length - filled);
      piece.set(part, filled);
      filled += part.length;
      taken += part.length;
      if (!write || filled < piece.length) continue;
      await write(piece);
      filled = 0;
    }
    onBytes?.(chunk.length);
  }
  if (received !== descriptor.size) throw sizeMismatch(descriptor, received);
  return piece.subarray(0, filled);
}

/** Another user's blob stays as old as it is. */
function makeYoung(path: string): void {
  try {
    utimesSync(path, new Date(), new Date());
  } catch {
    // It is gc that is told, and it has a look at the names as well.
  }
}

/** Reads a small blob from the file that holds it. */
async function readRange(
  { path, offset, size }: BlobLocation,
  descriptor: Descriptor,
): Promise<Uint8Array> {
  if (size !== descriptor.size) throw sizeMismatch(descriptor, size);
  const bytes = new Uint8Array(size);
  const fd = openSync(path, "r");
  try {
    for (let done = 0; done < size;) {
      const count = readSync(fd, bytes, done, size - done, offset + done);
      if (count === 0) throw sizeMismatch(descriptor, done);
      done += count;
    }
  } finally {
    closeSync(fd);
  }
  return bytes;
}

/**
 * Makes a file whose digest is known read-only and brings it to the disk.
 *
 * @throws {CacheportError} SIZE_MISMATCH
 */
async function seal(path: string, descriptor: Descriptor): Promise<void> {
  const file = await open(path, "r");
  try {
    const { size } = await file.stat();
    if (size !== descriptor.size) throw sizeMismatch(descriptor, size);
    await file.chmod(0o444);
    await file.sync();
  } finally {
    await file.close();
  }
}
