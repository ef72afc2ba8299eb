/**
 * Layout folders on disk, read and written: blobs under `blobs/<algorithm>/<hex>`, names
 * in `index.json`.
 *
 * Source: OCI image-spec, image-layout.md.
 */
import { DEFAULT_JOBS } from "./concurrency.ts";
import { BlobWriter } from "./layout-writer.ts";
import type {
  BlobSource,
  ContentWriter,
  EntryName,
  NamedEntry,
  NameRemoval,
  NameWriter,
  PutOptions,
  PutOutcome,
  Root,
} from "./content-store.ts";
import type { Descriptor } from "./descriptor.ts";
import { sizeMismatch } from "./digest.ts";
import { CacheportError } from "./errors.ts";
import {
  hasIndexFile,
  hasLayoutMarker,
  isFolder,
  noFolder,
  readIndexForUpdate,
} from "./layout-index-file.ts";
import { updateIndexFile } from "./layout-index-update.ts";
import { applyNames, removalFilter, removeEntries } from "./layout-index.ts";
import type { LayoutIndex } from "./layout-index.ts";
import { LayoutDirectory } from "./layout-reader.ts";
import { resolve } from "./paths.ts";

export { LayoutDirectory } from "./layout-reader.ts";
export type { LayoutOptions } from "./layout-reader.ts";

/** How to open a layout folder for writing. */
export interface LayoutWriterOptions {
  /** Makes the folder when the first blob is put; otherwise it must be there. */
  create?: boolean | undefined;
  /** Milliseconds to wait for the lock of index.json. */
  lockTimeout?: number | undefined;
  /** Large blobs that are copied at once. */
  jobs?: number | undefined;
  signal?: AbortSignal | undefined;
  /** The folder as the user wrote it, for messages; the path unless told otherwise. */
  location?: string | undefined;
}

/** Writes to a layout folder. Nothing is changed in it before the first blob is put. */
export class LayoutDirectoryWriter implements ContentWriter, NameWriter {
  readonly location: string;
  readonly finishesLocally = true;
  readonly #root: string;
  readonly #blobs: BlobWriter;
  readonly #lockTimeout: number | undefined;
  readonly #signal: AbortSignal | undefined;
  /** Blobs were put that no index names. */
  #isUnfinished = false;

  private constructor(
    root: string,
    location: string,
    { jobs = DEFAULT_JOBS, lockTimeout, signal }: LayoutWriterOptions,
  ) {
    this.#root = root;
    this.location = location;
    this.#blobs = new BlobWriter(root, { jobs, location });
    this.#lockTimeout = lockTimeout;
    this.#signal = signal;
  }

  /**
   * Opens a layout folder for writing.
   *
   * @throws {CacheportError} LOCATION_NOT_FOUND, LAYOUT_INVALID for a layout of
   *   another version
   */
  static async open(
    path: string,
    options: LayoutWriterOptions = {},
  ): Promise<LayoutDirectoryWriter> {
    const { location = path, create = false } = options;
    if (await isFolder(path)) await hasLayoutMarker(path, location);
    else if (!create) throw noFolder(location);
    return new LayoutDirectoryWriter(resolve(path), location, options);
  }

  async put(
    descriptor: Descriptor,
    source: BlobSource,
    options: PutOptions = {},
  ): Promise<PutOutcome> {
    const outcome = await this.#blobs.write(descriptor, source, this.#withSignal(options));
    this.#isUnfinished = true;
    return outcome;
  }

  /**
   * Finds out, before anything is copied, whether names can be given. The answer
   * can change until they are.
   *
   * @throws {CacheportError} NAME_CHANGED, NAME_AMBIGUOUS, DOCUMENT_INVALID
   */
  async checkNames(roots: readonly Root[]): Promise<void> {
    const index = await readIndexForUpdate(this.#root, this.location);
    applyNames(index, roots, this.location);
  }

  async publish(roots: readonly Root[], options: PutOptions = {}): Promise<void> {
    for (const { descriptor, bytes } of roots)
      await this.#blobs.write(descriptor, { bytes }, this.#withSignal(options));
    await this.#blobs.syncFolders();
    const check = (): void => this.#blobs.assertPresent();
    const change = (index: LayoutIndex): LayoutIndex => {
      check();
      options.onNames?.(index.entries);
      return applyNames(index, roots, this.location);
    };
    await this.#update(change, options, check);
    this.#isUnfinished = false;
  }

  /**
   * Gives names to content that is in the layout, without reading it.
   *
   * @throws {CacheportError} BLOB_MISSING, SIZE_MISMATCH, NAME_AMBIGUOUS, and those
   *   of {@link updateIndexFile}
   */
  async setNames(
    descriptor: Descriptor,
    names: readonly EntryName[],
    _read?: () => Promise<Uint8Array>,
    options: PutOptions = {},
  ): Promise<void> {
    const layout = await LayoutDirectory.open(this.#root, {
      location: this.location,
    });
    const size = await layout.stat(descriptor);
    if (size === undefined) {
      throw new CacheportError(
        "BLOB_MISSING",
        `Cannot name "${descriptor.digest}" in "${this.location}": it is not there`,
      );
    }
    if (size !== descriptor.size) throw sizeMismatch(descriptor, size);
    const root: Root = {
      descriptor,
      bytes: new Uint8Array(),
      names: names.map((name) => ({ kind: "set", name })),
    };
    await this.#update((index) => {
      options.onNames?.(index.entries);
      return applyNames(index, [root], this.location);
    }, options);
  }

  /**
   * Removes entries from the index; blobs stay.
   *
   * @param fits Says of each entry whether it goes.
   * @returns The entries that were removed.
   * @throws {CacheportError} Those of {@link updateIndexFile}
   */
  async removeNames(fits: (entry: NamedEntry) => boolean): Promise<NamedEntry[]> {
    let removed: NamedEntry[] = [];
    await this.#update((index) => {
      removed = index.entries.filter(fits);
      return removeEntries(index, fits);
    });
    return removed;
  }

  async removeName(removal: NameRemoval): Promise<boolean> {
    return (await this.removeNames(removalFilter(removal))).length > 0;
  }

  async close(): Promise<void> {
    await this.#blobs.close();
    if (this.#isUnfinished) await this.#leaveLayout();
  }

  /**
   * Makes a layout without names of blobs that a failed run has left in a new folder: they
   * are of use to the next run, and to gc, only if the folder can be opened.
   */
  async #leaveLayout(): Promise<void> {
    if (await hasIndexFile(this.#root)) return;
    // The failure that led here says what is wrong.
    await updateIndexFile(this.#root, (index) => index, { lockTimeout: 1000 }).catch(() => {});
  }

  #withSignal(options: PutOptions): PutOptions {
    return options.signal ? options : { ...options, signal: this.#signal };
  }

  #update(
    change: (index: LayoutIndex) => LayoutIndex,
    options: PutOptions = {},
    check?: () => void,
  ): Promise<LayoutIndex> {
    return updateIndexFile(this.#root, change, {
      check,
      lockTimeout: this.#lockTimeout,
      signal: this.#withSignal(options).signal,
      location: this.location,
    });
  }
}
