/**
 * Writes a layout into a tar: a new file or an old one written anew, members added
 * to a file that is there, or a stream.
 *
 * What is put is only noted down; publishing writes everything in one pass, in
 * BuildKit's order, so that the same content always gives the same bytes.
 */
import type { Stats } from "node:fs";
import { open, realpath, rename, stat, unlink } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import {
  appendArchiveFile,
  archiveChunks,
  COMMIT_DIGEST,
  OpenArchiveFile,
  writeArchiveFile,
} from "./archive-output.ts";
import type { ArchiveWriteOptions } from "./archive-output.ts";
import { toByteStream } from "./byte-stream.ts";
import { compressionLevel, compressStream } from "./compression.ts";
import type {
  BlobSource,
  ContentReader,
  ContentWriter,
  PutOptions,
  PutOutcome,
  Root,
} from "./content-store.ts";
import type { Descriptor } from "./descriptor.ts";
import { checkContent, parseDigest } from "./digest.ts";
import type { Digest } from "./digest.ts";
import { makeDockerManifest } from "./docker-manifest.ts";
import { DEFAULT_LIMITS } from "./documents.ts";
import type { DocumentLimits } from "./documents.ts";
import { syncFolder, writeAll } from "./durable-file.ts";
import {
  CacheportError,
  interrupted,
  isCacheportError,
  systemCode,
  systemError,
} from "./errors.ts";
import { acquireLock } from "./file-lock.ts";
import { LayoutArchive } from "./layout-archive.ts";
import {
  applyNames,
  emptyLayoutIndex,
  encodeLayoutIndex,
  sameIndex,
} from "./layout-index.ts";
import type { LayoutIndex } from "./layout-index.ts";
import { archiveFileFormat } from "./layout-stream.ts";
import { basename, dirname, join, resolve } from "./paths.ts";
import { TAR_END } from "./tar-header.ts";
import { PutReader } from "./put-reader.ts";
import { planArchive } from "./tar-write.ts";
import type { ArchiveBlob, ArchivePlan } from "./tar-write.ts";
import { WorkerPool } from "./worker-pool.ts";

/** Where an archive goes. */
export type ArchiveTarget =
  | { readonly path: string }
  /** Takes the bytes in order, which it must not change; its promise holds back the next ones. */
  | { readonly sink: (bytes: Uint8Array) => Promise<void> };

/** How to write an archive. */
export interface LayoutArchiveWriterOptions {
  /**
   * `create`: the archive holds what is put and nothing else; a file that is there
   * is replaced. `append`: blobs and names are added to a file that is there, the
   * old ones stay readable at every instant. `rewrite`: as append, but the file is
   * written anew, without what stands in it twice and without what `keeps` leaves
   * out. The latter two create a file that is not there.
   */
  mode: "create" | "append" | "rewrite";
  /** Compresses the archive as a whole. */
  compress?: "gzip" | "zstd" | undefined;
  /** Writes a manifest.json too, from which `docker load` takes the image. */
  docker?: boolean | undefined;
  /**
   * For `rewrite`: which blobs of the old archive stay, all unless told otherwise.
   *
   * @param reader Reads old and new content.
   * @param roots What the new index.json lists.
   */
  keeps?:
    | ((
        reader: ContentReader,
        roots: readonly Descriptor[],
      ) => Promise<ReadonlySet<Digest>>)
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

/** Writes a layout into a tar. */
export class LayoutArchiveWriter implements ContentWriter {
  readonly location: string;
  readonly defers = true;
  readonly #target: ArchiveTarget;
  readonly #options: LayoutArchiveWriterOptions;
  readonly #blobs = new Map<Digest, ArchiveBlob>();
  /** What the old archive had when it was put, with the sizes. */
  readonly #skipped = new Map<Digest, number>();
  readonly #pool: WorkerPool;
  /** The archive that is added to or written anew, as it was when the writer was opened. */
  #old: LayoutArchive | undefined;

  private constructor(
    target: ArchiveTarget,
    options: LayoutArchiveWriterOptions,
    old: LayoutArchive | undefined,
  ) {
    this.#target = target;
    this.#options = options;
    this.#old = old;
    this.location = options.location ?? ("path" in target ? target.path : "-");
    this.#pool = new WorkerPool(options.jobs ?? 4);
  }

  /**
   * Opens an archive for writing. Nothing is written before {@link publish}.
   *
   * @throws {CacheportError} NOT_SUPPORTED for adding to a compressed archive or to a
   *   stream; and those of {@link LayoutArchive.open}
   */
  static async open(
    target: ArchiveTarget,
    options: LayoutArchiveWriterOptions,
  ): Promise<LayoutArchiveWriter> {
    if (options.mode === "create")
      return new LayoutArchiveWriter(target, options, undefined);
    if ("sink" in target) {
      throw new CacheportError(
        "NOT_SUPPORTED",
        `Cannot add to "${options.location ?? "-"}": a stream can only be written from its start`,
      );
    }
    const resolved = { path: await followLinks(target.path) };
    const location = options.location ?? target.path;
    const old = await openOld(resolved.path, location, options);
    return new LayoutArchiveWriter(resolved, { ...options, location }, old);
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
    if ((await this.#old?.stat(descriptor)) === size) {
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
    { signal = this.#options.signal, onBytes }: PutOptions = {},
  ): Promise<void> {
    const options = { signal, onBytes, jobs: this.#options.jobs ?? 4 };
    for (const { descriptor, bytes } of roots)
      await this.put(descriptor, { bytes }, { signal });
    try {
      if (this.#options.mode === "create") await this.#create(roots, options);
      else await this.#change(roots, options);
    } catch (error) {
      throw systemError(`Cannot write archive "${this.location}"`, error);
    }
  }

  async close(): Promise<void> {
    this.#pool.close();
    await this.#old?.close();
    this.#old = undefined;
  }

  async #create(
    roots: readonly Root[],
    options: ArchiveWriteOptions,
  ): Promise<void> {
    const index = applyNames(emptyLayoutIndex(), roots, this.location);
    const plan = planArchive({
      blobs: [...this.#blobs.values()],
      index: encodeLayoutIndex(index),
      dockerManifest: await this.#dockerManifest(index),
    });
    if ("sink" in this.#target)
      await this.#stream(plan, this.#target.sink, options);
    else
      await this.#replaceFile(
        await followLinks(this.#target.path),
        plan,
        options,
      );
  }

  /** Adds to an archive or writes it anew, on the grounds of what it holds now. */
  async #change(
    roots: readonly Root[],
    options: ArchiveWriteOptions,
  ): Promise<void> {
    const { mode, lockTimeout } = this.#options;
    const { path } = this.#target as { path: string };
    const lock = await acquireLock(`${path}.lock`, {
      timeout: lockTimeout,
      signal: options.signal,
    });
    try {
      await this.#old?.close();
      this.#old = await openOld(path, this.location, this.#options);
      this.#checkSkipped(this.#old);
      if (!this.#old) await this.#create(roots, options);
      else if (mode === "append") await this.#append(this.#old, roots, options);
      else await this.#rewrite(this.#old, roots, options);
    } finally {
      await lock.release();
    }
  }

  /** Another process may have written the archive anew. */
  #checkSkipped(old: LayoutArchive | undefined): void {
    const there = old?.blobs();
    for (const [digest, size] of this.#skipped) {
      if (there?.get(digest) === size) continue;
      throw new CacheportError(
        "BLOB_MISSING",
        `Cannot publish to "${this.location}": blob "${digest}" was removed meanwhile`,
        { hint: "Let the other program end, then run the command again" },
      );
    }
  }

  async #append(
    old: LayoutArchive,
    roots: readonly Root[],
    options: ArchiveWriteOptions,
  ): Promise<void> {
    const index = applyNames(old.index, roots, this.location);
    const there = old.blobs();
    const blobs = [...this.#blobs.values()].filter(
      ({ descriptor }) => there.get(descriptor.digest) !== descriptor.size,
    );
    const isSame = blobs.length === 0 && sameIndex(index, old.index);
    if (isSame && !this.#options.docker) return;
    const plan = planArchive(
      {
        blobs,
        index: encodeLayoutIndex(index),
        dockerManifest: await this.#dockerManifest(index),
        hasFrame: old.scan.members.has("oci-layout"),
      },
      old.scan.end + TAR_END.length,
    );
    const file = await open(old.path, "r+");
    try {
      await appendArchiveFile(
        plan,
        old.scan.end,
        new OpenArchiveFile(file, old.path, this.#pool),
        options,
      );
    } finally {
      await file.close();
    }
  }

  async #rewrite(
    old: LayoutArchive,
    roots: readonly Root[],
    options: ArchiveWriteOptions,
  ): Promise<void> {
    const index = applyNames(old.index, roots, this.location);
    const { keeps } = this.#options;
    const listed = index.entries.map((entry) => entry.descriptor);
    const kept = await keeps?.(this.#reader(), listed);
    const blobs = new Map(this.#blobs);
    for (const [digest, size] of old.blobs()) {
      if (
        blobs.has(digest) ||
        (kept ? !kept.has(digest) : digest === COMMIT_DIGEST)
      )
        continue;
      const descriptor = { mediaType: "", digest, size };
      blobs.set(digest, { descriptor, source: { store: old } });
    }
    const plan = planArchive({
      blobs: [...blobs.values()],
      index: encodeLayoutIndex(index),
      dockerManifest: await this.#dockerManifest(
        index,
        old.scan.members.has("manifest.json"),
      ),
    });
    await this.#replaceFile(old.path, plan, options);
  }

  /**
   * The manifest.json, when it was asked for. An archive that had one and is written
   * anew keeps one, as long as it still holds a single image.
   */
  async #dockerManifest(
    index: LayoutIndex,
    hadOne = false,
  ): Promise<Uint8Array | undefined> {
    const { docker, limits = DEFAULT_LIMITS } = this.#options;
    if (!docker && !hadOne) return undefined;
    const reader = this.#reader();
    const read = (descriptor: Descriptor): Promise<Uint8Array> =>
      reader.read(descriptor, limits.manifest);
    try {
      return await makeDockerManifest(index, read, this.location);
    } catch (error) {
      if (!docker && isCacheportError(error, "NOT_SUPPORTED")) return undefined;
      throw error;
    }
  }

  /** Reads what was put, and what the old archive holds. */
  #reader(): ContentReader {
    return new PutReader(this.location, this.#blobs, this.#old);
  }

  async #stream(
    plan: ArchivePlan,
    sink: (bytes: Uint8Array) => Promise<void>,
    options: PutOptions,
  ): Promise<void> {
    const { compress } = this.#options;
    const tar = archiveChunks(plan, options);
    const chunks = compress
      ? compressStream(
          toByteStream(tar),
          compress,
          compressionLevel(compress, undefined),
        )
      : tar;
    for await (const chunk of chunks) if (chunk.length > 0) await sink(chunk);
  }

  /** Writes a file beside the target and renames it into its place. */
  async #replaceFile(
    path: string,
    plan: ArchivePlan,
    options: ArchiveWriteOptions,
  ): Promise<void> {
    const replaced = await statIfThere(path);
    if (replaced && !replaced.isFile())
      return this.#writeDevice(path, plan, options);
    const folder = dirname(path);
    const temporary = join(
      folder,
      `.${basename(path)}.${crypto.randomUUID()}.tmp`,
    );
    const file = await open(temporary, "wx", 0o644);
    try {
      if (replaced) await file.chmod(replaced.mode & 0o7777);
      if (this.#options.compress)
        await this.#stream(plan, (bytes) => writeAll(file, bytes), options);
      else
        await writeArchiveFile(
          plan,
          new OpenArchiveFile(file, temporary, this.#pool),
          options,
        );
      await file.sync();
      await file.close();
      await rename(temporary, path);
    } catch (error) {
      await file.close();
      await unlink(temporary).catch(() => {});
      throw error;
    }
    await syncFolder(folder);
  }

  /** A pipe or a device, such as /dev/stdout, is written to and not replaced. */
  async #writeDevice(
    path: string,
    plan: ArchivePlan,
    options: PutOptions,
  ): Promise<void> {
    const file: FileHandle = await open(path, "w");
    try {
      await this.#stream(plan, (bytes) => writeAll(file, bytes), options);
    } finally {
      await file.close();
    }
  }
}

/** The file that a path means, so that a symbolic link to an archive stays one. */
async function followLinks(path: string): Promise<string> {
  try {
    return await realpath(path);
  } catch {
    return resolve(path);
  }
}

async function statIfThere(path: string): Promise<Stats | undefined> {
  try {
    return await stat(path);
  } catch (error) {
    if (systemCode(error) === "ENOENT") return undefined;
    throw error;
  }
}

/** The archive that is to be changed; undefined when there is none. */
async function openOld(
  path: string,
  location: string,
  { limits }: LayoutArchiveWriterOptions,
): Promise<LayoutArchive | undefined> {
  if (!(await statIfThere(path))) return undefined;
  const format = await archiveFileFormat(path, location);
  if (format === "uncompressed")
    return LayoutArchive.open(path, { location, limits });
  throw new CacheportError(
    "NOT_SUPPORTED",
    `Cannot add to archive "${location}": it is compressed with ${format}`,
    {
      hint: "Copy all of it to a new archive: cacheport copy --all OLD NEW",
    },
  );
}
