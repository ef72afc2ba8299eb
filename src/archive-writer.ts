/**
 * Writes a layout into a tar: a new file or an old one written anew, members added
 * to a file that is there, or a stream.
 *
 * What is put is only noted down; publishing writes everything in one pass, in
 * BuildKit's order, so that the same content always gives the same bytes.
 */
import { open } from "node:fs/promises";
import { checkArchiveFolder, followLinks, isArchiveDevice } from "./archive-file.ts";
import { appendArchiveFile, COMMIT_DIGEST, OpenArchiveFile } from "./archive-output.ts";
import type { ArchiveWriteOptions } from "./archive-output.ts";
import { replaceArchive, streamArchive, writeArchiveDevice } from "./archive-target.ts";
import type { ArchiveSink } from "./archive-target.ts";
import type {
  BlobSource,
  ContentReader,
  ContentWriter,
  NamedEntry,
  NameRemoval,
  NameWriter,
  PutOptions,
  PutOutcome,
  Root,
} from "./content-store.ts";
import { DEFAULT_JOBS } from "./concurrency.ts";
import { namedRoot } from "./content-store.ts";
import type { Descriptor } from "./descriptor.ts";
import { checkContent, parseDigest } from "./digest.ts";
import type { Digest } from "./digest.ts";
import { isDockerManifest, makeDockerManifest } from "./archive-docker.ts";
import { DEFAULT_LIMITS } from "./documents.ts";
import type { DocumentLimits } from "./documents.ts";
import { CacheportError, interrupted, systemError } from "./errors.ts";
import { acquireLock } from "./layout-lock.ts";
import { lockBeside } from "./layout-work.ts";
import type { LayoutArchive } from "./archive-reader.ts";
import {
  applyNames,
  emptyLayoutIndex,
  encodeLayoutIndex,
  removalFilter,
  removeEntries,
  sameIndex,
} from "./layout-index.ts";
import type { LayoutIndex } from "./layout-index.ts";
import { openOldArchive, reopenOldArchive } from "./archive-old.ts";
import type { OldArchive } from "./archive-old.ts";
import type { TarFile } from "./archive-content.ts";
import type { Compression } from "./media-types.ts";
import { PutReader } from "./archive-pending.ts";
import { TAR_END } from "./archive-header.ts";
import { planArchive } from "./archive-plan.ts";
import type { ArchiveBlob, ArchivePlan } from "./archive-plan.ts";
import { WorkerPool } from "./blob-threads.ts";

/** Where an archive goes. */
export type ArchiveTarget =
  | { readonly path: string }
  /** Takes the bytes in order, which it must not change; its promise holds back the next ones. */
  | { readonly sink: ArchiveSink };

/** How to write an archive. */
export interface LayoutArchiveWriterOptions {
  /**
   * `create`: the archive holds what is put and nothing else; a file that is there
   * is replaced. `append`: blobs and names are added to a file that is there, the
   * old ones stay readable at every instant; one with a manifest.json is written anew
   * with all that it holds, since of two of those some programs take the first. `rewrite`: as append, but the file is
   * written anew, without what stands in it twice and without what `keeps` leaves
   * out. The latter two create a file that is not there or is empty.
   */
  mode: "create" | "append" | "rewrite";
  /** Compresses the archive as a whole; one that is written anew is as the old one unless told. */
  compress?: Compression | undefined;
  /** Writes a manifest.json too, from which `docker load` takes the images; all that is named must be images. */
  docker?: boolean | undefined;
  /**
   * For `rewrite`: which blobs of the old archive stay, all unless told otherwise.
   *
   * @param reader Reads old and new content.
   * @param roots What the new index.json lists.
   */
  keeps?:
    | ((reader: ContentReader, roots: readonly Descriptor[]) => Promise<ReadonlySet<Digest>>)
    | undefined;
  /** The archive as the user wrote it, for messages; the path or `-` unless told otherwise. */
  location?: string | undefined;
  limits?: DocumentLimits | undefined;
  /** Members that are copied at once, 4 unless told otherwise. */
  jobs?: number | undefined;
  /** Milliseconds to wait for another process that writes to the archive. */
  lockTimeout?: number | undefined;
  signal?: AbortSignal | undefined;
}

type ChangeIndex = (index: LayoutIndex) => LayoutIndex;

/** Writes a layout into a tar. */
export class LayoutArchiveWriter implements ContentWriter, NameWriter {
  readonly location: string;
  readonly defers = true;
  readonly #target: ArchiveTarget;
  readonly #options: LayoutArchiveWriterOptions;
  readonly #blobs = new Map<Digest, ArchiveBlob>();
  /** What the old archive had when it was put, with the sizes. */
  readonly #skipped = new Map<Digest, number>();
  readonly #pool: WorkerPool;
  /** What is given names. */
  #roots: ReadonlySet<Digest> = new Set();
  /** The archive that is added to or written anew, as it was when it was last looked at. */
  #old: OldArchive | undefined;

  private constructor(
    target: ArchiveTarget,
    options: LayoutArchiveWriterOptions,
    location: string,
    old: OldArchive | undefined,
  ) {
    this.#target = target;
    this.#options = options;
    this.#old = old;
    this.location = location;
    this.#pool = new WorkerPool(options.jobs ?? 4);
  }

  /**
   * Opens an archive for writing. Nothing is written before {@link publish}.
   *
   * @throws {CacheportError} LOCATION_NOT_FOUND when the folder of the archive is
   *   missing; NOT_SUPPORTED for adding to a compressed archive or to a stream; and
   *   those of {@link LayoutArchive.open}
   */
  static async open(
    target: ArchiveTarget,
    options: LayoutArchiveWriterOptions,
  ): Promise<LayoutArchiveWriter> {
    const { mode } = options;
    if ("sink" in target) {
      const { location = "-" } = options;
      if (mode === "create") return new LayoutArchiveWriter(target, options, location, undefined);
      throw new CacheportError(
        "NOT_SUPPORTED",
        `Cannot add to "${location}": a stream can only be written from its start`,
      );
    }
    const { location = target.path } = options;
    await checkArchiveFolder(target.path, location);
    // What /dev/stdout links to is no path that could be opened, and nothing is in a pipe yet.
    const isDevice = await isArchiveDevice(target.path);
    const path = isDevice ? target.path : await followLinks(target.path);
    const old =
      isDevice || mode === "create"
        ? undefined
        : await openOldArchive(path, { ...options, mode, location });
    return new LayoutArchiveWriter({ path }, options, location, old);
  }

  /**
   * Notes a blob down; it is read when the archive is published, so the source must
   * stay open until then. `onBytes` is called then, too.
   */
  async put(
    descriptor: Descriptor,
    source: BlobSource,
    options: PutOptions = {},
  ): Promise<PutOutcome> {
    const digest = parseDigest(descriptor.digest);
    if (options.signal?.aborted) throw interrupted();
    if ("bytes" in source) checkContent(source.bytes, descriptor);
    const { size } = descriptor;
    if (this.#blobs.get(digest)?.descriptor.size === size) return "skipped";
    // What is embedded in the descriptor is no blob of the archive.
    if ((await this.#old?.content.stat({ ...descriptor, data: undefined })) === size) {
      this.#skipped.set(digest, size);
      return "skipped";
    }
    this.#blobs.set(digest, { descriptor, source, onBytes: options.onBytes });
    return "copied";
  }

  /**
   * Writes the archive: all blobs that were put, the roots, and the index that names
   * them. To be called once.
   *
   * @throws {CacheportError} DIGEST_MISMATCH, SIZE_MISMATCH, BLOB_MISSING, NAME_CHANGED,
   *   NAME_AMBIGUOUS, NOT_SUPPORTED, LOCK_TIMEOUT, NO_SPACE, INTERRUPTED; a file is then
   *   as it was before
   */
  async publish(
    roots: readonly Root[],
    { signal = this.#options.signal, onBytes, onNames }: PutOptions = {},
  ): Promise<void> {
    const options = { signal, onBytes, jobs: this.#options.jobs ?? 4 };
    this.#roots = new Set(roots.map(({ descriptor }) => descriptor.digest));
    for (const { descriptor, bytes } of roots) await this.put(descriptor, { bytes }, { signal });
    await this.#write((index) => {
      onNames?.(index.entries);
      return applyNames(index, roots, this.location);
    }, options);
  }

  /**
   * Removes entries from the index; blobs stay. To be called instead of {@link publish}.
   *
   * @param fits Says of each entry whether it goes.
   * @returns The entries that were removed.
   * @throws {CacheportError} as {@link publish}
   */
  async removeNames(fits: (entry: NamedEntry) => boolean): Promise<NamedEntry[]> {
    let removed: NamedEntry[] = [];
    const { signal, jobs = DEFAULT_JOBS } = this.#options;
    await this.#write(
      (index) => {
        removed = index.entries.filter(fits);
        return removeEntries(index, fits);
      },
      { signal, jobs },
    );
    return removed;
  }

  async setNames(...[descriptor, names, read, options]: Parameters<NameWriter["setNames"]>) {
    await this.publish([await namedRoot(descriptor, names, read)], options);
  }

  async removeName(removal: NameRemoval): Promise<boolean> {
    return (await this.removeNames(removalFilter(removal))).length > 0;
  }

  async close(): Promise<void> {
    this.#pool.close();
    await this.#old?.content.close();
    this.#old = undefined;
  }

  async #write(change: ChangeIndex, options: ArchiveWriteOptions): Promise<void> {
    const target = this.#target;
    const writing = { ...options, compress: this.#options.compress };
    try {
      if ("sink" in target) {
        await streamArchive(await this.#planNew(change), target.sink, writing);
      } else if (await isArchiveDevice(target.path)) {
        await writeArchiveDevice(target.path, await this.#planNew(change), writing);
      } else {
        await this.#writeFile(target.path, change, options);
      }
    } catch (error) {
      throw systemError(`Cannot write archive "${this.location}"`, error);
    }
  }

  /** Creates an archive, adds to it or writes it anew, on the grounds of what it holds now. */
  async #writeFile(path: string, change: ChangeIndex, options: ArchiveWriteOptions): Promise<void> {
    const { mode, lockTimeout, compress } = this.#options;
    const pool = this.#pool;
    const lock = await acquireLock(lockBeside(path), {
      own: true,
      timeout: lockTimeout,
      signal: options.signal,
    });
    try {
      if (mode !== "create") {
        const { location } = this;
        const opening = { ...this.#options, mode, location };
        this.#old = await reopenOldArchive(this.#old, path, opening);
        this.#checkSkipped();
      }
      const old = this.#old;
      if (mode === "append" && old?.content.file && !(await this.#oldDockerManifest()))
        await this.#append(old.content, old.content.file, change, options);
      else if (old) await this.#rewrite(old, path, change, options);
      else await replaceArchive(path, await this.#planNew(change), { ...options, pool, compress });
    } finally {
      await lock.release();
    }
  }

  /** Another process may have written the archive anew. */
  #checkSkipped(): void {
    const there = this.#old?.content.blobs();
    for (const [digest, size] of this.#skipped) {
      if (there?.get(digest) === size) continue;
      throw new CacheportError(
        "BLOB_MISSING",
        `Cannot publish to "${this.location}": blob "${digest}" was removed meanwhile`,
        { hint: "Let the other program end, then run the command again" },
      );
    }
  }

  /** An archive that holds what was put and nothing else. */
  async #planNew(change: ChangeIndex): Promise<ArchivePlan> {
    const index = change(emptyLayoutIndex());
    return planArchive({
      blobs: [...this.#blobs.values()],
      index: encodeLayoutIndex(index),
      dockerManifest: await this.#dockerManifest(index, (digest) => this.#blobs.has(digest)),
    });
  }

  async #append(
    old: LayoutArchive,
    { path, scan }: TarFile,
    change: ChangeIndex,
    options: ArchiveWriteOptions,
  ): Promise<void> {
    const index = change(old.index);
    const there = old.blobs();
    const blobs = this.#newBlobs(old);
    const isSame = blobs.length === 0 && sameIndex(index, old.index);
    if (isSame && !this.#options.docker) return;
    const plan = planArchive(
      {
        blobs,
        index: encodeLayoutIndex(index),
        dockerManifest: await this.#dockerManifest(
          index,
          (digest) => this.#blobs.has(digest) || there.has(digest),
        ),
        hasFrame: old.hasMember("oci-layout"),
      },
      scan.end + TAR_END.length,
    );
    const file = await open(path, "r+");
    try {
      await appendArchiveFile(plan, scan.end, new OpenArchiveFile(file, path, this.#pool), options);
    } finally {
      await file.close();
    }
  }

  async #rewrite(
    { content: old, compression }: OldArchive,
    path: string,
    change: ChangeIndex,
    options: ArchiveWriteOptions,
  ): Promise<void> {
    const index = change(old.index);
    const { keeps, mode } = this.#options;
    const isAdding = mode === "append";
    // An archive of images becomes a layout with a manifest.json, which docker writes today.
    const isSame = old.root.form === "layout" && sameIndex(index, old.index);
    if (isAdding && isSame && this.#newBlobs(old).length === 0) return;
    const listed = index.entries.map((entry) => entry.descriptor);
    const kept = isAdding ? undefined : await keeps?.(this.#reader(), listed);
    const blobs = new Map(this.#blobs);
    for (const [digest, size] of old.blobs()) {
      if (blobs.has(digest) || (kept ? !kept.has(digest) : digest === COMMIT_DIGEST)) continue;
      const descriptor = { mediaType: "", digest, size };
      blobs.set(digest, { descriptor, source: { store: old } });
    }
    const plan = planArchive({
      blobs: [...blobs.values()],
      index: encodeLayoutIndex(index),
      dockerManifest: await this.#dockerManifest(index, (digest) => blobs.has(digest)),
    });
    const { compress = compression } = this.#options;
    await replaceArchive(path, plan, { ...options, pool: this.#pool, compress });
  }

  /** What was put and is not in the old archive. */
  #newBlobs(old: LayoutArchive): ArchiveBlob[] {
    const there = old.blobs();
    return [...this.#blobs.values()].filter(
      ({ descriptor }) => there.get(descriptor.digest) !== descriptor.size,
    );
  }

  /** The manifest.json, when it was asked for or when the archive had one. */
  async #dockerManifest(
    index: LayoutIndex,
    holds: (digest: Digest) => boolean,
  ): Promise<Uint8Array | undefined> {
    const { docker, limits = DEFAULT_LIMITS } = this.#options;
    const old = await this.#oldDockerManifest();
    if (!docker && !old) return undefined;
    return makeDockerManifest(index, this.#reader(), {
      limit: limits.manifest,
      location: this.location,
      holds,
      old,
      required: docker ? this.#roots : undefined,
    });
  }

  /** The old archive's manifest.json, unless it is another file of that name. */
  async #oldDockerManifest(): Promise<Uint8Array | undefined> {
    const old = this.#old?.content;
    const bytes = old?.hasMember("manifest.json") && (await old.readMember("manifest.json"));
    return bytes && isDockerManifest(bytes) ? bytes : undefined;
  }

  /** Reads what was put, and what the old archive holds. */
  #reader(): ContentReader {
    return new PutReader(this.location, this.#blobs, this.#old?.content);
  }
}
